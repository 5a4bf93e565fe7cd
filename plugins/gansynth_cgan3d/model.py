"""``cgan3d``: a conditional GAN that generates all channels of a volume from its label map.

The method is pix2pix (Isola et al. 2017) in 3D. Shin et al. 2018, Doncenco 2022 and Sun et al. 2020
(MM-GAN) used it for tumours. Defaults that differ from theirs improve texture. 2D schemas work the
same way. With ``insert=lesion`` it draws lesions into real images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gansynth import (
    OUTSIDE,
    Batch,
    Capabilities,
    Case,
    Condition,
    DiscriminatorAugment,
    Generator,
    GeneratorOptions,
    ImagePool,
    Input,
    LabelArray,
    PatchDiscriminator,
    Phase,
    Sample,
    Stage,
    TrainingStep,
    UNetGenerator,
    UNetStyle,
    at_rest,
    draw_tiled,
    one_hot,
    strides_for,
)
from gansynth.data.connected_components import lesion_values
from gansynth.nn import losses
from gansynth.nn.networks.perceptor import Perceptor
from gansynth.nn.networks.spectral import settled
from gansynth.nn.tiled_inference import by_halves, tile_edge
from gansynth.runtime.devices import adam, autocast, numbers_on, resolve
from gansynth_cgan3d.conditions import (
    BodyChannel,
    ConditionEncoder,
    ConditionInputs,
    ContextClusters,
    automatic,
    body_map,
)
from gansynth_cgan3d.lesion import LesionInserter, LesionInsertion, centroid, pulled
from gansynth_cgan3d.options import CGANOptions

__all__ = ["CGAN3D", "CGANOptions"]

AT_ONCE = {"cuda": 4}
"""Samples per batch by device, else 1: on a CPU larger batches gain nothing. Batches are padded to
this size, so the number of requested samples has no effect on a sample."""
VOXELS_AT_ONCE = 2**23  # voxels per batch at most, unless a single sample has more

PERCEPTOR_RATE = 1e-3
"""Learning rate of the perceptual segmenter."""


class CGAN3D(Generator):
    """Conditional GAN: label map, context and given channels in, the other channels out."""

    name: ClassVar[str] = "cgan3d"
    Options: ClassVar[type[GeneratorOptions]] = CGANOptions

    options: CGANOptions

    @property
    def capabilities(self) -> Capabilities:
        """What it can under its options."""
        o, takes = self.options, set[Input]()
        if o.target == "image":
            takes.add("labels")
        if o.insert == "lesion":
            takes.add("lesion")
        if o.given:
            takes.add("channels")
        if o.body or o.context:
            takes.add("context")
        edits = ("elastic", "scale", "rotate", "clip:to=image")
        return Capabilities(
            takes=frozenset(takes),
            draws=o.target,
            channels=o.given,
            trains=o.stage != "coarse",
            range=o.output,
            follows=not o.body,  # clusters move with edited labels, the body does not
            body_channel=o.body_of if o.body else None,
            in_chain={"context": 0},
            edits=edits if o.target == "image" else (),
            fit_edits=o.fit_edits,
            lesions=f"classes={'+'.join(o.lesions)}" if o.lesions else None,
            replays=not o.pool and o.augment_p != "adaptive",
            remedies={
                "organs": "name the lesions (--set lesions=NAME)",
                "not finite": "Lower the learning rates (--set lr_generator=1e-4)",
                "at chance": "a stronger discriminator: --set spectral_norm=false",
                "labels missed": "train longer (--set steps=N), give labels of few voxels more "
                "weight (--set dice=20), or cut crops closer around them (--set patch=32,64,64)",
            },
            rim_mm=o.rim_mm,
        )

    # -- networks --------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return U-Net, PatchGANs, and a segmenter for a loss; none for ``stage=coarse``."""
        o = self.options
        self.clusters, self.bodies = ContextClusters(o.context or 0), BodyChannel()
        self.inserting = LesionInserter(self.schema, o) if o.insert == "lesion" else None
        self.conditions = ConditionEncoder(self.schema, o)
        self.objective = CGANObjective(self)
        if o.pool:
            self.buffers["pool"] = self.objective.pool
        if o.augment and o.augment_p == "adaptive":
            self.buffers["augment"] = self.objective.augment
        if o.stage == "coarse":
            return {}
        strides = strides_for(self.size, self.schema.spacing, max(o.levels, o.d_levels))
        nets: dict[str, nn.Module] = {
            "generator": self._generator(strides[: o.levels - 1]),
            "discriminator": self._discriminator(strides[: o.d_levels - 1]),
        }
        if o.local_weight:
            nets["local"] = self._discriminator(strides[: o.d_levels - 1])
        if o.perceptual:
            nets["perceptor"] = Perceptor(
                self.schema.ndim,
                len(self.target_channels),
                len(self.schema.label_values),
                o.d_width,
                strides[: o.d_levels - 1],
            )
        return nets

    def _generator(self, strides: Sequence[tuple[int, ...]]) -> UNetGenerator:
        o = self.options
        style = UNetStyle(
            norm=o.norm,
            down=o.down,
            up=o.up,
            blocks=o.blocks,
            double=o.double,
            activation=o.activation,
            skip=o.skip,
            narrow=o.narrow,
            head=o.g_head,
            stem=o.g_stem,
            spectral=o.g_spectral_norm,
            noise=o.noise,
            dropout=o.dropout,
            checkpointing=o.checkpointing,
        )
        ndim, output = self.schema.ndim, o.output if self.conditions.drawn else "linear"
        cin, cout = len(self.condition_channels), len(self.target_channels)
        net = UNetGenerator(ndim, cin, cout, o.width, strides, output, o.max_width, style=style)
        if o.draws_difference and not o.g_spectral_norm:  # 0 has no norm to divide by
            for parameter in net.image.parameters():
                nn.init.zeros_(parameter)
        return net

    def _discriminator(self, strides: Sequence[tuple[int, ...]]) -> PatchDiscriminator:
        o = self.options
        return PatchDiscriminator(
            self.schema.ndim,
            len(self.target_channels) + len(self.conditions.judged),
            o.d_width,
            strides,
            spectral=o.spectral_norm,
            texture_head=o.texture_head,
            norm=o.d_norm,
            act=o.d_activation,
            down=o.d_down,
            stem=o.d_stem,
            double=o.d_double,
            checkpointing=o.checkpointing,
        )

    @property
    def condition_channels(self) -> tuple[str, ...]:
        """Names of the condition channels in order; see ``ConditionEncoder.names``."""
        return self.conditions.names

    @property
    def target_channels(self) -> tuple[str, ...]:
        """Names of the generated channels: ``image:T1``, or ``drawn:0`` for a label value."""
        images = tuple(f"image:{self.schema.channels[i]}" for i in self.conditions.drawn)
        return images or tuple(f"drawn:{value}" for value in self.schema.label_values)

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
            axes[f"{judge.name}/{weight}"] = (1, (*drawn, *self.conditions.judged))
        if self.options.perceptual:
            axes["perceptor/first.0.weight"] = (1, drawn)
        return axes

    @property
    def net(self) -> UNetGenerator:
        """The generator's network."""
        return cast(UNetGenerator, self.nets["generator"])

    @property
    def judges(self) -> list[Discriminator]:
        """The discriminators, the global one first."""
        judges = [Discriminator("discriminator", "", 1.0, self.nets["discriminator"], whole)]
        if "local" in self.nets:
            view, weight = self._around(), self.options.local_weight
            judges.append(Discriminator("local", "local_", weight, self.nets["local"], view))
        return judges

    def _around(self) -> LesionWindow:
        names = list(self.conditions.judged)
        if self.inserting is not None:
            return LesionWindow((names.index("hole"),), self.options.local_size)
        values = lesion_values(self.schema, self.options.lesions)
        channels = tuple(names.index(f"label:{value}") for value in values)
        return LesionWindow(channels, self.options.local_size)

    def players(self) -> Mapping[str, tuple[str, ...]]:
        """Return one player per network; the discriminators share one."""
        players: dict[str, tuple[str, ...]] = {n: (n,) for n in self.nets if n != "local"}
        if "local" in self.nets:
            players["discriminator"] = ("discriminator", "local")
        return players

    # -- training --------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Return the phases of ``CGANObjective``; none for ``stage=coarse``."""
        return self.objective.phases() if self.nets else ()

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam at the player's learning rate."""
        o = self.options
        rates = {
            "generator": o.lr_generator,
            "discriminator": o.lr_discriminator,
            "perceptor": PERCEPTOR_RATE,
        }
        return adam(parameters, rates[player], (o.beta1, o.beta2))

    def automatic_options(self, cases: Iterable[Case]) -> tuple[CGANOptions, str]:
        """Return options with ``context`` and ``standardise`` decided, and why they are on."""
        return automatic(self.options, cases)

    def accepts(self, case: Case) -> bool:
        """Accept any case; with ``insert=lesion`` only crops that show a lesion."""
        return self.inserting is None or self.inserting.accepts(case)

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Fit intensities and context clusters, or the lesion statistics of ``insert=lesion``."""
        if self.inserting is not None:
            self.inserting.statistics.fit(cases)
            return self.inserting.state()
        watched = self._watched(cases)
        self.clusters.fit(watched)
        for _ in watched:
            pass
        state = self.clusters.to_json()
        state["intensities"] = None
        if self.options.standardise:
            state["intensities"] = self.conditions.intensities.to_json()
        return state

    def _watched(self, cases: Iterable[Case]) -> Iterator[Case]:
        """Yield cases, and record their intensities if networks see standardised ones."""
        for case in cases:
            if self.options.standardise:
                self.conditions.intensities.add(case.image)
            yield case

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``observe`` returned."""
        if self.inserting is not None:
            self.inserting.load_state(state)
            return
        self.clusters.load_json(state)
        if self.options.standardise:
            self.conditions.intensities.load_json(state["intensities"])

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return the discriminators' mean logit of real pairs; None without labels or context."""
        lacks_context = (self.options.context or self.options.body) and batch.context is None
        if not self.nets or batch.labels is None or lacks_context:
            return None
        with at_rest(self):
            return self.objective.realness(batch, stage)

    # -- conditions ------------------------------------------------------------------------------

    def context(self, case: Case) -> LabelArray | None:
        """Return background clusters or the body map, int16 (D, H, W); None for neither."""
        if self.options.body:
            return body_map(case, self.bodies)
        return self.clusters.map(case) if self.options.context else None

    def finished(
        self, drawn: Tensor, labels: Tensor | None, insertion: LesionInsertion | None = None
    ) -> Tensor:
        """Return the network's output as the discriminator and the user see it.

        Outside the body images get the schema's constant. Label logits (B, values, ...) become
        probabilities. A lesion is put into its real image.
        """
        if not self.conditions.drawn:
            return drawn.softmax(1)
        residual, units = self.options.draws_difference, self.conditions.units(insertion, drawn)
        if units is not None:
            drawn = units.of(self.conditions.drawn).restored(drawn, residual=residual)
        if insertion is not None:
            return insertion.composed(drawn + insertion.start if residual else drawn)
        fill = self.schema.outside_fill
        if fill is None or labels is None or not self.schema.has_outside:
            return drawn
        values = numbers_on(drawn.device, [fill[i] for i in self.conditions.drawn])
        value = values.view(1, -1, *[1] * self.schema.ndim)
        return torch.where((labels == OUTSIDE)[:, None], value, drawn)

    # -- sampling --------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition; its randomness depends on its seed alone.

        Returns images of all channels with the condition's labels. With ``target=labels``: the
        given channels with generated labels.
        """
        if self.inserting is not None and not self.nets:
            return [self._inserted(condition) for condition in conditions]
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
                samples += [self._sample(output, condition) for output, (condition, _) in pairs]
        return samples

    def _outputs(self, requests: Sequence[tuple[Condition, int]]) -> Tensor:
        conditioning = self._told([condition for condition, _ in requests])
        drawn = self._draw(conditioning, [seed for _, seed in requests]).float()
        return self.finished(drawn, conditioning.labels, conditioning.insertion)

    def _told(self, conditions: Sequence[Condition]) -> ConditionInputs:
        told, inserting = self.conditions.of_conditions(conditions, self.device), self.inserting
        if inserting is None:
            return told
        return replace(told, insertion=inserting.of_conditions(conditions, self.device))

    def _inserted(self, condition: Condition) -> Sample:
        insertion = self._told([condition]).insertion
        assert insertion is not None, "only insert=lesion comes here"
        return self._sample(insertion.start[0], condition)

    def _at_once(self, condition: Condition) -> int:
        most = AT_ONCE.get(self.device.type, 1)
        if most == 1:
            return 1
        size = self.conditions.of_conditions([condition], torch.device("cpu")).size
        if tile_edge(self.net, size, self.options.sample_tile):
            return 1
        return max(1, min(most, VOXELS_AT_ONCE // math.prod(size)))

    def _draw(self, conditioning: ConditionInputs, seeds: Sequence[int]) -> Tensor:
        net, size, conditions = self.net, conditioning.size, self.conditions
        edge = tile_edge(net, size, self.options.sample_tile)
        latents = self._latents(net.latent_shapes(size), seeds)
        with autocast(self.device, resolve(self.precision, self.device) == "bf16"):
            if edge:
                return draw_tiled(
                    net, lambda w: conditions.channels(conditioning, w), size, latents, edge
                )
            drawn: Tensor = net(conditions.channels(conditioning), latents)
            return drawn

    def _latents(self, shapes: Sequence[tuple[int, ...]], seeds: Sequence[int]) -> list[Tensor]:
        """Return latents, made on the CPU so that a seed gives the same on every device."""
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        return [
            torch.stack([torch.randn(shape, generator=rng) for rng in rngs]).to(self.device)
            for shape in shapes
        ]

    def _sample(self, drawn: Tensor, condition: Condition) -> Sample:
        conditions = self.conditions
        if not conditions.drawn:
            assert condition.given is not None
            values = np.array(self.schema.label_values, np.int16)
            labels = values[drawn.argmax(0).cpu().numpy()]
            return Sample(condition.given.astype(np.float32), labels)
        image = drawn.cpu().numpy()
        if conditions.given:
            assert condition.given is not None
            whole = np.empty((len(self.schema.channels), *image.shape[1:]), np.float32)
            whole[conditions.drawn], whole[conditions.given] = image, condition.given
            image = whole
        return Sample(image, condition.labels)


class CGANObjective:
    """Losses of the generator, the discriminator and the perceptual segmenter.

    Isola et al. 2017: adversarial term and L1; Wang et al. 2018: feature matching; Sun et al. 2020
    (MM-GAN): a pool of earlier image-label pairs; Doncenco 2022: alternating updates, perceptual
    loss; Iizuka et al. 2017 (ACM Transactions on Graphics 36(4), sec. 3.3): a local discriminator.

    A *pair* is an image (or label probabilities) and its condition. With ``fit_edits`` synthetic
    pairs have other conditions. Both images are then compared where the conditions are equal.
    """

    def __init__(self, gan: CGAN3D) -> None:
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
            Phase("discriminator", self.discriminator, turns, chance=self._chance()),
        ]
        if o.perceptual:
            phases.append(Phase("perceptor", self.perceptor))
        return phases

    def _chance(self) -> dict[str, float]:
        if self.loss.chance is None:
            return {}
        return {f"{judge.prefix}adversarial": self.loss.chance for judge in self.gan.judges}

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
        numbers = self.augment.drawn(step, image.ndim - 2)
        logits, features = judge(*self.augment.changed(numbers, step, image, condition))
        terms = {"adversarial": judge.weight * o.adversarial * self.loss.generator(logits)}
        if o.l1 and not judge.prefix:  # counted once, with the global discriminator
            terms["l1"] = o.l1 * self._l1(step, fake, real)
        if o.feature_matching:
            # The real pair gets the same augmentation, or features would not correspond.
            real, real_condition = judge.view((real, self._condition(step)))
            with torch.no_grad():
                _, real_features = judge(*self.augment.changed(numbers, step, real, real_condition))
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
