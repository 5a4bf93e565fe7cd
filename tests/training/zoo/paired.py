"""A GAN that draws images from label maps, as a stranger would write it."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator, Phase
from gansynth.core.schema import Sample
from gansynth.nn import losses
from gansynth.nn.image_pool import ImagePool
from gansynth.nn.networks.blocks import one_hot


class MMGAN(Generator):
    """Sun et al. 2020: spectral norm everywhere, a pool of (image, label), two time scales."""

    name = "zoo_mmgan"
    capabilities = Capabilities(trains=True)

    def networks(self):
        image, labels = len(self.schema.channels), len(self.schema.label_values)
        self.pool = ImagePool(4)
        self.buffers["pool"] = self.pool

        def conv(cin, cout, stride=1):
            return spectral_norm(nn.Conv2d(cin, cout, 3, stride, 1))

        return {
            "generator": nn.Sequential(
                *(conv(labels + 1, 8), nn.LeakyReLU(0.2), conv(8, 8), nn.LeakyReLU(0.2)),
                conv(8, image),
            ),
            "discriminator": nn.Sequential(
                *(conv(image + labels, 8, 2), nn.LeakyReLU(0.2)),
                *(conv(8, 8, 2), nn.LeakyReLU(0.2), conv(8, 1)),
            ),
        }

    def optimizer(self, player, parameters):
        rate = 4e-4 if player == "discriminator" else 1e-4
        return torch.optim.Adam(parameters, lr=rate, betas=(0.0, 0.9))

    def phases(self):
        return (Phase("generator", self._paint), Phase("discriminator", self._judge))

    def draw(self, labels, noise):
        condition = one_hot(labels, self.schema.label_values)
        return self.nets["generator"](torch.cat((condition, noise), 1)), condition

    def logits(self, image, condition):
        return [self.nets["discriminator"](torch.cat((image, condition), 1))]

    def _paint(self, step):
        labels = step.batch.labels
        fake, condition = self.draw(labels, step.randn(1, *labels.shape[1:]))
        step.scratch.update(fake=fake.detach(), condition=condition)
        adversarial = losses.lsgan_generator(self.logits(fake, condition))
        return {"adversarial": adversarial, "l1": losses.l1(fake, step.batch.image)}

    def _judge(self, step):
        real = self.logits(step.batch.image, step.scratch["condition"])
        fake = self.logits(*self.pool.query(step, step.scratch["fake"], step.scratch["condition"]))
        return {"adversarial": losses.lsgan_discriminator(real, fake)}

    @torch.no_grad()
    def sample(self, conditions, seeds):
        self.nets["generator"].eval()
        drawn = []
        for condition, seed in zip(conditions, seeds, strict=True):
            shape, rng = condition.labels.shape, torch.Generator().manual_seed(seed)
            noise = torch.randn(1, 1, *shape, generator=rng).to(self.device)
            labels = torch.from_numpy(condition.labels[None].astype("int64")).to(self.device)
            image = self.draw(labels, noise)[0][0].float().cpu().numpy()
            drawn.append(Sample(image, condition.labels))
        return drawn
