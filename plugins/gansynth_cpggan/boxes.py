"""Boxes as maps: what both networks are told of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gansynth.core.generator import Batch
from gansynth.core.schema import Boxes
from gansynth.data.batches import stack_boxes
from gansynth.runtime.errors import UsageFault

NONE = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int16))


def box_maps(boxes: Tensor, labels: Tensor, classes: int, size: Sequence[int]) -> Tensor:
    """Rasterise boxes; a voxel holds the share of its area that a box covers (the larger counts).

    ``boxes``: float32 (B, M, 4) in voxels, ``ymin, xmin, ymax, xmax``. ``labels``: int64 (B, M), -1
    for no box. Returns float32 (B, classes, H, W) in [0, 1]; halving a map by means gives that of
    half the size.
    """
    low, high = boxes[..., :2].unsqueeze(-1), boxes[..., 2:].unsqueeze(-1)
    rows, columns = (
        (torch.minimum(high[:, :, a], at + 1) - torch.maximum(low[:, :, a], at)).clamp(0, 1)
        for a, at in enumerate(torch.arange(n, device=boxes.device) for n in size)
    )
    covered = rows.unsqueeze(-1) * columns.unsqueeze(-2)  # (B, M, H, W)
    of_class = [(labels == k)[..., None, None] for k in range(classes)]
    return torch.stack([(covered * chosen).amax(1) for chosen in of_class], 1)


def batch_maps(batch: Batch, classes: int) -> Tensor:
    """The maps (B, classes, H, W) of a training batch, as large as its images."""
    assert batch.boxes is not None, "observe() has seen a list of boxes of each case"
    assert batch.box_labels is not None
    return box_maps(batch.boxes, batch.box_labels, classes, batch.image.shape[2:])


def asked_maps(asked: Sequence[Boxes | None], classes: int, size: Sequence[int]) -> Tensor:
    """The maps of boxes that samples are asked to have; None asks for none.

    Raises UsageFault: a box of a class that there is not.
    """
    found = [NONE if boxes is None else boxes for boxes in asked]
    for boxes in found:
        unknown = [int(k) for k in boxes.labels if not 0 <= k < classes]
        if unknown:
            raise UsageFault(
                f"condition: a box of class {unknown[0]}, expected classes 0 to {classes - 1}"
            )
        if boxes.coords.shape[1] != 4:
            raise UsageFault(
                f"condition: boxes (N, {boxes.coords.shape[1]}), expected (N, 4): ymin, xmin, "
                "ymax, xmax"
            )
    coords, labels = stack_boxes(found, 2)
    assert coords is not None
    assert labels is not None
    return box_maps(coords, labels, classes, size)
