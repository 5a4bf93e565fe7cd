"""Sensitivity against false positives per slice: at one confidence, and as a curve over all.

Sensitivity is the share of all lesions (true boxes of slices, not lesions in 3D: those are in
``gansynth.metrics.detection.volumes``) that are hit. False positives are divided by the number of
all slices judged, those without lesions too. Classes are pooled.

The free-response curve (FROC) has a point for every confidence, detections of equal score being
taken together, and begins at (0, 0). Between points it is linear; where it is vertical, the upper
end counts. It ends with the last detection of the file: beyond, there is nothing to say, and the
highest sensitivity stands in, said to do so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from gansynth.metrics.detection.matching import MISS, Pool
from gansynth.metrics.detection.record import Array, Numbers
from gansynth.metrics.detection.resampling import counted, everyone, ratio

CONFIDENCE = 0.001
"""The paper's 0.1 %."""
RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per slice at which the FROC score is taken, as in the LUNA16 challenge (there
per scan); their mean is the score."""


@dataclass(frozen=True)
class Curves:
    """FROC curves of B resamples, J points each, both coordinates rising.

    Attributes:
        fps: float64 (B, J): false positives per slice.
        sensitivity: float64 (B, J): nan for a resample without lesions.
    """

    fps: Array
    sensitivity: Array

    @property
    def end(self) -> Array:
        """(B,): false positives per slice that a curve ends at."""
        return self.fps[:, -1]

    def at(self, fps: Array | Sequence[float] | float) -> Array:
        """Sensitivity at so many false positives per slice.

        Args:
            fps: one number, (G,) for every resample, or (B, G) of each one's own.

        Returns:
            (B, G); beyond its end, a curve's highest sensitivity.
        """
        asked = np.atleast_1d(np.asarray(fps, float))
        asked = np.broadcast_to(asked, (len(self.fps), asked.shape[-1]))
        return np.stack(
            [np.interp(*row) for row in zip(asked, self.fps, self.sensitivity, strict=True)]
        )

    def score(self) -> Array:
        """(B,): mean sensitivity at ``RATES``."""
        mean: Array = self.at(RATES).mean(axis=1)
        return mean


class Froc:
    """The free-response curve, made ready to be drawn for many resamples.

    Args:
        hits: (N,), one row of ``match``.
    """

    def __init__(self, pool: Pool, hits: Numbers) -> None:
        scores, owner = pool.scores[pool.falling], pool.owner[pool.falling]
        hit = hits[pool.falling] != MISS
        # Detections of equal score are one group. Only groups that hit something make the curve
        # rise: what lies between two of them, or after the last, is one step to the right.
        group = np.cumsum(np.diff(scores, prepend=np.inf) != 0) - 1
        rising = np.unique(group[hit])
        before = np.searchsorted(rising, group)
        step = 2 * before + (np.append(rising, -1)[before] == group)
        shape = (2 * len(rising) + 1, len(pool.subjects))
        self._true = counted(step[hit], owner[hit], shape)
        self._false = counted(step[~hit], owner[~hit], shape)
        self._lesions = pool.per_subject(pool.true_owner)
        self._slices = pool.per_subject(pool.subject)

    def __call__(self, weights: Array) -> Curves:
        """The curves of resamples with weights (B, P)."""
        true, false = _summed(self._true, weights), _summed(self._false, weights)
        lesions = np.broadcast_to((weights @ self._lesions)[:, None], true.shape)
        return Curves(false / (weights @ self._slices)[:, None], ratio(true, lesions))


def froc(pool: Pool, hits: Numbers) -> Curves:
    """Sensitivity against false positives per slice over all confidences: one curve (B = 1)."""
    return Froc(pool, hits)(everyone(len(pool.subjects)))


def _summed(steps: sparse.csr_array, weights: Array) -> Array:
    """How many there are up to each step, from none, under weights: (B, 1 + steps)."""
    counts = np.zeros((len(weights), 1 + steps.shape[0]))
    counts[:, 1:] = np.asarray(steps @ weights.T).T
    return np.cumsum(counts, axis=1, out=counts)


def sensitivity(
    pool: Pool,
    hits: Numbers,
    *,
    confidence: float = CONFIDENCE,
    label: int | None = None,
    weights: Array | None = None,
) -> Array:
    """Share of lesions hit by detections of at least a confidence.

    Args:
        hits: (N,), one row of ``match``.
        confidence: least score.
        label: class of the lesions; None: all.
        weights: (B, P) of resamples; None: the patients as they are.

    Returns:
        (B,); nan without lesions.
    """
    weights = everyone(len(pool.subjects)) if weights is None else weights
    sure = (hits != MISS) & (pool.scores >= confidence)
    there = np.ones(len(pool.true_labels), bool)
    if label is not None:
        there = pool.true_labels == label
        sure[sure] = there[hits[sure]]
    found = weights @ pool.per_subject(pool.owner[sure])
    return ratio(found, weights @ pool.per_subject(pool.true_owner[there]))


def false_positives(
    pool: Pool,
    hits: Numbers,
    *,
    confidence: float = CONFIDENCE,
    label: int | None = None,
    weights: Array | None = None,
) -> Array:
    """False positives per slice among detections of at least a confidence, (B,).

    Args:
        hits: (N,), one row of ``match``.
        confidence: least score.
        label: class of the detections; None: all.
        weights: (B, P) of resamples; None: the patients as they are.
    """
    weights = everyone(len(pool.subjects)) if weights is None else weights
    sure = (hits == MISS) & (pool.scores >= confidence)
    if label is not None:
        sure &= pool.labels == label
    false = weights @ pool.per_subject(pool.owner[sure])
    return ratio(false, weights @ pool.per_subject(pool.subject))
