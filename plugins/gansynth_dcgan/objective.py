"""Losses and update schedule of ``dcgan``.

Goodfellow et al. 2014 as Radford et al. 2016 train it (``gan``), Arjovsky et al. 2017 (``wgan``),
Gulrajani et al. 2017 (``wgan-gp``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from gansynth.core.generator import Batch, Phase, Stage, TrainingStep
from gansynth.core.schema import Schema
from gansynth.data.standardise import ChannelStatistics
from gansynth.nn import losses
from gansynth.nn.diff_augment import DiscriminatorAugment
from gansynth.runtime.errors import UsageFault
from gansynth_dcgan.latents import of_step
from gansynth_dcgan.masks import LabelChannels
from gansynth_dcgan.options import DCGANOptions, Norm
from gansynth_dcgan.sample_kinds import SampleKinds


class DCGANNetworks(Protocol):
    """The part of ``DCGAN`` that the losses use."""

    schema: Schema
    size: tuple[int, ...]
    options: DCGANOptions
    nets: dict[str, nn.Module]
    masks: LabelChannels
    asked: SampleKinds
    intensities: ChannelStatistics

    @property
    def d_norm(self) -> Norm:
        """Normalisation of the discriminator."""

    def drawn(self, latents: Tensor, kinds: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return images and probabilities of labels."""


class DCGANObjective:
    """Losses of both players, on standardised images followed by label channels."""

    def __init__(self, gan: DCGANNetworks) -> None:
        self.gan, self.options = gan, gan.options
        self.loss = losses.ADVERSARIAL[
            "nonsaturating" if self.options.objective == "gan" else "wgan"
        ]
        self.augment = DiscriminatorAugment(
            self.options.augment, self.options.augment_p, midpoint=self.loss.midpoint or 0.0
        )

    def phases(self) -> Sequence[Phase]:
        """Return the phases: every ``n_critic``-th step the generator's samples serve both."""
        pace = self.options.n_critic or self.options.usual.n_critic
        clip = self._clip if self.options.objective == "wgan" else None
        return (
            Phase("generator", self.generator, pace, pace - 1),
            Phase("discriminator", self.discriminator, after=clip),
        )

    def generator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the generator's loss."""
        fake = self._draw(step)
        step.scratch["fake"] = fake.detach()
        return {"adversarial": self.loss.generator([self._judge(step, self._changed(step, fake))])}

    def discriminator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the discriminator's losses."""
        real, fake = self._changed(step, self._real(step)), self._changed(step, self._fake(step))
        if self.gan.d_norm == "batch":
            of_real, of_fake = self._judge(step, real), self._judge(step, fake)
        else:
            # One pass over both: twice the batch costs less than two passes.
            of_real, of_fake = self._judge(step, torch.cat((real, fake))).chunk(2)
        self.augment.observe([of_real])
        terms = {"adversarial": self.loss.discriminator([of_real], [of_fake])}
        if self.options.objective == "wgan-gp":
            share = step.rand(*[1] * (real.ndim - 1))
            penalty = losses.gradient_penalty(lambda x: self._judge(step, x), real, fake, share)
            terms["penalty"] = self.options.penalty * penalty
        return terms

    def realness(self, batch: Batch, stage: Stage) -> Tensor:
        """Return values of real cases without augmentation, float32 (B,); higher is more real."""
        step = TrainingStep(batch, stage, 0, 0, torch.Generator(batch.image.device))
        return self._judge(step, self._real(step)).float()[:, 0]

    def _clip(self) -> None:
        losses.clip_weights(self.gan.nets["discriminator"], self.options.clip)

    # -- samples -----------------------------------------------------------------------------------

    def _judge(self, step: TrainingStep, samples: Tensor) -> Tensor:
        """Return values (B, 1) of samples, or of several concatenated batches."""
        kinds = self.gan.asked.of_batch(step.batch)
        if kinds is not None:
            kinds = kinds.repeat(len(samples) // len(kinds))
        values: Tensor = self.gan.nets["discriminator"](samples, kinds)
        return values

    def _changed(self, step: TrainingStep, samples: Tensor) -> Tensor:
        """Return augmented samples; intensities change in the image alone."""
        if not self.options.augment:
            return samples
        channels = len(self.gan.schema.channels)
        image, mask = samples[:, :channels], samples[:, channels:]
        if not mask.shape[1]:
            return self.augment(step, image, None)[0]
        return torch.cat(self.augment(step, image, mask), 1)

    def _draw(self, step: TrainingStep) -> Tensor:
        latents = of_step(step, self.options.latent_prior, self.options.latent)
        return self._seen(*self.gan.drawn(latents, self.gan.asked.of_batch(step.batch)))

    def _fake(self, step: TrainingStep) -> Tensor:
        """Return this step's samples; generate them if the generator has not."""
        if "fake" not in step.scratch:
            with torch.no_grad():
                step.scratch["fake"] = self._draw(step)
        fake: Tensor = step.scratch["fake"]
        return fake

    def _real(self, step: TrainingStep) -> Tensor:
        batch = step.batch
        if tuple(batch.image.shape[2:]) != self.gan.size:
            raise UsageFault(
                f"--set patch={list(batch.image.shape[2:])}: dcgan generates whole images, "
                f"expected {list(self.gan.size)} voxels; leave patch out"
            )
        image = self.gan.intensities.standardised(batch.image)
        if not len(self.gan.masks):
            return image
        assert batch.labels is not None, "observe() checks that each case has labels"
        return self._seen(image, self.gan.masks.of_labels(batch.labels))

    def _seen(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return image if mask is None else torch.cat((image, self.gan.masks.shown(mask)), 1)
