"""``cgan3d``: a conditional GAN that generates all channels of a volume from its label map.

The method is pix2pix (Isola et al. 2017) in 3D. Shin et al. 2018, Doncenco 2022 and Sun et al. 2020
(MM-GAN) used it for tumours. Defaults that differ from theirs improve texture. 2D schemas work the
same way. With ``insert=lesion`` it draws lesions into real images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from gansynth.conditions.lesion_placement import no_room
from gansynth.core.generator import Batch, Generator, GeneratorOptions, Heeded, Phase, Stage
from gansynth.core.schema import OUTSIDE, Case, Condition, FloatArray, LabelArray, Sample
from gansynth.data.lesion_parts import lesion_values
from gansynth.nn.networks import PatchDiscriminator, UNetGenerator, UNetStyle
from gansynth.nn.networks.blocks import strides_for
from gansynth.nn.networks.perceptor import Perceptor
from gansynth.nn.networks.spectral import settled
from gansynth.nn.tiled_inference import by_halves, draw_tiled, tile_edge
from gansynth.runtime.devices import adam, autocast, resolve
from gansynth_cgan3d.conditions import (
    BodyChannel,
    ConditionEncoder,
    ConditionInputs,
    ContextClusters,
    automatic,
    body_map,
)
from gansynth_cgan3d.discriminators import Discriminator, LesionWindow, whole
from gansynth_cgan3d.lesion import LesionInserter, LesionInsertion
from gansynth_cgan3d.objective import CGANObjective
from gansynth_cgan3d.options import CGANOptions

__all__ = ["CGAN3D", "CGANOptions"]

AT_ONCE = {"cuda": 4}
"""Samples per batch by device, else 1: on a CPU larger batches gain nothing. Batches are padded to
this size, so the number of requested samples has no effect on a sample."""
VOXELS_AT_ONCE = 2**23  # voxels per batch at most, unless a single sample has more


class CGAN3D(Generator):
    """Conditional GAN: label map, context and given channels in, the other channels out."""

    name: ClassVar[str] = "cgan3d"
    Options: ClassVar[type[GeneratorOptions]] = CGANOptions
    default_edits: ClassVar[tuple[str, ...]] = ("elastic", "scale", "rotate", "clip:to=image")
    if_labels_fail: ClassVar[str] = (
        "train longer (--set steps=N), give labels of few voxels more weight (--set dice=20), or "
        "cut crops closer around them (--set patch=32,64,64)"
    )

    options: CGANOptions

    # -- networks --------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return U-Net, PatchGANs, and a segmenter for a loss; none for ``stage=coarse``."""
        o = self.options
        self.clusters, self.bodies = ContextClusters(o.context or 0), BodyChannel()
        self.inserting = LesionInserter(self.schema, o) if o.insert == "lesion" else None
        self.conditions = ConditionEncoder(self.schema, o)
        self.objective = CGANObjective(self)
        if o.pool:
            self.memories["pool"] = self.objective.pool
        if o.augment and o.augment_p == "adaptive":
            self.memories["augment"] = self.objective.augment
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
        axes: dict[str, tuple[int, Sequence[str]]] = {
            f"generator/{first}": (1, condition),
            **{f"generator/{name}": (axis, drawn) for name, axis in last.items()},
        }
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

    @property
    def compilable(self) -> Sequence[str]:
        """Return all networks; the generator alone with a gradient penalty; none recomputed."""
        o = self.options
        return () if o.checkpointing else self.ema if o.gp or o.r1 else tuple(self.nets)

    @property
    def intensity(self) -> Literal["linear", "tanh"]:
        """Range of the images: option ``output``."""
        return self.options.output

    # -- training --------------------------------------------------------------------------------

    def phases(self) -> Sequence[Phase]:
        """Return the phases of ``CGANObjective``; none for ``stage=coarse``."""
        return self.objective.phases() if self.nets else ()

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam at the player's learning rate."""
        o = self.options
        return adam(parameters, getattr(o, f"lr_{player}"), (o.beta1, o.beta2))

    def automatic_options(self, cases: Iterable[Case]) -> tuple[CGANOptions, str]:
        """Return options with ``context`` and ``standardise`` decided, and why they are on."""
        return automatic(self.options, cases)

    def accepts(self, case: Case) -> bool:
        """Accept any case; with ``insert=lesion`` only crops that show a lesion."""
        return self.inserting is None or self.inserting.accepts(case)

    def observe(self, cases: Iterable[Case]) -> None:
        """Fit intensities and context clusters, or the lesion statistics of ``insert=lesion``."""
        if self.inserting is not None:
            self.inserting.statistics.fit(cases)
            return
        watched = self._watched(cases)
        self.clusters.fit(watched)
        for _ in watched:
            pass

    def _watched(self, cases: Iterable[Case]) -> Iterator[Case]:
        """Yield cases, and record their intensities if networks see standardised ones."""
        for case in cases:
            if self.options.standardise:
                self.conditions.intensities.add(case.image)
            yield case

    def state(self) -> dict[str, Any]:
        """Return intensities and cluster centres, or lesion statistics; no image."""
        if self.inserting is not None:
            return self.inserting.state()
        intensities = self.conditions.intensities.to_json() if self.options.standardise else None
        return {**self.clusters.to_json(), "intensities": intensities}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
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
        with self.at_rest():
            return self.objective.realness(batch, stage)

    @property
    def chance_losses(self) -> Mapping[str, float]:
        """Losses of the discriminators for pure guessing; none for ``loss=wgan``."""
        return self.objective.chance_losses() if self.nets else {}

    # -- conditions ------------------------------------------------------------------------------

    @property
    def conditioned_on(self) -> frozenset[Heeded]:
        """Labels; a lesion and its background, given channels and context by the options."""
        heeded: Mapping[Heeded, bool] = {
            "lesion": self.inserting is not None,
            "channels": bool(self.conditions.given),
            "context": self.options.body or bool(self.options.context),
        }
        return super().conditioned_on | {name for name, used in heeded.items() if used}

    @property
    def default_lesions(self) -> str | None:
        """The default of ``--lesions``: the classes of option ``lesions``, if named."""
        if self.inserting is None or not self.options.lesions:
            return None
        return f"classes={'+'.join(map(str, self.inserting.values))}"

    def reject_reason(self, sample: Sample) -> str:
        """Return a reason to reject a sample: there was no room for its lesion."""
        return "" if self.inserting is None else no_room(sample.provenance)

    @property
    def fit_edits(self) -> tuple[str, ...]:
        """Edits of label maps in training: option ``fit_edits``."""
        return self.options.fit_edits

    @property
    def context_follows(self) -> bool:
        """Whether context moves with edited labels: clusters do, the body does not."""
        return not self.options.body

    def context(self, case: Case) -> LabelArray | None:
        """Return background clusters or the body map, int16 (D, H, W); None for neither."""
        if self.options.body:
            return body_map(case, self.bodies)
        return self.clusters.map(case) if self.options.context else None

    def given(self, case: Case) -> FloatArray | None:
        """Return a case's given channels for a condition, float32 (K, D, H, W), or None."""
        channels = self.conditions.given
        return np.ascontiguousarray(case.image[channels]) if channels else None

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
        values = [fill[i] for i in self.conditions.drawn]
        value = torch.tensor(values, device=drawn.device).view(1, -1, *[1] * self.schema.ndim)
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
