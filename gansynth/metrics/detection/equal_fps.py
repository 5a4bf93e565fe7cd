"""Two detectors compared at equal false positives per slice.

More synthetic images may buy sensitivity with false positives; a lower confidence does that too,
for nothing. So one arm is held at its confidence, and the other asked how much it finds at the same
number of false positives per slice, by its FROC curve. In each resample of patients, both the
number of false positives and the curve are that resample's.

A curve that ends before that number is taken at its end, its highest sensitivity, and said to be:
no confidence brings that arm there. (Detections are kept down to some score; where that is the
confidence asked for, an arm's curve ends at its own working point.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gansynth.metrics.detection.free_response import CONFIDENCE, Froc, false_positives, sensitivity
from gansynth.metrics.detection.matching import Flags, Pool
from gansynth.metrics.detection.record import Array, Numbers
from gansynth.metrics.detection.resampling import FEW, Estimate, chunks, everyone, with_interval

TINY = 1e-9


@dataclass(frozen=True)
class Arm:
    """One detector's detections, matched at one overlap; arms share images and patients.

    Attributes:
        hits: (N,), one row of ``match``.
        confidence: least score at which it would be used.
    """

    name: str
    pool: Pool
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
    """What one arm finds at another's false positives per slice.

    Attributes:
        asked: name of the arm that is moved along its curve.
        fps: false positives per slice of the arm held.
        reached: the arm asked makes so many false positives at all; else its highest sensitivity
            stands in.
        ended: share of resamples in which it does not.
        units: how many there are of what is drawn again: patients, where they are known.
    """

    held: str
    asked: str
    fps: float
    held_sensitivity: float
    asked_sensitivity: float
    difference: Estimate
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
        more, less = (self.asked, self.held) if gap.value > 0 else (self.held, self.asked)
        return (
            f"{text}: {more} finds more than {less} in {self.unit} like these {self.units}, for "
            "these two trainings."
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, the verdict included."""
        numbers = ("fps", "held_sensitivity", "asked_sensitivity")
        found = {k: None if np.isnan(getattr(self, k)) else getattr(self, k) for k in numbers}
        rest = ("held", "asked", "reached", "ended", "unit", "units", "resamples")
        return {
            **{k: getattr(self, k) for k in rest},
            **found,
            "difference": self.difference.to_json(),
            "verdict": self.verdict(),
        }


def at_equal_fps(held: Arm, asked: Arm, weights: Array, unit: str = "patients") -> AtEqualFps:
    """What one arm finds at the other's false positives per slice.

    Args:
        weights: (B, P) of resamples, the same for both; none (0, P) leaves the interval undefined.
    """
    once = everyone(weights.shape[1])
    fps, mine, yours, ended = _once(held, asked, once)
    parts = [_once(held, asked, part) for part in chunks(weights)]
    difference = with_interval(float(yours[0] - mine[0]), [p[2] - p[1] for p in parts])
    return AtEqualFps(
        held.name,
        asked.name,
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


def _once(held: Arm, asked: Arm, weights: Array) -> tuple[Array, Array, Array, Flags]:
    """False positives, both sensitivities, and whether the curve ended, each (B,)."""
    fps, mine = held.working(weights)
    curves = asked.curves(weights)
    return fps, mine, curves.at(fps[:, None])[:, 0], curves.end < fps - TINY
