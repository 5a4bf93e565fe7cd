"""Sensitivity against false positives per slice: at one confidence, over all, and of two arms.

Sensitivity is the share of all true boxes that are hit. False positives are divided by all slices,
with classes pooled. The curve (FROC) has a point for every distinct confidence. It starts at (0,
0), is linear between points, and is constant after the last detection. Two detectors are compared
at equal false positives. One has its confidence fixed, and the other's curve is read there, in each
resample of patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from gansynth.metrics.detection.matching import MISS, Flags, PooledDetections
from gansynth.metrics.detection.record import Array, Numbers
from gansynth.metrics.detection.resampling import (
    FEW,
    BootstrapEstimate,
    chunks,
    counted,
    everyone,
    ratio,
    with_interval,
)

CONFIDENCE = 0.001  # the paper's 0.1 %
RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per slice of the FROC score, as in the LUNA16 challenge (there per scan). The
score is the mean."""


@dataclass(frozen=True)
class FrocCurves:
    """FROC curves of B resamples, J points each, rising, float64 (B, J); nan without lesions."""

    fps: Array
    sensitivity: Array

    @property
    def end(self) -> Array:
        """(B,): false positives per slice at which a curve ends."""
        return self.fps[:, -1]

    def at(self, fps: Array | Sequence[float] | float) -> Array:
        """Sensitivity (B, G) at (G,) or (B, G) false positives per slice, constant past the end."""
        rates = np.atleast_1d(np.asarray(fps, float))
        rates = np.broadcast_to(rates, (len(self.fps), rates.shape[-1]))
        return np.stack(
            [np.interp(*row) for row in zip(rates, self.fps, self.sensitivity, strict=True)]
        )

    def score(self) -> Array:
        """(B,): mean sensitivity at ``RATES``."""
        mean: Array = self.at(RATES).mean(axis=1)
        return mean


class Froc:
    """The free-response curve of one row of ``match``, precomputed for many resamples."""

    def __init__(self, pool: PooledDetections, hits: Numbers) -> None:
        scores, owner = pool.scores[pool.falling], pool.owner[pool.falling]
        hit = hits[pool.falling] != MISS
        # Detections of equal score are one group. Only groups that hit something raise the curve.
        # Groups between two of them, or after the last, are one step to the right.
        group = np.cumsum(np.diff(scores, prepend=np.inf) != 0) - 1
        rising = np.unique(group[hit])
        before = np.searchsorted(rising, group)
        step = 2 * before + (np.append(rising, -1)[before] == group)
        shape = (2 * len(rising) + 1, len(pool.subjects))
        self._true = counted(step[hit], owner[hit], shape)
        self._false = counted(step[~hit], owner[~hit], shape)
        self._lesions = pool.per_subject(pool.true_owner)
        self._slices = pool.per_subject(pool.subject)

    def __call__(self, weights: Array) -> FrocCurves:
        """Curves of resamples with weights (B, P)."""
        true, false = _summed(self._true, weights), _summed(self._false, weights)
        lesions = np.broadcast_to((weights @ self._lesions)[:, None], true.shape)
        return FrocCurves(false / (weights @ self._slices)[:, None], ratio(true, lesions))


def froc(pool: PooledDetections, hits: Numbers) -> FrocCurves:
    """Sensitivity against false positives per slice over all confidences: one curve (B = 1)."""
    return Froc(pool, hits)(everyone(len(pool.subjects)))


def _summed(steps: sparse.csr_array, weights: Array) -> Array:
    """Cumulative counts up to each step, starting at 0, under weights: (B, 1 + steps)."""
    counts = np.zeros((len(weights), 1 + steps.shape[0]))
    counts[:, 1:] = np.asarray(steps @ weights.T).T
    return np.cumsum(counts, axis=1, out=counts)


def sensitivity(
    pool: PooledDetections,
    hits: Numbers,
    *,
    confidence: float = CONFIDENCE,
    label: int | None = None,
    weights: Array | None = None,
) -> Array:
    """Share (B,) of lesions, of all or a class, hit at a confidence; nan without lesions."""
    weights = everyone(len(pool.subjects)) if weights is None else weights
    sure = (hits != MISS) & (pool.scores >= confidence)
    there = np.ones(len(pool.true_labels), bool)
    if label is not None:
        there = pool.true_labels == label
        sure[sure] = there[hits[sure]]
    detected = weights @ pool.per_subject(pool.owner[sure])
    return ratio(detected, weights @ pool.per_subject(pool.true_owner[there]))


