"""The hierarchical bootstrap of a mean over repetitions and test subjects.

Subjects are resampled with replacement, the same for all repetitions (Owen & Eckles 2012).
Deviations are scaled by sqrt(n / (n - 1)) (Davison & Hinkley 1997, ch. 2 and 3.8). Draws and seeds
are too few to resample, so their effects are normal with the estimated variances. It is studentised
(Efron & Tibshirani 1993, ch. 12.5). Only the skewness of t is taken from it; the width is that of
``reference``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gansynth.metrics.stats.anova import MeanSquares
from gansynth.metrics.stats.reference import degrees
from gansynth.metrics.stats.runs import Floats

FEW = 8  # with fewer subjects no skewness is estimated, and their effects count as normal
SHARES = np.linspace(0.01, 0.46, 46)  # probabilities of the quantiles compared between the tails
MOST_SHIFT, MOST_BEND = 0.5, 0.15


@dataclass(frozen=True)
class SkewCorrection:
    """Skewness of t: z is about s + shift + bend s^2, s standard normal; Hall's cubic (1992)."""

    shift: Floats
    bend: Floats

    def straight(self, z: Floats) -> Floats:
        """Map the score z of t to a standard normal one."""
        return z - self.shift - self.bend * z**2 + self.bend**2 * z**3 / 3

    def bent(self, s: float | Floats) -> Floats:
        """Map a standard normal score to that of t, the inverse of ``straight``."""
        flat = np.abs(self.bend) < 1e-9
        bend = np.where(flat, 1.0, self.bend)
        score = (1 - np.cbrt(1 - 3 * bend * (s + self.shift))) / bend
        return np.where(flat, s + self.shift, score)


@dataclass(frozen=True)
class BootstrapResamples:
    """Means and mean squares (..., resamples) under a true mean of 0."""

    squares: MeanSquares

    @property
    def t(self) -> Floats:
        """t of the resamples (..., resamples)."""
        error = self.squares.standard_error
        return np.where(error > 0, self.squares.mean / np.where(error > 0, error, 1.0), 0.0)

    def bend(self, level: float) -> SkewCorrection:
        """Skewness of t by least squares on quantiles of both tails; 0 for few subjects."""
        if self.squares.cases < FEW:
            nothing = np.zeros(self.squares.mean.shape[:-1])
            return SkewCorrection(nothing, nothing)
        scores = np.sort(_score(self.t, degrees(self.squares, level)), axis=-1)
        last = scores.shape[-1] - 1
        index = (SHARES * last).astype(int)
        low, high = scores[..., index], scores[..., last - index]
        middle, square = (low + high) / 2, ((high - low) / 2) ** 2
        x = square - square.mean(axis=-1, keepdims=True)
        spread = (x**2).sum(axis=-1)
        bend = (x * middle).sum(axis=-1) / np.where(spread > 0, spread, 1.0)
        bend = np.clip(bend, -MOST_BEND, MOST_BEND)
        shift = middle.mean(axis=-1) - bend * square.mean(axis=-1)
        return SkewCorrection(np.clip(shift, -MOST_SHIFT, MOST_SHIFT), bend)


def resample(
    squares: MeanSquares, columns: Floats | None, resamples: int, rng: np.random.Generator
) -> BootstrapResamples:
    """Resample tables (...); ``columns``: mean of each subject, None if normal."""
    mean, case = _of_subjects(squares, columns, resamples, rng)
    runs, both = squares.runs - 1, (squares.runs - 1) * (squares.cases - 1)
    cross = squares.cross[..., None]
    run = np.maximum(squares.run[..., None], cross)
    cells = squares.runs * squares.cases
    mean = mean + np.sqrt((run - cross) / cells) * rng.standard_normal(resamples)
    run = run * (rng.chisquare(runs, resamples) / runs) if runs else np.zeros_like(mean)
    cross = cross * (rng.chisquare(both, resamples) / both) if both else np.zeros_like(mean)
    return BootstrapResamples(replace(squares, mean=mean, run=run, case=case, cross=cross))


def _of_subjects(
    squares: MeanSquares, columns: Floats | None, resamples: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Mean over subjects resampled with replacement, and its mean square (..., resamples)."""
    cases, shape = squares.cases, (*squares.mean.shape, resamples)
    if cases < 2:
        return np.zeros(shape), np.zeros(shape)
    if columns is None or cases < FEW:
        case = np.maximum(squares.case, squares.cross)[..., None]
        mean = np.sqrt(case / (squares.runs * cases)) * rng.standard_normal(resamples)
        return mean, case * (rng.chisquare(cases - 1, resamples) / (cases - 1))
    weights = rng.multinomial(cases, np.full(cases, 1 / cases), size=resamples).T / cases
    away = (columns - squares.mean[..., None]) * np.sqrt(cases / (cases - 1))
    mean = away @ weights
    spread = np.maximum(away**2 @ weights - mean**2, 0.0)
    return mean, squares.runs * spread * cases / (cases - 1)


def _score(t: Floats, freedom: Floats) -> Floats:
    """Approximate normal score of t (Wallace 1959), symmetric in both tails."""
    size = np.sqrt(freedom * np.log1p(t**2 / freedom))
    return np.sign(t) * size * (8 * freedom + 1) / (8 * freedom + 3)
