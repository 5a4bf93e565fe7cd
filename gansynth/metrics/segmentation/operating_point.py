"""Measures at each of some thresholds, and the threshold of equal false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from gansynth.core.prediction import LabelMaps, Prediction
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.metrics.segmentation.evaluation import evaluate
from gansynth.metrics.segmentation.regions import FOREGROUND
from gansynth.metrics.segmentation.table import AT_ALARMS
from gansynth.runtime.errors import DataFault

THRESHOLDS = (
    *(0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4),
    0.5,
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999),
)
"""Of the foreground's probability, dense at the ends, where trained networks have theirs."""
OWN = THRESHOLDS.index(0.5)
"""Number of the host's own threshold: the foreground of its label map."""
ALARMS = "false_positives@alarms/foreground"
AGREED = 0.99  # share of the foreground at ``OWN`` that the label map must have; ties may differ


def levels_of(probabilities: FloatArray, foreground: Sequence[int]) -> LabelArray:
    """Return how many of ``THRESHOLDS`` the foreground exceeds, int16 (D, H, W) or (H, W).

    Its probability is that of its likeliest label against the likeliest other one, so that above
    0.5 the label map has a label.

    Args:
        probabilities: (K, D, H, W) or (K, H, W), by channel; independent ones if all are
            foreground.
        foreground: channels of labels above background.
    """
    others = [k for k in range(len(probabilities)) if k not in set(foreground)]
    best = probabilities[list(foreground)].max(0)
    rest = probabilities[others].max(0) if others else 1 - best
    levels = np.zeros(best.shape, np.int16)
    for threshold in THRESHOLDS:
        levels += best > rest * np.float32(threshold / (1 - threshold))
    return levels


def at_thresholds(
    predictions: Mapping[str, Prediction],
    labels: Sequence[int],
    by: Literal["case", "subject"],
    ignore: int | None = None,
) -> dict[str, dict[str, list[float | None]]]:
    """Measure the foreground, labels of these values, at each of ``THRESHOLDS``.

    Returns ``dice@alarms/foreground`` and so on -> case or subject -> its value at each. Raises
    DataFault: a case has no levels, or others than its label map.
    """
    table: dict[str, dict[str, list[float | None]]] = {}
    maps = {case: _levels(case, each, labels) for case, each in predictions.items()}
    regions = ((FOREGROUND, tuple(labels)),)
    for level in range(len(THRESHOLDS)):
        cut = {
            case: replace(each, read=partial(_cut, maps[case], labels[0], level))
            for case, each in predictions.items()
        }
        evaluation = evaluate(cut, regions, measures=tuple(AT_ALARMS.values()), ignore=ignore)
        units = evaluation.per_case if by == "case" else evaluation.per_subject
        for name, values in units.items():
            for key, value in values.items():
                rows = table.setdefault(key.replace("/", "@alarms/"), {})
                rows.setdefault(name, []).append(value)
    return table


def equal_alarms(alarms: Sequence[float], control: Sequence[float]) -> int:
    """Return the number of the threshold with as many false alarms as the control at ``OWN``.

    Both are means at each of ``THRESHOLDS``. The nearest counts, of several the nearest to ``OWN``.
    A lower threshold counts as raising no fewer, though alarms may grow together.
    """
    both = np.maximum.accumulate(np.array([alarms, control])[:, ::-1], axis=1)[:, ::-1]
    off = np.round(np.abs(both[0] - both[1, OWN]), 9)
    return min(range(len(off)), key=lambda n: (off[n], abs(n - OWN), -n))


def _levels(case: str, prediction: Prediction, labels: Sequence[int]) -> LabelMaps:
    """Return levels in place of the predicted labels, whose foreground they must have."""
    if prediction.levels is None:
        raise DataFault(f"case {case!r}: no probabilities were kept, expected them; train it again")
    both, levels = prediction.read(), prediction.levels().astype(np.uint8)
    own, predicted = levels > OWN, np.isin(both.predicted, labels)
    least = AGREED * max(own.sum(), predicted.sum())
    if own.shape != predicted.shape or (own & predicted).sum() < least:
        raise DataFault(
            f"case {case!r}: its probabilities have another foreground than its label map, "
            "expected the same grid and axes"
        )
    return replace(both, predicted=levels)


def _cut(both: LabelMaps, label: int, level: int) -> LabelMaps:
    return replace(both, predicted=np.where(both.predicted > level, label, 0))
