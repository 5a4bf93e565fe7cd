"""``dcgan``: generates images, and optionally their label maps, from noise.

Radford et al. 2016 (DCGAN), Arjovsky et al. 2017 (WGAN), Gulrajani et al. 2017 (WGAN-GP) on one
architecture, as in Han et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from gansynth import (
    OUTSIDE,
    Batch,
    Capabilities,
    Case,
    ChannelStatistics,
    Condition,
    DataFault,
    DiscriminatorAugment,
    FloatArray,
    Generator,
    GeneratorOptions,
    LabelArray,
    Phase,
    Sample,
    Schema,
    Stage,
    TrainingStep,
    UsageFault,
    at_rest,
)
from gansynth.data.connected_components import boxes_of
from gansynth.data.label_statistics import LabelPriors
from gansynth.nn import losses
from gansynth_dcgan.masks import LabelChannels
from gansynth_dcgan.networks import DCGANDiscriminator, DCGANGenerator, FeaturePyramid
from gansynth_dcgan.options import DCGANOptions, Norm

__all__ = ["DCGAN", "DCGANOptions"]

CLEANED, NOISE = "cleaned", "label_noise"
"""Keys of notes: share of the label map that was cleaned; why it was rejected as noise."""
AT_ONCE = {"cuda": 32, "cpu": 4}
"""Samples per batch; batches are padded, so the number requested does not change a sample."""


class DCGAN(Generator):
    """Unconditional GAN: noise in, image out; with ``with_mask`` its label map too."""

    name: ClassVar[str] = "dcgan"
    Options: ClassVar[type[GeneratorOptions]] = DCGANOptions

    options: DCGANOptions

    @property
    def capabilities(self) -> Capabilities:
        o = self.options
        against_collapse = ["lower rates (--set lr_generator=...)"]
        if o.objective != "wgan-gp":
            against_collapse.append("--set objective=wgan-gp")
        if not o.augment:
            against_collapse.append("--set augment=[translation,cutout] if cases are few")
        return Capabilities(
            takes=frozenset() if o.condition == "none" else frozenset({o.condition}),
            draws="both" if o.with_mask else "image",
            trains=True,
            range=o.output,
            # The generator is updated every n_critic-th step only: its average needs a longer
            # half-life.
            loop={"batch_size": 64, "ema_half_life": 10_000},
            replays=o.augment_p != "adaptive",
            remedies={
                "not finite": "Lower the learning rates (--set lr_generator=1e-4)",
                "collapse": ", or ".join(against_collapse),
                "no labels": "fit it again with --set with_mask=yes, which draws both together",
            },
        )

    # -- networks ----------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return a generator and a discriminator of the same pyramid."""
        o = self.options
        if not self.size:
            raise UsageFault(
                "dcgan.source-without-one-size",
                "dcgan: generates images of one size, expected a source that has one; for slices: "
                "and pictures: use --read resize=64x64",
            )
        self.masks, self.asked = LabelChannels(self.schema, o), SampleKinds(self.schema, o)
        self.intensities = ChannelStatistics(len(self.schema.channels))
        self.priors: LabelPriors | None = None
        self.objective = DCGANObjective(self)
        if o.augment and o.augment_p == "adaptive":
            self.buffers["augment"] = self.objective.augment
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

    def channel_axes(self) -> Mapping[str, tuple[int, Sequence[str]]]:
        """Return the weights whose axes are latents, kinds, image channels or labels."""
        channels = [f"image:{name}" for name in self.schema.channels]
        channels += [f"label:{value}" for value in self.masks.values]
        kinds = [f"{self.asked.by}:{name}" for name in self.asked.names]
        latents = [f"latent:{i}" for i in range(self.options.latent)]
        last = len(cast(DCGANGenerator, self.nets["generator"]).layers) - 1
        axes: dict[str, tuple[int, Sequence[str]]] = {
            "generator/first.weight": (1, (*latents, *kinds)),
            f"generator/layers.{last}.weight": (1, channels),
            f"generator/layers.{last}.bias": (0, channels),
            "discriminator/layers.0.weight": (1, channels),
        }
        if kinds:
            axes["discriminator/class_embedding.weight"] = (0, kinds)
        return axes

    # -- training ----------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        return self.objective.phases()

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of the objective's paper, at the player's learning rate."""
        o, usual = self.options, self.options.usual
        lr = o.lr_generator if player == "generator" else o.lr_discriminator
        rate = lr or usual.lr
        if usual.beta1 is None:
            return torch.optim.RMSprop(parameters, lr=rate, foreach=True)
        return self.adam(parameters, rate, (usual.beta1, usual.beta2))

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Fit intensities, kinds and label maps; DataFault: a case lacks its kind or labels."""
        label_maps = self._watched(cases)
        if self.options.with_mask:
            self.priors = LabelPriors.fit(label_maps, self.schema)
        else:
            for _ in label_maps:
                pass
        return {
            "intensities": self.intensities.to_json(),
            "kinds": list(self.asked.counts),
            "labels": None if self.priors is None else self.priors.to_json(),
        }

    def _watched(self, cases: Iterable[Case]) -> Iterator[LabelArray]:
        """Yield the label maps of cases that have one; record intensities and kinds of all."""
        for case in cases:
            if self.options.output == "linear":
                self.intensities.add(case.image)
            kind = self.asked.of_case(case)
            if kind is not None:
                self.asked.counts[kind] += 1
            if self.options.with_mask and case.labels is None:
                raise DataFault(
                    "dcgan.case-without-label-map",
                    f"case {case.id!r}: has no label map, expected one for "
                    "with_mask=yes; leave the case out, or fit with with_mask=no",
                )
            if case.labels is not None:
                yield case.labels

    def load_state(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self.intensities.load_json(state["intensities"])
        self.asked.counts = [int(count) for count in state["kinds"]]
        priors = state["labels"]
        self.priors = None if priors is None else LabelPriors.from_json(priors)

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return the discriminator's value of real cases; None without their kind or labels."""
        labelled = self.options.with_mask or self.asked.by == "foreground"
        if (labelled and batch.labels is None) or (
            self.asked.by == "class" and batch.classes is None
        ):
            return None
        with at_rest(self):
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
            with self.autocast(self.device):
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


class DCGANObjective:
    """Losses of both players, on standardised images followed by label channels."""

    def __init__(self, gan: DCGAN) -> None:
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
        chance = {} if self.loss.chance is None else {"adversarial": self.loss.chance}
        return (
            Phase("generator", self.generator, pace, pace - 1),
            Phase("discriminator", self.discriminator, after=clip, chance=chance),
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
                "dcgan.patch-not-whole-image",
                f"--set patch={list(batch.image.shape[2:])}: dcgan generates whole images, "
                f"expected {list(self.gan.size)} voxels; leave patch out",
            )
        image = self.gan.intensities.standardised(batch.image)
        if not len(self.gan.masks):
            return image
        assert batch.labels is not None, "observe() checks that each case has labels"
        return self._seen(image, self.gan.masks.of_labels(batch.labels))

    def _seen(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return image if mask is None else torch.cat((image, self.gan.masks.shown(mask)), 1)


Prior = Literal["normal", "uniform"]


def of_step(step: TrainingStep, prior: Prior, numbers: int) -> Tensor:
    """Return the latents (B, numbers) of a training step."""
    return step.randn(numbers) if prior == "normal" else 2 * step.rand(numbers) - 1


def of_seed(rng: torch.Generator, prior: Prior, numbers: int) -> Tensor:
    """Return the next latent (numbers,), made on the CPU: equal for a seed on every device."""
    if prior == "normal":
        return torch.randn(numbers, generator=rng)
    return 2 * torch.rand(numbers, generator=rng) - 1


class SampleKinds:
    """The kinds of samples that can be requested. Raises UsageFault: the cases have none."""

    def __init__(self, schema: Schema, options: DCGANOptions) -> None:
        self.by = options.condition
        kinds = {"none": (), "class": schema.classes, "foreground": ("without", "with")}
        self.names: tuple[str, ...] = kinds[self.by]
        if self.by == "class" and not self.names:
            raise UsageFault(
                "dcgan.source-without-classes",
                "--set condition=class: the source's cases have no classes, expected some; name "
                "them (gansynth help sources), or use condition=foreground or none",
            )
        if self.by == "foreground" and not schema.foreground:
            raise UsageFault(
                "dcgan.source-without-label-maps",
                "--set condition=foreground: the source's cases have no label maps, expected some; "
                "add them, or use condition=none",
            )
        self.counts = [0] * len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def of_case(self, case: Case) -> int | None:
        """Return a training case's kind, None if unconditional; DataFault: it has none."""
        if self.by == "none":
            return None
        if self.by == "class":
            kind = case.label_class
        else:
            kind = None if case.labels is None else int((case.labels > 0).any())
        if kind is None:
            lacks = "class" if self.by == "class" else "label map"
            raise DataFault(
                "dcgan.case-without-condition",
                f"case {case.id!r}: has no {lacks}, expected one for "
                f"condition={self.by}; leave the case out, or use --set condition=none",
            )
        return kind

    def of_batch(self, batch: Batch) -> Tensor | None:
        """Return the kinds of a training batch, int64 (B,); None if unconditional."""
        if self.by == "none":
            return None
        if self.by == "class":
            assert batch.classes is not None, "observe() checks that each case has a class"
            return batch.classes
        assert batch.labels is not None, "observe() checks that each case has labels"
        return (batch.labels > 0).flatten(1).any(1).long()

    def of_condition(self, condition: Condition) -> int | None:
        """Return the kind that a condition requests, if any; UsageFault: no such class."""
        if self.by == "class":
            kind = condition.label_class
            if kind is not None and not 0 <= kind < len(self):
                raise UsageFault(
                    "dcgan.condition-class-unknown",
                    f"condition: class {kind}, expected 0 to {len(self) - 1} "
                    f"({', '.join(self.names)})",
                )
            return kind
        if self.by == "foreground" and condition.labels is not None:
            return int((condition.labels > 0).any())
        return None

    def drawn(self, rng: torch.Generator) -> int:
        """Return a random kind, with the frequencies of the training crops."""
        shares = np.cumsum(self.counts) / max(sum(self.counts), 1)
        at = float(torch.rand((), generator=rng))
        return min(int(np.searchsorted(shares, at, side="right")), len(self) - 1)


def stacked(kinds: Sequence[int | None], device: torch.device) -> Tensor | None:
    """Return kinds as int64 (B,) on a device; None if unconditional."""
    if not kinds or kinds[0] is None:
        return None
    return torch.tensor(kinds, device=device)
