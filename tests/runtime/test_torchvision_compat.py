"""The operator of torchvision's that is written here, for a CPU build of torch."""

import numpy as np
import pytest
import torch

from gansynth.runtime import torchvision_compat


def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes and scores, many of them equal."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 40, (count, 2))
    boxes = torch.from_numpy(np.hstack([corner, corner + rng.uniform(1, 20, (count, 2))])).float()
    return boxes, torch.from_numpy(np.round(rng.random(count), 1)).float()


@pytest.mark.fault(44)
@pytest.mark.parametrize(("count", "threshold"), [(0, 0.5), (1, 0.5), (200, 0.3)])
def test_suppression_is_greedy_and_stable(count, threshold):
    boxes, scores = drawn(count)
    left = torch.argsort(-scores, stable=True).tolist()
    wanted: list[int] = []
    while left:
        wanted.append(left.pop(0))
        corner = torch.maximum(boxes[left, :2], boxes[wanted[-1], :2])
        shared = (torch.minimum(boxes[left, 2:], boxes[wanted[-1], 2:]) - corner).clamp(0).prod(1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        overlap = shared / (areas[left] + areas[wanted[-1]] - shared)
        left = [one for one, part in zip(left, overlap.tolist(), strict=True) if part <= threshold]
    assert torchvision_compat.nms(boxes, scores, threshold).tolist() == wanted


@pytest.mark.fault(44)
def test_torchvision_itself_suppresses_alike():
    torchvision_compat.apply()
    from torchvision.ops import batched_nms

    boxes, scores = drawn(200)
    classes = torch.arange(200) % 2
    apart: list[int] = []
    for one in (0, 1):
        own = torch.argwhere(classes == one)[:, 0]
        apart += own[torchvision_compat.nms(boxes[own], scores[own], 0.5)].tolist()
    assert sorted(batched_nms(boxes, scores, classes, 0.5).tolist()) == sorted(apart)
