"""The Visual Turing Test: can people tell a run's samples from real images?

``prepare_session`` cuts real images and draws synthetic ones into a folder, ``open_session`` opens
it, ``serve`` shows it to raters on a web page of this machine, ``results`` holds their answers
against the key. What ``gansynth turing-test`` does, with the same words.
"""

from __future__ import annotations

from gansynth.evaluation.turing.options import TuringOptions
from gansynth.evaluation.turing.report import results, write_results
from gansynth.evaluation.turing.server import serve
from gansynth.evaluation.turing.session import Session, open_session, prepare_session

__all__ = [
    "Session",
    "TuringOptions",
    "open_session",
    "prepare_session",
    "results",
    "serve",
    "write_results",
]
