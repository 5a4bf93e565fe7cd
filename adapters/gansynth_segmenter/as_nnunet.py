"""nnU-Net's own augmentation, for a control as strong as nnU-Net: its list, its chances and ranges.

Nothing of it is written here: rotation and mirroring follow from the patch, and transforms are
built, by the installed nnU-Net.
"""

# mypy: disallow-untyped-calls=False
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gansynth import FloatArray, LabelArray
from gansynth.runtime.devices import seeded

_DRAWING = threading.Lock()
"""The transforms draw from numpy's and torch's global numbers, and batches are read in threads."""


def transforms_of(size: Sequence[int]) -> list[BasicTransform]:
    """Return nnU-Net's training transforms for patches of a size, (D, H, W) or (H, W), in order."""
    asked = SimpleNamespace(
        configuration_manager=SimpleNamespace(patch_size=tuple(size)),
        print_to_log_file=lambda *_: None,
    )
    configured: Any = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size
    rotation, flat, _, mirrored = configured(asked)
    whole: Any = nnUNetTrainer.get_training_transforms(
        tuple(size), rotation, None, mirrored, flat, [False]
    )
    for transform in whole.transforms:
        blur: Any = getattr(transform, "transform", None)
        if hasattr(blur, "benchmark"):  # the faster way by a clock has other bits each time
            blur.benchmark = False
    found: list[BasicTransform] = whole.transforms
    return found


class NnunetAugmentation:
    """nnU-Net's augmentation of one item.

    Args:
        size: of the items, (D, H, W) or (H, W).
        fill: value of each channel beyond the border.
        pad_label: label beyond the border.
    """

    def __init__(self, size: Sequence[int], fill: Sequence[float], pad_label: int) -> None:
        self.fill = torch.tensor(fill).view(-1, *[1] * len(size))
        self.pad_label = pad_label
        transforms = transforms_of(size)
        first = [isinstance(each, RandomTransform) for each in transforms].index(True)
        self._moves = ComposeTransforms(transforms[:first])
        self._looks = ComposeTransforms(transforms[first:])

    def __call__(
        self, image: FloatArray, labels: LabelArray, rng: np.random.Generator
    ) -> tuple[FloatArray, LabelArray]:
        """Augment an image (C, D, H, W) or (C, H, W) and its labels into new arrays.

        The ranges are for nnU-Net's units, in which each channel has mean 0 and deviation 1.
        """
        given = torch.from_numpy(np.array(image, np.float32))
        axes = tuple(range(1, given.ndim))
        mean = given.mean(axes, keepdim=True)
        deviation = given.std(axes, keepdim=True, correction=0)
        deviation[deviation == 0] = 1
        fill = (self.fill - mean) / deviation
        shown = (given - mean) / deviation - fill  # nnU-Net moves zeros in from beyond the border
        marked = torch.from_numpy(labels.astype(np.int16) - np.int16(self.pad_label))[None]
        with _DRAWING, _numbers_of(rng):
            moved = self._moves(image=shown, segmentation=marked)
            moved["image"] = moved["image"] + fill
            done = self._looks(**moved)
        changed = done["image"] * deviation + mean
        drawn = done["segmentation"][0].numpy().astype(np.int16) + np.int16(self.pad_label)
        return changed.numpy().astype(np.float32), drawn


@contextmanager
def _numbers_of(rng: np.random.Generator) -> Iterator[None]:
    """Seed the global numbers by a generator, and restore them after."""
    before = np.random.get_state()  # noqa: NPY002 - the transforms' own
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        with seeded(int(rng.integers(2**32))):
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
