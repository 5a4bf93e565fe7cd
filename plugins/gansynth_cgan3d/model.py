"""What the conditional GANs of this package share: networks, losses, sampling.

The method is pix2pix (Isola et al. 2017) in 3D. Defaults that differ from its improve texture. 2D
schemas work the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gansynth import (
    Batch,
    Capabilities,
    Condition,
    DataFault,
    DiscriminatorAugment,
    Generator,
    ImagePool,
    PatchDiscriminator,
    Phase,
    Sample,
    Schema,
    Stage,
    TrainingStep,
    UNetGenerator,
    UNetStyle,
    UsageFault,
    at_rest,
    draw_tiled,
    one_hot,
    strides_for,
)
from gansynth.nn import losses
from gansynth.nn.networks.blocks import settled
from gansynth.runtime.errors import did_you_mean
from gansynth_cgan3d.inserter import ImageUnits, LesionInsertion, centroid, pulled
from gansynth_cgan3d.options import CGANOptions

AT_ONCE = {"cuda": 4}
"""Samples per batch by device, else 1: on a CPU larger batches gain nothing. Batches are padded to
this size, so the number of requested samples has no effect on a sample."""
VOXELS_AT_ONCE = 2**23  # voxels per batch at most, unless a single sample has more
EDITS = ("elastic", "scale", "rotate", "clip:to=image")
"""Usual edits of label maps."""
PERCEPTOR_RATE = 1e-3
"""Learning rate of the perceptual segmenter."""
TILED_FROM = 2**29  # most bytes of features of the finest level before tiles are used by default
TILE = 96  # edge in voxels of the default tiles
Request = tuple[Condition, int]  # of a sample: its condition and its seed


@dataclass(frozen=True)
class ConditionInputs:
    """Conditions of a batch before they are encoded as channels; None for parts not in use.

    ``labels``, ``context``: int64 (B, D, H, W) or (B, H, W). ``given``: float32 (B, K, ...).
    """

    labels: Tensor | None = None
    context: Tensor | None = None
    given: Tensor | None = None
    insertion: LesionInsertion | None = None


def stacked(arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> Tensor:
    """Return arrays as one batch."""
    return torch.from_numpy(np.stack(arrays)).to(device)


def numbers_of(given: Sequence[str], schema: Schema) -> list[int]:
    """Return where given channels are in a schema's arrays; UsageFault: one is not there."""
    channels = schema.channels
    for name in given:
        if name not in channels:
            raise UsageFault(
                "cgan3d.given-channel-unknown",
                f"given: {name!r} is no channel, expected one of {', '.join(channels)}."
                f"{did_you_mean(name, channels)}",
            )
    return [channels.index(name) for name in given]


def given_of(conditions: Sequence[Condition], channels: int, device: torch.device) -> Tensor:
    """Return given channels, float32 (B, K, ...); DataFault: they are missing, or not so many."""
    given = [condition.required("given") for condition in conditions]
    for channel_count in map(len, given):
        if channel_count != channels:
            raise DataFault(
                "cgan3d.given-channel-count-differs",
                f"condition: given has {channel_count} channels, expected {channels}",
            )
    return stacked(given, device).float()


def _size_of(condition: Condition) -> tuple[int, ...]:
    labels = condition.labels
    return condition.required("given").shape[1:] if labels is None else labels.shape


def by_halves(draw: Callable[[Sequence[Request]], Tensor], requests: Sequence[Request]) -> Tensor:
    """Return ``draw`` of requests, (B, C, ...); by halves of them where memory runs out."""
    try:
        return draw(requests)
    except torch.OutOfMemoryError:
        if len(requests) == 1:
            raise
    half = len(requests) // 2
    return torch.cat([by_halves(draw, part) for part in (requests[:half], requests[half:])])


def tile_edge(net: UNetGenerator, size: Sequence[int], requested: int) -> int:
    """Return the edge of the tiles for a volume; 0 for the whole volume at once."""
    features = 4 * math.prod(size) * net.widths[0]  # bytes, float32
    edge = requested or (TILE if features > TILED_FROM else 0)
    return edge if max(size) > edge else 0


