"""Composite runs: several runs in one folder that generate a sample together.

``parts/NAME/`` are ordinary run folders. The composite's own ``manifest.json`` names them in order
under ``parts``. It holds the SHA-256 of their manifests, which hold those of the weights, so any
exchange is detected. ``load_run`` opens it like any other generator.

There are three kinds. One model per channel (Sun et al. 2020, MM-GAN). Chains (Shin et al. 2018),
whose later parts take, or learn from, the output of earlier ones. One model per class of whole
cases (Frid-Adar et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import nn

from gansynth.core.capabilities import Capabilities, of_parts
from gansynth.core.generator import Generator, GeneratorOptions, generated
from gansynth.core.schema import Case, Condition, FloatArray, LabelArray, Sample, Schema
from gansynth.core.space import Space
from gansynth.data.views import channel_numbers, only_intensity
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.sampling.manifest import COMPOSITE, Run, conditioned_on_classes


@dataclass(frozen=True)
class CompositePart:
    """An opened part of a composite run, named after its folder."""

    name: str
    run: Run

    @cached_property
    def given(self) -> tuple[str, ...]:
        """Channels that earlier parts generate for it."""
        return self.run.capabilities.channels

    @cached_property
    def draws(self) -> tuple[str, ...]:
        """Channels that it generates."""
        return tuple(c for c in self.run.schema.channels if c not in self.given)

    @cached_property
    def relabelled(self) -> bool:
        """Whether it was trained on generated label maps."""
        return "labels_by" in self.run.request.view

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Classes of the whole samples it generates; none if it is not limited to classes."""
        return tuple(self.run.request.view.get("classes", ()))

    def in_source_units(self, image: FloatArray) -> FloatArray:
        """Convert its output, (C, ...), to the source's units."""
        return self._units.to_host(Sample(image)).image

    def in_own_units(self, image: FloatArray) -> FloatArray:
        """Convert an image (C, ...) in the source's units to those it was trained in."""
        return self._units.to_generator(Case("", "", image)).image

    @property
    def _units(self) -> Space:
        return only_intensity(self.run.space, list(range(len(self.run.schema.channels))))


class CompositeBase(Generator):
    """Base class of composites: generators whose parts have been trained already.

    Schema and space are the composite's, with intensities in the source's units. The parts are
    those that generate images, in order.
    """

    name: ClassVar[str] = COMPOSITE

    def __init__(self, schema: Schema, space: Space, parts: Sequence[CompositePart]) -> None:
        self.parts = tuple(parts)
        self.space = space
        super().__init__(schema, space.size, GeneratorOptions())
        self.device = parts[0].run.generator.device

    @cached_property
    def capabilities(self) -> Capabilities:
        return of_parts([part.run.capabilities for part in self.parts])

    def networks(self) -> dict[str, nn.Module]:
        return {
            f"{part.name}/{name}": net
            for part in self.parts
            for name, net in part.run.generator.nets.items()
        }

    def composition(self, condition: Condition) -> dict[str, Any]:
        """Return what the provenance of a sample says of the parts that generate it."""
        return {"parts": {part.name: part.run.run_id for part in self.parts}}


