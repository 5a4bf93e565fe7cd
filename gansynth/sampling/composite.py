"""Composite runs: several runs under one folder, which draw a sample together.

``parts/NAME/`` are ordinary run folders. The composite's own ``manifest.json`` names them in order
under ``parts`` and holds the SHA-256 of their manifests (which hold those of their weights), so
nothing can be exchanged unnoticed. Opened by ``load_run`` it is a generator like any other.

Three kinds are fitted: one model per channel (Sun et al. 2020, MM-GAN); chains (Shin et al. 2018),
whose later parts are given, or learn from, what earlier ones draw; and one model per class of whole
cases (Frid-Adar et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gansynth.core.generator import Generator, GeneratorOptions, Heeded, Labelling, Phase
from gansynth.core.schema import Case, Condition, FloatArray, LabelArray, Sample, Schema
from gansynth.core.space import Space
from gansynth.data.views import channel_numbers, given_channels, only_intensity
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.sampling.run import COMPOSITE, Run, heeds_classes

if TYPE_CHECKING:
    import torch
    from torch import nn

LABELLINGS: tuple[Labelling, ...] = ("none", "drawn", "asked")


@dataclass(frozen=True)
class Part:
    """A part of a composite run, opened; it is called after its folder."""

    name: str
    run: Run

    @cached_property
    def given(self) -> tuple[str, ...]:
        """Channels that earlier parts have drawn for it."""
        return given_channels(self.run.generator.options)

    @cached_property
    def draws(self) -> tuple[str, ...]:
        """Channels that it draws."""
        return tuple(c for c in self.run.schema.channels if c not in self.given)

    @cached_property
    def relabelled(self) -> bool:
        """Whether it learnt from drawn label maps."""
        return "labels_by" in self.run.request.view

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Classes whose whole samples it draws; none where it draws those of all."""
        return tuple(self.run.request.view.get("classes", ()))

    def in_source_units(self, image: FloatArray) -> FloatArray:
        """What it has drawn, (C, ...), in the source's units."""
        return self._units.to_host(Sample(image)).image

    def in_own_units(self, image: FloatArray) -> FloatArray:
        """An image (C, ...) of the source's units in those it learnt from."""
        return self._units.to_generator(Case("", "", image)).image

    @property
    def _units(self) -> Space:
        return only_intensity(self.run.space, list(range(len(self.run.schema.channels))))


