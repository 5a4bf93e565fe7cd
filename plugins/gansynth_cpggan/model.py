"""``cpggan``: a progressive GAN conditioned on the bounding boxes of lesions.

Karras et al. 2018 (PGGAN, arXiv:1710.10196), conditioned as Han et al. 2019 (CPGGAN,
arXiv:1902.09856): both networks get maps of the boxes at every resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth import (
    Batch,
    Boxes,
    Capabilities,
    Case,
    ChannelStatistics,
    Condition,
    DataFault,
    DiscriminatorAugment,
    FloatArray,
    Generator,
    GeneratorOptions,
    Input,
    LesionContrast,
    Phase,
    Sample,
    Stage,
    TrainingStep,
    UsageFault,
    at_rest,
)
from gansynth.nn import losses
from gansynth_cpggan.boxes import (
    NONE,
    batch_maps,
    boxes_of_each,
    crop,
    crops,
    requested_maps,
    resampled,
    squares,
    within,
)
from gansynth_cpggan.networks import (
    GrowthSchedule,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
)
from gansynth_cpggan.options import CPGGANOptions
from gansynth_cpggan.progressive import faded, fades, half, twice

__all__ = ["CPGGAN", "CPGGANOptions"]

MARGIN = 0.5
"""Margin around a lesion on each side, as a share of its box's side (mode=roi)."""