def false_positives(
    pool: PooledDetections,
    hits: Numbers,
    *,
    confidence: float = CONFIDENCE,
    label: int | None = None,
    weights: Array | None = None,
) -> Array:
    """False positives per slice, of all or a class, at a confidence, (B,)."""
    weights = everyone(len(pool.subjects)) if weights is None else weights
    sure = (hits == MISS) & (pool.scores >= confidence)
    if label is not None:
        sure &= pool.labels == label
    false = weights @ pool.per_subject(pool.owner[sure])
    return ratio(false, weights @ pool.per_subject(pool.subject))


TINY = 1e-9


@dataclass(frozen=True)
class FrocArm:
    """One detector's detections and a row of ``match``; arms share images and patients."""

    name: str
    pool: PooledDetections
    hits: Numbers
    confidence: float = CONFIDENCE

    def working(self, weights: Array) -> tuple[Array, Array]:
        """False positives per slice and sensitivity at the confidence, each (B,)."""
        options: Mapping[str, Any] = {"confidence": self.confidence, "weights": weights}
        return (
            false_positives(self.pool, self.hits, **options),
            sensitivity(self.pool, self.hits, **options),
        )

    @cached_property
    def curves(self) -> Froc:
        """Its FROC curve under weights of patients."""
        return Froc(self.pool, self.hits)


@dataclass(frozen=True)
class AtEqualFps:
    """Sensitivity of one arm at the false positives per slice of the arm held (``fps``).

    ``reached``: the compared arm has so many; else its highest sensitivity is used. ``ended``:
    share of resamples in which it does not.
    """

    held: str
    asked: str
    fps: float
    held_sensitivity: float
    asked_sensitivity: float
    difference: BootstrapEstimate
    reached: bool
    ended: float
    units: int
    resamples: int
    unit: str = "patients"

    def verdict(self) -> str:
        """One sentence that claims no more than the interval allows."""
        gap = self.difference
        text = (
            f"At {self.fps:.2f} false positives per slice, {self.asked} finds "
            f"{self.asked_sensitivity:.3f} of the boxes and {self.held} "
            f"{self.held_sensitivity:.3f}"
        )
        if not self.reached:
            text += f" ({self.asked} does not make so many: this is the most it finds)"
        if np.isnan(gap.value):
            return f"{text}: there is nothing to compare."
        text += f": {gap.value:+.3f}"
        if np.isnan(gap.low):
            return f"{text}; without resamples, this says nothing of other {self.unit}."
        text += f" (95 % interval {gap.low:+.3f} to {gap.high:+.3f})"
        if self.units < FEW:
            return f"{text}; {self.units} {self.unit} are too few for a verdict."
        if gap.low <= 0 <= gap.high:
            return f"{text}: no difference shown."
        if not self.reached and gap.value < 0:
            return f"{text}; not at equal numbers, so no verdict."
        winner, loser = (self.asked, self.held) if gap.value > 0 else (self.held, self.asked)
        return (
            f"{text}: {winner} finds more than {loser} in {self.unit} like these {self.units}, for "
            "these two trainings."
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields and the verdict."""
        numbers = ("fps", "held_sensitivity", "asked_sensitivity")
        values = {k: None if np.isnan(getattr(self, k)) else getattr(self, k) for k in numbers}
        names = ("held", "asked", "reached", "ended", "unit", "units", "resamples")
        return {
            **{k: getattr(self, k) for k in names},
            **values,
            "difference": self.difference.to_json(),
            "verdict": self.verdict(),
        }


def at_equal_fps(
    held: FrocArm, compared: FrocArm, weights: Array, unit: str = "patients"
) -> AtEqualFps:
    """Sensitivity of one arm at the other's false positives per slice, weights (B, P)."""
    once = everyone(weights.shape[1])
    fps, mine, yours, ended = _once(held, compared, once)
    parts = [_once(held, compared, part) for part in chunks(weights)]
    difference = with_interval(float(yours[0] - mine[0]), [p[2] - p[1] for p in parts])
    return AtEqualFps(
        held.name,
        compared.name,
        float(fps[0]),
        float(mine[0]),
        float(yours[0]),
        difference,
        not ended[0],
        float(np.mean(np.concatenate([p[3] for p in parts]))) if parts else float(ended[0]),
        weights.shape[1],
        len(weights),
        unit,
    )


def _once(held: FrocArm, compared: FrocArm, weights: Array) -> tuple[Array, Array, Array, Flags]:
    """False positives, both sensitivities, and whether the curve ended, each (B,)."""
    fps, mine = held.working(weights)
    curves = compared.curves(weights)
    return fps, mine, curves.at(fps[:, None])[:, 0], curves.end < fps - TINY
