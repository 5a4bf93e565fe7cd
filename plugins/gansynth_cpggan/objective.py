"""Losses of ``cpggan``: WGAN-GP with drift, of images with their boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth.core.generator import Batch, Phase, Stage, TrainingStep
from gansynth.nn import losses
from gansynth.nn.diff_augment import DiscriminatorAugment
from gansynth.nn.networks.progressive import half, twice
from gansynth.runtime.errors import UsageFault
from gansynth_cpggan.boxes import batch_maps, boxes_of_each, crop, crops
from gansynth_cpggan.networks import CPGGANNetworks


class CPGGANObjective:
    """Losses; a *pair* is a standardised image and its box maps, (B, C + classes, ...)."""

    def __init__(self, gan: CPGGANNetworks) -> None:
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
        level, kinds = self._level(step), gan.told(batch)

        def value(pair: Tensor) -> Tensor:
            scaled = self._at_level(step, pair)
            scores: Tensor = gan.nets["discriminator"](scaled, level, alpha, 1, kinds)
            return scores.float()[:, 0]

        if not gan.lesions:
            return value(self._whole(batch))
        count = boxes_of_each(batch)
        values = [
            value(self._lesion(batch, torch.minimum(torch.full_like(count, i), count - 1)))
            for i in range(int(count.max()))
        ]
        return sum(v * (i < count) for i, v in enumerate(values)) / count

    # -- pairs -------------------------------------------------------------------------------------

    def _judge(self, step: TrainingStep, pair: Tensor) -> Tensor:
        """Return values (B, 1) of pairs, or of several concatenated batches."""
        kinds = self.gan.told(step.batch)
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
        kinds = self.gan.told(step.batch)
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
            classes, margin = len(gan.schema.box_classes), self.options.roi_margin
            pair = crops(step, self._image(batch), classes, gan.edge, margin)
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
        return crop(batch, chosen, self._image(batch), classes, edge, self.options.roi_margin)

    def _image(self, batch: Batch) -> Tensor:
        """Return images in standardised units; UsageFault: not whole images."""
        if tuple(batch.image.shape[2:]) != self.gan.size:
            raise UsageFault(
                f"--set patch={list(batch.image.shape[2:])}: cpggan needs whole images, "
                f"expected {list(self.gan.size)} voxels; leave patch out"
            )
        return self.gan.standardised(batch.image)

    def _at_level(self, step: TrainingStep, pair: Tensor) -> Tensor:
        """Return full-size pairs at the stage's size, blurred while it fades in."""
        gan = self.gan
        edge = gan.growth.edges[self._level(step)]
        # Area means: the maps equal those of boxes rasterised at the stage's size.
        pair = F.avg_pool2d(pair, gan.edge // edge) if edge < gan.edge else pair
        if step.alpha < 1 and edge > gan.growth.edges[0]:
            image, maps = self._split(pair)
            pair = torch.cat((torch.lerp(twice(half(image)), image, step.alpha), maps), 1)
        return pair

    def _flipped(self, step: TrainingStep, pair: Tensor) -> Tensor:
        axes = {"none": (), "h": (-1,), "v": (-2,), "hv": (-1, -2)}[self.options.flips]
        for axis in axes:
            pair = torch.where(step.rand(1, 1, 1) < 0.5, pair.flip(axis), pair)
        return pair
