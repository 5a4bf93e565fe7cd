"""A GAN that grows from 4 x 4 to 16 x 16, as a stranger would write it."""
# mypy: disallow-untyped-calls=False, disable-error-code="operator,index"

import torch
import torch.nn.functional as F
from torch import nn

from gansynth.core.generator import Batch, Generator, Phase, Stage
from gansynth.core.schema import Sample
from gansynth.nn import losses

LATENT, WIDTH, SIZES = 8, 8, (4, 8, 16)


class Equalised(nn.Conv2d):
    """Weights of unit variance, scaled when used: Karras et al. 2018, section 4.1."""

    def __init__(self, cin, cout, size):
        super().__init__(cin, cout, size, padding=size // 2)
        nn.init.normal_(self.weight)
        self.scale = (2 / self.weight[0].numel()) ** 0.5

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.scale, self.bias)


def unit(x):
    """Pixel norm: Karras et al. 2018, section 4.2."""
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


class Growing(nn.Module):
    """One block a size; ``image`` converts each size's features from or to channels."""

    def __init__(self, channels, draws):
        super().__init__()
        self.start = nn.Linear(LATENT, WIDTH * 16) if draws else nn.Linear(WIDTH * 16, 1)
        self.block = nn.ModuleList(Equalised(WIDTH, WIDTH, 3) for _ in SIZES)
        cin, cout = (WIDTH, channels) if draws else (channels, WIDTH)
        self.image = nn.ModuleList(Equalised(cin, cout, 1) for _ in SIZES)


class Progressive(Generator):
    """Karras et al. 2018, small: WGAN-GP with drift, faded-in layers, players by turns."""

    name = "zoo_progressive"

    def stages(self):
        # Batches shrink as images grow; fades are half of a stage.
        return (Stage((4, 4), 4, 12), Stage((8, 8), 4, 32, fade=16), Stage((16, 16), 2, fade=16))

    def networks(self):
        channels = len(self.schema.channels)
        return {"generator": Growing(channels, True), "discriminator": Growing(channels, False)}

    def optimizer(self, player, parameters):
        return torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99))

    def prepare(self, batch, stage):
        return Batch(F.adaptive_avg_pool2d(batch.image, stage.size))

    def phases(self):
        critic = Phase("discriminator", self._judge, interval=2)
        return (critic, Phase("generator", self._paint, interval=2, offset=1))

    def draw(self, z, level, alpha):
        net = self.nets["generator"]
        x = unit(F.leaky_relu(net.start(unit(z)).unflatten(1, (WIDTH, 4, 4)), 0.2))
        coarse = None
        for i in range(level + 1):
            if i:
                coarse, x = net.image[i - 1](x), F.interpolate(x, scale_factor=2)
            x = unit(F.leaky_relu(net.block[i](x), 0.2))
        image = net.image[level](x)
        if alpha == 1 or coarse is None:
            return image
        return torch.lerp(F.interpolate(coarse, scale_factor=2), image.to(coarse.dtype), alpha)

    def value(self, image, level, alpha):
        net = self.nets["discriminator"]
        x = F.leaky_relu(net.image[level](image), 0.2)
        for i in reversed(range(level + 1)):
            x = F.leaky_relu(net.block[i](x), 0.2)
            if i:
                x = F.avg_pool2d(x, 2)
            if i == level and i and alpha < 1:
                shrunk = F.leaky_relu(net.image[i - 1](F.avg_pool2d(image, 2)), 0.2)
                x = torch.lerp(shrunk, x, alpha)
        return net.start(x.flatten(1))

    def _judge(self, step):
        level, real = SIZES.index(step.stage.size[0]), step.batch.image
        fake = self.draw(step.randn(LATENT), level, step.alpha).detach()

        def critic(image):
            return self.value(image, level, step.alpha)

        penalty = 10 * losses.gradient_penalty(critic, real, fake, step.rand(1, 1, 1))
        values = critic(real)
        distance = losses.wgan_critic([values], [critic(fake)])
        return {"distance": distance, "penalty": penalty, "drift": 1e-3 * losses.drift([values])}

    def _paint(self, step):
        level = SIZES.index(step.stage.size[0])
        fake = self.draw(step.randn(LATENT), level, step.alpha)
        return {"value": losses.wgan_generator([self.value(fake, level, step.alpha)])}

    @torch.no_grad()
    def sample(self, conditions, seeds):
        drawn = []
        for condition, seed in zip(conditions, seeds, strict=True):
            z = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(seed))
            image = self.draw(z.to(self.device), len(SIZES) - 1, 1.0)[0].float().cpu().numpy()
            made = {**condition.provenance, "latent_seed": seed}
            drawn.append(Sample(image, condition.labels, provenance=made))
        return drawn
