"""``cgan3d``: a conditional GAN that draws all channels of a volume jointly from its label map.

The pix2pix idea (Isola et al. 2017) in 3D, as used for tumours by Shin et al. 2018 and Doncenco
2022; where it departs from them it does so for texture: a discriminator with full-resolution
layers and a head on them, noise at every level, an L1 that sees a low-pass only. 2D schemas work
the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from gansynth import losses
from gansynth.generator import Batch, Generator, GeneratorOptions, Phase, Step
from gansynth.networks import PatchDiscriminator, UNetGenerator
from gansynth.networks.blocks import one_hot, strides_for
from gansynth.precision import autocast, native_bf16
from gansynth.schema import OUTSIDE, Case, Condition, LabelArray, Sample
from gansynth_cgan3d.context import ContextClusters


class CGANOptions(GeneratorOptions):
    """Options of ``cgan3d``; the defaults aim at one GPU and volumes of about 64 to 128 voxels."""

    width: int = Field(32, ge=4, description="generator features at full resolution")
    levels: int = Field(4, ge=1, le=7, description="resolutions of the generator's U-Net")
    d_width: int = Field(32, ge=4, description="discriminator features at full resolution")
    d_levels: int = Field(3, ge=1, le=6, description="resolutions of the discriminator")
    output: Literal["linear", "tanh"] = Field(
        "linear", description="linear draws z-scores as they are; tanh needs a recorded window"
    )
    spectral_norm: bool = Field(True, description="spectral normalisation of the discriminator")
    texture_head: bool = Field(True, description="a discriminator head on the grain, five voxels")
    adversarial: float = Field(1.0, ge=0, description="weight of the adversarial term")
    l1: float = Field(5.0, ge=0, description="weight of the L1 term")
    l1_lowpass: int = Field(4, ge=1, description="L1 compares means of cubes of this edge, voxels")
    feature_matching: float = Field(5.0, ge=0, description="weight of feature matching")
    lr_generator: float = Field(4e-4, gt=0, description="Adam's rate for the generator")
    lr_discriminator: float = Field(4e-4, gt=0, description="Adam's rate for the discriminator")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam's first moment decay")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's second moment decay")
    context: int = Field(
        0, ge=0, le=16, description="intensity clusters of the surroundings as condition; 0: none"
    )


class CGAN3D(Generator):
    """Label map (and context) in, image of all channels out."""

    name: ClassVar[str] = "cgan3d"
    Options: ClassVar[type[GeneratorOptions]] = CGANOptions
    default_edits: ClassVar[tuple[str, ...]] = ("elastic", "scale", "rotate")

    options: CGANOptions

    # -- networks --------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """A U-Net generator and a PatchGAN discriminator."""
        o = self.options
        ndim, image = self.schema.ndim, len(self.schema.channels)
        self.clusters = ContextClusters(o.context)
        condition = len(self.schema.label_values) + o.context
        strides = strides_for(self.size, self.schema.spacing, max(o.levels, o.d_levels))
        return {
            "generator": UNetGenerator(
                ndim, condition, image, o.width, strides[: o.levels - 1], o.output
            ),
            "discriminator": PatchDiscriminator(
                ndim,
                image + condition,
                o.d_width,
                strides[: o.d_levels - 1],
                spectral=o.spectral_norm,
                texture_head=o.texture_head,
            ),
        }

    @property
    def intensity(self) -> Literal["linear", "tanh"]:
        """Range of the images, an option."""
        return self.options.output

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam, at the player's own rate."""
        o = self.options
        rate = o.lr_generator if player == "generator" else o.lr_discriminator
        return torch.optim.Adam(parameters, lr=rate, betas=(o.beta1, o.beta2), foreach=True)

    # -- training --------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Generator first: its image serves the discriminator's step as well, drawn once."""
        return (Phase("generator", self._generator_loss), Phase("discriminator", self._d_loss))

    def _generator_loss(self, step: Step) -> Mapping[str, Tensor]:
        o, batch = self.options, step.batch
        condition = self._condition(batch)
        net = self._net
        noise = [
            torch.randn((len(condition), 1, *s), generator=step.rng, device=condition.device)
            for s in net.noise_shapes(condition.shape[2:])
        ]
        fake = self._fill_outside(net(condition, noise), batch.labels)
        if batch.padding is not None:
            fake = torch.where(batch.padding[:, None], batch.image, fake)
        step.scratch.update(fake=fake.detach(), condition=condition)
        logits, features = self.nets["discriminator"](torch.cat((fake, condition), 1))
        terms = {"adversarial": o.adversarial * losses.lsgan_generator(logits)}
        if o.l1:
            terms["l1"] = o.l1 * losses.l1(fake, batch.image, lowpass=o.l1_lowpass)
        if o.feature_matching:
            with torch.no_grad():
                _, real = self.nets["discriminator"](torch.cat((batch.image, condition), 1))
            terms["feature_matching"] = o.feature_matching * losses.feature_matching(real, features)
        return terms

    def _d_loss(self, step: Step) -> Mapping[str, Tensor]:
        condition, fake = step.scratch["condition"], step.scratch["fake"]
        # One pass over real and synthetic pairs: twice the batch costs less than two passes.
        images = torch.cat((step.batch.image, fake))
        logits, _ = self.nets["discriminator"](
            torch.cat((images, torch.cat((condition, condition))), 1)
        )
        halves = [head.chunk(2) for head in logits]
        loss = losses.lsgan_discriminator([h[0] for h in halves], [h[1] for h in halves])
        return {"adversarial": loss}

    # -- conditions ------------------------------------------------------------------------------

    @property
    def _net(self) -> UNetGenerator:
        return cast(UNetGenerator, self.nets["generator"])

    def _condition(self, batch: Batch) -> Tensor:
        """One-hot labels, then one-hot context: (B, channels, ...)."""
        assert batch.labels is not None, "cgan3d needs labelled cases"
        parts = [one_hot(batch.labels, self.schema.label_values)]
        if self.options.context:
            assert batch.context is not None
            parts.append(one_hot(batch.context, range(1, self.options.context + 1)))
        return torch.cat(parts, 1)

    def _fill_outside(self, image: Tensor, labels: Tensor | None) -> Tensor:
        """Where the data hold a constant outside the body, so do the samples, exactly."""
        fill = self.schema.outside_fill
        if fill is None or labels is None or not self.schema.has_outside:
            return image
        value = torch.tensor(fill, device=image.device).view(1, -1, *[1] * self.schema.ndim)
        return torch.where((labels == OUTSIDE)[:, None], value, image)

    def observe(self, cases: Iterable[Case]) -> None:
        """Fit the context clusters, if any are asked for."""
        self.clusters.fit(cases)

    def state(self) -> dict[str, Any]:
        """The cluster centres (intensities, no image)."""
        return self.clusters.to_json()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Read back the cluster centres."""
        self.clusters.load_json(state)

    def context(self, case: Case) -> LabelArray | None:
        """Intensity clusters of the surroundings, int16 (D, H, W), or None."""
        return self.clusters.map(case) if self.options.context else None

    # -- sampling --------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Draw one image per condition; noise comes from each seed alone, whatever the batch."""
        net = self._net.eval()
        # On a CPU larger batches gain nothing, and one at a time is equal to the bit at any size.
        chunk = len(conditions) if self.device.type == "cuda" else 1
        samples: list[Sample] = []
        for start in range(0, len(conditions), chunk):
            part, part_seeds = conditions[start : start + chunk], seeds[start : start + chunk]
            batch = self._batch(part)
            noise = self._noise(net.noise_shapes(batch.image.shape[2:]), part_seeds)
            with autocast(self.device, native_bf16(self.device)):
                image = net(self._condition(batch), noise)
            drawn = self._fill_outside(image.float(), batch.labels).cpu().numpy()
            for one, condition, seed in zip(drawn, part, part_seeds, strict=True):
                provenance = {**condition.provenance, "generator": self.name, "latent_seed": seed}
                samples.append(Sample(one, condition.labels, None, provenance))
        return samples

    def _batch(self, conditions: Sequence[Condition]) -> Batch:
        labels = torch.from_numpy(np.stack([_labels(c) for c in conditions]).astype(np.int64))
        context = None
        if self.options.context:
            maps = [
                np.zeros_like(_labels(c)) if c.context is None else c.context for c in conditions
            ]
            context = torch.from_numpy(np.stack(maps).astype(np.int64)).to(self.device)
        blank = torch.empty((len(labels), 1, *labels.shape[1:]), device="meta")
        return Batch(blank, labels.to(self.device), context)

    def _noise(self, shapes: Sequence[tuple[int, ...]], seeds: Sequence[int]) -> list[Tensor]:
        """Noise per level, drawn on the CPU so that a seed means the same on every device."""
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        return [
            torch.stack([torch.randn((1, *shape), generator=rng) for rng in rngs]).to(self.device)
            for shape in shapes
        ]


def _labels(condition: Condition) -> LabelArray:
    assert condition.labels is not None, "cgan3d draws from label maps"
    return condition.labels
