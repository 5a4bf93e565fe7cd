"""What enters the last layer of a trained network, averaged over images: for ``Adapter.features``.

As many features as that layer has channels to make its output of. Where it is a convolution of one
voxel, its weights times their mean over an image, plus its bias, is the mean of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gansynth.adapter import Mask
from gansynth.errors import DataFault, UsageFault
from gansynth.schema import FloatArray, Schema

NEAR = 0.05
"""Share by which edges of voxels may differ and still be of one size."""


class Entering:
    """Keeps what enters layers while a network runs; a context manager.

    Args:
        layers: modules that take one tensor each.
    """

    def __init__(self, *layers: nn.Module) -> None:
        self._layers = layers
        self._found: dict[int, Tensor] = {}

    def __enter__(self) -> Entering:
        self._hooks = [
            layer.register_forward_pre_hook(self._keeper(number))
            for number, layer in enumerate(self._layers)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keeper(self, number: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self._found[number] = arguments[0].detach()

        return keep

    @property
    def last(self) -> list[Tensor]:
        """Of each layer what entered it last, in the layers' order."""
        return [self._found[number] for number in range(len(self._layers))]


class Mean:
    """The mean of features over chosen voxels of an image that is looked at part by part."""

    def __init__(self) -> None:
        self._total: npt.NDArray[np.float64] | None = None
        self._count = 0

    def add(self, features: Tensor, chosen: Mask) -> None:
        """Take in a part.

        Args:
            features: (B, K, ...).
            chosen: (B, ...), the voxels that count.
        """
        count = int(chosen.sum())
        if count == chosen.size:
            total = features.float().flatten(2).sum(dim=(0, 2))
        else:
            inside = torch.from_numpy(np.ascontiguousarray(chosen)).to(features.device)
            total = features.float().movedim(1, -1)[inside].sum(dim=0)
        added = total.cpu().numpy().astype(np.float64)
        self._total = added if self._total is None else self._total + added
        self._count += count

    def value(self) -> FloatArray:
        """The mean: float32 (K,).

        Raises:
            DataFault: no voxel was chosen.
        """
        if self._total is None or not self._count:
            raise DataFault(
                "image: nothing of it that is to be averaged is seen by the host, expected a voxel "
                "at least; enlarge what is labelled, or average whole images"
            )
        return (self._total / self._count).astype(np.float32)


def mask_of(image: FloatArray, where: Sequence[Mask | None] | None, number: int) -> Mask:
    """The voxels of an image that are averaged: bool (D, H, W) or (H, W)."""
    chosen = None if where is None else where[number]
    return np.ones(image.shape[1:], np.bool_) if chosen is None else chosen


def slices_of(image: FloatArray, chosen: Mask) -> tuple[FloatArray, Mask]:
    """An image and its mask as slices: (N, C, H, W) and (N, H, W); N is 1 for an image of two axes.

    Args:
        image: (C, D, H, W) or (C, H, W).
        chosen: (D, H, W) or (H, W).
    """
    if image.ndim == 3:
        return image[None], chosen[None]
    return np.ascontiguousarray(image.swapaxes(0, 1)), chosen


def check_fit(
    folder: Path,
    images: Sequence[FloatArray],
    schema: Schema,
    *,
    channels: int,
    ndim: int,
    spacing: Sequence[float] | None = None,
) -> None:
    """Refuse images that are not what a host was trained on, as far as that can be seen.

    Args:
        folder: of the host, for messages.
        images: that it is to look at.
        schema: of the images.
        channels: that it was trained on.
        ndim: axes that its network sees, 2 or 3.
        spacing: mm along these, of what it was trained on; None where nobody knows.

    Raises:
        DataFault: other channels, or voxels of another size.
        UsageFault: it sees volumes, and the images are slices.
    """
    if len(schema.channels) != channels:
        raise DataFault(
            f"{folder}: was trained on {channels} channel(s), the images have "
            f"{len(schema.channels)} ({', '.join(schema.channels)}), expected as many; name a host "
            "that was trained on the same data"
        )
    if ndim == 3 and (schema.ndim == 2 or any(image.shape[1] == 1 for image in images)):
        raise UsageFault(
            f"{folder}: its network sees volumes, the images are slices, expected volumes; name a "
            "host of slices"
        )
    if spacing is None:
        return
    own = schema.spacing[-ndim:]
    if any(abs(a - b) > NEAR * b for a, b in zip(own, spacing, strict=True)):
        raise DataFault(
            f"{folder}: was trained on voxels of {_mm(spacing)} mm, the images have {_mm(own)} mm, "
            "expected the same; name a host that was trained on the same data, read the same way"
        )


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:g}" for edge in spacing)
