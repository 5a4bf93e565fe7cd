"""Augmentation of what the discriminator sees, so that it cannot learn a few cases by heart.

Real and synthetic samples go through the same random, differentiable changes, the generator's
gradient through them too, so that the generator need not draw the changes (Zhao et al. 2020,
DiffAugment, arXiv:2006.10738; Karras et al. 2020, ADA, arXiv:2006.06676).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from gansynth.core.generator import Step
from gansynth.nn.diff_augment_ops import CHANGES
from gansynth.runtime.errors import UsageFault, did_you_mean

ChangeName = Literal[
    "brightness",
    "contrast",
    "saturation",
    "flip",
    "rotate90",
    "translation",
    "translation_edge",
    "cutout",
]
"""For a plugin's option."""

Condition = TypeVar("Condition", Tensor, None)


class DiscriminatorAugment:
    """Changes pairs of image and condition; call it on real and on synthetic pairs alike.

    Each change of the policy, in order, hits each sample with probability p by itself. Intensity:

    - ``brightness``: adds a number in [-0.5, 0.5) to all channels;
    - ``contrast``: scales the distance from the sample's mean by a factor in [0.5, 1.5);
    - ``saturation``: scales the distance from the mean over channels by a factor in [0, 2); leaves
      one channel as it is.

    They meet the image only. Spatial changes meet image and condition alike:

    - ``flip``: along each axis with probability 1/2;
    - ``rotate90``: quarter turns in the plane of the last two axes, 0 to 3; 0 or 2 where these
      differ in length;
    - ``translation``: whole voxels, up to 1/8 of each axis; leaves zeros behind;
    - ``translation_edge``: likewise; leaves the edge's voxels behind;
    - ``cutout``: sets a box of 1/2 of each axis to 0, its centre anywhere.

    With p below about 0.8 the discriminator can still tell what unchanged images look like; above,
    flips and turns may leak into an unconditional generator's images (Karras et al., sec. 2.2).

    With p ``"adaptive"`` it starts at 0 and rises while the discriminator is too sure of real
    samples, r = E[sign(D(real))] > target, else falls (Karras et al. 2020, eq. 1 and sec. 3). For
    this, ``observe`` is shown the logits of real pairs. p changes between steps only, so all parts
    of an accumulated batch meet the same one, and all processes of a data-parallel training.

    A ``Memory``: put it into the generator's ``memories``.

    Args:
        policy: names of changes; empty changes nothing.
        p: probability of a change, or ``"adaptive"``. With a fixed 0 no random number is drawn.
        target: r that the adaptive p steers to.
        midpoint: logit halfway between real and synthetic (``Adversarial.midpoint``).
        speed: images shown while p goes from 0 to 1. Karras et al. have 500 000, for runs of 25
            million; runs here show some ten thousands.
        interval: steps between changes of p.
        limit: p rises no further.

    Raises:
        UsageFault: an unknown change, or a p that is no probability.
    """

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

    def __call__(self, step: Step, image: Tensor, condition: Condition) -> tuple[Tensor, Condition]:
        """Change a batch of pairs; every call draws fresh numbers from the step.

        Args:
            step: of this batch.
            image: (B, C, D, H, W) or (B, C, H, W), one for each sample of the step's share.
            condition: (B, K, ...) of the same spatial size, or None.

        Returns:
            The changed pair, of the same shapes and types; those given if p is 0.

        Raises:
            ValueError: if the image is not of as many samples as the step's share.
        """
        if len(image) != len(step.batch.image):
            raise ValueError(
                f"image: {len(image)} samples, expected the step's {len(step.batch.image)}; "
                "change real and synthetic pairs in calls of their own"
            )
        self._adapt(step)
        if not self._changes or not (self.adaptive or self.p):
            return image, condition
        axes = image.ndim - 2
        widths = [1 + (axes if change.per_axis else 1) for change in self._changes]
        # Drawn at p = 0 as well: an adaptive p must not shift the numbers others draw.
        numbers = step.rand(sum(widths))
        if not self.p:
            return image, condition
        for change, drawn in zip(self._changes, torch.split(numbers, widths, 1), strict=True):
            hit, u = drawn[:, 0] < self.p, drawn[:, 1:]
            image = change.apply(image, hit, u)
            if change.spatial and condition is not None:
                condition = change.apply(condition, hit, u)
        return image, condition

    @torch.no_grad()
    def observe(self, real: Sequence[Tensor]) -> None:
        """Take note of the discriminator's logits of (changed) real pairs; free if p is fixed.

        Args:
            real: one tensor (B, ...) per head, as the adversarial losses take them.
        """
        if not self.adaptive:
            return
        signs = [(h.float() - self.midpoint).sign().reshape(len(h), -1).mean(1) for h in real]
        each = torch.stack(signs).mean(0).double()
        seen = torch.stack((each.sum(), torch.full_like(each[0], len(each))))
        # Read in ``_adapt`` only: reading waits for the device.
        self._seen = self._seen.to(seen.device) + seen

    def _adapt(self, step: Step) -> None:
        """Move p at the beginning of a step, if one is due."""
        if not self.adaptive or step.index - self._index < self.interval:
            return
        seen = self._seen.to(step.batch.image.device, copy=True)
        signs, samples = step.mean(seen).tolist()
        if samples:
            amount = (step.images - self._images) / self.speed
            r = signs / samples
            self.p += amount * ((r > self.target) - (r < self.target))
            self.p = min(max(self.p, 0.0), self.limit)
        self._seen = torch.zeros_like(self._seen)
        self._index, self._images = step.index, step.images

    def state(self) -> dict[str, Tensor]:
        """An adaptive p and what will move it next (float64, int64); nothing if p is fixed."""
        if not self.adaptive:
            return {}
        return {
            "p": torch.tensor(self.p, dtype=torch.float64),
            "seen": self._seen.clone(),
            "index": torch.tensor(self._index),
            "images": torch.tensor(self._images),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave; a fixed p stays as it is."""
        if self.adaptive:
            self.p, self._seen = float(state["p"]), state["seen"].clone()
            self._index, self._images = int(state["index"]), int(state["images"])


def _check(policy: Sequence[str], p: float | Literal["adaptive"]) -> None:
    known = get_args(ChangeName)
    for name in policy:
        if name not in known:
            raise UsageFault(
                f"augment: {name!r} is no change of a discriminator's input; expected some of "
                f"{', '.join(known)}.{did_you_mean(name, known)}"
            )
    if p != "adaptive" and not 0 <= p <= 1:
        raise UsageFault(f"augment: p={p}; expected a probability in [0, 1], or adaptive")
