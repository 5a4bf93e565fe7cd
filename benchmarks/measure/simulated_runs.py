"""Simulated runs with known truth, for checks of ``gansynth.metrics.statistics``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gansynth.metrics.statistics import Floats, RunValues, VarianceComponents


class SimulationDesign(NamedTuple):
    """Numbers of draws, seeds and subjects."""

    draws: int
    seeds: int
    subjects: int

    def runs(self, values: Floats) -> RunValues:
        """Convert values (draws, seeds, subjects) to runs."""
        return RunValues(
            values.reshape(-1, self.subjects),
            tuple(draw for draw in range(self.draws) for _ in range(self.seeds)),
            tuple(range(self.seeds)) * self.draws,
            tuple(f"subject {index}" for index in range(self.subjects)),
        )


def simulated(
    variance: VarianceComponents,
    design: SimulationDesign,
    rng: np.random.Generator,
    *,
    number: int = 1,
    skewness: Mapping[str, float] | None = None,
) -> Floats:
    """Simulate values of mean 0 (number, draws, seeds, subjects) with given variances; None is 0.

    ``skewness``: of an effect, by name, which is then gamma distributed (2: exponential).
    """
    draws, seeds, subjects = design
    shapes = {
        "draw": (number, draws, 1, 1),
        "seed": (number, draws, seeds, 1),
        "case": (number, 1, 1, subjects),
        "draw_case": (number, draws, 1, subjects),
        "rest": (number, draws, seeds, subjects),
    }
    values = np.zeros((number, draws, seeds, subjects))
    for name, shape in shapes.items():
        part = getattr(variance, name)
        if part:
            skew = (skewness or {}).get(name, 0.0)
            values = values + np.sqrt(part) * _standard(shape, skew, rng)
    return values


def _standard(shape: tuple[int, ...], skewness: float, rng: np.random.Generator) -> Floats:
    """Random values with mean 0, variance 1, and a skewness."""
    if not skewness:
        return rng.standard_normal(shape)
    form = 4 / skewness**2
    gamma = (rng.gamma(form, size=shape) - form) / np.sqrt(form)
    return np.asarray(np.sign(skewness) * gamma)
