"""One generator per class of whole cases, as one: each class is drawn by its own part.

Frid-Adar et al. 2018 (arXiv:1803.01229) drew liver lesions of three kinds with a GAN each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gansynth.core.schema import Case, Condition, Sample, Schema
from gansynth.core.space import Space
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.sampling.composite import Opened, Together, part_seed
from gansynth.sampling.run import heeds_classes


@dataclass(frozen=True)
class ClassPart(Opened):
    """A part that draws whole samples of some classes.

    Attributes:
        number: among the parts.
        classes: by name.
    """

    number: int
    classes: tuple[str, ...]


class ClassComposite(Together):
    """Lets the part of each condition's class draw the sample.

    A condition without a class has no part: conditions come from the training cases of all parts,
    so every class is drawn as often as it occurs there.
    """

    parts: tuple[ClassPart, ...]

    @classmethod
    def of(cls, schema: Schema, space: Space, opened: Sequence[Opened]) -> ClassComposite:
        """Put opened parts together.

        Raises:
            IntegrityFault: a class has two parts, or is not in the schema.
        """
        parts = [
            ClassPart(part.name, part.run, number, tuple(part.run.request.view["classes"]))
            for number, part in enumerate(opened)
        ]
        named = [name for part in parts for name in part.classes]
        if len(set(named)) < len(named) or not set(named) <= set(schema.classes):
            raise IntegrityFault(
                f"{parts[0].run.folder.parent}: the parts draw the classes {', '.join(named)}, "
                f"expected each once and among {', '.join(schema.classes)}. Fit the run again"
            )
        return cls(schema, space, parts)

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Draw one sample per condition, by the part of its class."""
        owners = [self._part(condition.label_class) for condition in conditions]
        drawn: dict[int, Sample] = {}
        for part in self.parts:
            mine = [i for i, owner in enumerate(owners) if owner is part]
            if not mine:
                continue
            own_seeds = [part_seed(seeds[i], part.number) for i in mine]
            samples = part.run.generator.sample([conditions[i] for i in mine], own_seeds)
            for i, sample in zip(mine, samples, strict=True):
                drawn[i] = self._as_whole(part, sample, conditions[i], seeds[i])
        return [drawn[i] for i in range(len(conditions))]

    def interpolate(self, condition: Condition, ends: tuple[int, int], steps: int) -> list[Sample]:
        """As the part of the condition's class walks from one of its latents to another.

        Raises:
            UsageFault: that part has no latent space.
        """
        part = self._part(condition.label_class)
        own = part_seed(ends[0], part.number), part_seed(ends[1], part.number)
        samples = part.run.generator.interpolate(condition, own, steps)
        return [self._as_whole(part, sample, condition, ends[0]) for sample in samples]

    def context(self, case: Case) -> Any:
        """Context channels as the part of the case's class knows them."""
        part = self._part(case.label_class)
        return part.run.generator.context(replace(case, image=part.in_own_units(case.image)))

    def flaw(self, sample: Sample) -> str:
        """What the part that drew a sample finds wrong with it."""
        part = next(part for part in self.parts if part.name in sample.provenance["parts"])
        own = replace(sample, image=part.in_own_units(sample.image))
        return part.run.generator.flaw(own)

    def _part(self, number: int | None) -> ClassPart:
        """Whose class it is.

        Raises:
            UsageFault: nobody's.
        """
        name = None if number is None else self.schema.classes[number]
        for part in self.parts:
            if name in part.classes:
                return part
        asked = "no class" if name is None else f"the class {name!r}"
        drawn = ", ".join(name for part in self.parts for name in part.classes)
        raise UsageFault(
            f"a sample of {asked} is asked for, and no part draws it; expected one of {drawn}"
        )

    def _as_whole(self, part: ClassPart, sample: Sample, condition: Condition, seed: int) -> Sample:
        """A part's sample in the source's units, told as one of the whole run.

        What the part says of it beside the condition stays. A part that draws several classes from
        noise alone does not know which one it has drawn.
        """
        assert condition.label_class is not None, "it has found its part"
        name = self.schema.classes[condition.label_class]
        told = {**sample.provenance, **self.told(condition, seed, part)}
        told["class"] = name if heeds_classes(part.run) else "+".join(part.classes)
        return replace(sample, image=part.in_source_units(sample.image), provenance=told)
