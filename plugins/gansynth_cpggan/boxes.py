"""Rasterise boxes, and crop the squares around them to a fixed size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth import Batch, Boxes, TrainingStep, UsageFault
from gansynth.data.batches import stack_boxes

NONE = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int16))


def box_maps(boxes: Tensor, labels: Tensor, classes: int, size: Sequence[int]) -> Tensor:
    """Rasterise boxes; a voxel holds the share of its area that a box covers (the larger counts).

    ``boxes``: float32 (B, M, 4) in voxels, ``ymin, xmin, ymax, xmax``. ``labels``: int64 (B, M), -1
    for no box. Returns float32 (B, classes, H, W) in [0, 1]. Its 2 x 2 means are the map at half
    the size.
    """
    low, high = boxes[..., :2].unsqueeze(-1), boxes[..., 2:].unsqueeze(-1)
    shares = []  # of each row, and of each column, that a box covers: (B, M, n)
    for axis, length in enumerate(size):
        at = torch.arange(length, device=boxes.device)
        first, end = torch.maximum(low[:, :, axis], at), torch.minimum(high[:, :, axis], at + 1)
        shares.append((end - first).clamp(0, 1))
    rows, columns = shares
    covered = rows.unsqueeze(-1) * columns.unsqueeze(-2)  # (B, M, H, W)
    of_class = [(labels == k)[..., None, None] for k in range(classes)]
    return torch.stack([(covered * chosen).amax(1) for chosen in of_class], 1)


def batch_maps(batch: Batch, classes: int) -> Tensor:
    """Return the maps (B, classes, H, W) of a training batch, at the size of its images."""
    assert batch.boxes is not None, "observe() checks that each case has a list of boxes"
    assert batch.box_labels is not None
    return box_maps(batch.boxes, batch.box_labels, classes, batch.image.shape[2:])


def requested_maps(requested: Sequence[Boxes | None], classes: int, size: Sequence[int]) -> Tensor:
    """Return the maps of the boxes requested for samples; UsageFault: an unknown class."""
    box_lists = [NONE if boxes is None else boxes for boxes in requested]
    for boxes in box_lists:
        unknown = [int(k) for k in boxes.labels if not 0 <= k < classes]
        if unknown:
            raise UsageFault(
                "cpggan.box-class-unknown",
                f"condition: a box of class {unknown[0]}, expected classes 0 to {classes - 1}",
            )
        if boxes.coords.shape[1] != 4:
            raise UsageFault(
                "cpggan.box-coordinates-not-four",
                f"condition: boxes (N, {boxes.coords.shape[1]}), expected (N, 4): ymin, xmin, "
                "ymax, xmax",
            )
    coords, labels = stack_boxes(box_lists, 2)
    assert coords is not None
    assert labels is not None
    return box_maps(coords, labels, classes, size)


OVER = 4  # points per axis that are averaged for a voxel
SMALLEST_EDGE = 4.0  # smallest edge of a square, in voxels


def squares(boxes: Tensor, margin: float) -> Tensor:
    """Return the squares around boxes, float32 (B, 4), ``ymin, xmin, ymax, xmax``."""
    low, high = boxes[:, :2], boxes[:, 2:]
    reach = ((high - low).amax(1, keepdim=True) * (0.5 + margin)).clamp(min=SMALLEST_EDGE / 2)
    middle = (low + high) / 2
    return torch.cat((middle - reach, middle + reach), 1)


def resampled(images: Tensor, windows: Tensor, height: int, width: int) -> Tensor:
    """Resample a window (B, 4) of each image (B, C, H, W): means of ``OVER``² points."""
    axes = []
    for axis, (n, count) in enumerate(zip(images.shape[2:], (height, width), strict=True)):
        low, high = windows[:, axis, None], windows[:, axis + 2, None]
        at = (torch.arange(count * OVER, device=images.device) + 0.5) / (count * OVER)
        axes.append((low + (high - low) * at) * (2 / n) - 1)
    grid = torch.stack(
        (
            axes[1][:, None, :].expand(-1, height * OVER, -1),
            axes[0][:, :, None].expand(-1, -1, width * OVER),
        ),
        -1,
    )
    points = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return F.avg_pool2d(points, OVER)


def within(boxes: Tensor, windows: Tensor, edge: int) -> Tensor:
    """Return boxes (B, M, 4) in voxels of windows (B, 4) resampled to ``edge`` x ``edge``."""
    low, high = windows[:, None, :2], windows[:, None, 2:]
    scale = edge / (high - low)
    return torch.cat(((boxes[..., :2] - low) * scale, (boxes[..., 2:] - low) * scale), -1)


def crops(step: TrainingStep, image: Tensor, classes: int, edge: int, margin: float) -> Tensor:
    """Crop the square around one random box of each sample, with its box maps."""
    count = boxes_of_each(step.batch)
    # In float32 the product can reach its bound.
    chosen = torch.minimum((step.rand(1)[:, 0] * count).long(), count - 1)
    return crop(step.batch, chosen, image, classes, edge, margin)


def boxes_of_each(batch: Batch) -> Tensor:
    """Return the number of boxes of each sample, int64 (B,)."""
    assert batch.box_labels is not None, "only cases with boxes are accepted"
    return (batch.box_labels >= 0).sum(1)


def crop(
    batch: Batch, chosen: Tensor, image: Tensor, classes: int, edge: int, margin: float
) -> Tensor:
    """Crop the square around the chosen box of each sample, with its box maps."""
    boxes, labels = batch.boxes, batch.box_labels
    assert boxes is not None, "only cases with boxes are accepted"
    assert labels is not None
    windows = squares(boxes[torch.arange(len(boxes), device=boxes.device), chosen], margin)
    maps = box_maps(within(boxes, windows, edge), labels, classes, (edge, edge))
    return torch.cat((resampled(image.float(), windows, edge, edge), maps), 1)
