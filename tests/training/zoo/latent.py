"""GANs that draw images from noise alone, as strangers would write them."""
# mypy: disallow-untyped-calls=False

import torch
from torch import nn

from gansynth.core.generator import Generator, Phase
from gansynth.core.schema import Sample
from gansynth.nn import losses
from gansynth.nn.diff_augment import DiscriminatorAugment
from gansynth.nn.networks.blocks import one_hot

LATENT = 8


def painter(channels: int, norm: bool) -> nn.Sequential:
    """Noise (B, 8) -> image (B, channels, 16, 16)."""
    between = nn.BatchNorm2d(8) if norm else nn.Identity()
    return nn.Sequential(
        *(nn.Linear(LATENT, 8 * 16), nn.Unflatten(1, (8, 4, 4)), between, nn.ReLU()),
        *(nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.Upsample(scale_factor=2), nn.Conv2d(8, channels, 3, padding=1)),
    )


def judge(channels: int) -> nn.Sequential:
    """Image (B, channels, 16, 16) -> logits (B, 1)."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, 2, 1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(8, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(8 * 16, 1)),
    )


class DCGAN(Generator):
    """Radford et al. 2016: both players in every step, batch normalisation, non-saturating."""

    name = "zoo_dcgan"
    norm = True

    def networks(self):
        channels = len(self.schema.channels)
        return {"generator": painter(channels, self.norm), "discriminator": judge(channels)}

    def phases(self):
        return (Phase("discriminator", self._judge), Phase("generator", self._paint))

    def fake(self, step):
        return self.nets["generator"](step.randn(LATENT))

    def _judge(self, step):
        net, fake = self.nets["discriminator"], self.fake(step).detach()
        real = [net(step.batch.image)]
        return {"adversarial": losses.nonsaturating_discriminator(real, [net(fake)])}

    def _paint(self, step):
        fake = self.nets["discriminator"](self.fake(step))
        return {"adversarial": losses.nonsaturating_generator([fake])}

    @torch.no_grad()
    def sample(self, conditions, seeds):
        net = self.nets["generator"].eval()
        drawn = []
        for condition, seed in zip(conditions, seeds, strict=True):
            z = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(seed))
            image = net(z.to(self.device))[0].float().cpu().numpy()
            made = {**condition.provenance, "latent_seed": seed}
            drawn.append(Sample(image, condition.labels, provenance=made))
        return drawn


class WGAN(DCGAN):
    """Arjovsky et al. 2017: RMSprop, clipped weights, the generator waits for three steps."""

    name = "zoo_wgan"
    norm = False
    limit = 0.05

    def optimizer(self, player, parameters):
        return torch.optim.RMSprop(parameters, lr=5e-4)

    def phases(self):
        critic = Phase("discriminator", self._judge, after=self._clip)
        return (critic, Phase("generator", self._paint, interval=3, offset=2))

    def _clip(self):
        losses.clip_weights(self.nets["discriminator"], self.limit)

    def _judge(self, step):
        critic, fake = self.nets["discriminator"], self.fake(step).detach()
        return {"distance": losses.wgan_critic([critic(step.batch.image)], [critic(fake)])}

    def _paint(self, step):
        return {"value": losses.wgan_generator([self.nets["discriminator"](self.fake(step))])}


class WGANGP(WGAN):
    """Gulrajani et al. 2017: a gradient penalty in place of the clipping, Adam(0, 0.9)."""

    name = "zoo_wgan_gp"

    def optimizer(self, player, parameters):
        return torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.9))

    def phases(self):
        generator = Phase("generator", self._paint, interval=2, offset=1)
        return (Phase("discriminator", self._judge), generator)

    def _judge(self, step):
        critic, real, fake = self.nets["discriminator"], step.batch.image, self.fake(step).detach()
        penalty = losses.gradient_penalty(critic, real, fake, step.rand(1, 1, 1))
        distance = losses.wgan_critic([critic(real)], [critic(fake)])
        return {"distance": distance, "penalty": 10 * penalty}


class HingeR1(DCGAN):
    """Hinge losses; Mescheder's R1 every fourth step only, four times as strong (lazy)."""

    name = "zoo_hinge_r1"
    norm = False
    every = 4

    def phases(self):
        lazy = Phase("discriminator", self._smooth, interval=self.every, offset=1)
        return (*super().phases(), lazy)

    def _judge(self, step):
        net, fake = self.nets["discriminator"], self.fake(step).detach()
        return {"hinge": losses.hinge_discriminator([net(step.batch.image)], [net(fake)])}

    def _paint(self, step):
        return {"hinge": losses.hinge_generator([self.nets["discriminator"](self.fake(step))])}

    def _smooth(self, step):
        real = step.batch.image.detach().requires_grad_()
        return {"r1": self.every * 0.1 * losses.r1(real, self.nets["discriminator"](real))}


class ADA(DCGAN):
    """Karras et al. 2020: what the discriminator sees is changed, as often as it is too sure."""

    name = "zoo_ada"
    norm = False

    def networks(self):
        policy = ("flip", "brightness", "translation", "cutout")
        self.augment = DiscriminatorAugment(policy, "adaptive", target=-1.0, speed=20, interval=2)
        self.memories["augment"] = self.augment
        nets = super().networks()
        labels = len(self.schema.label_values)
        return {**nets, "discriminator": judge(len(self.schema.channels) + labels)}

    def _seen(self, step, image):
        condition = one_hot(step.batch.labels, self.schema.label_values)
        return self.nets["discriminator"](torch.cat(self.augment(step, image, condition), 1))

    def _judge(self, step):
        real, fake = self._seen(step, step.batch.image), self._seen(step, self.fake(step).detach())
        self.augment.observe([real])
        return {"adversarial": losses.nonsaturating_discriminator([real], [fake])}

    def _paint(self, step):
        return {"adversarial": losses.nonsaturating_generator([self._seen(step, self.fake(step))])}