class CPGGAN(Generator):
    """Progressive GAN: noise and boxes in, an image with lesions in the boxes out."""

    name: ClassVar[str] = "cpggan"
    Options: ClassVar[type[GeneratorOptions]] = CPGGANOptions

    options: CPGGANOptions

    @property
    def capabilities(self) -> Capabilities:
        o, takes = self.options, set[Input]({"boxes"})
        if o.condition == "class":
            takes.add("class")
        if self.lesions:
            takes.add("background")
        against_collapse = "lower rates (--set lr_generator=...)"
        if not o.augment:
            against_collapse += ", or --set augment=[translation,cutout] if cases are few"
        return Capabilities(
            takes=frozenset(takes),
            trains=True,
            range=o.output,
            loop={"batch_size": 16, "ema_half_life": 10_000},
            replays=True,
            remedies={
                "not finite": "Lower the learning rates (--set lr_generator=1e-4)",
                "collapse": against_collapse,
            },
        )

    # -- networks ----------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return a generator and a discriminator that grow together."""
        o, schema = self.options, self.schema
        if not schema.box_classes:
            raise UsageFault(
                "cpggan.source-without-boxes",
                "cpggan: the source's cases have no boxes, expected some. Use "
                "a yolo: data set, or boxes of label maps: --data slices:... --read boxes=yes",
            )
        if o.condition == "class" and not schema.classes:
            raise UsageFault(
                "cpggan.source-without-classes",
                "--set condition=class: the source's cases have no classes, expected some; name "
                "them (gansynth help sources), or use condition=none",
            )
        size = (o.roi_size, o.roi_size) if self.lesions else self.size
        self.growth = GrowthSchedule.of(size, o.width, o.max_width)
        self.edge = self.growth.edges[-1]
        self.intensities = ChannelStatistics(len(schema.channels))
        self.counts = [0] * self.kinds
        self.objective, self.drawing = CPGGANObjective(self), CPGGANSampler(self)
        self.contrast: LesionContrast | None = None
        channels, classes = len(schema.channels), len(schema.box_classes)
        self.painter = ProgressiveGenerator(self.growth, o.latent, self.kinds, channels, classes)
        judge = ProgressiveDiscriminator(self.growth, self.kinds, channels, classes, o.spp)
        return {"generator": self.painter, "discriminator": judge}

    @property
    def kinds(self) -> int:
        """Number of classes that can be requested; 0 without ``condition=class``."""
        return len(self.schema.classes) if self.options.condition == "class" else 0

    @property
    def lesions(self) -> bool:
        """Whether it generates lesions alone and blends them into real slices."""
        return self.options.mode == "roi"

    def stages(self) -> Sequence[Stage]:
        """Return one stage per size: it fades in, then stays; the last one stays to the end."""
        o, edges = self.options, self.growth.edges
        batches: list[int | None] = [*o.batch_sizes] or [None]
        batches = (batches + batches[-1:] * len(edges))[: len(edges)]
        fades = [0] + [o.fade_images] * (len(edges) - 1)
        return [
            Stage((edge, edge), batch, None if edge == self.edge else fade + o.stage_images, fade)
            for edge, batch, fade in zip(edges, batches, fades, strict=True)
        ]

    def channel_axes(self) -> Mapping[str, tuple[int, Sequence[str]]]:
        """Return the weights whose axes are latents, classes, image channels or boxes."""
        images = [f"image:{name}" for name in self.schema.channels]
        boxes = [f"box:{name}" for name in self.schema.box_classes]
        kinds = [f"class:{name}" for name in self.schema.classes[: self.kinds]]
        latents = [f"latent:{i}" for i in range(self.options.latent)]

        def features(count: int, *extra: str) -> tuple[int, list[str]]:
            own = [f"feature:{i}" for i in range(count)]
            return 1, [*own, *extra, *boxes]

        widths = self.growth.widths
        axes: dict[str, tuple[int, Sequence[str]]] = {
            "generator/first.weight": (1, (*latents, *kinds)),
            "generator/begin.weight": features(widths[0]),
            "discriminator/end.weight": features(widths[0], "deviation"),
        }
        if kinds:
            axes["discriminator/class_embedding.weight"] = (0, kinds)
        for i, width in enumerate(widths):
            axes[f"generator/image.{i}.weight"] = axes[f"generator/image.{i}.bias"] = (0, images)
            axes[f"discriminator/image.{i}.weight"] = (1, (*images, *boxes))
            if i:
                axes[f"generator/enter.{i - 1}.weight"] = features(widths[i - 1])
                axes[f"discriminator/refine.{i - 1}.weight"] = features(width)
        return axes

    # -- training ----------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        return self.objective.phases()

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam without a first moment, at the player's learning rate."""
        o = self.options
        rate = o.lr_generator if player == "generator" else o.lr_discriminator
        return self.adam(parameters, rate, (0.0, 0.99))

    def accepts(self, case: Case) -> bool:
        """Accept cases with a list of boxes; with ``mode=roi`` it must not be empty."""
        if case.boxes is None:
            return False
        return not self.lesions or len(case.boxes.labels) > 0

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Fit intensities, classes and contrast; DataFault: a case lacks boxes or class."""
        watched = self._watched(cases)
        if self.options.admit == "contrast":
            self.contrast = LesionContrast.fit(watched, self.schema.box_classes)
        for _ in watched:
            pass
        return {
            "intensities": self.intensities.to_json(),
            "classes": list(self.counts),
            "contrast": None if self.contrast is None else self.contrast.to_json(),
        }

    def _watched(self, cases: Iterable[Case]) -> Iterator[Case]:
        for case in cases:
            if case.boxes is None:
                raise DataFault(
                    "cpggan.case-without-boxes",
                    f"case {case.id!r}: has no list of boxes, expected one, which may be empty; "
                    "leave the case out",
                )
            if self.kinds:
                if case.label_class is None:
                    raise DataFault(
                        "cpggan.case-without-class",
                        f"case {case.id!r}: has no class, expected one for "
                        "condition=class; leave the case out, or use --set condition=none",
                    )
                self.counts[case.label_class] += 1
            if self.options.output == "linear":
                self.intensities.add(case.image)
            yield case

    def load_state(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self.intensities.load_json(state["intensities"])
        self.counts = [int(count) for count in state["classes"]]
        contrast = state["contrast"]
        self.contrast = None if contrast is None else LesionContrast.from_json(contrast)

    def kinds_of(self, batch: Batch) -> Tensor | None:
        """Return the classes of a training batch, int64 (B,); None if unconditional."""
        if not self.kinds:
            return None
        assert batch.classes is not None, "observe() checks that each case has a class"
        return batch.classes

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return the critic's value of real images with their boxes, each in its own group.

        Returns None for a size that training has not reached, and for cases without boxes or class.
        With ``mode=roi`` each case needs a box.
        """
        stage = stage if stage.size is not None else self.stages()[-1]
        batch_level = self.objective.level(stage)
        level, alpha = self.drawing.grown()
        incomplete = batch.box_labels is None or (self.kinds > 0 and batch.classes is None)
        if incomplete or batch_level > level:
            return None
        if self.lesions and not boxes_of_each(batch).all():
            return None
        with at_rest(self):
            return self.objective.realness(batch, stage, alpha if batch_level == level else 1.0)

    # -- sampling ----------------------------------------------------------------------------------

    def drawn(
        self, latents: Tensor, maps: Tensor, level: int, alpha: float | Tensor, kinds: Tensor | None
    ) -> Tensor:
        """Generate images from latents and box maps: standardised units, float32."""
        image: Tensor = self.painter(latents, maps, level, alpha, kinds).float()
        return image.tanh() if self.options.output == "tanh" else image

    @torch.no_grad()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition; its randomness depends on its seed alone.

        Conditions have ``boxes``. Without ``label_class``, classes are as frequent as in training.
        ``mode=roi`` also needs ``background`` and the boxes ``present`` in it.
        """
        return self.drawing.samples(conditions, seeds)

    def reject_reason(self, sample: Sample) -> str:
        """Return why a sample is rejected: no room for a lesion, or low contrast in a box."""
        moved = sample.provenance.get("boxes", {}).get("moved")
        if moved and not any(moved):
            return (
                "no room for a lesion, expected a slice with room where its class lies; add "
                "slices without lesions to the training data"
            )
        if self.contrast is None or sample.boxes is None:
            return ""
        drawn = sample.boxes
        if self.lesions:  # boxes of the real slice come first and are not checked
            first = len(drawn.labels) - len(sample.notes[WINDOWS])
            drawn = Boxes(drawn.coords[first:], drawn.labels[first:])
        return self.contrast.reject_reason(sample.image, drawn)


class CPGGANObjective:
    """Losses: WGAN-GP with drift, of images with their boxes.

    A *pair* is a standardised image and its box maps, (B, C + classes, ...).
    """

    def __init__(self, gan: CPGGAN) -> None:
        self.gan, self.options = gan, gan.options
        self.augment = DiscriminatorAugment(self.options.augment, self.options.augment_p)

    def phases(self) -> Sequence[Phase]:
        """Return the phases: every ``n_critic``-th step the generator's samples serve both."""
        pace = self.options.n_critic
        return (
            Phase("generator", self.generator, pace, pace - 1),
            Phase("discriminator", self.discriminator),
        )

    def generator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the generator's loss: the negative critic value of synthetic pairs."""
        level = self._level(step)
        self.gan.painter.grown.fill_(level - 1 + step.alpha if level else 0.0)
        fake = self._draw(step)
        step.scratch["fake"] = fake.detach()
        return {"value": losses.wgan_generator([self._judge(step, self._changed(step, fake))])}

    def discriminator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the critic's losses; real images with another's boxes count as synthetic."""
        real, fake = self._changed(step, self._real(step)), self._changed(step, self._fake(step))
        share = self.options.mismatch if self._group(step) > 1 else 0.0
        wrong = [self._mismatched(step, real)] if share else []
        # One pass over all: groups of the minibatch deviation do not mix the parts.
        values = self._judge(step, torch.cat((real, fake, *wrong))).chunk(2 + len(wrong))
        distance = losses.wgan_critic([values[0]], [values[1]])
        if wrong:
            distance = torch.lerp(distance, losses.wgan_critic([values[0]], [values[2]]), share)
            chosen = step.rand(1, 1, 1) < share
            fake = torch.where(chosen, wrong[0], fake)
        penalty = losses.gradient_penalty(
            lambda pair: self._judge(step, pair), real, fake, step.rand(1, 1, 1)
        )
        return {
            "distance": distance,
            "penalty": self.options.penalty * penalty,
            "drift": self.options.drift * losses.drift([values[0]]),
        }

    def realness(self, batch: Batch, stage: Stage, alpha: float) -> Tensor:
        """Return the critic's value (B,) of real pairs, each alone; the mean over lesions."""
        gan, step = self.gan, TrainingStep(batch, stage, 0, 0, torch.Generator(batch.image.device))
        step.alpha = alpha
        level, kinds = self._level(step), gan.kinds_of(batch)

        def value(pair: Tensor) -> Tensor:
            scaled = self._at_level(step, pair)
            scores: Tensor = gan.nets["discriminator"](scaled, level, alpha, 1, kinds)
            return scores.float()[:, 0]

        if not gan.lesions:
            return value(self._whole(batch))
        count = boxes_of_each(batch)
        total = torch.zeros(len(count), device=count.device)
        for number in range(int(count.max())):
            # A case of fewer boxes shows its last one again, which does not count.
            chosen = torch.minimum(torch.full_like(count, number), count - 1)
            total += value(self._lesion(batch, chosen)) * (number < count)
        return total / count

    # -- pairs -------------------------------------------------------------------------------------

    def _judge(self, step: TrainingStep, pair: Tensor) -> Tensor:
        """Return values (B, 1) of pairs, or of several concatenated batches."""
        kinds = self.gan.kinds_of(step.batch)
        if kinds is not None:
            kinds = kinds.repeat(len(pair) // len(kinds))
        value: Tensor = self.gan.nets["discriminator"](
            pair, self._level(step), step.alpha, self._group(step), kinds
        )
        return value

    def level(self, stage: Stage) -> int:
        """Return the level of a stage's resolution."""
        assert stage.size is not None, "each stage has a size"
        return self.gan.growth.edges.index(stage.size[0])

    def _level(self, step: TrainingStep) -> int:
        return self.level(step.stage)

    def _group(self, step: TrainingStep) -> int:
        """Return the size of a group: ``minibatch``, or a divisor that fits the batch."""
        return math.gcd(self.options.minibatch, len(step.batch.image))

    def _mismatched(self, step: TrainingStep, real: Tensor) -> Tensor:
        """Return real images with the boxes of the next in their group (Reed et al. 2016)."""
        image, maps = self._split(real)
        groups = maps.reshape(-1, self._group(step), *maps.shape[1:])
        others = groups.roll(1, 1).flatten(0, 1)
        return torch.cat((image, others), 1)

    def _changed(self, step: TrainingStep, pair: Tensor) -> Tensor:
        """Return augmented pairs; intensities change in the image alone."""
        if not self.options.augment:
            return pair
        return torch.cat(self.augment(step, *self._split(pair)), 1)

    def _split(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        channels = len(self.gan.schema.channels)
        return pair[:, :channels], pair[:, channels:]

    def _draw(self, step: TrainingStep) -> Tensor:
        maps = self._split(self._real(step))[1]
        latents = step.randn(self.options.latent)
        kinds = self.gan.kinds_of(step.batch)
        image = self.gan.drawn(latents, maps, self._level(step), step.alpha, kinds)
        return torch.cat((image, maps), 1)

    def _fake(self, step: TrainingStep) -> Tensor:
        """Return this step's synthetic pairs; generate them if the generator has not."""
        if "fake" not in step.scratch:
            with torch.no_grad():
                step.scratch["fake"] = self._draw(step)
        fake: Tensor = step.scratch["fake"]
        return fake

    def _real(self, step: TrainingStep) -> Tensor:
        """Return real pairs at the stage's size, flipped, and blurred while it fades in."""
        if "real" not in step.scratch:
            step.scratch["real"] = self._prepared(step)
        real: Tensor = step.scratch["real"]
        return real

    @torch.no_grad()
    def _prepared(self, step: TrainingStep) -> Tensor:
        batch, gan = step.batch, self.gan
        if gan.lesions:
            classes = len(gan.schema.box_classes)
            pair = crops(step, self._image(batch), classes, gan.edge, MARGIN)
        else:
            pair = self._whole(batch)
        return self._at_level(step, self._flipped(step, pair))

    def _whole(self, batch: Batch) -> Tensor:
        """Return whole images with the maps of all their boxes."""
        maps = batch_maps(batch, len(self.gan.schema.box_classes))
        return torch.cat((self._image(batch), maps), 1)

    def _lesion(self, batch: Batch, chosen: Tensor) -> Tensor:
        """Return the squares around chosen boxes (B,)."""
        classes, edge = len(self.gan.schema.box_classes), self.gan.edge
        return crop(batch, chosen, self._image(batch), classes, edge, MARGIN)

    def _image(self, batch: Batch) -> Tensor:
        """Return images in standardised units; UsageFault: not whole images."""
        if tuple(batch.image.shape[2:]) != self.gan.size:
            raise UsageFault(
                "cpggan.patch-not-whole-image",
                f"--set patch={list(batch.image.shape[2:])}: cpggan needs whole images, "
                f"expected {list(self.gan.size)} voxels; leave patch out",
            )
        return self.gan.intensities.standardised(batch.image)

    def _at_level(self, step: TrainingStep, pair: Tensor) -> Tensor:
        """Return full-size pairs at the stage's size, blurred while it fades in."""
        gan = self.gan
        edge = gan.growth.edges[self._level(step)]
        # Area means: the maps equal those of boxes rasterised at the stage's size.
        pair = F.avg_pool2d(pair, gan.edge // edge) if edge < gan.edge else pair
        if fades(step.alpha) and edge > gan.growth.edges[0]:
            image, maps = self._split(pair)
            pair = torch.cat((faded(twice(half(image)), image, step.alpha), maps), 1)
        return pair

    def _flipped(self, step: TrainingStep, pair: Tensor) -> Tensor:
        axes = {"none": (), "h": (-1,), "v": (-2,), "hv": (-1, -2)}[self.options.flips]
        for axis in axes:
            pair = torch.where(step.rand(1, 1, 1) < 0.5, pair.flip(axis), pair)
        return pair


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

    def __init__(self, gan: CPGGAN) -> None:
        self.gan = gan

    def samples(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Return one sample per condition."""
        if self.gan.lesions:
            plans = [self._plan(c, seed) for c, seed in zip(conditions, seeds, strict=True)]
            return [self._blended(plan) for plan in plans]
        orders = []
        for condition, seed in zip(conditions, seeds, strict=True):
            rng = torch.Generator().manual_seed(seed)
            latent, kind = self._latent(rng), self._kind(condition, rng)
            orders.append(ImageRequest(latent, condition.boxes, kind))
        made = zip(self._images(orders), conditions, orders, strict=True)
        return [self._whole(image, condition, order.kind) for image, condition, order in made]

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
                "cpggan.condition-class-unknown",
                f"condition: class {kind}, expected 0 to {gan.kinds - 1} "
                f"({', '.join(gan.schema.classes)})",
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
            with gan.autocast(device):
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
        tight, shares = LesionContrast.tighten(image, boxes)
        return tight, {"boxes_asked": boxes.coords.tolist(), "tightened_to": shares}

    # -- lesions in real slices --------------------------------------------------------------------

    def _plan(self, condition: Condition, seed: int) -> LesionPlan:
        """Return the boxes, latents and class of the lesions of a real slice."""
        if condition.background is None:
            raise UsageFault(
                "cpggan.condition-without-background",
                "condition: has no background, expected the slice that lesions are blended into; "
                "use gansynth sample, or fit with --set mode=image",
            )
        present = NONE if condition.present is None else condition.present
        put = NONE if condition.boxes is None else condition.boxes
        rng = torch.Generator().manual_seed(seed)
        latents = [self._latent(rng) for _ in put.labels]
        kind = self._kind(condition, rng)
        return LesionPlan(condition, condition.background, present, put, latents, kind)

    def _blended(self, plan: LesionPlan) -> Sample:
        image, put = plan.image.copy(), plan.put
        windows, boxes = [], _joined(plan.present, put)
        lesions = self._images([self._lesion(plan, i, z) for i, z in enumerate(plan.latents)])
        for lesion, box in zip(lesions, put.coords, strict=True):
            region = bounded(plan.condition.body, box, boxes.coords, image.shape[1:])
            image, window = blend(image, lesion, box, MARGIN, region)
            windows.append(list(window))
        put, tightened = self._tightened(image, put)
        boxes = _joined(plan.present, put)
        notes = {WINDOWS: windows, "pixels": f"of a real case, but for {WINDOWS}"}
        notes.update(tightened)
        return Sample(image, None, boxes, notes=notes, label_class=plan.kind)

    def _lesion(self, plan: LesionPlan, number: int, latent: Tensor) -> ImageRequest:
        """Return the order for one box: the square around it."""
        box = torch.from_numpy(plan.put.coords[number : number + 1])
        around = squares(box, MARGIN)
        coords = within(box[None], around, self.gan.edge)[0].numpy()
        return ImageRequest(latent, Boxes(coords, plan.put.labels[number : number + 1]), plan.kind)


def _joined(first: Boxes, second: Boxes) -> Boxes:
    return Boxes(
        np.concatenate((first.coords, second.coords)), np.concatenate((first.labels, second.labels))
    )


def of_seed(rng: torch.Generator, numbers: int) -> Tensor:
    """Return the next latent (numbers,), made on the CPU: equal for a seed on every device."""
    return torch.randn(numbers, generator=rng)


SOFT = 3  # voxels over which a lesion fades out towards protected voxels

Window = tuple[int, int, int, int]
Mask = npt.NDArray[np.bool_]


def _square(box: npt.NDArray[np.float64], margin: float) -> npt.NDArray[np.float64]:
    return squares(torch.from_numpy(box)[None], margin)[0].numpy()


def bounded(
    body: Mask | None,
    box: npt.NDArray[np.floating],
    boxes: FloatArray,
    shape: tuple[int, ...],
) -> Mask:
    """Return where a lesion may change a slice, bool (H, W): in the body, in no other box."""
    free = np.ones(shape, bool) if body is None else body.copy()
    for neighbour in boxes[(boxes != box).any(1)]:
        low, high = np.floor(neighbour[:2]).astype(int), np.ceil(neighbour[2:]).astype(int)
        free[low[0] : high[0], low[1] : high[1]] = False
    return free


def blend(
    image: FloatArray,
    lesion: FloatArray,
    box: npt.NDArray[np.floating],
    margin: float,
    free: Mask,
) -> tuple[FloatArray, Window]:
    """Blend a lesion (C, edge, edge: the square around its box) into a slice (C, H, W).

    Inside the box only the lesion is visible. It fades along a cosine up to the square's edge, and
    within ``SOFT`` voxels of those that are not free. The lesion's mean is matched in that rim.
    Returns a copy, and the changed window ``ymin, xmin, ymax, xmax``; voxels beyond are unchanged.
    """
    at: npt.NDArray[np.float64] = np.asarray(box, np.float64)
    around = _square(at, margin)
    low = np.maximum(np.floor(around[:2]).astype(int), 0)
    high = np.minimum(np.ceil(around[2:]).astype(int), image.shape[1:])
    edge = lesion.shape[-1]
    window = (np.concatenate((low, high)) - np.tile(around[:2], 2)) * edge / np.ptp(around[::2])
    height, width = (high - low).tolist()
    drawn = resampled(
        torch.from_numpy(lesion)[None], torch.from_numpy(window[None]).float(), height, width
    )[0].numpy()
    rows, columns = slice(low[0], high[0]), slice(low[1], high[1])
    under = image[:, rows, columns]
    share = _share(at, around, low, high) * _fading(free)[rows, columns]
    rim = share * (1 - share)
    if rim.sum() > 0:
        drawn = drawn + ((under - drawn) * rim).sum((1, 2), keepdims=True) / rim.sum()
    mixed = under + share * (drawn - under)
    out = image.copy()
    out[:, rows, columns] = np.where(share > 0, mixed, under)
    return out, (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _share(
    box: npt.NDArray[np.float64],
    around: npt.NDArray[np.float64],
    low: npt.NDArray[np.int_],
    high: npt.NDArray[np.int_],
) -> FloatArray:
    """Return lesion weights, float32 (rows, columns): 1 in the box, 0 at the square's edge."""
    past = []
    for axis in (0, 1):
        at = np.arange(low[axis], high[axis]) + 0.5
        width = max(box[axis] - around[axis], 1e-6)
        beyond = np.maximum(box[axis] - at, at - box[axis + 2]) / width
        past.append(np.clip(beyond, 0, 1))
    far = np.maximum(past[0][:, None], past[1][None])
    return np.asarray((1 + np.cos(np.pi * far)) / 2, np.float32)


def _fading(free: Mask) -> FloatArray:
    """Return weights, float32 (H, W): 0 where not free, 1 more than ``SOFT`` voxels away."""
    from scipy.ndimage import distance_transform_edt

    if free.all():
        return np.ones(free.shape, np.float32)
    near = np.clip(distance_transform_edt(free) / (SOFT + 1), 0, 1)
    return np.asarray((1 - np.cos(np.pi * near)) / 2, np.float32)
