"""Features of images, by a small network with random weights or trained on the fold's own images.

Nothing is downloaded. Random weights give a fair, if coarse, comparison (Naeem et al. 2020,
arXiv:2002.09797, sec. 4). Self-supervised weights of the domain rank generators as humans do
(Morozov et al. 2021, ICLR). Training follows SimCLR (Chen et al. 2020, arXiv:2002.05709). Volumes
are read as slices across all three axes (2.5D, as Guo et al. 2025, arXiv:2409.11169).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.core.schema import FloatArray
from gansynth.metrics.comparison import Comparison, Floats, Image, Indices, Window
from gansynth.runtime.devices import pick_device, seeded
from gansynth.runtime.progress import NullReporter, Reporter

# -- the network -----------------------------------------------------------------------------------


WIDTHS = (16, 32, 48)  # channels at full, half and a quarter of a picture's resolution
NUMBERS = sum(WIDTHS)  # features of a picture
CROP = 64  # edge in pixels of the largest views that are trained on


@dataclass(frozen=True)
class EncoderOptions:
    """Training options; ``lr`` decays by a cosine, ``temperature``: Chen et al. 2020, eq. 1."""

    steps: int = 300
    batch_size: int = 48
    lr: float = 2e-3
    temperature: float = 0.2
    seed: int = 0


class Encoder(nn.Module):
    """Pictures (B, C, H, W) of any size in, features (B, NUMBERS) of texture and shape out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for n, (before, after) in enumerate(pairwise((channels, *WIDTHS))):
            self.layers.append(nn.Conv2d(before, after, 3, 2 if n else 1, 1))
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, 2**0.5)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> Tensor:
        """Mean features of every layer: the first layers respond to texture, the last to shape."""
        x, features = pictures, []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x.mean((2, 3)))
        return torch.cat(features, 1)


SHOWN_EVERY = 20  # steps between losses that progress shows


def cosine(lr: float, steps: int) -> Callable[[int], float]:
    """A learning rate that decays to 0 along a cosine."""
    return lambda step: float(lr * (1 + np.cos(np.pi * step / steps)) / 2)


def descend(
    parameters: Iterable[nn.Parameter],
    loss_of: Callable[[int], Tensor],
    rate: Callable[[int], float],
    steps: int,
    reporter: Reporter | None,
    title: str,
    *,
    decay: float = 1e-2,
) -> None:
    """Train a small network by AdamW, with a loss and a learning rate for each step."""
    optimizer = torch.optim.AdamW(parameters, weight_decay=decay)
    with (reporter or NullReporter()).task(steps, title) as bar:
        for step in range(steps):
            loss = loss_of(step)
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % SHOWN_EVERY:  # reading a loss waits for a GPU
                bar.advance(1)
            else:
                bar.advance(1, loss=float(loss.detach()))


def make_encoder(channels: int, seed: int = 0) -> Encoder:
    """Create an encoder with fresh weights; torch's random state is unchanged."""
    with seeded(seed):
        return Encoder(channels).eval()


def train_encoder(
    pictures: Sequence[Tensor],
    options: EncoderOptions | None = None,
    *,
    device: torch.device | None = None,
    reporter: Reporter | None = None,
) -> Encoder:
    """Train an encoder on pictures, float32 (N, C, H, W) of about 0 to 1, without labels."""
    o, device = options or EncoderOptions(), device or torch.device("cpu")
    encoder = make_encoder(pictures[0].shape[1], o.seed).to(device).train()
    with seeded(o.seed):
        head = nn.Sequential(nn.Linear(NUMBERS, NUMBERS), nn.ReLU(), nn.Linear(NUMBERS, 32))
    head.to(device)
    learnt = [*encoder.parameters(), *head.parameters()]
    lengths = np.array([len(part) for part in pictures])
    shares = lengths / lengths.sum()

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng((o.seed, step))
        source = pictures[int(rng.choice(len(pictures), p=shares))]
        chosen = rng.choice(len(source), min(o.batch_size, len(source)), replace=False)
        batch = source[torch.from_numpy(chosen)]
        views = torch.cat([_view(batch, rng), _view(batch, rng)]).to(device)
        return contrast(head(encoder(views)), o.temperature)

    descend(learnt, loss, cosine(o.lr, o.steps), o.steps, reporter, "features", decay=1e-4)
    return encoder.eval()


def contrast(views: Tensor, temperature: float) -> Tensor:
    """NT-Xent (Chen et al. 2020, eq. 1) of (2 B, K): ``i`` and ``i + B`` are of one picture."""
    unit = F.normalize(views, dim=1)
    alike = unit @ unit.T / temperature
    alike.fill_diagonal_(float("-inf"))
    count = len(views) // 2
    partner = torch.arange(2 * count, device=views.device).roll(count)
    return F.cross_entropy(alike, partner)


def _view(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Crop each picture at random, flip it, and change brightness and contrast."""
    count, channels, *size = pictures.shape
    edges = [min(CROP, max(1, round(0.75 * n))) for n in size]
    out = torch.empty((count, channels, *edges))
    for n in range(count):
        top, left = [int(rng.integers(s - e + 1)) for s, e in zip(size, edges, strict=True)]
        part = pictures[n, :, top : top + edges[0], left : left + edges[1]]
        out[n] = part.flip(-1) if rng.random() < 0.5 else part
    shape = (count, channels, 1, 1)
    scale = torch.from_numpy(rng.uniform(0.8, 1.2, shape).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.1, 0.1, shape).astype(np.float32))
    return out * scale + shift


# -- features of both sides ------------------------------------------------------------------------


Kind = Literal["trained", "random"]
KINDS: tuple[Kind, ...] = ("trained", "random")
WORDS: Mapping[str, str] = {
    "trained": "of a network trained without labels on the fold's images",
    "random": "of a network with random weights",
}
FAR = 4.0  # windows beyond black or white at which intensities are clipped, against outlier voxels
CLIPPED_AT = 5.0
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
                    [
                        np.clip((f - mean) / away, -CLIPPED_AT, CLIPPED_AT)
                        for f, (mean, away) in scaled
                    ]
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
    low, high = [bound.reshape(1, 1, -1, 1, 1) for bound in window.T]
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
