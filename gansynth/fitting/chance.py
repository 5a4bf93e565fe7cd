"""Monitor of discriminators at chance: nobody then punishes what is unreal about samples."""

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
LEAST = 10
"""... and fewest lines of metrics.csv that say so."""


def shares_at_chance(path: Path, levels: Mapping[str, float]) -> dict[str, float]:
    """Return the share of a fit that each loss was at chance, where that is long.

    ``path``: ``metrics.csv``. ``levels``: the loss of pure guessing by name of the loss.
    """
    columns = read_metrics(path) if levels and path.exists() else {}
    shares = {}
    for name, level in levels.items():
        values = [value for value in columns.get(name, ()) if math.isfinite(value)]
        at_chance = sum(abs(value - level) <= BAND * level for value in values)
        if len(values) >= LEAST and at_chance >= LONG * len(values):
            shares[name] = round(at_chance / len(values), 3)
    return shares


class ChanceMonitor:
    """Warns once if discriminators are at chance for much of a fit."""

    def __init__(
        self, path: Path, levels: Mapping[str, float], reporter: Reporter, remedy: str
    ) -> None:
        self.path, self.levels, self.reporter, self.remedy = path, levels, reporter, remedy
        self.warned = False

    def __call__(self) -> dict[str, float]:
        """Return ``shares_at_chance`` so far, and warn if there are any for the first time."""
        shares = shares_at_chance(self.path, self.levels)
        if shares and not self.warned:
            self.warned = True
            losses = ", ".join(
                f"{name} {self.levels[name]:.3g} in {share:.0%} of the steps"
                for name, share in shares.items()
            )
            self.reporter.warn(
                f"discriminator at chance: {losses}, expected a loss below that of guessing. It "
                "punishes nothing then, be it grain or blur: look at the samples. A usual cause "
                f"are images in units of 0 to 1; else {self.remedy}"
            )
        return shares
