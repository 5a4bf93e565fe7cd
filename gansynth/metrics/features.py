"""Features of images, by a network with random weights and by one trained on the fold's images.

Volumes are read as slices across all three axes (2.5D, as Guo et al. 2025, arXiv:2409.11169).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gansynth.core.schema import FloatArray
from gansynth.metrics.comparison import Comparison, Image, Window
from gansynth.metrics.encoder import Encoder, EncoderOptions, make_encoder, train_encoder
from gansynth.metrics.estimate import Floats, Indices
from gansynth.runtime.devices import pick_device

Kind = Literal["trained", "random"]
KINDS: tuple[Kind, ...] = ("trained", "random")
WORDS: Mapping[str, str] = {
    "trained": "of a network trained without labels on the fold's images",
    "random": "of a network with random weights",
}
FAR = 4.0  # windows beyond black or white at which intensities are clipped, against outlier voxels
MOST = 5.0
"""Features are clipped at so many deviations of the real ones. Without it a cubic kernel of noise
would have no interval."""
AT_ONCE = 64  # pictures in a batch
SLICES = 3  # slices across each axis of a volume, at equal distances


class Features:
    """Features of samples and real images, each computed once."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.options = EncoderOptions(comparison.effort.features, seed=comparison.seed)
        self.device = pick_device(comparison.device)
        # The images are kept, too: another list could reuse the id of a deleted one.
        self._kept: dict[tuple[int, str], tuple[Sequence[Image], AxisFeatures]] = {}
        self._scales: dict[str, list[Floats]] = {}

    def of(self, images: Sequence[Image], kind: Kind) -> AxisFeatures:
        """Features of images, in standard deviations of the real images' features."""
        key = id(images), kind
        if key not in self._kept:
            raw = self._raw(images, kind)
            scaled = zip(raw, self._scale(kind), strict=True)
            self._kept[key] = (
                images,
                AxisFeatures(
                    [np.clip((f - mean) / away, -MOST, MOST) for f, (mean, away) in scaled]
                ),
            )
        return self._kept[key][1]

    def _scale(self, kind: Kind) -> list[Floats]:
        """Mean and standard deviation (2, K) of each feature of real slices, by axis."""
        if kind not in self._scales:
            flat = [f.reshape(-1, f.shape[-1]) for f in self._raw(self.comparison.real, kind)]
            self._scales[kind] = [np.stack([f.mean(0), np.maximum(f.std(0), 1e-6)]) for f in flat]
        return self._scales[kind]

    def _raw(self, images: Sequence[Image], kind: Kind) -> list[Floats]:
        encoder = self._trained if kind == "trained" else self._random
        return [_looked(encoder, plane, self.device) for plane in self._pictures(images)]

    def _pictures(self, images: Sequence[Image]) -> list[Tensor]:
        return pictures([image.image for image in images], self.comparison.window)

    @cached_property
    def _random(self) -> Encoder:
        return make_encoder(len(self.comparison.schema.channels), self.options.seed).to(self.device)

    @cached_property
    def _trained(self) -> Encoder:
        learnt = [plane.flatten(0, 1) for plane in self._pictures(self.comparison.real)]
        reporter = self.comparison.reporter
        return train_encoder(learnt, self.options, device=self.device, reporter=reporter)


def features_of(comparison: Comparison) -> Features:
    """Feature networks of both sides; trained on first use and cached with the sides."""
    return comparison.once("features", lambda: Features(comparison))


class AxisFeatures:
    """Features of images by axis, float64 (N, S, K), of S slices of each image."""

    def __init__(self, planes: Sequence[Floats]) -> None:
        self.planes = list(planes)

    def __getitem__(self, index: Indices) -> AxisFeatures:
        return AxisFeatures([plane[index] for plane in self.planes])

    def __len__(self) -> int:
        return len(self.planes[0])

    @property
    def slices(self) -> list[Floats]:
        """Features of single slices by axis: (N S, K)."""
        return [plane.reshape(-1, plane.shape[-1]) for plane in self.planes]

    @property
    def whole(self) -> Floats:
        """Mean over slices of each image, axes concatenated: (N, axes K)."""
        return np.concatenate([plane.mean(1) for plane in self.planes], axis=1)


def pictures(images: Sequence[FloatArray], window: Window) -> list[Tensor]:
    """Slices of images by axis, float32 (N, S, C, H, W), scaled so that the window is 0 to 1."""
    low, high = (bound.reshape(1, 1, -1, 1, 1) for bound in window.T)
    spread = np.maximum(high - low, 1e-6)
    return [
        torch.from_numpy(np.clip((plane - low) / spread, -FAR, 1 + FAR).astype(np.float32))
        for plane in slices_of(images)
    ]


@torch.no_grad()
def _looked(encoder: Encoder, plane: Tensor, device: torch.device) -> Floats:
    """Features (N, S, K) of slices (N, S, C, H, W)."""
    flat = plane.flatten(0, 1)
    parts = [encoder(part.to(device)) for part in torch.split(flat, AT_ONCE)]
    return torch.cat(parts).cpu().double().numpy().reshape(*plane.shape[:2], -1)


def slices_of(images: Sequence[FloatArray]) -> list[FloatArray]:
    """Slices of images (C, D, H, W), or pictures (C, H, W), by slicing axis.

    Returns three arrays (N, S, C, rows, columns) for volumes, one of a single slice for pictures.
    """
    if images[0].ndim == 3:
        return [np.stack(images)[:, None]]
    stacked, slices = np.stack(images), []
    for axis in (2, 3, 4):
        length = stacked.shape[axis]
        count = min(SLICES, length)
        places = [int((n + 1) * length / (count + 1)) for n in range(count)]
        cut = np.take(stacked, places, axis=axis)
        slices.append(np.moveaxis(cut, axis, 1))
    return slices
