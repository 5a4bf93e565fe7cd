"""How well a selector tells slices of held-out volumes apart, and where it draws the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Truth = npt.NDArray[np.int64]


def judge(scored: Sequence[tuple[Scores, Truth]]) -> dict[str, Any]:
    """How well slices of held-out volumes are told apart.

    Sensitivity and specificity of a volume are those at the threshold that the *other* volumes
    would have chosen, wherever these have slices of either class.

    Args:
        scored: scores and truth of each volume's slices.

    Returns:
        Area under the ROC curve, threshold by all volumes, sensitivity, specificity, the counts
        behind them, and whether the threshold was another's.
    """
    from sklearn.metrics import roc_auc_score

    scores, truth = _joined(scored)
    threshold = best_threshold(scores, truth)
    rests = [_joined([*scored[:i], *scored[i + 1 :]]) for i in range(len(scored))]
    apart = all(len(set(known.tolist())) == 2 for _, known in rests)
    thresholds = [best_threshold(*rest) if apart else threshold for rest in rests]
    found = np.concatenate(
        [own >= least for (own, _), least in zip(scored, thresholds, strict=True)]
    )
    shown, hidden = int(truth.sum()), int((1 - truth).sum())
    hits, passes = int(found[truth == 1].sum()), int((~found)[truth == 0].sum())
    return {
        "auc": round(float(roc_auc_score(truth, scores)), 4),
        "threshold": threshold,
        "sensitivity": round(hits / shown, 4),
        "found": f"{hits} of {shown} slices with foreground",
        "specificity": round(passes / hidden, 4),
        "passed_over": f"{passes} of {hidden} slices without",
        "threshold_chosen_by": "the other held-out volumes" if apart else "the same volumes",
    }


def _joined(scored: Sequence[tuple[Scores, Truth]]) -> tuple[Scores, Truth]:
    none = np.zeros(0)
    return (
        np.concatenate([none, *(scores for scores, _ in scored)]),
        np.concatenate([none, *(truth for _, truth in scored)]).astype(np.int64),
    )


def best_threshold(scores: Scores, truth: Truth) -> float:
    """The threshold of most sensitivity plus specificity (Youden 1950), midway between scores."""
    values = np.unique(scores)
    edges = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [1.0]])
    kinds = [np.sort(scores[truth == kind]) for kind in (0, 1)]
    below, missed = (np.searchsorted(kind, edges) / len(kind) for kind in kinds)
    return round(float(edges[(below - missed).argmax()]), 6)
