"""Discriminators at chance: nobody then punishes what is unreal about samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from gansynth.report.figures import read_metrics
from gansynth.runtime.progress import Reporter

BAND = 0.02
"""Largest distance from the loss of pure guessing that counts as chance, as a share of it."""
LONG = 0.5
"""Least share of a fit at chance that is reported ..."""
FEWEST_LINES = 10
"""... and fewest lines of metrics.csv that say so."""


def warn_at_chance(
    path: Path, levels: Mapping[str, float], reporter: Reporter, remedy: str
) -> None:
    """Warn if discriminators were at chance for much of a fit.

    ``path``: ``metrics.csv``. ``levels``: the loss of pure guessing by name of the loss.
    """
    columns = read_metrics(path) if levels and path.exists() else {}
    guessed = []
    for name, level in levels.items():
        values = [value for value in columns.get(name, ()) if math.isfinite(value)]
        at_chance = [value for value in values if abs(value - level) <= BAND * level]
        if len(values) >= FEWEST_LINES and len(at_chance) >= LONG * len(values):
            share = len(at_chance) / len(values)
            guessed.append(f"{name} {level:.3g} in {share:.0%} of the steps")
    if guessed:
        reporter.warn(
            f"discriminator at chance: {', '.join(guessed)}, expected a loss below that of "
            "guessing. It punishes nothing then, be it grain or blur: look at the samples. A usual "
            f"cause are images in units of 0 to 1; else {remedy}"
        )
