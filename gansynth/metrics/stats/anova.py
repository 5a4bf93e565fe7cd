"""Analysis of variance of a table of repetitions by test subjects, both random, and crossed.

A value is mean + draw + seed (in draw) + case + draw x case + rest. Cornfield & Tukey 1956,
"Average values of mean squares in factorials".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.metrics.stats.runs import Floats, RunValues


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of tables (..., repetitions, subjects); 0 where there is only one.

    Expectations, with R repetitions, S subjects, variances v: ``run`` S v_run + v_cross, ``case`` R
    v_case + v_cross, ``cross`` v_cross. So the variance of the mean is (run + case - cross) / (R
    S).
    """

    mean: Floats
    run: Floats
    case: Floats
    cross: Floats
    runs: int
    cases: int

    @classmethod
    def of(cls, tables: Floats) -> MeanSquares:
        """Compute from tables (..., repetitions, subjects) of at least one each, without NaN."""
        runs, cases = tables.shape[-2:]
        mean = tables.mean(axis=(-2, -1))
        rows, columns = tables.mean(axis=-1), tables.mean(axis=-2)
        left = tables - rows[..., None] - columns[..., None, :] + mean[..., None, None]
        return cls(
            mean,
            cases * _mean_square(rows - mean[..., None], runs - 1),
            runs * _mean_square(columns - mean[..., None], cases - 1),
            _mean_square(left.reshape(*left.shape[:-2], -1), (runs - 1) * (cases - 1)),
            runs,
            cases,
        )

    @property
    def total(self) -> Floats:
        """R S times the variance of the mean; negative components count as 0."""
        return np.maximum(self.run, self.cross) + np.maximum(self.case, self.cross) - self.cross

    @property
    def standard_error(self) -> Floats:
        """Standard error of the mean over other repetitions and other subjects."""
        return np.sqrt(self.total / (self.runs * self.cases))


def _mean_square(deviations: Floats, freedom: int) -> Floats:
    return np.asarray((deviations**2).sum(axis=-1) / max(freedom, 1))


@dataclass(frozen=True)
class VarianceComponents:
    """Variance components in squared units of the measure; None if not estimable.

    With one seed a draw, ``draw`` includes the seeds' part and ``rest`` that of ``draw_case``. With
    one draw, ``case`` includes ``draw_case``. With one run, ``case`` is everything.
    """

    draw: float | None
    seed: float | None
    case: float | None
    draw_case: float | None
    rest: float | None


def variance(runs: RunValues) -> VarianceComponents:
    """Variance components by the method of moments; negative estimates become 0.

    Draws weigh the same (unweighted means): the harmonic mean of b_i seeds stands for their number.
    Incomplete subjects are excluded.
    """
    estimates = components(runs)
    return VarianceComponents(*(None if value is None else max(value, 0.0) for value in estimates))


def components(runs: RunValues) -> tuple[float | None, ...]:
    """Unbiased variance components, as in ``variance``, without truncation at 0."""
    runs = runs.complete()
    owner = np.array(runs.draws)
    counts = np.unique(owner, return_counts=True)[1]
    subjects, several = len(runs.subjects), len(counts) > 1
    if not runs.values.size:
        return (None,) * 5
    seeds = float(1 / np.mean(1 / counts))
    within = _within(runs.values, owner)
    seed_square, residual = within or (0.0, 0.0)
    table = MeanSquares.of(runs.table())
    run, crossed = float(table.run), float(table.cross)
    draw = seed = case = draw_case = left = None
    if within:
        seed = (seed_square - residual) / subjects
    if several:
        draw = (run - crossed - (seed_square - residual) / seeds) / subjects
    if subjects > 1:
        case = (float(table.case) - crossed) / table.runs
        draw_case = crossed - residual / seeds if several and within else None
        left = residual if within else crossed if several else None
    return draw, seed, case, draw_case, left


def _within(values: Floats, owner: npt.NDArray[np.int64]) -> tuple[float, float] | None:
    """Mean squares of seeds, and of seeds by subjects, within draws; None without seeds."""
    seed = residual = 0.0
    freedom, subjects = 0, values.shape[1]
    for draw in np.unique(owner):
        squares = MeanSquares.of(values[owner == draw])
        freedom += squares.runs - 1
        seed += float(squares.run) * (squares.runs - 1)
        residual += float(squares.cross) * (squares.runs - 1) * (subjects - 1)
    if not freedom:
        return None
    return seed / freedom, residual / freedom / max(subjects - 1, 1)
