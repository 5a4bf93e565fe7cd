"""``cgan3d``: all channels of a volume from its label map, or those that are not given.

Shin et al. 2018, Doncenco 2022 and Sun et al. 2020 (MM-GAN) used it for tumours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth import (
    OUTSIDE,
    Batch,
    Capabilities,
    Case,
    ChannelStatistics,
    Condition,
    GeneratorOptions,
    ImagePool,
    Input,
    LabelArray,
    Phase,
    Sample,
    TrainingStep,
    UsageFault,
    one_hot,
)
from gansynth.nn import losses
from gansynth_cgan3d.context import BodyChannel, Clusters, ContextClusters, automatic, body_map
from gansynth_cgan3d.inserter import ImageUnits
from gansynth_cgan3d.model import (
    CGAN,
    ConditionInputs,
    Discriminator,
    given_of,
    numbers_of,
    stacked,
)
from gansynth_cgan3d.options import CGAN3DOptions
from gansynth_cgan3d.perceptor import Perceptor


class CGAN3D(CGAN):
    """Label map, context and given channels in, the other channels out."""

    name: ClassVar[str] = "cgan3d"
    Options: ClassVar[type[GeneratorOptions]] = CGAN3DOptions

    options: CGAN3DOptions

    @property
    def capabilities(self) -> Capabilities:
        o, takes = self.options, set[Input]({"labels"})
        if o.given:
            takes.add("channels")
        if o.context:
            takes.add("context")
        shared = super().capabilities
        return replace(
            shared,
            takes=frozenset(takes),
            channels=o.given,
            range=o.output,
            follows=o.body_of is None,  # clusters move with edited labels, the body does not
            body_channel=o.body_of,
            in_chain={"context": 0},
            fit_edits=o.fit_edits,
            replays=shared.replays and not o.pool,
        )

    # -- networks --------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return also a local discriminator, and a segmenter for a loss."""
        o, schema = self.options, self.schema
        self.clusters, self.bodies = ContextClusters(o.clusters), BodyChannel()
        self.intensities = ChannelStatistics(len(schema.channels))
        self.given = numbers_of(o.given, schema)
        if not self.drawn:
            raise UsageFault(
                "cgan3d.all-channels-given",
                f"given: {', '.join(o.given)} are all channels, none is left to generate; give "
                "fewer, or generate label maps: gansynth fit cgan3d-labels",
            )
        self.output = o.output
        nets = super().networks()
        if o.pool:
            self.pool = self.buffers["pool"] = ImagePool(o.pool)
        if o.local:
            nets["local"] = self.new_discriminator()
        if o.perceptual:
            values, strides = schema.label_values, self.strides[: o.d_levels - 1]
            shape = schema.ndim, len(self.drawn), len(values), o.d_width, strides
            nets["perceptor"] = Perceptor(*shape)
        return nets

    @property
    def judges(self) -> list[Discriminator]:
        o = self.options
        values = self.schema.lesion_values(o.lesions) if o.local else ()
        names = [f"label:{value}" for value in values]
        return [*super().judges, *self.local_judges(names, o.local, o.local_size)]

    @property
    def discriminator_conditions(self) -> tuple[str, ...]:
        """``label:0``, ``body``, ``context:1``, ``given:T1``."""
        o = self.options
        body = [] if o.body_of is None else ["body"]
        context = [f"context:{number + 1}" for number in range(o.clusters)]
        return (
            *super().discriminator_conditions,
            *body,
            *context,
            *[f"given:{name}" for name in o.given],
        )

    # -- training cases --------------------------------------------------------------------------

    def automatic_options(self, cases: Iterable[Case]) -> tuple[CGAN3DOptions, str]:
        """Return options with ``context`` and ``standardise`` decided, and why they are on."""
        return automatic(self.options, cases)

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        watched = self._watched(cases)
        self.clusters.fit(watched)
        for _ in watched:
            pass
        state = self.clusters.to_json()
        state["intensities"] = self.intensities.to_json() if self.options.standardise else None
        return state

    def _watched(self, cases: Iterable[Case]) -> Iterator[Case]:
        """Yield cases, and record their intensities if networks see standardised ones."""
        for case in cases:
            if self.options.standardise:
                self.intensities.add(case.image)
            yield case

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.clusters.load_json(state)
        if self.options.standardise:
            self.intensities.load_json(state["intensities"])

    # -- conditions ------------------------------------------------------------------------------

    def context(self, case: Case) -> LabelArray | None:
        """Return background clusters or the body map, int16 (D, H, W); None for neither."""
        if self.options.body_of is not None:
            return body_map(case, self.bodies)
        return self.clusters.map(case) if self.options.clusters else None

    def whole_context(self, case: Case) -> Clusters | None:
        """Return clusters of all voxels; a body is not to be found from crop to crop."""
        return self.clusters.of_image(case.image) if self.options.clusters else None

    def whole_context_key(self) -> str:
        return json.dumps(self.clusters.to_json()) if self.options.clusters else ""

    def cut_context(self, case: Case, whole: Clusters, corner: Sequence[int]) -> LabelArray:
        """Return clusters of a crop's background, int16 (D, H, W)."""
        return self.clusters.cut(case, whole, corner)

    def inputs_of_batch(self, batch: Batch, step: TrainingStep | None = None) -> ConditionInputs:
        """Return labels, context and given channels of a batch."""
        given = batch.image[:, self.given] if self.given else None
        return ConditionInputs(batch.labels, batch.context, given)

    def inputs_of(self, conditions: Sequence[Condition]) -> ConditionInputs:
        """Return the same of samples; a missing context is empty."""
        labels, context, given = super().inputs_of(conditions).labels, None, None
        if self.options.context:
            assert labels is not None
            blank = np.zeros(labels.shape[1:], np.int16)
            maps = [blank if c.context is None else c.context for c in conditions]
            context = stacked(maps, self.device).long()
        if self.given:
            given = given_of(conditions, len(self.given), self.device)
        return ConditionInputs(labels, context, given)

    def condition_parts(
        self, inputs: ConditionInputs, part: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        parts = super().condition_parts(inputs, part)
        if self.options.body_of is not None:
            assert inputs.context is not None, "the batch has the body of context()"
            parts.append(self._split_off_body(parts[0], part(inputs.context)))
        if self.options.clusters:
            assert inputs.context is not None, "the batch has the context of observe()'s clusters"
            parts.append(one_hot(part(inputs.context), range(1, self.options.clusters + 1)))
        if inputs.given is not None:
            units = self._units(self.given, inputs.given)
            given = part(inputs.given)
            parts.append(given if units is None else units.standardised(given))
        return parts

    def _split_off_body(self, labels: Tensor, body: Tensor) -> Tensor:
        """Return the body channel (B, 1, ...) and remove the body from the background channel."""
        background = labels[:, self.schema.label_values.index(0)]
        inside = background * (body == 1)
        background -= inside
        return inside[:, None]

    # -- what it draws ---------------------------------------------------------------------------

    def units(self, inputs: ConditionInputs, like: Tensor) -> ImageUnits | None:
        """Return those of the training cases, with ``standardise``."""
        return self._units(self.drawn, like)

    def _units(self, channels: Sequence[int], like: Tensor) -> ImageUnits | None:
        if not self.options.standardise:
            return None
        return ImageUnits(*self.intensities.on(like)).of(channels)

    def finished(self, drawn: Tensor, inputs: ConditionInputs) -> Tensor:
        """Return images in the source's units; outside the body the schema's constant."""
        units = self.units(inputs, drawn)
        if units is not None:
            drawn = units.restored(drawn)
        fill, labels = self.schema.outside_fill, inputs.labels
        if fill is None or labels is None or not self.schema.has_outside:
            return drawn
        # Each is filled in on the device: a copy to it would wait for it.
        values = [torch.full((), float(fill[i]), device=drawn.device) for i in self.drawn]
        value = torch.stack(values).view(1, -1, *[1] * self.schema.ndim)
        return torch.where((labels == OUTSIDE)[:, None], value, drawn)

    def sample_of(self, drawn: Tensor, condition: Condition) -> Sample:
        if condition.given is None or not self.given:
            return super().sample_of(drawn, condition)
        image = np.empty((len(self.schema.channels), *drawn.shape[1:]), np.float32)
        image[self.drawn], image[self.given] = drawn.cpu().numpy(), condition.given
        return Sample(image, condition.labels)

    # -- its losses ------------------------------------------------------------------------------

    def l1(self, step: TrainingStep, fake: Tensor, real: Tensor) -> Tensor:
        """Return L1 where it counts: in the foreground, or where conditions are equal."""
        alike, lowpass = self.alike(step), self.options.l1_lowpass
        if lowpass == "foreground":
            assert step.batch.labels is not None
            inside = step.batch.labels[:, None] > 0
            return losses.masked_l1(fake, real, inside if alike is None else inside & alike)
        if alike is not None:
            return losses.masked_l1(fake, real, alike, lowpass=lowpass)
        return losses.l1(fake, real, lowpass=lowpass)

    def own_terms(self, step: TrainingStep, fake: Tensor, real: Tensor) -> Mapping[str, Tensor]:
        if not self.options.perceptual:
            return {}
        features_of = cast(Perceptor, self.nets["perceptor"]).features
        perceived = losses.perceptual(features_of, fake, real, mask=self.alike(step))
        return {"perceptual": self.options.perceptual * perceived}

    def phases(self) -> Sequence[Phase]:
        """Return the phases, with one of the perceptual segmenter."""
        own = [Phase("perceptor", self._perceptor)] if self.options.perceptual else []
        return [*super().phases(), *own]

    def _perceptor(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Return the cross-entropy of the segmenter on real images."""
        assert step.batch.labels is not None
        target = one_hot(step.batch.labels, self.schema.label_values).argmax(1)
        logits = self.nets["perceptor"](self.real_in_units(step))
        return {"cross_entropy": F.cross_entropy(logits.float(), target)}
