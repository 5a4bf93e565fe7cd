"""What the players of ``cgan3d`` minimise, and when.

Isola et al. 2017 (adversarial term and L1), Wang et al. 2018 (feature matching), Sun et al. 2020
(MM-GAN: a pool of earlier image-label pairs), Doncenco 2022 (turns in alternate iterations; a
perceptual loss asked for).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gansynth import losses
from gansynth.augment import DiscriminatorAugment
from gansynth.generator import Phase, Step
from gansynth.networks.blocks import one_hot
from gansynth.networks.perceptor import Perceptor
from gansynth.pool import ImagePool

if TYPE_CHECKING:
    from gansynth_cgan3d.model import CGAN3D


class Objective:
    """Losses of the generator, the discriminator and the perceptual segmenter.

    A *pair* is what is drawn (an image, or the probabilities of labels) and its condition.

    Args:
        gan: whose networks play.
    """

    def __init__(self, gan: CGAN3D) -> None:
        self.gan, self.options = gan, gan.options
        self.loss = losses.ADVERSARIAL[self.options.loss]
        self.pool = ImagePool(self.options.pool)
        self.augment = DiscriminatorAugment(
            self.options.augment, self.options.augment_p, midpoint=self.loss.midpoint or 0.0
        )

    def phases(self) -> Sequence[Phase]:
        """Generator first: its image serves the discriminator's step as well, drawn once."""
        o = self.options
        turns = 2 if o.alternate else 1
        # The generator's turn comes last, after as many of the discriminator's as it waits for.
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

    # -- the generator -----------------------------------------------------------------------------

    def generator(self, step: Step) -> Mapping[str, Tensor]:
        """Fool the discriminator, and keep near the real target."""
        o = self.options
        condition = self._condition(step)
        fake, real = self._draw(step, condition), self._real(step)
        step.scratch["fake"] = fake.detach()
        before = step.rng.get_state()
        logits, features = self._judge(*self.augment(step, fake, condition))
        terms = {"adversarial": o.adversarial * self.loss.generator(logits)}
        if o.l1:
            terms["l1"] = o.l1 * self._l1(step, fake, real)
        if o.feature_matching:
            if self.options.augment:
                # The real pair goes through the same changes, or features would not correspond.
                step.rng.set_state(before)
            with torch.no_grad():
                _, wanted = self._judge(*self.augment(step, real, condition))
            terms["feature_matching"] = o.feature_matching * losses.feature_matching(
                wanted, features
            )
        if o.perceptual:
            features_of = cast(Perceptor, self.gan.nets["perceptor"]).features
            terms["perceptual"] = o.perceptual * losses.perceptual(features_of, fake, real)
        return terms

    def _draw(self, step: Step, condition: Tensor) -> Tensor:
        """Draw from a condition, with what is known filled in: outside the body, and padding."""
        net, batch = self.gan.net, step.batch
        latents = [step.randn(*shape) for shape in net.latent_shapes(condition.shape[2:])]
        fake = self.gan.finished(net(condition, latents), batch.labels)
        if batch.padding is not None:
            fake = torch.where(batch.padding[:, None], self._real(step), fake)
        return fake

    def _l1(self, step: Step, fake: Tensor, real: Tensor) -> Tensor:
        if self.options.l1_mask == "foreground":
            assert step.batch.labels is not None
            return losses.masked_l1(fake, real, step.batch.labels[:, None] > 0)
        drawn = self.gan.conditions.drawn
        return losses.l1(fake, real, lowpass=self.options.l1_lowpass if drawn else 1)

    # -- the discriminator -------------------------------------------------------------------------

    def discriminator(self, step: Step) -> Mapping[str, Tensor]:
        """Tell real pairs from synthetic ones."""
        fake, told = self._fake(step)
        fake, told = self.pool.query(step, fake, told)
        real, condition = self.augment(step, self._real(step), self._condition(step))
        fake, told = self.augment(step, fake, told)
        if self.options.d_norm == "batch":
            of_real, of_fake = self._judge(real, condition)[0], self._judge(fake, told)[0]
        else:
            # One pass over real and synthetic pairs: twice the batch costs less than two passes.
            logits, _ = self._judge(torch.cat((real, fake)), torch.cat((condition, told)))
            halves = [head.chunk(2) for head in logits]
            of_real, of_fake = [h[0] for h in halves], [h[1] for h in halves]
        self.augment.observe(of_real)
        terms = {"adversarial": self.loss.discriminator(of_real, of_fake)}
        if self.options.gp:
            terms["gp"] = self.options.gp * self._penalty(step, real, condition, fake, told)
        return terms

    def _fake(self, step: Step) -> tuple[Tensor, Tensor]:
        """The generator's pair of this step, or one of its own where the generator did not move."""
        condition = self._condition(step)
        if "fake" in step.scratch:
            return step.scratch["fake"], condition
        with torch.no_grad():
            return self._draw(step, condition), condition

    def _penalty(
        self, step: Step, real: Tensor, condition: Tensor, fake: Tensor, told: Tensor
    ) -> Tensor:
        share = step.rand(*[1] * (real.ndim - 1))
        between = torch.lerp(told.float(), condition.float(), share)
        return losses.gradient_penalty(
            lambda image: self._judge(image, between)[0], real, fake, share
        )

    def r1(self, step: Step) -> Mapping[str, Tensor]:
        """The gradient at real images, weighted for the steps in between (Karras et al. 2020)."""
        images = self._real(step).detach().requires_grad_()
        with torch.autocast(images.device.type, enabled=False):
            logits, _ = self._judge(images, self._condition(step))
            return {"r1": self.options.r1 * self.options.r1_every * losses.r1(images, logits)}

    def _clip(self) -> None:
        if self.options.clip_weights:
            losses.clip_weights(self.gan.nets["discriminator"], self.options.clip_weights)

    # -- the perceptual segmenter ------------------------------------------------------------------

    def perceptor(self, step: Step) -> Mapping[str, Tensor]:
        """Cross-entropy of the labels of real images."""
        assert step.batch.labels is not None
        wanted = one_hot(step.batch.labels, self.gan.schema.label_values).argmax(1)
        logits = self.gan.nets["perceptor"](self._real(step))
        return {"cross_entropy": F.cross_entropy(logits.float(), wanted)}

    # -- pairs -------------------------------------------------------------------------------------

    def _judge(self, image: Tensor, condition: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits per head, and features, of pairs."""
        judged: tuple[list[Tensor], list[Tensor]] = self.gan.nets["discriminator"](
            torch.cat((image, condition), 1)
        )
        return judged

    def _condition(self, step: Step) -> Tensor:
        """Condition channels of the step's cases (B, K, ...), made once a step."""
        if "condition" not in step.scratch:
            conditions = self.gan.conditions
            step.scratch["condition"] = conditions.channels(conditions.of_batch(step.batch))
        found: Tensor = step.scratch["condition"]
        return found

    def _real(self, step: Step) -> Tensor:
        """What the generator should have drawn: image channels, or one-hot labels."""
        drawn = self.gan.conditions.drawn
        if drawn:
            image = step.batch.image
            return image if len(drawn) == image.shape[1] else image[:, drawn]
        assert step.batch.labels is not None
        return one_hot(step.batch.labels, self.gan.schema.label_values)
