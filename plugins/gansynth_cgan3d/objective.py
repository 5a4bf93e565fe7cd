"""Losses and update schedule of ``cgan3d``.

- Isola et al. 2017: adversarial term and L1; Wang et al. 2018: feature matching.
- Sun et al. 2020 (MM-GAN): a pool of earlier image-label pairs.
- Doncenco 2022: alternating updates, perceptual loss; Iizuka et al. 2017: a local discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gansynth.core.generator import Batch, Phase, Stage, TrainingStep
from gansynth.core.schema import Schema
from gansynth.nn import losses
from gansynth.nn.diff_augment import DiscriminatorAugment
from gansynth.nn.image_pool import ImagePool
from gansynth.nn.networks import UNetGenerator
from gansynth.nn.networks.blocks import one_hot
from gansynth.nn.networks.perceptor import Perceptor
from gansynth_cgan3d.conditions import ConditionEncoder, ConditionInputs
from gansynth_cgan3d.discriminators import Discriminator, Pair
from gansynth_cgan3d.lesion import LesionInserter, LesionInsertion
from gansynth_cgan3d.options import CGANOptions


class CGANNetworks(Protocol):
    """The part of ``CGAN3D`` that the losses use."""

    schema: Schema
    options: CGANOptions
    nets: dict[str, nn.Module]
    conditions: ConditionEncoder
    inserting: LesionInserter | None

    @property
    def net(self) -> UNetGenerator:
        """The generator's network."""

    @property
    def judges(self) -> list[Discriminator]:
        """The discriminators, the global one first."""

    def finished(
        self, drawn: Tensor, labels: Tensor | None, insertion: LesionInsertion | None = None
    ) -> Tensor:
        """Return the network's output as the discriminator and the user see it."""