class Together(Generator):
    """What composites of every kind are: generators whose parts have been trained already.

    Schema and space are the composite's, with intensities of the source's own; the parts are those
    that draw images, in order.
    """

    name: ClassVar[str] = COMPOSITE
    ema: ClassVar[tuple[str, ...]] = ()

    def __init__(self, schema: Schema, space: Space, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.space = space
        super().__init__(schema, space.size, GeneratorOptions())
        self.device = parts[0].run.generator.device

    @property
    def labelling(self) -> Labelling:
        """That of the part with the least."""
        return least_labelled(part.run.generator.labelling for part in self.parts)

    @property
    def heeds(self) -> frozenset[Heeded]:
        """What every part does; and classes, for there may be a part for each."""
        shared = frozenset.intersection(*(part.run.generator.heeds for part in self.parts))
        return shared | {"class"}

    def networks(self) -> dict[str, nn.Module]:
        """Every part's networks, as ``PART/NETWORK``."""
        return {
            f"{part.name}/{name}": net
            for part in self.parts
            for name, net in part.run.generator.nets.items()
        }

    def phases(self) -> Sequence[Phase]:
        """None: its parts have been trained, each by itself."""
        return ()

    def to(self, device: torch.device) -> Together:
        """Move every part to a device."""
        self.device = device
        for part in self.parts:
            part.run.generator.to(device)
        return self

    def told(self, condition: Condition, seed: int, *parts: Part) -> dict[str, Any]:
        """Provenance of a sample that some of the parts have drawn."""
        return {
            **condition.provenance,
            "generator": self.name,
            "parts": {part.name: part.run.run_id for part in parts},
            "latent_seed": seed,
        }


class Composite(Together):
    """Draws all channels of a sample, one part after the other."""

    @property
    def context_follows(self) -> bool:
        """Of parts that are told the body: no edit moves it."""
        return not self._told_body

    def context(self, case: Case) -> LabelArray | None:
        """The body that is asked for of parts that are told it: one for all of them.

        That of the channel that they name, of whichever they do; else of all channels (Sun et al.
        2020, MM-GAN, sec. V-C: each learns with its own, samples are of T1's).
        """
        parts = self._told_body
        if not parts:
            return None
        names = {part.run.generator.options.body_of for part in parts} - {""}  # type: ignore[attr-defined]
        image = case.image
        if names:
            image = image[channel_numbers(self.schema, sorted(names))]
        maker = parts[0].run.generator
        body: LabelArray | None = maker.context(replace(case, image=image))
        return body

    @property
    def _told_body(self) -> list[Part]:
        return [p for p in self.parts if getattr(p.run.generator.options, "body", False)]

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Draw one sample per condition: every part's channels for the same label map."""
        drawn: dict[str, list[FloatArray]] = {}
        for number, part in enumerate(self.parts):
            requests = [self._ask(part, c, drawn, i) for i, c in enumerate(conditions)]
            own_seeds = [part_seed(seed, number) for seed in seeds]
            samples = part.run.generator.sample(requests, own_seeds)
            images = [part.in_source_units(sample.image) for sample in samples]
            for channel in part.draws:
                place = part.run.schema.channels.index(channel)
                drawn[channel] = [image[place] for image in images]
        return [self._joined(c, drawn, i, seeds[i]) for i, c in enumerate(conditions)]

    def _ask(
        self, part: Part, condition: Condition, drawn: Mapping[str, list[FloatArray]], index: int
    ) -> Condition:
        """What a part is asked: the same labels (as it knows them), and what was drawn so far."""
        labels = condition.labels if part.relabelled else self._own(condition.labels)
        channels = None
        if part.given:
            image = np.stack([drawn[name][index] for name in part.given])
            numbers = channel_numbers(part.run.schema, part.given)
            space = only_intensity(part.run.space, numbers)
            channels = space.to_generator(Case("", "", image)).image
        context = condition.context if part in self._told_body else None
        return replace(condition, labels=labels, given=channels, context=context)

    def _joined(
        self, condition: Condition, drawn: Mapping[str, list[FloatArray]], index: int, seed: int
    ) -> Sample:
        image = np.stack([drawn[name][index] for name in self.schema.channels])
        provenance, labels = self.told(condition, seed, *self.parts), self._own(condition.labels)
        under = None if labels is condition.labels else condition.labels
        return Sample(image, labels, None, provenance, under)

    def _own(self, labels: LabelArray | None) -> LabelArray | None:
        """A label map without labels that only a part knows (background instead)."""
        if labels is None or not any(part.relabelled for part in self.parts):
            return labels
        most = max((0, *self.schema.labels.values()))
        return np.where(labels > most, np.int16(0), labels)


def part_seed(seed: int, number: int) -> int:
    """A part's own seed: parts that drew the same noise would draw the same texture."""
    words = np.random.SeedSequence((seed, number)).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


def least_labelled(labellings: Iterable[Labelling]) -> Labelling:
    """Of several, the one that says the least about a sample's labels."""
    return min(labellings, key=LABELLINGS.index)


# -- one part for each class ----------------------------------------------------------------------


class ClassComposite(Together):
    """Lets the part of each condition's class draw the sample.

    A condition without a class has no part: conditions come from the training cases of all parts,
    so every class is drawn as often as it occurs there.

    Raises:
        IntegrityFault: a class has two parts, or is not in the schema.
    """

    def __init__(self, schema: Schema, space: Space, parts: Sequence[Part]) -> None:
        named = [name for part in parts for name in part.classes]
        if len(set(named)) < len(named) or not set(named) <= set(schema.classes):
            raise IntegrityFault(
                f"{parts[0].run.folder.parent}: the parts draw the classes {', '.join(named)}, "
                f"expected each once and among {', '.join(schema.classes)}. Fit the run again"
            )
        super().__init__(schema, space, parts)

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Draw one sample per condition, by the part of its class."""
        owners = [self._part(condition.label_class) for condition in conditions]
        drawn: dict[int, Sample] = {}
        for number, part in enumerate(self.parts):
            indices = [i for i, owner in enumerate(owners) if owner is part]
            if not indices:
                continue
            own_seeds = [part_seed(seeds[i], number) for i in indices]
            samples = part.run.generator.sample([conditions[i] for i in indices], own_seeds)
            for i, sample in zip(indices, samples, strict=True):
                drawn[i] = self._as_whole(part, sample, conditions[i], seeds[i])
        return [drawn[i] for i in range(len(conditions))]

    def interpolate(self, condition: Condition, ends: tuple[int, int], steps: int) -> list[Sample]:
        """As the part of the condition's class walks from one of its latents to another.

        Raises:
            UsageFault: that part has no latent space.
        """
        part = self._part(condition.label_class)
        number = self.parts.index(part)
        part_ends = part_seed(ends[0], number), part_seed(ends[1], number)
        samples = part.run.generator.interpolate(condition, part_ends, steps)
        return [self._as_whole(part, sample, condition, ends[0]) for sample in samples]

    def context(self, case: Case) -> Any:
        """Context channels as the part of the case's class knows them."""
        part = self._part(case.label_class)
        return part.run.generator.context(replace(case, image=part.in_own_units(case.image)))

    def flaw(self, sample: Sample) -> str:
        """What the part that drew a sample finds wrong with it."""
        part = next(part for part in self.parts if part.name in sample.provenance["parts"])
        part_sample = replace(sample, image=part.in_own_units(sample.image))
        return part.run.generator.flaw(part_sample)

    def _part(self, number: int | None) -> Part:
        """Whose class it is.

        Raises:
            UsageFault: nobody's.
        """
        name = None if number is None else self.schema.classes[number]
        for part in self.parts:
            if name in part.classes:
                return part
        request = "no class" if name is None else f"the class {name!r}"
        drawn = ", ".join(name for part in self.parts for name in part.classes)
        raise UsageFault(
            f"a sample of {request} is asked for, and no part draws it; expected one of {drawn}"
        )

    def _as_whole(self, part: Part, sample: Sample, condition: Condition, seed: int) -> Sample:
        """A part's sample in the source's units, told as one of the whole run.

        What the part says of it beside the condition stays. A part that draws several classes from
        noise alone does not know which one it has drawn.
        """
        assert condition.label_class is not None, "it has found its part"
        name = self.schema.classes[condition.label_class]
        provenance = {**sample.provenance, **self.told(condition, seed, part)}
        provenance["class"] = name if heeds_classes(part.run) else "+".join(part.classes)
        return replace(sample, image=part.in_source_units(sample.image), provenance=provenance)
