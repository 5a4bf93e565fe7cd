"""Measures at each of some thresholds, and the one at which two trainings raise equal false alarms.

A host that raises more alarms may do so at another place of the same curve. Rules: docs/measures.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np

from gansynth.core.prediction import LabelMaps, Prediction
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.metrics.segmentation.evaluation import evaluate, without_gaps
from gansynth.metrics.segmentation.regions import FOREGROUND
from gansynth.runtime.errors import DataFault

THRESHOLDS = (
    *(0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4),
    0.5,
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9999),
)
"""Of the foreground's probability, dense at the ends, where trained networks have theirs."""
OWN = THRESHOLDS.index(0.5)
"""Number of the host's own threshold: the foreground of its label map."""
ALARMS = "false_positives"
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
    measures: Sequence[str],
    *,
    ignore: int | None = None,
) -> dict[str, dict[str, list[float | None]]]:
    """Measure the foreground at each of ``THRESHOLDS``.

    Args:
        labels: values of the foreground.
        measures: ``dice`` and so on; ``ALARMS`` is always measured.

    Returns:
        Measure -> case, or subject of 2D cases -> its value at each threshold.

    Raises:
        DataFault: a case has no levels, or others than its label map.
    """
    table: dict[str, dict[str, list[float | None]]] = {}
    whole = without_gaps(predictions.values())
    ordered = sorted(predictions.items(), key=lambda item: item[1].subject)
    for _, group in groupby(ordered, lambda item: item[1].subject):
        kept = {case: _read_once(case, prediction, labels) for case, prediction in group}
        for level in range(len(THRESHOLDS)):
            cut = {case: _cut(prediction, labels, level) for case, prediction in kept.items()}
            evaluation = evaluate(
                cut,
                ((FOREGROUND, tuple(labels)),),
                whole=whole,
                measures=tuple(dict.fromkeys((*measures, ALARMS))),
                ignore=ignore,
            )
            for name, values in evaluation.units().items():
                for key, value in values.items():
                    rows = table.setdefault(key.removesuffix(f"/{FOREGROUND}"), {})
                    rows.setdefault(name, []).append(value)
    return table


def equal_alarms(alarms: Sequence[float], control: Sequence[float]) -> int:
    """Return the number of the threshold with as many false alarms as the control at ``OWN``.

    The nearest number counts, and of several thresholds with it the nearest to ``OWN``. A lower
    threshold counts as raising no fewer alarms, though they may grow together.

    Args:
        alarms: false positives at each of ``THRESHOLDS``, means over cases or subjects.
        control: those of the control.
    """
    rising, wanted = (np.maximum.accumulate(np.array(each)[::-1])[::-1] for each in (alarms, control))
    off = np.round(np.abs(rising - wanted[OWN]), 9)
    return min(range(len(off)), key=lambda n: (off[n], abs(n - OWN), -n))


def _read_once(case: str, prediction: Prediction, labels: Sequence[int]) -> Prediction:
    """Return a prediction whose levels are in place of its predicted labels, read once."""
    if prediction.levels is None:
        raise DataFault(f"case {case!r}: no probabilities were kept, expected them; train it again")
    levels = prediction.levels

    @cache
    def read() -> LabelMaps:
        both, found = prediction.read(), levels().astype(np.int16)
        own, predicted = found > OWN, np.isin(both.predicted, labels)
        if own.shape != predicted.shape or (own & predicted).sum() < AGREED * max(
            own.sum(), predicted.sum()
        ):
            raise DataFault(
                f"case {case!r}: its probabilities have another foreground than its label map, "
                "expected the same grid and axes"
            )
        return replace(both, predicted=found)

    return replace(prediction, read=read)


def _cut(prediction: Prediction, labels: Sequence[int], level: int) -> Prediction:
    def read() -> LabelMaps:
        both = prediction.read()
        foreground: Any = np.where(both.predicted > level, labels[0], 0)
        return replace(both, predicted=foreground)

    return replace(prediction, read=read)
