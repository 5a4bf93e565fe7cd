"""The Visual Turing Test: can humans distinguish a run's samples from real images?

``make_study`` writes a folder with a page for each rater: one HTML file with real and synthetic
images, which saves the rater's answers as a file. ``results`` compares those with the truth, which
stays in the folder. The command is ``gansynth turing-test``.
"""

from __future__ import annotations

from gansynth_evaluate.turing.image_selection import TuringOptions
from gansynth_evaluate.turing.report import results, write_results
from gansynth_evaluate.turing.study import Study, make_study, open_study

__all__ = [
    "Study",
    "TuringOptions",
    "make_study",
    "open_study",
    "results",
    "write_results",
]
