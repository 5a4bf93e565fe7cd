"""The operator of torchvision's that is written here, for a CPU build of torch."""

import numpy as np
import pytest
import torch

from gansynth.runtime import torchvision_compat


@pytest.mark.parametrize(("count", "threshold"), [(0, 0.5), (1, 0.5), (400, 0.5), (400, 0.3)])
def test_suppression_is_greedy_and_stable(count, threshold):
    rng = np.random.default_rng(count)
    corner, size = rng.uniform(0, 40, (count, 2)), rng.uniform(0, 20, (count, 2))
    boxes = np.hstack([corner, corner + size]).astype(np.float32)
    scores = np.round(rng.random(count), 1).astype(np.float32)  # with many equal ones
    kept = torchvision_compat.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert kept.tolist() == greedy(boxes, scores, threshold)


def greedy(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Written once more, in plain Python."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(width, 0) * max(height, 0)
    areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return float(shared / (areas - shared))


def test_torchvision_itself_suppresses_alike():
    torchvision_compat.apply()
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 40, (200, 2))
    boxes = torch.from_numpy(np.hstack([corner, corner + rng.uniform(1, 20, (200, 2))])).float()
    scores, classes = torch.from_numpy(rng.random(200)).float(), torch.arange(200) % 2
    kept = batched_nms(boxes, scores, classes, 0.5)
    apart = [
        np.flatnonzero(classes == c)[
            torchvision_compat.nms(boxes[classes == c], scores[classes == c], 0.5)
        ]
        for c in (0, 1)
    ]
    assert sorted(kept.tolist()) == sorted(np.concatenate(apart).tolist())
