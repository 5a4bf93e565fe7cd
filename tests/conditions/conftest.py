"""Small label maps, and edits by name."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.edit import Edit
from gansynth.core.geometry import Mask
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Schema
from gansynth.core.source import CaseHeader, CaseSource, SourceRequest
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache
from tests.conditions.rooms import THREE, body, with_ball


def _schema(ndim: int = 3, spacing: Sequence[float] | None = None) -> Schema:
    labels = {"background": 0, "shell": 1, "core": 2, "nodule": 4}
    mm = tuple(spacing or (1.0,) * ndim)
    return Schema(("T1",), labels, mm, "DHW"[-ndim:], has_outside=True)


def _make(name: str, **options: Any) -> Edit:
    edit = installed().edit(name)
    return edit(edit.Options(**options))


def _within(
    shape: Sequence[int], centre: Sequence[float], radius_mm: float, spacing: Sequence[float]
) -> Mask:
    squares = np.zeros(tuple(shape))
    for grid, middle, mm in zip(np.indices(tuple(shape)), centre, spacing, strict=True):
        squares += ((grid - middle) * mm) ** 2
    return np.asarray(squares < radius_mm**2)


def _toy(
    ndim: int = 3,
    spacing: Sequence[float] | None = None,
    width: float = 24.0,
    radius: float = 6.0,
    core: float = 3.2,
) -> LabelArray:
    """A core in a shell and a nodule apart, in a round body 24 mm wide; -1 beyond it."""
    spacing = spacing or (1.0,) * ndim
    shape = [math.ceil(width / mm) + axis for axis, mm in enumerate(spacing)]
    middle = [(n - 1) / 2 for n in shape]
    labels = np.where(_within(shape, middle, width / 2, spacing), 0, OUTSIDE).astype(np.int16)
    seat = [c - 2 / mm for c, mm in zip(middle, spacing, strict=True)]
    labels[_within(shape, seat, radius, spacing)] = 1
    labels[_within(shape, seat, core, spacing)] = 2
    far = [c + 5 / mm for c, mm in zip(middle, spacing, strict=True)]
    labels[_within(shape, far, 2.2, spacing)] = 4
    return labels


def _ball(radius_mm: float = 8.0, spacing: Sequence[float] = (1.0,) * 3) -> LabelArray:
    """A ball (2D: a disc) of class 1 in the middle of some 34 mm of background."""
    shape = [round(34 / mm) - axis for axis, mm in enumerate(spacing)]
    middle = [(n - 1) / 2 for n in shape]
    return _within(shape, middle, radius_mm, spacing).astype(np.int16)


@cache
def _others(spacing: tuple[float, ...]) -> tuple[LabelArray, ...]:
    ndim = len(spacing)
    return (
        _toy(ndim, spacing, 26.0, 5.0, 2.5)[::-1],
        _toy(ndim, spacing, 22.0, 5.5),
        np.minimum(_toy(ndim, spacing, 25.0), 0),
    )


class _Cases(CaseSource):
    """The case at hand and three others, of other shapes; opening a held-out one fails.

    ``case2`` is of the same person as ``case0``, the one at hand, and ``case3`` has no foreground.
    """

    def __init__(self, labels: LabelArray, schema: Schema) -> None:
        self.request = SourceRequest("memory", "toy")
        self.schema_ = schema
        maps = [labels, *_others(schema.spacing)]
        self.maps = {f"case{i}": self._known(found) for i, found in enumerate(maps)}
        self.opened: list[str] = []

    name = property(lambda self: "memory:toy")
    schema = property(lambda self: self.schema_)
    space = property(lambda self: Space())
    train_ids = property(lambda self: tuple(self.maps))
    held_out_ids = property(lambda self: ("case4", "case5"))

    def header(self, case_id: str) -> CaseHeader:
        return CaseHeader(self._subject(case_id), self.maps[case_id].shape, self.schema.spacing)

    def _subject(self, case_id: str) -> str:
        return "sub0" if case_id in ("case0", "case2") else f"sub{case_id[-1]}"

    def load(self, case_id: str) -> Case:
        if case_id not in self.maps:
            raise PermissionError(f"{case_id} is held out")
        self.opened.append(case_id)
        labels = self.maps[case_id]
        rng = np.random.default_rng(int(case_id[-1]))
        shown = np.where(labels == OUTSIDE, 0, 100 + 40 * labels)
        noise = 4 * rng.standard_normal((len(self.schema.channels), *labels.shape))
        image = (shown + noise * (labels != OUTSIDE)).astype(np.float32)
        return Case(case_id, self._subject(case_id), image, labels.copy())

    def _known(self, labels: LabelArray) -> LabelArray:
        return np.where(np.isin(labels, self.schema.label_values), labels, np.int16(0))


class _Maps(_Cases):
    """Cases of given label maps, each of a person of its own; ``held`` is held out."""

    held_out_ids = property(lambda self: ("held0",))

    def __init__(self, maps: Mapping[str, LabelArray], schema: Schema) -> None:
        self.request = SourceRequest("memory", "maps")
        self.schema_, self.maps = schema, dict(maps)
        self.opened: list[str] = []

    def _subject(self, case_id: str) -> str:
        return case_id.partition("_")[0]


def _case_context(
    labels: LabelArray | None = None, schema: Schema | None = None, index: int = 0
) -> CaseContext:
    """A label map as the case at hand, ``case0`` of ``sub0``, among others to borrow from."""
    if labels is None:
        labels = _toy(schema.ndim, schema.spacing) if schema is not None else _toy()
    source = _Cases(labels, schema or _schema(labels.ndim))
    case = source.load("case0")
    source.opened.clear()
    return CaseContext(
        case, Placement(), labels.shape, index, CasePool(TrainingCases(CaseCache(source)), Space())
    )


def _case_pool(cases: Mapping[str, LabelArray], schema: Schema = THREE) -> CasePool:
    return CasePool(TrainingCases(CaseCache(_Maps(cases, schema))), Space())


# What tests take as arguments: the functions themselves.
_helper = pytest.fixture(scope="session")
schema, make, toy, ball = (_helper(lambda f=f: f) for f in (_schema, _make, _toy, _ball))
case_context, maps, case_pool = (_helper(lambda f=f: f) for f in (_case_context, _Maps, _case_pool))


@pytest.fixture
def patients() -> CaseSource:
    """Four people; their tumours, of a core in a shell, lie and weigh differently."""
    seats = ((8, 8, 8), (8, 16, 10), (15, 9, 18), (14, 15, 16))
    balls = {f"p{i}": with_ball(body(), s, 4 + i / 2, 1, 2) for i, s in enumerate(seats)}
    return _Maps(balls, THREE)


@pytest.fixture
def tumours(patients) -> CasePool:
    return CasePool(TrainingCases(CaseCache(patients)), Space())
