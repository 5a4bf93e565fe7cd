"""``dcgan``: generates images, and optionally their label maps, from noise.

Radford et al. 2016 (DCGAN), Arjovsky et al. 2017 (WGAN), Gulrajani et al. 2017 (WGAN-GP) on one
architecture, as in Han et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from gansynth.core.generator import (
    Batch,
    Generator,
    GeneratorOptions,
    Heeded,
    LabelSource,
    Phase,
    Stage,
)
from gansynth.core.schema import OUTSIDE, Case, Condition, FloatArray, LabelArray, Sample
from gansynth.data.connected_components import boxes_of
from gansynth.data.label_statistics import LabelPriors
from gansynth.data.standardise import ChannelStatistics
from gansynth.runtime.devices import adam, autocast, resolve
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_dcgan.latents import between, of_seed
from gansynth_dcgan.masks import LabelChannels
from gansynth_dcgan.networks import DCGANDiscriminator, DCGANGenerator, FeaturePyramid
from gansynth_dcgan.objective import DCGANObjective
from gansynth_dcgan.options import DCGANOptions, Norm
from gansynth_dcgan.sample_kinds import SampleKinds, stacked

__all__ = ["DCGAN", "DCGANOptions"]

CLEANED, NOISE = "cleaned", "label_noise"
"""Keys of notes: share of the label map that was cleaned; why it was rejected as noise."""
AT_ONCE = {"cuda": 32, "cpu": 4}
"""Samples per batch; batches are padded, so the number requested does not change a sample."""


class DCGAN(Generator):
    """Unconditional GAN: noise in, image out; with ``with_mask`` its label map too."""

    name: ClassVar[str] = "dcgan"
    Options: ClassVar[type[GeneratorOptions]] = DCGANOptions
    # The generator is updated every n_critic-th step only, so its average needs a longer half-life.
    loop: ClassVar[Mapping[str, Any]] = {"batch_size": 64, "ema_half_life": 10_000}

    options: DCGANOptions

    # -- networks ----------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return a generator and a discriminator of the same pyramid."""
        o = self.options
        if not self.size:
            raise UsageFault(
                "dcgan: generates images of one size, expected a source that has one; for slices: "
                "and pictures: use --read resize=64x64"
            )
        self.masks, self.asked = LabelChannels(self.schema, o), SampleKinds(self.schema, o)
        self.intensities = ChannelStatistics(len(self.schema.channels))
        self.priors: LabelPriors | None = None
        self.objective = DCGANObjective(self)
        if o.augment and o.augment_p == "adaptive":
            self.memories["augment"] = self.objective.augment
        pyramid = FeaturePyramid.of(self.size, o.width, o.max_width)
        channels, kinds = len(self.schema.channels) + len(self.masks), len(self.asked)
        return {
            "generator": DCGANGenerator(pyramid, o.latent, kinds, channels, o.g_norm),
            "discriminator": DCGANDiscriminator(
                pyramid, channels, kinds, self.d_norm, o.d_activation
            ),
        }

    @property
    def d_norm(self) -> Norm:
        """Normalisation of the discriminator."""
        return self.options.d_norm or self.options.usual.d_norm

    @property
    def intensity(self) -> Literal["linear", "tanh"]:
        """Range of the images: option ``output``."""
        return self.options.output

    @property
    def label_source(self) -> LabelSource:
        """Whether label maps are generated with the images: option ``with_mask``."""
        return "generated" if self.options.with_mask else "none"

    @property
    def conditioned_on(self) -> frozenset[Heeded]:
        """The class of a case, or whether it has foreground: option ``condition``."""
        condition = self.options.condition
        return frozenset() if condition == "none" else frozenset({condition})

    def channel_axes(self) -> Mapping[str, tuple[int, Sequence[str]]]:
        """Return the weights whose axes are latents, kinds, image channels or labels."""
        channels = (
            *(f"image:{name}" for name in self.schema.channels),
            *(f"label:{value}" for value in self.masks.values),
        )
        kinds = tuple(f"{self.asked.by}:{name}" for name in self.asked.names)
        latents = tuple(f"latent:{i}" for i in range(self.options.latent))
        last = len(cast(DCGANGenerator, self.nets["generator"]).layers) - 1
        axes: dict[str, tuple[int, Sequence[str]]] = {
            "generator/first.weight": (1, (*latents, *kinds)),
            f"generator/layers.{last}.weight": (1, channels),
            f"generator/layers.{last}.bias": (0, channels),
            "discriminator/layers.0.weight": (1, channels),
        }
        return {**axes, "discriminator/told.weight": (0, kinds)} if kinds else axes

    # -- training ----------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Return the phases of ``DCGANObjective``."""
        return self.objective.phases()

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of the objective's paper, at the player's learning rate."""
        o, usual = self.options, self.options.usual
        lr = o.lr_generator if player == "generator" else o.lr_discriminator
        rate = lr or usual.lr
        if usual.beta1 is None:
            return torch.optim.RMSprop(parameters, lr=rate, foreach=True)
        return adam(parameters, rate, (usual.beta1, usual.beta2))

    def observe(self, cases: Iterable[Case]) -> None:
        """Fit intensities, kinds and label maps; DataFault: a case lacks its kind or labels."""
        label_maps = self._watched(cases)
        if self.options.with_mask:
            self.priors = LabelPriors.fit((m for m in label_maps if m is not None), self.schema)
        else:
            for _ in label_maps:
                pass

    def _watched(self, cases: Iterable[Case]) -> Iterable[LabelArray | None]:
        """Yield label maps of cases, and record their intensities and kinds."""
        for case in cases:
            if self.options.output == "linear":
                self.intensities.add(case.image)
            kind = self.asked.of_case(case)
            if kind is not None:
                self.asked.counts[kind] += 1
            if self.options.with_mask and case.labels is None:
                raise DataFault(
                    f"case {case.id!r}: has no label map, expected one for "
                    "--with-mask; leave the case out, or fit without --with-mask"
                )
            yield case.labels

    def state(self) -> dict[str, Any]:
        """Return what ``observe`` fitted: numbers, no image."""
        return {
            "intensities": self.intensities.to_json(),
            "kinds": list(self.asked.counts),
            "labels": None if self.priors is None else self.priors.to_json(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        if not state:
            return
        self.intensities.load_json(state["intensities"])
        self.asked.counts = [int(count) for count in state["kinds"]]
        priors = state["labels"]
        self.priors = None if priors is None else LabelPriors.from_json(priors)

    @property
    def chance_losses(self) -> Mapping[str, float]:
        """Loss of the discriminator for pure guessing; none for critics."""
        chance = self.objective.loss.chance
        return {} if chance is None else {"discriminator/adversarial": chance}

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return the discriminator's value of real cases; None without their kind or labels."""
        labelled = self.options.with_mask or self.asked.by == "foreground"
        if (labelled and batch.labels is None) or (
            self.asked.by == "class" and batch.classes is None
        ):
            return None
        with self.at_rest():
            return self.objective.realness(batch, stage)

    # -- sampling ----------------------------------------------------------------------------------

    def drawn(self, latents: Tensor, kinds: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Generate standardised images (B, C, ...), and label probabilities, from latents.

        Voxels fade to the schema's constant by their probability of outside.
        """
        output = self.nets["generator"](latents, kinds).float()
        channels = len(self.schema.channels)
        image = output[:, :channels]
        if self.options.output == "tanh":
            image = image.tanh()
        if not len(self.masks):
            return image, None
        probabilities = self.masks.of_logits(output[:, channels:])
        outside = self.masks.outside(probabilities)
        if outside is not None and self.schema.outside_fill is not None:
            fill = self.intensities.constant(self.schema.outside_fill, image)
            image = torch.lerp(image, fill.expand_as(image), outside)
        return image, probabilities

    @torch.no_grad()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition; its randomness depends on its seed alone.

        Without a requested kind, kinds are as frequent as in training.
        """
        begun = [self._begun(c, seed) for c, seed in zip(conditions, seeds, strict=True)]
        arrays = self._arrays([latent for latent, _ in begun], [kind for _, kind in begun])
        return [self._sample(*pair, kind) for pair, (_, kind) in zip(arrays, begun, strict=True)]

    @torch.no_grad()
    def interpolate(self, condition: Condition, ends: tuple[int, int], steps: int) -> list[Sample]:
        """Generate ``steps`` samples from one latent to another, both ends included.

        Normal latents follow a great circle, uniform ones a line. The kind stays constant: the
        condition's, or that of the first end.
        """
        if steps < 2:
            raise UsageFault(f"interpolate: {steps} step(s), expected both ends, 2 or more")
        first, kind = self._begun(condition, ends[0])
        last, _ = self._begun(condition, ends[1])
        shares = [i / (steps - 1) for i in range(steps)]
        ways = [between(first, last, share, self.options.latent_prior) for share in shares]
        return [self._sample(*pair, kind) for pair in self._arrays(ways, [kind] * steps)]

    def _begun(self, condition: Condition, seed: int) -> tuple[Tensor, int | None]:
        rng = torch.Generator().manual_seed(seed)
        latent = of_seed(rng, self.options.latent_prior, self.options.latent)
        kind = self.asked.of_condition(condition)
        return latent, self.asked.drawn(rng) if kind is None and len(self.asked) else kind

    def _arrays(
        self, latents: Sequence[Tensor], kinds: Sequence[int | None]
    ) -> list[tuple[FloatArray, LabelArray | None]]:
        """Return images (C, ...) in the source's units, and their uncleaned label maps."""
        self.nets["generator"].eval()
        arrays: list[tuple[FloatArray, LabelArray | None]] = []
        at_once = AT_ONCE.get(self.device.type, 1)
        for start in range(0, len(latents), at_once):
            part = latents[start : start + at_once]
            missing = at_once - len(part)
            batch = torch.stack([*part, *[part[0]] * missing]).to(self.device)
            chosen = kinds[start : start + at_once]
            batch_kinds = stacked([*chosen, *[chosen[0]] * missing], self.device)
            with autocast(self.device, resolve(self.precision, self.device) == "bf16"):
                image, probabilities = self.drawn(batch, batch_kinds)
            images = self.intensities.restored(image).cpu().numpy()
            maps = [None] * at_once if probabilities is None else self.masks.labels(probabilities)
            arrays += zip(images[: len(part)], maps, strict=False)
        return arrays

    def _sample(self, image: FloatArray, labels: LabelArray | None, kind: int | None) -> Sample:
        notes: dict[str, Any] = {} if kind is None else {self.asked.by: self.asked.names[kind]}
        label_class = kind if self.asked.by == "class" else None
        if labels is None:
            return Sample(image.copy(), notes=notes, label_class=label_class)
        image, drawn = image.copy(), labels
        if self.priors is not None:
            labels = self.priors.clean(drawn)
            notes[CLEANED] = round(float((labels != drawn).mean()), 4)
            noise = self.priors.noise(drawn, labels)
            notes |= {NOISE: noise} if noise else {}
        if self.schema.outside_fill is not None:
            fill = np.array(self.schema.outside_fill, np.float32)
            image[:, labels == OUTSIDE] = fill[:, None]
        boxes = boxes_of(labels, self.schema)
        return Sample(image, labels, boxes, notes=notes, label_class=label_class)

    def reject_reason(self, sample: Sample) -> str:
        """Return why a label map is rejected: it is unlike every training label map."""
        if self.priors is None or sample.labels is None:
            return ""
        return sample.notes.get(NOISE) or self.priors.reject_reason(sample.labels)
