"""Simulated runs with known truth: checks of the statistics, and the power of a design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gansynth.metrics.stats.anova import MeanSquares, VarianceComponents
from gansynth.metrics.stats.bootstrap import SkewCorrection, resample
from gansynth.metrics.stats.inference import Inference
from gansynth.metrics.stats.runs import Floats, RunValues
from gansynth.runtime.errors import UsageFault


@dataclass(frozen=True)
class SimulationDesign:
    """Numbers of draws, seeds and subjects."""

    draws: int
    seeds: int
    subjects: int

    def __post_init__(self) -> None:
        if min(self.draws, self.seeds, self.subjects) < 1:
            raise UsageFault(f"design: {self}, expected at least one of each")

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
    draws, seeds, subjects = design.draws, design.seeds, design.subjects
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


def detectable(
    variance: VarianceComponents,
    design: SimulationDesign,
    *,
    confidence: float = 0.95,
    power: float = 0.8,
    resamples: int = 20_000,
    seed: int = 0,
) -> float:
    """Smallest effect that ``compare`` detects with this power under true variances."""
    if design.subjects < 2:
        raise UsageFault(f"design: {design.subjects} test subject, expected at least 2")
    part = {name: getattr(variance, name) or 0.0 for name in variance.__dataclass_fields__}
    if design.draws > 1:
        runs, run = design.draws, part["draw"] + part["seed"] / design.seeds
        case, cross = part["case"], part["draw_case"] + part["rest"] / design.seeds
    else:
        runs, run = design.seeds, part["seed"]
        case, cross = part["case"] + part["draw_case"], part["rest"]
    if runs == 1:
        run, case, cross = 0.0, case + cross, 0.0
    squares = MeanSquares(
        np.zeros(()),
        np.array(design.subjects * run + cross if runs > 1 else 0.0),
        np.array(runs * case + cross),
        np.array(cross),
        runs,
        design.subjects,
    )
    drawn = resample(squares, None, resamples, np.random.default_rng(seed))
    straight = SkewCorrection(np.zeros(()), np.zeros(()))
    error = squares.standard_error
    return float(Inference(squares, error, 1 - confidence, straight, drawn).detectable(power))