Pair = tuple[Tensor, Tensor]  # a generated or real image and its condition


@dataclass(frozen=True)
class Discriminator:
    """One discriminator and its ``view`` of a pair: image (B, C, ...), condition (B, K, ...)."""

    name: str
    prefix: str
    weight: float
    net: nn.Module
    view: Callable[[Pair], Pair]

    def __call__(self, image: Tensor, condition: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits per head, and features, of pairs that ``view`` has cut."""
        outputs: tuple[list[Tensor], list[Tensor]] = self.net(torch.cat((image, condition), 1))
        return outputs


def whole(pair: Pair) -> Pair:
    """Return the pair unchanged: the view of the global discriminator."""
    return pair


@dataclass(frozen=True)
class LesionWindow:
    """A window of ``edge`` voxels around the lesion in ``channels`` of the condition."""

    channels: tuple[int, ...]
    edge: int

    def __call__(self, pair: Pair) -> Pair:
        """Return the windows of a pair; a crop without a lesion is cut at its centre."""
        image, condition = pair
        mask = condition[:, list(self.channels)].amax(1, keepdim=True) > 0.5
        size = [min(self.edge, n) for n in image.shape[2:]]
        at = corners(mask, size)
        return windows(image, at, size), windows(condition, at, size)


def corners(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Return first voxels of windows in crops around masks, bool (B, 1, ...): int64 (B, axes)."""
    firsts = []
    for axis, edge in enumerate(size):
        middle = centroid(mask[:, 0], axis)
        first = (middle - (edge - 1) / 2).round().long()
        firsts.append(first.clamp(0, mask.shape[axis + 2] - edge))
    return torch.stack(firsts, 1)


def windows(x: Tensor, at: Tensor, size: Sequence[int]) -> Tensor:
    """Cut windows out of samples from their first voxels on: (B, K, ...) -> (B, K, *size)."""
    # By indices on the device: slices would wait for it.
    indices = [
        at[:, axis, None] + torch.arange(edge, device=x.device) for axis, edge in enumerate(size)
    ]
    return pulled(x, indices)


class CGAN(Generator):
    """A conditional GAN; by default of all image channels, from label maps.

    Its losses: Isola et al. 2017: adversarial term and L1; Wang et al. 2018: feature matching; Sun
    et al. 2020 (MM-GAN): a pool of earlier image-label pairs; Doncenco 2022: alternating updates;
    Iizuka et al. 2017 (ACM Transactions on Graphics 36(4), sec. 3.3): a local discriminator. A
    *pair* is an image (or label probabilities) and its condition. With ``fit_edits`` synthetic
    pairs have other conditions. Both images are then compared where the conditions are equal.

    The kinds override what they condition on (``discriminator_conditions`` to ``condition_parts``),
    what they draw (``target_channels`` to ``sample_of``), and terms of the generator's loss.
    """

    options: CGANOptions
    output: Literal["linear", "tanh"] = "linear"  # range of the generator's network
    given: Sequence[int] = ()  # numbers of the channels that are conditions, not drawn

    @property
    def capabilities(self) -> Capabilities:
        remedies = {
            "not finite": "Lower the learning rates (--set lr_generator=1e-4)",
            "at chance": "a stronger discriminator: --set spectral_norm=false",
        }
        adaptive = self.options.augment_p == "adaptive"
        return Capabilities(trains=True, replays=not adaptive, edits=EDITS, remedies=remedies)

    # -- what it is conditioned on ---------------------------------------------------------------

    @property
    def discriminator_conditions(self) -> tuple[str, ...]:
        """Names of the condition channels that discriminators see, too, in order."""
        return tuple([f"label:{value}" for value in self.schema.label_values])

    @property
    def condition_channels(self) -> tuple[str, ...]:
        """Names of all condition channels in order."""
        return self.discriminator_conditions

    def inputs_of_batch(self, batch: Batch, step: TrainingStep | None = None) -> ConditionInputs:
        """Return a training batch's conditions; no step: of real cases, without randomness."""
        return ConditionInputs(batch.labels)

    def inputs_of(self, conditions: Sequence[Condition]) -> ConditionInputs:
        """Return conditions of samples as one batch; DataFault: something is missing."""
        labels = [condition.required("labels") for condition in conditions]
        return ConditionInputs(stacked(labels, self.device).long())

    def condition_parts(
        self, inputs: ConditionInputs, part: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Return condition channels in order, float32 (B, K, ...) each, of ``part`` of a volume."""
        assert inputs.labels is not None, "observe() or inputs_of() has checked them"
        return [one_hot(part(inputs.labels), self.schema.label_values)]

    def encoded(self, inputs: ConditionInputs, window: Sequence[slice] = ()) -> Tensor:
        """Return condition channels float32 (B, names, ...), of a window or the volume."""
        inside: Any = (..., *window)
        parts = self.condition_parts(inputs, lambda x: x[inside])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    # -- what it draws ---------------------------------------------------------------------------

    @property
    def target_channels(self) -> tuple[str, ...]:
        """Names of the generated channels."""
        return tuple([f"image:{self.schema.channels[number]}" for number in self.drawn])

    @property
    def drawn(self) -> list[int]:
        """Numbers of the image channels that are generated."""
        return [n for n in range(len(self.schema.channels)) if n not in self.given]

    def real(self, batch: Batch) -> Tensor:
        """Return what is real of a batch, float32 (B, C, ...)."""
        return batch.image[:, self.drawn] if self.given else batch.image

    def units(self, inputs: ConditionInputs, like: Tensor) -> ImageUnits | None:
        """Return the units in which networks see what is drawn; None: the source's.

        ``like``: a tensor (B, C, ...) of the images' device and dimensions.
        """
        return None

    def finished(self, drawn: Tensor, inputs: ConditionInputs) -> Tensor:
        """Return the network's output as the user sees it."""
        return drawn

    def sample_of(self, drawn: Tensor, condition: Condition) -> Sample:
        """Return the sample of a finished output (C, ...)."""
        return Sample(drawn.cpu().numpy(), condition.labels)

    # -- its losses ------------------------------------------------------------------------------

    def l1(self, step: TrainingStep, fake: Tensor, real: Tensor) -> Tensor:
        """Return the L1 term without its weight."""
        return losses.l1(fake, real, lowpass=1)

    def own_terms(self, step: TrainingStep, fake: Tensor, real: Tensor) -> Mapping[str, Tensor]:
        """Return further terms of the generator."""
        return {}

    # -- networks --------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        o = self.options
        self.loss, self.pool = losses.ADVERSARIAL[o.loss], ImagePool(0)
        midpoint = self.loss.midpoint or 0.0
        self.augment = DiscriminatorAugment(o.augment, o.augment_p, midpoint=midpoint)
        if o.augment and o.augment_p == "adaptive":
            self.buffers["augment"] = self.augment
        return {"generator": self.new_generator(), "discriminator": self.new_discriminator()}

    def new_generator(self) -> UNetGenerator:
        """Return an untrained generator's network."""
        o = self.options
        layers = o.layers
        style = UNetStyle(
            norm=layers.norm,
            down=layers.down,
            up=layers.up,
            blocks=layers.blocks,
            double=layers.double,
            activation=layers.activation,
            skip=layers.skip,
            narrow=layers.narrow,
            head=layers.g_head,
            stem=layers.g_stem,
            spectral=layers.g_spectral_norm,
            noise=layers.noise,
            dropout=layers.dropout,
            checkpointing=o.checkpointing,
        )
        ndim, strides = self.schema.ndim, self.strides[: o.levels - 1]
        cin, cout = len(self.condition_channels), len(self.target_channels)
        shape = ndim, cin, cout, o.width, strides, self.output, o.layers.max_width
        return UNetGenerator(*shape, style=style)

    def new_discriminator(self) -> PatchDiscriminator:
        """Return an untrained discriminator."""
        o = self.options
        layers = o.layers
        return PatchDiscriminator(
            self.schema.ndim,
            len(self.target_channels) + len(self.discriminator_conditions),
            o.d_width,
            self.strides[: o.d_levels - 1],
            spectral=o.spectral_norm,
            texture_head=layers.texture_head,
            norm=layers.d_norm,
            act=layers.d_activation,
            down=layers.d_down,
            stem=layers.d_stem,
            double=layers.d_double,
            checkpointing=o.checkpointing,
        )

    @property
    def strides(self) -> list[tuple[int, ...]]:
        """Strides between the resolutions of the networks, as many as the deepest has."""
        o = self.options
        return strides_for(self.size, self.schema.spacing, max(o.levels, o.d_levels))

    @property
    def judges(self) -> list[Discriminator]:
        """The discriminators, the global one first."""
        return [Discriminator("discriminator", "", 1.0, self.nets["discriminator"], whole)]

    def local_judges(
        self, shown_by: Iterable[str], weight: float, edge: int
    ) -> list[Discriminator]:
        """Return the local discriminator, if any: of a window around what these channels show."""
        if "local" not in self.nets:
            return []
        window = LesionWindow(tuple(map(self.discriminator_conditions.index, shown_by)), edge)
        return [Discriminator("local", "local_", weight, self.nets["local"], window)]

    def channel_axes(self) -> Mapping[str, tuple[int, Sequence[str]]]:
        """Return the weights whose axes are condition or target channels."""
        if not self.nets:
            return {}
        drawn, condition = self.target_channels, self.condition_channels
        first, last = self.net.channel_axes()
        axes: dict[str, tuple[int, Sequence[str]]] = {f"generator/{first}": (1, condition)}
        for name, axis in last.items():
            axes[f"generator/{name}"] = (axis, drawn)
        for judge in self.judges:
            weight = cast(PatchDiscriminator, judge.net).input_weight()
            axes[f"{judge.name}/{weight}"] = (1, (*drawn, *self.discriminator_conditions))
        if "perceptor" in self.nets:
            axes["perceptor/first.0.weight"] = (1, drawn)
        return axes

    @property
    def net(self) -> UNetGenerator:
        """The generator's network."""
        return cast(UNetGenerator, self.nets["generator"])

    def players(self) -> Mapping[str, tuple[str, ...]]:
        """Return one player per network; the discriminators share one."""
        players: dict[str, tuple[str, ...]] = {n: (n,) for n in self.nets if n != "local"}
        if "local" in self.nets:
            players["discriminator"] = ("discriminator", "local")
        return players

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        o = self.options
        rates = {
            "generator": o.lr_generator,
            "discriminator": o.lr_discriminator,
            "perceptor": PERCEPTOR_RATE,
        }
        return self.adam(parameters, rates[player], o.betas)

    # -- training: the generator -----------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Return the phases, generator first: the discriminator reuses its image."""
        o = self.options
        if not self.nets:
            return ()
        turns = 2 if o.n_critic == "alternate" else 1
        # The generator is updated after the discriminator steps that it waits for.
        pace = 2 if o.n_critic == "alternate" else o.n_critic
        return [
            Phase("generator", self._generator, pace, pace - 1),
            Phase("discriminator", self._discriminator, turns, chance=self._chance()),
        ]

    def _chance(self) -> dict[str, float]:
        if self.loss.chance is None:
            return {}
        return {f"{judge.prefix}adversarial": self.loss.chance for judge in self.judges}

    def _generator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the generator's losses: adversarial, L1, feature matching, the kind's own."""
        fake, real = self._fakes(step), self.real_in_units(step)
        step.scratch["fake"] = fake.detach()
        terms: dict[str, Tensor] = {}
        with parametrize.cached():  # both passes of a discriminator have the same weights
            for judge in self.judges:
                terms.update(self._fooled(step, judge, fake, real))
        terms.update(self.own_terms(step, fake, real))
        return terms

    def _fooled(
        self, step: TrainingStep, judge: Discriminator, fake: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        o = self.options
        image, condition = judge.view((fake, self._asked(step)))
        numbers = self.augment.drawn(step, image.ndim - 2)
        logits, features = judge(*self.augment.changed(numbers, step, image, condition))
        terms = {"adversarial": judge.weight * o.adversarial * self.loss.generator(logits)}
        if o.l1 and not judge.prefix:  # counted once, with the global discriminator
            terms["l1"] = o.l1 * self.l1(step, fake, real)
        if o.feature_matching:
            # The real pair gets the same augmentation, or features would not correspond.
            real, real_condition = judge.view((real, self._condition(step)))
            with torch.no_grad():
                _, real_features = judge(*self.augment.changed(numbers, step, real, real_condition))
            matching = losses.feature_matching(real_features, features)
            terms["feature_matching"] = judge.weight * o.feature_matching * matching
        return {judge.prefix + name: term for name, term in terms.items()}

    def _fakes(self, step: TrainingStep) -> Tensor:
        """Generate samples; voxels outside the body and padding get their known values."""
        net, padding, condition = self.net, step.batch.padding, self._channels(step, asked=True)
        latents = [step.randn(*shape) for shape in net.latent_shapes(condition.shape[2:])]
        fake = self.finished(net(condition, latents), self.inputs(step, asked=True))
        fake = self._in_units(step, fake)
        return (
            fake
            if padding is None
            else torch.where(padding[:, None], self.real_in_units(step), fake)
        )

    # -- the discriminators ------------------------------------------------------------------------

    def _discriminator(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the losses of all discriminators."""
        if "fake" not in step.scratch:
            with torch.no_grad():
                step.scratch["fake"] = self._fakes(step)
        fake, fake_condition = self.pool.query(step, step.scratch["fake"], self._asked(step))
        terms: dict[str, Tensor] = {}
        for judge in self.judges:
            real = judge.view((self.real_in_units(step), self._condition(step)))
            judge_terms = self._loss_terms(step, judge, real, judge.view((fake, fake_condition)))
            terms.update({judge.prefix + name: term for name, term in judge_terms.items()})
        return terms

    def _loss_terms(
        self, step: TrainingStep, judge: Discriminator, of_real: Pair, of_fake: Pair
    ) -> dict[str, Tensor]:
        (real, condition), (fake, fake_condition) = of_real, of_fake
        real, condition = self.augment(step, real, condition)
        fake, fake_condition = self.augment(step, fake, fake_condition)
        if self.options.layers.d_norm == "batch":
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
            pairs = (real, condition), (fake, fake_condition)
            penalty = self._penalty(step, judge, *pairs)
            terms["gp"] = self.options.gp * penalty
        return terms

    def _penalty(
        self, step: TrainingStep, judge: Discriminator, of_real: Pair, of_fake: Pair
    ) -> Tensor:
        (real, condition), (fake, fake_condition) = of_real, of_fake
        share = step.rand(*[1] * (real.ndim - 1))
        between = torch.lerp(fake_condition.float(), condition.float(), share)
        return losses.gradient_penalty(lambda image: judge(image, between)[0], real, fake, share)

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return mean logits of real pairs over patches, heads, discriminators: float32 (B,)."""
        lacks_context = "context" in self.capabilities.takes and batch.context is None
        if not self.nets or batch.labels is None or lacks_context:
            return None
        step = TrainingStep(batch, stage, 0, 0, torch.Generator(batch.image.device))
        step.scratch["inputs"] = self.inputs_of_batch(batch)
        with at_rest(self):
            pair = self.real_in_units(step), self._condition(step)
            heads = [h for judge in self.judges for h in judge(*judge.view(pair))[0]]
            return torch.stack([head.float().flatten(1).mean(1) for head in heads]).mean(0)

    # -- pairs -------------------------------------------------------------------------------------

    def inputs(self, step: TrainingStep, *, asked: bool = False) -> ConditionInputs:
        """Return conditions of the step's cases, or of its samples; made once per step."""
        batch = step.batch
        if asked and batch.asked is not None:
            return ConditionInputs(batch.asked, batch.asked_context)
        if "inputs" not in step.scratch:
            if batch.labels is None:
                raise DataFault(
                    "cgan3d.case-without-labels",
                    f"{self.name}: a training case has no labels, expected a map",
                )
            with torch.no_grad(), torch.autocast(batch.image.device.type, enabled=False):
                step.scratch["inputs"] = self.inputs_of_batch(batch, step)
        result: ConditionInputs = step.scratch["inputs"]
        return result

    def _channels(self, step: TrainingStep, *, asked: bool = False) -> Tensor:
        """Return the same as condition channels (B, K, ...), made once per step."""
        edited = asked and step.batch.asked is not None
        key = "asked" if edited else "condition"
        if key not in step.scratch:
            step.scratch[key] = self.encoded(self.inputs(step, asked=asked))
        channels: Tensor = step.scratch[key]
        return channels

    def _condition(self, step: TrainingStep) -> Tensor:
        return self._channels(step)[:, : len(self.discriminator_conditions)]

    def _asked(self, step: TrainingStep) -> Tensor:
        return self._channels(step, asked=True)[:, : len(self.discriminator_conditions)]

    def alike(self, step: TrainingStep) -> Tensor | None:
        """Return where samples and real images have equal conditions, bool (B, 1, ...)."""
        if step.batch.asked is None:
            return None
        return (self._condition(step) == self._asked(step)).all(1, keepdim=True)

    def real_in_units(self, step: TrainingStep) -> Tensor:
        """Return what is real of the step's cases, in the networks' units."""
        return self._in_units(step, self.real(step.batch))

    def _in_units(self, step: TrainingStep, image: Tensor) -> Tensor:
        units = self.units(self.inputs(step), image)
        return image if units is None else units.standardised(image)

    # -- sampling --------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition; its randomness depends on its seed alone."""
        self.net.eval()
        requests = list(zip(conditions, seeds, strict=True))
        samples: list[Sample] = []
        with settled(self.net):
            while len(samples) < len(requests):
                at_once = self._at_once(requests[len(samples)][0])
                part = requests[len(samples) :][:at_once]
                batch = [*part, *part[:1] * (at_once - len(part))]
                drawn = by_halves(self._outputs, batch)
                pairs = zip(drawn, part, strict=False)
                samples += [self.sample_of(output, condition) for output, (condition, _) in pairs]
        return samples

    def _at_once(self, condition: Condition) -> int:
        most = AT_ONCE.get(self.device.type, 1)
        if most == 1:
            return 1
        size = _size_of(condition)
        if tile_edge(self.net, size, self.options.sample_tile):
            return 1
        return max(1, min(most, VOXELS_AT_ONCE // math.prod(size)))

    def _outputs(self, requests: Sequence[Request]) -> Tensor:
        inputs = self.inputs_of([condition for condition, _ in requests])
        size, seeds = _size_of(requests[0][0]), [seed for _, seed in requests]
        return self.finished(self._draw(inputs, size, seeds).float(), inputs)

    def _draw(self, inputs: ConditionInputs, size: Sequence[int], seeds: Sequence[int]) -> Tensor:
        net, edge = self.net, tile_edge(self.net, size, self.options.sample_tile)
        latents = self._latents(net.latent_shapes(size), seeds)
        with self.autocast(self.device):
            if edge:
                return draw_tiled(net, lambda w: self.encoded(inputs, w), size, latents, edge)
            drawn: Tensor = net(self.encoded(inputs), latents)
            return drawn

    def _latents(self, shapes: Sequence[tuple[int, ...]], seeds: Sequence[int]) -> list[Tensor]:
        """Return latents, made on the CPU so that a seed gives the same on every device."""
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        return [
            torch.stack([torch.randn(shape, generator=rng) for rng in rngs]).to(self.device)
            for shape in shapes
        ]
