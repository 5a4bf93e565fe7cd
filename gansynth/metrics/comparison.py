"""Metrics that an evaluation holds against real people; a plugin may register such, too.

A plain function of samples and real cases is a metric, too; an evaluation calls it once for every
half. What looks at each image once, and then compares numbers, is quicker by far: ``Halved``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.estimate import Better, Figure, halves, summarised
from gansynth.metrics.sides import Sides
from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from gansynth.core.metric import Metric

Image = Sample | Case


class Evaluated(ABC):
    """A metric with figures that have intervals and a scale.

    Attributes:
        title: for people.
        least: images it needs on each side.
    """

    title: ClassVar[str]
    least: ClassVar[int] = 8

    @abstractmethod
    def __call__(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Named numbers, as of any metric."""

    @abstractmethod
    def figures(self, sides: Sides) -> list[Figure]:
        """Its figures; ``metric`` of each is filled in by who calls.

        Raises:
            DataFault: too few images, or none of the kind it needs.
        """

    def check(self, sides: Sides) -> None:
        """Refuse too few images.

        Raises:
            DataFault: naming both sides.
        """
        if min(len(sides.samples), len(sides.real)) < self.least:
            raise DataFault(
                f"{self.title.lower()}: {len(sides.samples)} sample(s) and {len(sides.real)} real "
                f"image(s), expected at least {self.least} of each; draw more with -n"
            )


class Halved(Evaluated):
    """A metric that looks at each image once, and then compares subsets of them."""

    @abstractmethod
    def prepare(self, images: Sequence[Image], sides: Sides) -> Any:
        """What is kept of images: anything that can be indexed by an array of their numbers."""

    @abstractmethod
    def compare(self, one: Any, other: Any, sides: Sides) -> Mapping[str, float]:
        """Named numbers of what was kept of some images, against some real ones."""

    @abstractmethod
    def told(self, name: str) -> tuple[str, Better]:
        """What a number is, in words, and what is wished for."""

    def bounds(self, name: str) -> tuple[float, float]:
        """What a number can be, at least and at most."""
        return 0.0, math.inf

    def headline(self, name: str) -> bool:
        """Whether a number stands in the report's table; all do, by default."""
        return True

    def __call__(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Its numbers of all samples against all real cases."""
        sides = Sides(samples, real, schema)
        return self.compare(self.prepare(samples, sides), self.prepare(real, sides), sides)

    def prepared(self, sides: Sides) -> tuple[Any, Any]:
        """What is kept of samples, and of real images; each is looked at once."""
        return sides.once(
            ("prepared", self),
            lambda: (self.prepare(sides.samples, sides), self.prepare(sides.real, sides)),
        )

    def numbers(self, sides: Sides) -> dict[str, dict[str, float | None]]:
        """Name -> value, interval, scale, difference: see ``summarised``."""
        return sides.once(("numbers", self), lambda: self._numbers(sides))

    def _numbers(self, sides: Sides) -> dict[str, dict[str, float | None]]:
        self.check(sides)
        mine, real = self.prepared(sides)
        rng, people = sides.rng("halves"), len(set(sides.people))
        found = [
            (
                self.compare(mine[split.samples], real[split.real], sides),
                self.compare(real[split.other], real[split.real], sides),
            )
            for split in halves(sides.drawn_of, sides.people, sides.effort.splits, rng)
        ]
        values, reals = [one for one, _ in found], [other for _, other in found]
        return summarised(values, reals, people, {name: self.bounds(name) for name in values[0]})

    def figures(self, sides: Sides) -> list[Figure]:
        """Those that stand in the table."""
        images = min(len(sides.samples), len(sides.real)) // 2
        found = []
        for name, numbers in self.numbers(sides).items():
            if self.headline(name):
                what, better = self.told(name)
                told = Figure("", name, self.title, what, better, None, images=images)
                found.append(replace(told, splits=sides.effort.splits, **numbers))  # type: ignore[arg-type]
        return found


class Plain(Halved):
    """Any function of samples and real cases, called for every half.

    Args:
        metric: the function.
        name: its registered name.
    """

    title = ""
    least = 4

    def __init__(self, metric: Metric, name: str) -> None:
        self.metric = metric
        self.title = name  # type: ignore[misc]

    def prepare(self, images: Sequence[Image], sides: Sides) -> Listed:
        """The images themselves."""
        return Listed(images)

    def compare(self, one: Any, other: Any, sides: Sides) -> Mapping[str, float]:
        """What the function says."""
        from gansynth.metrics.measure import measure

        samples = [as_sample(image, sides.schema) for image in one]
        found = measure({self.title: self.metric}, samples, list(other), sides.schema)
        return {k: np.nan if v is None else v for k, v in found[self.title].items()}

    def bounds(self, name: str) -> tuple[float, float]:
        """Any number."""
        return -math.inf, math.inf

    def told(self, name: str) -> tuple[str, Better]:
        """Nothing is known of it but that real people's is a good one."""
        return f"{name}, as the plugin defines it", "real"


class Listed(list[Any]):
    """Images that can be indexed by an array of numbers."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, np.ndarray):
            return Listed(list.__getitem__(self, int(n)) for n in index)
        return list.__getitem__(self, index)


def as_sample(image: Image, schema: Schema) -> Sample:
    """A real case in a sample's place."""
    if isinstance(image, Sample):
        return image
    told = {"case": image.id}
    if image.label_class is not None:
        told["class"] = schema.classes[image.label_class]
    return Sample(image.image, image.labels, image.boxes, told)
