"""A generator that draws bright spots into boxes, without networks; and what it is tried on."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.schema import Boxes, Case, Sample
from gansynth.core.space import Space
from gansynth.imaging.box_contrast import LesionContrast
from gansynth.testing import ToySource
from tests.offered import offered


class SpotsOptions(GeneratorOptions):
    tighten: bool = False


class Spots(Generator):
    """A disc with noise on it, in it a bright ellipse for each box."""

    name = "spots"
    Options: ClassVar[type[GeneratorOptions]] = SpotsOptions
    options: SpotsOptions
    capabilities = Capabilities(takes=frozenset({"boxes"}))
    contrast: LesionContrast | None = None

    def observe(self, cases: Any) -> Any:
        contrast = LesionContrast.fit(cases, self.schema.box_classes)
        return {"contrast": None if contrast is None else contrast.to_json()}

    def load_state(self, state: Any) -> None:
        found = state["contrast"]
        self.contrast = None if found is None else LesionContrast.from_json(found)

    def reject_reason(self, sample: Sample) -> str:
        return (
            "" if self.contrast is None else self.contrast.reject_reason(sample.image, sample.boxes)
        )

    def sample(self, conditions: Any, seeds: Any) -> list[Sample]:
        return [self.one(c, seed) for c, seed in zip(conditions, seeds, strict=True)]

    def one(self, condition: Any, seed: int) -> Sample:
        rng, boxes, notes = np.random.default_rng(seed), condition.boxes, {}
        image = picture(boxes, self.size, rng, len(self.schema.channels))
        if self.options.tighten:
            boxes, notes["tightened_to"] = LesionContrast.tighten(image, boxes)
        return Sample(image, None, boxes, notes=notes)


def replay(told: Mapping[str, Any]) -> Boxes:
    """The boxes that a record stands for, to the bit; it may have been through JSON."""
    coords = np.array(told["coords"], np.float32).reshape(-1, 2 * int(told["axes"]))
    return Boxes(coords, np.array(told["labels"], np.int16))


def picture(
    boxes: Boxes | None, size: tuple[int, ...], rng: np.random.Generator, channels: int = 1
) -> Any:
    """A body of 0.5 with noise on nothing; ellipsoids of 1 where boxes are: float32 (C, ...)."""
    at = np.moveaxis(np.indices(size, float), 0, -1) + 0.5
    body = (((at - np.array(size) / 2) / (0.45 * np.array(size))) ** 2).sum(-1) < 1
    image = 0.5 * body
    for row in boxes.coords if boxes is not None else ():
        low, high = row[: len(size)], row[len(size) :]
        image[(((at - (low + high) / 2) / ((high - low) / 2)) ** 2).sum(-1) < 1] = 1.0
    noise = rng.normal(0, 0.05, (channels, *size)) * body
    return (image + noise).astype(np.float32)


def boxes_of(*rows: Any, labels: Any = None) -> Boxes:
    """Boxes of rows ``ymin, xmin, ymax, xmax``."""
    coords = np.array(rows, np.float32).reshape(len(rows), -1 if rows else 4)
    return Boxes(coords, np.array(labels if labels is not None else [0] * len(rows), np.int16))


def spotted(index: int, *rows: Any, labels: Any = None, side: int = 48) -> Case:
    """A case of ``side`` x ``side`` pixels with spots in its boxes."""
    boxes = boxes_of(*rows, labels=labels)
    image = picture(boxes, (side, side), np.random.default_rng(index))
    return Case(f"case_{index}", f"subject_{index}", image, None, boxes)


class SpottedSource(ToySource):
    """Forty training cases of one channel with a spot or two each, and eight without."""

    def __init__(self, request: Any) -> None:
        super().__init__(2)
        self.request = request
        rng = np.random.default_rng(3)
        self._cases = {}
        for index in range(52):
            count = 1 + index % 2
            corners = ([10, 10], [24, 24])[:count] + rng.uniform(0, 3, (count, 2))
            rows = np.concatenate([corners, corners + rng.uniform(7, 11, (count, 2))], axis=1)
            case = spotted(index, *(rows if index % 6 else []))
            self._cases[case.id] = case

    @property
    def schema(self) -> Any:
        return replace(
            super().schema,
            channels=("T1",),
            labels={"background": 0},
            has_outside=False,
            outside_fill=None,
            box_classes=("metastasis",),
        )

    space = property(lambda self: Space("crop", (48, 48)))
    train_ids = property(lambda self: tuple(self._cases)[:48])
    held_out_ids = property(lambda self: tuple(self._cases)[48:])


def spots_plugin() -> AbstractContextManager[None]:
    """Registers generator ``spots`` and source ``spotted:any``."""
    return offered("spots", generators={"spots": Spots}, sources={"spotted": SpottedSource})
