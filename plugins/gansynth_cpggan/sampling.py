"""Samples of ``cpggan``: whole images, or lesions blended into real slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth.core.schema import Boxes, Condition, FloatArray, Sample
from gansynth.data.lesion_rims import tighten
from gansynth.runtime.devices import autocast, resolve
from gansynth.runtime.errors import UsageFault
from gansynth_cpggan.blend import blend, bounded
from gansynth_cpggan.boxes import NONE, requested_maps, squares, within
from gansynth_cpggan.networks import CPGGANNetworks

AT_ONCE = {"cuda": 32, "cpu": 4}
"""Images per batch; batches are padded, so the number requested does not change a sample."""
GROWN = 0.01  # a size that lacks less than this of its fade-in counts as faded in


WINDOWS = "synthetic_windows"
"""Key of notes: synthetic windows of a real slice, ``ymin, xmin, ymax, xmax`` each."""


@dataclass(frozen=True)
class ImageRequest:
    """One requested image: latent (numbers,), boxes in voxels of the full size, class."""

    latent: Tensor
    boxes: Boxes | None
    kind: int | None


@dataclass(frozen=True)
class LesionPlan:
    """The lesions to blend into one real slice."""

    condition: Condition
    image: FloatArray
    present: Boxes
    put: Boxes
    latents: list[Tensor]
    kind: int | None


class CPGGANSampler:
    """Generates samples."""

    def __init__(self, gan: CPGGANNetworks) -> None:
        self.gan = gan

    def samples(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Return one sample per condition."""
        if self.gan.lesions:
            plans = [self._plan(c, seed) for c, seed in zip(conditions, seeds, strict=True)]
            return [self._blended(plan, plan.latents) for plan in plans]
        orders = []
        for condition, seed in zip(conditions, seeds, strict=True):
            rng = torch.Generator().manual_seed(seed)
            orders.append(
                ImageRequest(self._latent(rng), condition.boxes, self._kind(condition, rng))
            )
        return [
            self._whole(image, condition, order.kind)
            for image, condition, order in zip(
                self._images(orders), conditions, orders, strict=True
            )
        ]

    def walk(self, condition: Condition, ends: tuple[int, int], steps: int) -> list[Sample]:
        """Return samples from one latent to another, two or more; lesions stay in place."""
        if steps < 2:
            raise UsageFault(f"interpolate: {steps} step(s), expected both ends, 2 or more")
        shares = [i / (steps - 1) for i in range(steps)]
        if self.gan.lesions:
            plan = self._plan(condition, ends[0])
            rng = torch.Generator().manual_seed(ends[1])
            pairs = [(latent, self._latent(rng)) for latent in plan.latents]
            return [self._blended(plan, [between(*pair, s) for pair in pairs]) for s in shares]
        rngs = [torch.Generator().manual_seed(seed) for seed in ends]
        first, last = (self._latent(rng) for rng in rngs)
        kind = self._kind(condition, rngs[0])
        orders = [ImageRequest(between(first, last, s), condition.boxes, kind) for s in shares]
        return [self._whole(image, condition, kind) for image in self._images(orders)]

    # -- images ------------------------------------------------------------------------------------

    def _latent(self, rng: torch.Generator) -> Tensor:
        return of_seed(rng, self.gan.options.latent)

    def _kind(self, condition: Condition, rng: torch.Generator) -> int | None:
        """Return the class of a sample: the condition's, or one as frequent as in training."""
        gan, kind = self.gan, condition.label_class
        if not gan.kinds:
            return None
        if kind is None:
            counts = torch.tensor(gan.counts, dtype=torch.float64)
            weights = counts if counts.sum() else torch.ones(gan.kinds)
            return int(torch.multinomial(weights, 1, generator=rng))
        if not 0 <= kind < gan.kinds:
            raise UsageFault(
                f"condition: class {kind}, expected 0 to {gan.kinds - 1} "
                f"({', '.join(gan.schema.classes)})"
            )
        return kind

    def _images(self, orders: Sequence[ImageRequest]) -> list[FloatArray]:
        """Return images (C, edge, edge) in the source's units."""
        gan, device = self.gan, self.gan.device
        gan.painter.eval()
        level, alpha = self.grown()
        shrink = gan.edge // gan.growth.edges[level]
        images: list[FloatArray] = []
        at_once = AT_ONCE.get(device.type, 1)
        for start in range(0, len(orders), at_once):
            part = orders[start : start + at_once]
            batch = [*part, *[part[0]] * (at_once - len(part))]
            maps = requested_maps(
                [o.boxes for o in batch], len(gan.schema.box_classes), (gan.edge, gan.edge)
            )
            maps = F.avg_pool2d(maps, shrink).to(device)
            order_kinds = [o.kind for o in batch]
            kinds = torch.tensor(order_kinds, device=device) if gan.kinds else None
            latents = torch.stack([o.latent for o in batch]).to(device)
            with autocast(device, resolve(gan.precision, device) == "bf16"):
                image = gan.drawn(latents, maps, level, alpha, kinds)
            whole = F.interpolate(gan.intensities.restored(image), gan.edge)
            images += [array.copy() for array in whole.cpu().numpy()[: len(part)]]
        return images

    def grown(self) -> tuple[int, float]:
        """Return the level that training has reached, and how far it has faded in."""
        grown = float(self.gan.painter.grown)
        level = max(0, math.ceil(grown - GROWN))
        alpha = grown - (level - 1)
        return level, 1.0 if level == 0 or alpha > 1 - GROWN else alpha

    def _whole(self, image: FloatArray, condition: Condition, kind: int | None) -> Sample:
        boxes = NONE if condition.boxes is None else condition.boxes
        boxes, notes = self._tightened(image, boxes)
        return Sample(image, None, boxes, notes=notes, label_class=kind)

    def _tightened(self, image: FloatArray, boxes: Boxes) -> tuple[Boxes, dict[str, Any]]:
        """Return boxes, with option ``tighten`` shrunk to the lesions, and the original ones."""
        if not self.gan.options.tighten or not len(boxes.labels):
            return boxes, {}
        tight, shares = tighten(image, boxes)
        return tight, {"boxes_asked": boxes.coords.tolist(), "tightened_to": shares}

    # -- lesions in real slices --------------------------------------------------------------------

    def _plan(self, condition: Condition, seed: int) -> LesionPlan:
        """Return the boxes, latents and class of the lesions of a real slice."""
        if condition.background is None:
            raise UsageFault(
                "condition: has no background, expected the slice that lesions are blended into; "
                "use gansynth sample, or fit with --set mode=image"
            )
        present = NONE if condition.present is None else condition.present
        put = NONE if condition.boxes is None else condition.boxes
        rng = torch.Generator().manual_seed(seed)
        latents = [self._latent(rng) for _ in put.labels]
        kind = self._kind(condition, rng)
        return LesionPlan(condition, condition.background, present, put, latents, kind)

    def _blended(self, plan: LesionPlan, latents: Sequence[Tensor]) -> Sample:
        margin, image, put = self.gan.options.roi_margin, plan.image.copy(), plan.put
        windows, boxes = [], _joined(plan.present, put)
        lesions = self._images([self._lesion(plan, i, z) for i, z in enumerate(latents)])
        for lesion, box in zip(lesions, put.coords, strict=True):
            region = bounded(plan.condition.body, box, boxes.coords, image.shape[1:])
            image, window = blend(image, lesion, box, margin, region)
            windows.append(list(window))
        put, tightened = self._tightened(image, put)
        boxes = _joined(plan.present, put)
        notes = {
            WINDOWS: windows,
            "pixels": f"of a real case, but for {WINDOWS}",
            **tightened,
        }
        return Sample(image, None, boxes, notes=notes, label_class=plan.kind)

    def _lesion(self, plan: LesionPlan, number: int, latent: Tensor) -> ImageRequest:
        """Return the order for one box: the square around it."""
        box = torch.from_numpy(plan.put.coords[number : number + 1])
        around = squares(box, self.gan.options.roi_margin)
        coords = within(box[None], around, self.gan.edge)[0].numpy()
        return ImageRequest(latent, Boxes(coords, plan.put.labels[number : number + 1]), plan.kind)


def _joined(first: Boxes, second: Boxes) -> Boxes:
    return Boxes(
        np.concatenate((first.coords, second.coords)), np.concatenate((first.labels, second.labels))
    )


def of_seed(rng: torch.Generator, numbers: int) -> Tensor:
    """Return the next latent (numbers,), made on the CPU: equal for a seed on every device."""
    return torch.randn(numbers, generator=rng)


def between(first: Tensor, last: Tensor, share: float) -> Tensor:
    """Interpolate between two latents (numbers,) along the great circle of their directions.

    The generator uses a latent's direction alone. Shares 0 and 1 give the ends bit for bit.
    """
    if share in (0.0, 1.0):
        return last if share else first
    a, b = (v.double() / v.double().norm() for v in (first, last))
    angle = torch.acos((a @ b).clamp(-1, 1))
    if angle.sin() < 1e-6:  # parallel or opposite directions have no unique arc
        return torch.lerp(first, last, share)
    arc = ((1 - share) * angle).sin() * a + (share * angle).sin() * b
    latent: Tensor = (arc / angle.sin()).float()
    return latent
