"""Augmentation of the discriminator's input, so that it cannot memorise a few cases.

Real and synthetic samples go through the same random, differentiable changes (Zhao et al. 2020,
DiffAugment, arXiv:2006.10738; Karras et al. 2020, ADA, arXiv:2006.06676).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from gansynth.core.generator import TrainingStep
from gansynth.runtime.errors import UsageFault, did_you_mean

Condition = TypeVar("Condition", Tensor, None)
SHIFT, CUT = 1 / 8, 1 / 2
"""Largest translation and edge of the cut-out, as parts of each axis (Zhao et al. 2020)."""


class DiscriminatorAugment:
    """Changes pairs of image and condition; to be called on real and on synthetic pairs.

    Each change of the policy, in order, hits each sample independently with probability p. Changes
    of the image only:

    - ``brightness``: adds a number in [-0.5, 0.5) to all channels;
    - ``contrast``: scales the distance from the sample's mean by a factor in [0.5, 1.5);
    - ``saturation``: scales the distance from the mean over channels by a factor in [0, 2).

    Changes of image and condition:

    - ``flip``: along each axis with probability 1/2;
    - ``rotate90``: quarter turns in the plane of the last two axes; half turns where these differ
      in length;
    - ``translation``: whole voxels, up to 1/8 of each axis; fills with zeros,
      ``translation_edge`` with the edge's voxels;
    - ``cutout``: sets a box of 1/2 of each axis to 0, its centre anywhere.

    With p below about 0.8 the discriminator still sees enough unchanged images. Above, flips and
    turns may leak (Karras et al., sec. 2.2). An ``"adaptive"`` p rises from 0 while r =
    E[sign(D(real))] > target, else falls (eq. 1 and sec. 3). ``observe`` gets the logits. p
    changes between steps only. A ``TrainingBuffer``: put it into the generator's ``buffers``.

    ``midpoint``: logit halfway between real and synthetic (``Adversarial.midpoint``). ``speed``:
    images until p has gone from 0 to 1 (500 000 in Karras et al., for runs of 25 million).
    ``interval``: steps between changes of p. Raises UsageFault: an unknown change, or a wrong
    probability.
    """

    Change = Literal[
        "brightness",
        "contrast",
        "saturation",
        "flip",
        "rotate90",
        "translation",
        "translation_edge",
        "cutout",
    ]
    """Names of changes, for a plugin's option."""

    def __init__(
        self,
        policy: Sequence[str],
        p: float | Literal["adaptive"],
        *,
        target: float = 0.6,
        midpoint: float = 0.0,
        speed: int = 20_000,
        interval: int = 4,
        limit: float = 0.8,
    ) -> None:
        _check(policy, p)
        self._changes = [CHANGES[name] for name in policy]
        self.adaptive = p == "adaptive"
        self.p = 0.0 if p == "adaptive" else float(p)
        self.target, self.midpoint, self.speed = target, midpoint, speed
        self.interval, self.limit = interval, limit
        self._seen = torch.zeros(2, dtype=torch.float64)  # sum of signs, samples
        self._index, self._images = 0, 0  # where the step that last changed p began

    def __call__(
        self, step: TrainingStep, image: Tensor, condition: Condition
    ) -> tuple[Tensor, Condition]:
        """Change a batch of pairs; every call takes new random numbers of the step.

        ``image``: (B, C, D, H, W) or (B, C, H, W), with B samples as in the step's share, else
        ValueError. ``condition``: (B, K, ...) or None.
        """
        return self.changed(self.drawn(step, image.ndim - 2), step, image, condition)

    def drawn(self, step: TrainingStep, axes: int) -> Tensor | None:
        """Return new random numbers (B, numbers) for ``changed`` of images with spatial axes.

        None if there is nothing to change.
        """
        self._adapt(step)
        if not self._changes or not (self.adaptive or self.p):
            return None
        # Also at p = 0: an adaptive p must not shift the random numbers of others.
        return step.rand(sum(self._widths(axes)))

    def changed(
        self, numbers: Tensor | None, step: TrainingStep, image: Tensor, condition: Condition
    ) -> tuple[Tensor, Condition]:
        """Change a batch of pairs by drawn numbers; equal numbers change equally."""
        if len(image) != len(step.batch.image):
            raise ValueError(
                f"image: {len(image)} samples, expected the step's {len(step.batch.image)}; "
                "change real and synthetic pairs in calls of their own"
            )
        if numbers is None or not self.p:
            return image, condition
        parts = torch.split(numbers, self._widths(image.ndim - 2), 1)
        for change, part in zip(self._changes, parts, strict=True):
            hit, u = part[:, 0] < self.p, part[:, 1:]
            image = change.apply(image, hit, u)
            if change.spatial and condition is not None:
                condition = change.apply(condition, hit, u)
        return image, condition

    def _widths(self, axes: int) -> list[int]:
        return [1 + (axes if change.per_axis else 1) for change in self._changes]

    @torch.no_grad()
    def observe(self, real: Sequence[Tensor]) -> None:
        """Record logits, (B, ...) per head, of (changed) real pairs; a fixed p needs none."""
        if not self.adaptive:
            return
        signs = [(h.float() - self.midpoint).sign().reshape(len(h), -1).mean(1) for h in real]
        each = torch.stack(signs).mean(0).double()
        sums = torch.stack((each.sum(), torch.full_like(each[0], len(each))))
        # Read in ``_adapt`` only: reading waits for the device.
        self._seen = self._seen.to(sums.device) + sums

    def _adapt(self, step: TrainingStep) -> None:
        """Adapt p at the beginning of a step, if that is due."""
        if not self.adaptive or step.index - self._index < self.interval:
            return
        sums = self._seen.to(step.batch.image.device, copy=True)
        signs, samples = step.mean(sums).tolist()
        if samples:
            amount = (step.images - self._images) / self.speed
            r = signs / samples
            self.p += amount * ((r > self.target) - (r < self.target))
            self.p = min(max(self.p, 0.0), self.limit)
        self._seen = torch.zeros_like(self._seen)
        self._index, self._images = step.index, step.images

    def state(self) -> dict[str, Tensor]:
        """Return an adaptive p and its statistics (float64, int64); nothing if p is fixed."""
        if not self.adaptive:
            return {}
        return {
            "p": torch.tensor(self.p, dtype=torch.float64),
            "seen": self._seen.clone(),
            "index": torch.tensor(self._index),
            "images": torch.tensor(self._images),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load what ``state`` returned; a fixed p is not changed."""
        if self.adaptive:
            self.p, self._seen = float(state["p"]), state["seen"].clone()
            self._index, self._images = int(state["index"]), int(state["images"])


def _check(policy: Sequence[str], p: float | Literal["adaptive"]) -> None:
    names = get_args(DiscriminatorAugment.Change)
    for name in policy:
        if name not in names:
            raise UsageFault(
                "diff-augment.change-unknown",
                f"augment: {name!r} is not a change of a discriminator's input; expected some of "
                f"{', '.join(names)}.{did_you_mean(name, names)}",
            )
    if p != "adaptive" and not 0 <= p <= 1:
        raise UsageFault(
            "diff-augment.probability-out-of-range",
            f"augment: p={p}; expected a probability in [0, 1], or adaptive",
        )


@dataclass(frozen=True)
class Augmentation:
    """A change: (samples (B, C, ...), hit mask (B,), uniform numbers (B, n)) -> samples."""

    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    spatial: bool = False
    per_axis: bool = False


# -- changes; u is uniform in [0, 1) ---------------------------------------------------------------


def _brightness(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    return torch.where(_along(hit, x), x + _along(u[:, 0] - 0.5, x).to(x.dtype), x)


def _contrast(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    mean = x.mean(tuple(range(1, x.ndim)), keepdim=True)
    return _scaled(x, mean, hit, u[:, 0] + 0.5)


def _saturation(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return _scaled(x, x.mean(1, keepdim=True), hit, 2 * u[:, 0])


def _scaled(x: Tensor, mean: Tensor, hit: Tensor, factor: Tensor) -> Tensor:
    return torch.where(_along(hit, x), (x - mean) * _along(factor, x).to(x.dtype) + mean, x)


def _flip(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    for axis in range(u.shape[1]):
        x = torch.where(_along(hit & (u[:, axis] < 0.5), x), x.flip(2 + axis), x)
    return x


def _rotate90(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    quarters = (4 * u[:, 0]).long()
    x = torch.where(_along(hit & (quarters >= 2), x), x.flip(-2, -1), x)
    if x.shape[-2] != x.shape[-1]:
        return x
    return torch.where(_along(hit & (quarters % 2 == 1), x), x.rot90(1, (-2, -1)), x)


def _translation(x: Tensor, hit: Tensor, u: Tensor, *, edge: bool = False) -> Tensor:
    for axis in range(u.shape[1]):
        size = x.shape[2 + axis]
        most = round(size * SHIFT)
        # In float32 the product can reach the upper bound.
        shift = (u[:, axis] * (2 * most + 1)).long().clamp(max=2 * most) - most
        source = torch.arange(size, device=x.device) - (shift * hit)[:, None]
        source = _on_axis(source, axis, x)
        x = x.take_along_dim(source.clamp(0, size - 1), 2 + axis)
        if not edge:
            x = x.masked_fill((source < 0) | (source >= size), 0)
    return x


def _cutout(x: Tensor, hit: Tensor, u: Tensor) -> Tensor:
    inside = _along(hit, x)
    for axis in range(u.shape[1]):
        size = x.shape[2 + axis]
        edge = round(size * CUT)
        first = (u[:, axis] * size).long() - edge // 2
        voxel = torch.arange(size, device=x.device) - first[:, None]
        inside = inside & _on_axis((voxel >= 0) & (voxel < edge), axis, x)
    return x.masked_fill(inside, 0)


def _along(numbers: Tensor, x: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ...), to broadcast with samples."""
    return numbers.view(-1, *[1] * (x.ndim - 1))


def _on_axis(numbers: Tensor, axis: int, x: Tensor) -> Tensor:
    """Reshape (B, size) to (B, 1, ..., size, ...), to broadcast along a spatial axis."""
    shape = [1] * (x.ndim - 2)
    shape[axis] = -1
    return numbers.view(len(x), 1, *shape)


CHANGES: Mapping[str, Augmentation] = {
    "brightness": Augmentation(_brightness),
    "contrast": Augmentation(_contrast),
    "saturation": Augmentation(_saturation),
    "flip": Augmentation(_flip, spatial=True, per_axis=True),
    "rotate90": Augmentation(_rotate90, spatial=True),
    "translation": Augmentation(_translation, spatial=True, per_axis=True),
    "translation_edge": Augmentation(partial(_translation, edge=True), spatial=True, per_axis=True),
    "cutout": Augmentation(_cutout, spatial=True, per_axis=True),
}
