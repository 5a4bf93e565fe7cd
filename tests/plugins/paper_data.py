"""BraTS's four sequences as a source in memory, and what a recipe comes to on it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.registry import installed
from gansynth.core.schema import Case, LabelArray, Schema
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.data.read_options import VolumeOptions
from gansynth.fitting.composite_spec import texts
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.recipe_plan import PlannedSet, plan_recipe
from gansynth.runtime.options import overlay, split_settings
from gansynth.testing import ToySource
from gansynth.training.loop import FitOptions
from tests.offered import offered

SEQUENCES = ("flair", "t1", "t1ce", "t2")
LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
TISSUES = {"background": 0, "CSF": 1, "GM": 2, "WM": 3}
SIZE = (16, 32, 32)


def brain(seed: int, shape=SIZE) -> np.ndarray:
    """An ellipsoid that differs from person to person; bool."""
    rng = np.random.default_rng(seed)
    axes = [n * (0.32 + 0.08 * rng.random()) for n in shape]
    grid = np.meshgrid(*[np.arange(n) - n / 2 for n in shape], indexing="ij")
    return np.asarray(sum((g / a) ** 2 for g, a in zip(grid, axes, strict=True)) < 1)


class Brains(ToySource):
    """Skull-stripped brains with a tumour; ``healthy`` without one: tissues, and T1 alone.

    They are as they are, whatever ``--read`` keys of volumes a recipe names.
    """

    read_options = VolumeOptions

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(3)
        self.request, self.healthy = request, request.where == "healthy"
        self._cases = {f"p{i}": self._made(i) for i in range(6)}

    def _made(self, index: int) -> Case:
        rng = np.random.default_rng((index, self.healthy))
        body = brain(index)
        count = 1 if self.healthy else len(SEQUENCES)
        image = rng.normal(3, 0.5, (count, *SIZE)).astype(np.float32)
        labels: LabelArray = np.zeros(SIZE, np.int16)
        if self.healthy:
            labels[body] = rng.integers(1, 4, SIZE)[body].astype(np.int16)
        else:
            z, y, x = (n // 2 + int(rng.integers(-2, 3)) for n in SIZE)
            labels[z - 3 : z + 3, y - 5 : y + 4, x - 5 : x + 4] = 2
            labels[z - 1 : z + 2, y - 2 : y + 2, x - 2 : x + 2] = 4
            labels[z, y, x] = 1
            # FLAIR sees less of the brain than T1 (MM-GAN, figure 5).
            image[0][~brain(index) | (np.arange(SIZE[0]) < 5)[:, None, None]] = -1
        image[:, ~body] = -1
        return Case(f"p{index}", f"p{index}", image, np.where(body, labels, 0).astype(np.int16))

    @property
    def name(self) -> str:
        return f"brains:{self.request.where}"

    @property
    def schema(self) -> Schema:
        labels, channels = (TISSUES, ("T1",)) if self.healthy else (LABELS, SEQUENCES)
        plain = super().schema
        return replace(
            plain, channels=channels, labels=labels, has_outside=False, outside_fill=None
        )

    @property
    def space(self) -> Space:
        return Space("resample", SIZE, frame=SIZE, pad_label=0)

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(self._cases)[:4]

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return tuple(self._cases)[4:]


@pytest.fixture(autouse=True, scope="module")
def brains() -> Iterator[None]:
    """Offers the source kind ``brains`` to the tests of a module that imports this."""
    with offered("brains", sources={"brains": Brains}):
        yield


def sets_of(name: str, **asked: Any) -> dict[str, PlannedSet]:
    recipe = find_recipe(name)
    others = {"tissues": "brains:healthy"} if recipe.spec.needs else {}
    only = tuple(run.name for run in recipe.spec.runs)
    request = SourceRequest("brains", "tumours")
    asked = {"settings": {}, "edits": None, "only": only, "others": others, **asked}
    return {one.name: one for one in plan_recipe(recipe, request, **asked).sets}


def settings_of(recipe: str, run: str, part: str = "") -> tuple[str, dict[str, str]]:
    """The generator of a set or of a part of it, and its settings."""
    spec = find_recipe(recipe).named(SEQUENCES)
    (found,) = (one for one in spec.runs if one.name.replace("{channel}", "T1") == run)
    settings = overlay(texts(spec.set), texts(found.set))
    for one in found.parts or ():
        if one.name == part:
            return one.generator, one.settings(settings, found.parts or ())
    return spec.generator, dict(settings)


def options_of(settings: Mapping[str, str], kind: str = "cgan3d") -> tuple[FitOptions, Any]:
    own: type[Any] = installed().generator(kind).Options
    return split_settings(dict(settings), FitOptions, own, generator=kind)


def made(kind: str, settings: Mapping[str, str], schema: Schema, size: tuple[int, ...]) -> Any:
    cls = installed().generator(kind)
    own = split_settings(dict(settings), FitOptions, cls.Options, generator=kind)[1]
    return cls(schema, size, own)


def build(
    settings: Mapping[str, str], schema: Schema, size=SIZE, kind: str = "cgan3d", **changes: Any
) -> Any:
    """The same on the meta device: no weights are drawn."""
    with torch.device("meta"):
        over = {k: str(v) for k, v in changes.items()}
        return made(kind, overlay(settings, over), schema, size)
