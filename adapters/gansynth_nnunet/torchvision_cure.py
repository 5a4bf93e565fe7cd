"""Makes ``import torchvision`` work beside a CPU build of torch.

The torchvision of the package index is built against CUDA. Beside a CPU torch its operators do not
load, and the import dies while it describes one of them. nnU-Net's search for a trainer imports
torchvision on its way, and so dies too. Naming the operators beforehand is enough: nothing in a
segmentation uses them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

CPU_TORCH = Path(__file__).parent / "cpu_torch"
"""On PYTHONPATH, this folder cures every Python process, e.g. those of ``nnUNetv2_train``."""

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[Any] = []  # an operator lives as long as the library object that named it


def failure() -> str:
    """Why torchvision cannot be imported, as one line; empty if it can, or if it is absent."""
    if importlib.util.find_spec("torchvision") is None:
        return ""
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, OSError, ImportError) as error:
        _forget()
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def apply() -> bool:
    """Name the missing operators, only if torchvision does not import without.

    Returns:
        Whether torchvision had to be cured. A torchvision that stays broken raises nothing here:
        whoever needs it gets its own error.
    """
    if "does not exist" not in failure():
        return False
    import torch

    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + SIGNATURE)
    _kept.append(library)
    return failure() == ""


def _forget() -> None:
    """Drop what a failed import left behind, so that the next one starts afresh."""
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
