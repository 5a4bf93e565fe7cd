"""The Visual Turing Test: can humans distinguish a run's samples from real images?

``prepare_session`` creates a folder of real and synthetic images, and ``open_session`` opens it.
``serve`` shows it to raters on a web page of this machine. ``results`` compares their answers with
the key. The command is ``gansynth turing-test``.
"""

from __future__ import annotations

from gansynth.evaluation.turing.options import TuringOptions
from gansynth.evaluation.turing.report import results, write_results
from gansynth.evaluation.turing.server import serve
from gansynth.evaluation.turing.session import StudySession, open_session, prepare_session

__all__ = [
    "StudySession",
    "TuringOptions",
    "open_session",
    "prepare_session",
    "results",
    "serve",
    "write_results",
]