class CGANObjective:
    """Losses of the generator, the discriminator and the perceptual segmenter.

    A *pair* is an image (or label probabilities) and its condition. With ``fit_edits`` synthetic
    pairs have other conditions. Both images are then compared where the conditions are equal.
    """

    def __init__(self, gan: CGANNetworks) -> None:
        self.gan, self.options = gan, gan.options
        self.loss = losses.ADVERSARIAL[self.options.loss]
        self.pool = ImagePool(self.options.pool)
        self.augment = DiscriminatorAugment(
            self.options.augment, self.options.augment_p, midpoint=self.loss.midpoint or 0.0
        )

    def phases(self) -> Sequence[Phase]:
        """Return the phases, generator first: the discriminator reuses its image."""
        o = self.options
        turns = 2 if o.alternate else 1
        # The generator is updated after the discriminator steps that it waits for.
        pace = turns * o.n_critic
        phases = [
            Phase("generator", self.generator, pace, pace - 1),
            Phase("discriminator", self.discriminator, turns, after=self._clip),
        ]
        if o.r1:
            phases.append(Phase("discriminator", self.r1, o.r1_every))
        if o.perceptual:
            phases.append(Phase("perceptor", self.perceptor))
        return phases

    def chance_losses(self) -> dict[str, float]:
        """Return the adversarial losses of discriminators that guess, by name of the loss."""
        if self.loss.chance is None:
            return {}
        names = [f"discriminator/{judge.prefix}adversarial" for judge in self.gan.judges]
        return dict.fromkeys(names, self.loss.chance)

    # -- the generator -----------------------------------------------------------------------------

    def generator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the generator's losses: adversarial, L1, feature matching, Dice, perceptual."""
        o = self.options
        fake, real = self._draw(step), self._real(step)
        step.scratch["fake"] = fake.detach()
        terms: dict[str, Tensor] = {}
        with parametrize.cached():  # both passes of a discriminator have the same weights
            for judge in self.gan.judges:
                terms.update(self._fooled(step, judge, fake, real))
        if o.dice and not self.gan.conditions.drawn:
            drawn = [i for i, value in enumerate(self.gan.schema.label_values) if value > 0]
            pairs = zip(fake[:, None, drawn].float(), real[:, None, drawn], strict=True)
            # Case by case, so that a batch that is shared out comes to the same.
            terms["dice"] = o.dice * torch.stack([losses.soft_dice(*p) for p in pairs]).mean()
        if o.perceptual:
            features_of = cast(Perceptor, self.gan.nets["perceptor"]).features
            alike = self._alike(step)
            perceived = losses.perceptual(features_of, fake, real, mask=alike)
            terms["perceptual"] = o.perceptual * perceived
        return terms

    def _fooled(
        self, step: TrainingStep, judge: Discriminator, fake: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        o = self.options
        image, condition = judge.view((fake, self._asked(step)))
        before = step.rng.get_state()
        logits, features = judge(*self.augment(step, image, condition))
        terms = {"adversarial": judge.weight * o.adversarial * self.loss.generator(logits)}
        if o.l1 and not judge.prefix:  # counted once, with the global discriminator
            terms["l1"] = o.l1 * self._l1(step, fake, real)
        if o.feature_matching:
            if self.options.augment:
                # The real pair gets the same augmentation, or features would not correspond.
                step.rng.set_state(before)
            with torch.no_grad():
                _, real_features = judge(
                    *self.augment(step, *judge.view((real, self._condition(step))))
                )
            matching = losses.feature_matching(real_features, features)
            terms["feature_matching"] = judge.weight * o.feature_matching * matching
        return {judge.prefix + name: term for name, term in terms.items()}

    def _draw(self, step: TrainingStep) -> Tensor:
        """Generate samples; voxels outside the body and padding get their known values."""
        net, batch, condition = self.gan.net, step.batch, self._channels(step, synthetic=True)
        latents = [step.randn(*shape) for shape in net.latent_shapes(condition.shape[2:])]
        insertion = self._told(step).insertion
        labels = batch.labels if batch.asked is None else batch.asked
        fake = self.gan.finished(net(condition, latents), labels, insertion)
        fake = self._standardised(step, fake)
        if batch.padding is not None:
            fake = torch.where(batch.padding[:, None], self._real(step), fake)
        return fake

    def _l1(self, step: TrainingStep, fake: Tensor, real: Tensor) -> Tensor:
        alike = self._alike(step)
        if self.options.l1_mask == "foreground":
            assert step.batch.labels is not None
            inside = step.batch.labels[:, None] > 0
            return losses.masked_l1(fake, real, inside if alike is None else inside & alike)
        if alike is not None:
            return losses.masked_l1(fake, real, alike, lowpass=self.options.l1_lowpass)
        if self.options.l1_mask == "hole":
            insertion = self._told(step).insertion
            assert insertion is not None, "options guarantee insert=lesion"
            lowpass = self.options.l1_lowpass
            return losses.masked_l1(fake, real, insertion.hole, lowpass=lowpass)
        drawn = self.gan.conditions.drawn
        return losses.l1(fake, real, lowpass=self.options.l1_lowpass if drawn else 1)

    # -- the discriminators ------------------------------------------------------------------------

    def discriminator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the losses of all discriminators."""
        fake, fake_condition = self._fake(step)
        fake, fake_condition = self.pool.query(step, fake, fake_condition)
        terms: dict[str, Tensor] = {}
        for judge in self.gan.judges:
            real = judge.view((self._real(step), self._condition(step)))
            judge_terms = self._told_apart(step, judge, real, judge.view((fake, fake_condition)))
            terms.update({judge.prefix + name: term for name, term in judge_terms.items()})
        return terms

    def _told_apart(
        self, step: TrainingStep, judge: Discriminator, of_real: Pair, of_fake: Pair
    ) -> dict[str, Tensor]:
        (real, condition), (fake, fake_condition) = of_real, of_fake
        real, condition = self.augment(step, real, condition)
        fake, fake_condition = self.augment(step, fake, fake_condition)
        if self.options.d_norm == "batch":
            reals, fakes = judge(real, condition)[0], judge(fake, fake_condition)[0]
        else:
            # One pass over real and synthetic pairs: twice the batch costs less than two passes.
            logits, _ = judge(torch.cat((real, fake)), torch.cat((condition, fake_condition)))
            halves = [head.float().chunk(2) for head in logits]
            reals, fakes = [h[0] for h in halves], [h[1] for h in halves]
        if not judge.prefix:
            self.augment.observe(reals)
        terms = {"adversarial": self.loss.discriminator(reals, fakes)}
        if self.options.gp:
            penalty = self._penalty(step, judge, real, condition, fake, fake_condition)
            terms["gp"] = self.options.gp * penalty
        return terms

    def _fake(self, step: TrainingStep) -> tuple[Tensor, Tensor]:
        condition = self._asked(step)
        if "fake" in step.scratch:
            return step.scratch["fake"], condition
        with torch.no_grad():
            return self._draw(step), condition

    def _penalty(
        self,
        step: TrainingStep,
        judge: Discriminator,
        real: Tensor,
        condition: Tensor,
        fake: Tensor,
        fake_condition: Tensor,
    ) -> Tensor:
        share = step.rand(*[1] * (real.ndim - 1))
        between = torch.lerp(fake_condition.float(), condition.float(), share)
        return losses.gradient_penalty(lambda image: judge(image, between)[0], real, fake, share)

    def r1(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return R1, weighted for the steps in between (lazy, Karras et al. 2020)."""
        weight, terms = self.options.r1 * self.options.r1_every, dict[str, Tensor]()
        for judge in self.gan.judges:
            image, condition = judge.view((self._real(step), self._condition(step)))
            images = image.detach().requires_grad_()
            with torch.autocast(images.device.type, enabled=False):
                logits, _ = judge(images, condition)
                terms[f"{judge.prefix}r1"] = weight * losses.r1(images, logits)
        return terms

    def realness(self, batch: Batch, stage: Stage) -> Tensor:
        """Return mean logits of real pairs over patches, heads, discriminators: float32 (B,)."""
        step = TrainingStep(batch, stage, 0, 0, torch.Generator(batch.image.device))
        conditioning, inserting = self.gan.conditions.of_batch(batch), self.gan.inserting
        if inserting is not None:
            conditioning = replace(conditioning, insertion=inserting.of_real(batch))
        step.scratch["told"] = conditioning
        pair = self._real(step), self._condition(step)
        heads = [h for judge in self.gan.judges for h in judge(*judge.view(pair))[0]]
        return torch.stack([head.float().flatten(1).mean(1) for head in heads]).mean(0)

    def _clip(self) -> None:
        for judge in self.gan.judges if self.options.clip_weights else ():
            losses.clip_weights(judge.net, self.options.clip_weights)

    # -- the perceptual segmenter ------------------------------------------------------------------

    def perceptor(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the cross-entropy of the segmenter on real images."""
        assert step.batch.labels is not None
        target = one_hot(step.batch.labels, self.gan.schema.label_values).argmax(1)
        logits = self.gan.nets["perceptor"](self._real(step))
        return {"cross_entropy": F.cross_entropy(logits.float(), target)}

    # -- pairs -------------------------------------------------------------------------------------

    def _told(self, step: TrainingStep) -> ConditionInputs:
        if "told" not in step.scratch:
            conditioning, inserting = self.gan.conditions.of_batch(step.batch), self.gan.inserting
            if inserting is not None:
                with torch.no_grad(), torch.autocast(step.batch.image.device.type, enabled=False):
                    conditioning = replace(conditioning, insertion=inserting.of_step(step))
            step.scratch["told"] = conditioning
        result: ConditionInputs = step.scratch["told"]
        return result

    def _channels(self, step: TrainingStep, *, synthetic: bool = False) -> Tensor:
        """Return condition channels of the step's cases (B, K, ...), made once per step."""
        conditions, edited = self.gan.conditions, synthetic and step.batch.asked is not None
        key = "asked" if edited else "condition"
        if key not in step.scratch:
            conditioning = conditions.asked_of_batch(step.batch) if edited else self._told(step)
            step.scratch[key] = conditions.channels(conditioning)
        channels: Tensor = step.scratch[key]
        return channels

    def _condition(self, step: TrainingStep) -> Tensor:
        return self._channels(step)[:, : len(self.gan.conditions.judged)]

    def _asked(self, step: TrainingStep) -> Tensor:
        return self._channels(step, synthetic=True)[:, : len(self.gan.conditions.judged)]

    def _alike(self, step: TrainingStep) -> Tensor | None:
        """Return where samples and real images have equal conditions, bool (B, 1, ...)."""
        if step.batch.asked is None:
            return None
        return (self._condition(step) == self._asked(step)).all(1, keepdim=True)

    def _real(self, step: TrainingStep) -> Tensor:
        drawn = self.gan.conditions.drawn
        if drawn:
            image = step.batch.image
            image = image if len(drawn) == image.shape[1] else image[:, drawn]
            return self._standardised(step, image)
        assert step.batch.labels is not None
        return one_hot(step.batch.labels, self.gan.schema.label_values)

    def _standardised(self, step: TrainingStep, image: Tensor) -> Tensor:
        if not self.options.standardise:
            return image
        if "units" not in step.scratch:
            conditions, insertion = self.gan.conditions, self._told(step).insertion
            units = conditions.units(insertion, image)
            assert units is not None, "standardise is on"
            step.scratch["units"] = units.of(conditions.drawn)
        standardised: Tensor = step.scratch["units"].standardised(image)
        return standardised
