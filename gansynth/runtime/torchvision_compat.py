"""Makes torchvision work beside a CPU build of torch, as far as trainings here need it.

The torchvision of the package index is built against CUDA, so its import fails beside a CPU torch.
Defining its operators first solves that; ``nms``, the only one in use, is implemented in torch.
``cpu_torch/sitecustomize.py`` loads this file by its path, so it imports nothing of gansynth.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CPU_TORCH = Path(__file__).parent / "cpu_torch"
"""On PYTHONPATH, this folder fixes every Python process, e.g. those of ``nnUNetv2_train``."""

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[Any] = []  # an operator lives as long as the library object that defined it


def failure() -> str:
    """Return why torchvision cannot be imported, in one line; empty if it can, or is absent."""
    if importlib.util.find_spec("torchvision") is None:
        return ""
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, OSError, ImportError) as error:
        _forget()
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def apply() -> bool:
    """Define the missing operators, only if torchvision does not import otherwise.

    Returns:
        Whether torchvision was fixed. If it stays broken, nothing is raised here; its importer
        gets its own error.
    """
    if "does not exist" not in failure():
        return False
    import torch

    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + SIGNATURE)
            if name == "nms":
                library.impl(name, nms, "CPU")
    _kept.append(library)
    cured = failure() == ""
    if cured:
        # torchvision would refuse to call the operator while its own library is not loaded.
        boxes: Any = importlib.import_module("torchvision.ops.boxes")
        boxes._assert_has_ops = _allow
    return cured


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, as torchvision's own on a CPU.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: largest overlap with a box of higher score.

    Returns:
        int64 indices of the remaining boxes, best first; ties go to the first.
    """
    import torch

    order = torch.argsort(scores, descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].unbind(1)
    areas = (x2 - x1) * (y2 - y1)
    left = torch.arange(len(order))
    keep = []
    while len(left):
        best, left = left[0], left[1:]
        keep.append(best)
        width = torch.minimum(x2[best], x2[left]) - torch.maximum(x1[best], x1[left])
        height = torch.minimum(y2[best], y2[left]) - torch.maximum(y1[best], y1[left])
        shared = width.clamp(min=0) * height.clamp(min=0)
        overlap = shared / (areas[best] + areas[left] - shared)
        # As double, like the threshold; 0 / 0 is no overlap.
        left = left[~(overlap.double() > iou_threshold)]
    return order[torch.stack(keep)] if keep else order


def _allow() -> None:
    """Replace torchvision's refusal by nothing."""


def _forget() -> None:
    """Drop the modules of a failed import, so that the next one starts afresh."""
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
