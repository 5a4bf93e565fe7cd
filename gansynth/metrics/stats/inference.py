"""Tests and intervals of a mean over few repetitions and test subjects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gansynth.metrics.stats.anova import MeanSquares
from gansynth.metrics.stats.bootstrap import BootstrapResamples, SkewCorrection, resample
from gansynth.metrics.stats.reference import degrees, p_of
from gansynth.metrics.stats.runs import Floats

EXACT = 1e-12
"""A standard error below this share of the largest value is rounding error and counts as 0."""


@dataclass(frozen=True)
class Inference:
    """Inference on tables (...); the interval holds the means that the test does not reject.

    ``error``: standard error of the mean. ``level``: of two-sided tests, 1 - confidence.
    """

    squares: MeanSquares
    error: Floats
    level: float
    bend: SkewCorrection
    resamples: BootstrapResamples

    @classmethod
    def of(
        cls, tables: Floats, level: float, resamples: int, rng: np.random.Generator
    ) -> Inference:
        """Compute from tables (..., repetitions, subjects) of two or more subjects, without NaN."""
        squares = MeanSquares.of(tables)
        error, largest = squares.standard_error, np.abs(tables).max(axis=(-2, -1))
        error = np.where(error <= EXACT * largest, 0.0, error)
        drawn = resample(squares, tables.mean(axis=-2), resamples, rng)
        return cls(squares, error, level, drawn.bend(level), drawn)

    @property
    def df(self) -> Floats:
        """Degrees of freedom at the level."""
        return degrees(self.squares, self.level)

    def t(self, truth: float | Floats = 0.0) -> Floats:
        """t (...), without its skewness, of the hypothesis that the true mean is ``truth``."""
        away = self.squares.mean - truth
        with np.errstate(divide="ignore", invalid="ignore"):
            raw = np.where(away == 0, 0.0, away / self.error)
        score = self.bend.straight(_score(raw, self.df))
        return np.where(np.isinf(raw), raw, _t_of(score, self.df))

    def p(self, truth: float = 0.0) -> Floats:
        """Two-sided p (...)."""
        t = self.t(truth)
        return np.where(np.isinf(t), 0.0, p_of(np.where(np.isinf(t), 0.0, t), self.squares))

    def above(self, truth: float) -> Floats:
        """One-sided p (...) of the hypothesis that the true mean is at most ``truth``."""
        half = self.p(truth) / 2
        return np.where(self.t(truth) > 0, half, 1 - half)

    def equivalence(self, margin: float) -> Floats:
        """p (...) of two one-sided tests that the true mean is beyond +-margin (Schuirmann)."""
        return np.maximum(self.above(-margin), 1 - self.above(margin))

    def interval(self) -> tuple[Floats, Floats]:
        """Lower and upper confidence limits (...)."""
        low, high = (_t_of(self.bend.bent(s), self.df) for s in self._scores())
        return self.squares.mean - high * self.error, self.squares.mean - low * self.error

    def detectable(self, power: float) -> Floats:
        """Effect (...), of either sign, that is significant in a share ``power`` of resamples."""
        freedom = degrees(self.resamples.squares, self.level)
        error, chance = self.resamples.squares.standard_error, self.resamples.squares.mean
        low, high = (_quantiles(self.bend.bent(s), freedom) for s in self._scores())
        needed = np.concatenate([high * error - chance, chance - low * error], axis=-1)
        return np.where(self.error > 0, np.quantile(needed, power, axis=-1), 0.0)

    def _scores(self) -> tuple[float, float]:
        from scipy.special import ndtri

        high = float(-ndtri(self.level / 2))
        return -high, high


def _score(t: Floats, freedom: Floats) -> Floats:
    """Normal score of t."""
    from scipy.special import ndtri, stdtr

    tail = np.maximum(stdtr(freedom, -np.abs(t)), 1e-300)
    return np.asarray(-np.sign(t) * ndtri(tail))


def _t_of(score: Floats, freedom: Floats) -> Floats:
    """The t of a normal score."""
    from scipy.special import ndtr, stdtrit

    tail = np.maximum(ndtr(-np.abs(score)), 1e-300)
    return np.asarray(-np.sign(score) * stdtrit(freedom, tail))


def _quantiles(score: Floats, freedom: Floats) -> Floats:
    """The t (..., resamples) of a score (...) by degrees of freedom, interpolated."""
    nodes = np.linspace(1e-6, 1.0, 65) ** 2
    logs = np.log(np.abs(_t_of(np.asarray(score)[..., None], 1 / nodes)))
    flat = freedom.reshape(-1, freedom.shape[-1])
    rows = [
        np.interp(1 / row, nodes, log)
        for row, log in zip(flat, logs.reshape(-1, len(nodes)), strict=True)
    ]
    return np.sign(score)[..., None] * np.exp(np.stack(rows)).reshape(freedom.shape)