class CompositeGenerator(CompositeBase):
    """Generate all channels of a sample, one part after the other."""

    def context(self, case: Case) -> LabelArray | None:
        """Return the body mask for all parts that take it, or None.

        It is made from the channel that they name, else from all channels. In Sun et al. 2020
        (MM-GAN, sec. V-C) each learns with its own, and samples are of T1's.
        """
        parts = self._parts_given_body
        if not parts:
            return None
        names = {str(part.run.capabilities.body_channel) for part in parts} - {""}
        image = case.image
        if names:
            image = image[channel_numbers(self.schema, sorted(names))]
        maker = parts[0].run.generator
        body: LabelArray | None = maker.context(replace(case, image=image))
        return body

    @property
    def _parts_given_body(self) -> list[CompositePart]:
        return [p for p in self.parts if p.run.capabilities.body_channel is not None]

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition: every part's channels for the same label map."""
        drawn: dict[str, list[FloatArray]] = {}
        for number, part in enumerate(self.parts):
            generator = part.run.generator
            own_conditions = [self._ask(part, c, drawn, i) for i, c in enumerate(conditions)]
            own_seeds = [part_seed(seed, number) for seed in seeds]
            samples = generated(generator, own_conditions, own_seeds)
            images = [part.in_source_units(sample.image) for sample in samples]
            for channel in part.draws:
                place = part.run.schema.channels.index(channel)
                drawn[channel] = [image[place] for image in images]
        return [self._joined(c, drawn, i) for i, c in enumerate(conditions)]

    def _ask(
        self,
        part: CompositePart,
        condition: Condition,
        drawn: Mapping[str, list[FloatArray]],
        index: int,
    ) -> Condition:
        """Return a part's condition: the labels it knows, and the channels generated so far."""
        labels = condition.labels if part.relabelled else self._own(condition.labels)
        channels = None
        if part.given:
            image = np.stack([drawn[name][index] for name in part.given])
            numbers = channel_numbers(part.run.schema, part.given)
            space = only_intensity(part.run.space, numbers)
            channels = space.to_generator(Case("", "", image)).image
        context = condition.context if part in self._parts_given_body else None
        return replace(condition, labels=labels, given=channels, context=context)

    def _joined(
        self, condition: Condition, drawn: Mapping[str, list[FloatArray]], index: int
    ) -> Sample:
        image = np.stack([drawn[name][index] for name in self.schema.channels])
        labels = self._own(condition.labels)
        under = None if labels is condition.labels else condition.labels
        return Sample(image, labels, under=under)

    def _own(self, labels: LabelArray | None) -> LabelArray | None:
        """Replace labels that only a part knows by background."""
        if labels is None or not any(part.relabelled for part in self.parts):
            return labels
        most = max((0, *self.schema.labels.values()))
        return np.where(labels > most, np.int16(0), labels)


def part_seed(seed: int, number: int) -> int:
    """Return a part's own seed; parts with the same noise would generate the same texture."""
    words = np.random.SeedSequence((seed, number)).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


# -- one part for each class ----------------------------------------------------------------------


class PerClassGenerator(CompositeBase):
    """Generate each sample by the part of its condition's class.

    A condition without a class has no part. Conditions come from the training cases of all parts,
    so every class is drawn as often as it occurs there.
    """

    def __init__(self, schema: Schema, space: Space, parts: Sequence[CompositePart]) -> None:
        named = [name for part in parts for name in part.classes]
        if len(set(named)) < len(named) or not set(named) <= set(schema.classes):
            raise IntegrityFault(
                "sampling.parts-draw-other-classes",
                f"{parts[0].run.folder.parent}: the parts draw the classes {', '.join(named)}, "
                f"expected each once and among {', '.join(schema.classes)}. Fit the run again",
            )
        super().__init__(schema, space, parts)
        self._part_of_class = {name: part for part in parts for name in part.classes}

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition, by the part of its class."""
        owners = [self._part(condition.label_class) for condition in conditions]
        drawn: dict[int, Sample] = {}
        for number, part in enumerate(self.parts):
            indices = [i for i, owner in enumerate(owners) if owner is part]
            if not indices:
                continue
            generator = part.run.generator
            own_seeds = [part_seed(seeds[i], number) for i in indices]
            samples = generated(generator, [conditions[i] for i in indices], own_seeds)
            for i, sample in zip(indices, samples, strict=True):
                drawn[i] = replace(sample, image=part.in_source_units(sample.image))
        return [drawn[i] for i in range(len(conditions))]

    def context(self, case: Case) -> Any:
        """Return the context channels of the part of the case's class."""
        part = self._part(case.label_class)
        return part.run.generator.context(replace(case, image=part.in_own_units(case.image)))

    def reject_reason(self, sample: Sample) -> str:
        """Return the flaw that the sample's own part finds in it."""
        [name] = sample.provenance["parts"]  # see ``composition``
        part = {part.name: part for part in self.parts}[name]
        part_sample = replace(sample, image=part.in_own_units(sample.image))
        return part.run.generator.reject_reason(part_sample)

    def _part(self, number: int | None) -> CompositePart:
        request = "no class"
        if number is not None:
            name = self.schema.classes[number]
            if name in self._part_of_class:
                return self._part_of_class[name]
            request = f"the class {name!r}"
        raise UsageFault(
            "sampling.class-without-part",
            f"a sample of {request} is requested, but no part generates it; expected one of "
            f"{', '.join(self._part_of_class)}",
        )

    def composition(self, condition: Condition) -> dict[str, Any]:
        """Return the part of a sample, and its class.

        A part of several classes that draws from noise alone does not know the sample's class.
        """
        part = self._part(condition.label_class)
        composition: dict[str, Any] = {"parts": {part.name: part.run.run_id}}
        if not conditioned_on_classes(part.run):
            composition["class"] = "+".join(part.classes)
        return composition
