"""Small label maps, cases of them in memory, edits by name, and runs of edits that are checked."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.edit import Edit, EditContext
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Mask, Schema
from gansynth.core.source import CaseHeader, CaseSource, SourceRequest
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache

THREE = Schema(("T1",), {"bg": 0, "a": 1, "b": 2, "c": 4}, (1.0, 1.0, 1.0), has_outside=True)


def schema(ndim: int = 3, spacing: Sequence[float] | None = None) -> Schema:
    labels = {"background": 0, "shell": 1, "core": 2, "nodule": 4}
    mm = tuple(spacing or (1.0,) * ndim)
    return Schema(("T1",), labels, mm, "DHW"[-ndim:], has_outside=True)


def make(name: str, **options: Any) -> Edit:
    edit = installed().edit(name)
    return edit(edit.Options(**options))


# -- label maps ------------------------------------------------------------------------------------


def within(
    shape: Sequence[int], centre: Sequence[float], radius_mm: float, spacing: Sequence[float]
) -> Mask:
    mm, middle = (np.reshape(row, (-1, *[1] * len(shape))) for row in (spacing, centre))
    away = (np.indices(tuple(shape)) - middle) * mm
    return np.asarray((away**2).sum(axis=0) < radius_mm**2)


def toy(
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
    labels = np.where(within(shape, middle, width / 2, spacing), 0, OUTSIDE).astype(np.int16)
    for off, size, value in ((-2, radius, 1), (-2, core, 2), (5, 2.2, 4)):
        seat = [c + off / mm for c, mm in zip(middle, spacing, strict=True)]
        labels[within(shape, seat, size, spacing)] = value
    return labels


def ball(radius_mm: float = 8.0, spacing: Sequence[float] = (1.0,) * 3) -> LabelArray:
    """A ball (2D: a disc) of class 1 in the middle of some 34 mm of background."""
    shape = [round(34 / mm) - axis for axis, mm in enumerate(spacing)]
    middle = [(n - 1) / 2 for n in shape]
    return within(shape, middle, radius_mm, spacing).astype(np.int16)


def body(shape: tuple[int, ...] = (24, 26, 28)) -> LabelArray:
    """Background with one voxel outside the body at each border."""
    return np.pad(np.zeros([n - 2 for n in shape], np.int16), 1, constant_values=OUTSIDE)


def with_ball(
    labels: LabelArray,
    centre: Sequence[float],
    radius: float,
    value: int = 1,
    core: int | None = None,
) -> LabelArray:
    """A ball, and a core of half its radius in it if a value is given for one."""
    out = labels.copy()
    for size, number in ((radius, value), (radius / 2, core)):
        if number is not None:
            there = within(labels.shape, centre, size, (1.0,) * labels.ndim)
            out[there & (labels != OUTSIDE)] = number
    return out


# -- cases -----------------------------------------------------------------------------------------


class Maps(CaseSource):
    """Cases of given label maps; what stands before ``_`` in their names is the person.

    Their images show the labels. Opening a held-out case fails.
    """

    def __init__(self, maps: Mapping[str, LabelArray], schema: Schema) -> None:
        self.request = SourceRequest("memory", "toy")
        self.schema_, self.maps = schema, dict(maps)

    name = property(lambda self: "memory:toy")
    schema = property(lambda self: self.schema_)
    space = property(lambda self: Space())
    train_ids = property(lambda self: tuple(self.maps))
    held_out_ids = property(lambda self: ("held0",))

    def header(self, case_id: str) -> CaseHeader:
        return CaseHeader(self.person(case_id), self.maps[case_id].shape, self.schema.spacing)

    def person(self, case_id: str) -> str:
        return case_id.partition("_")[0]

    def load(self, case_id: str) -> Case:
        labels = self.maps[case_id]
        rng = np.random.default_rng(int(case_id[-1]))
        shown = np.where(labels == OUTSIDE, 0, 100 + 40 * labels)
        noise = 4 * rng.standard_normal((len(self.schema.channels), *labels.shape))
        image = (shown + noise * (labels != OUTSIDE)).astype(np.float32)
        return Case(case_id, self.person(case_id), image, labels.copy())


class Others(Maps):
    """The case at hand, ``case0``, and others; ``case2`` is of the same person."""

    def person(self, case_id: str) -> str:
        return "sub0" if case_id in ("case0", "case2") else f"sub{case_id[-1]}"


def pool_of(source: CaseSource, space: Space | None = None) -> CasePool:
    return CasePool(TrainingCases(CaseCache(source)), space or Space())


def case_pool(cases: Mapping[str, LabelArray], schema: Schema = THREE) -> CasePool:
    return pool_of(Maps(cases, schema))


@cache
def others(spacing: tuple[float, ...]) -> tuple[LabelArray, ...]:
    ndim = len(spacing)
    return (
        toy(ndim, spacing, 26.0, 5.0, 2.5)[::-1],
        toy(ndim, spacing, 22.0, 5.5),
        np.minimum(toy(ndim, spacing, 25.0), 0),
    )


def patients() -> Maps:
    """Four people; their tumours, of a core in a shell, lie and weigh differently."""
    seats = ((8, 8, 8), (8, 16, 10), (15, 9, 18), (14, 15, 16))
    balls = {f"p{i}": with_ball(body(), s, 4 + i / 2, 1, 2) for i, s in enumerate(seats)}
    return Maps(balls, THREE)


def case_context(labels: LabelArray, schema: Schema) -> CaseContext:
    """A label map as the case at hand, among others to borrow from; the last one has no lesion."""
    known = [
        np.where(np.isin(found, schema.label_values), found, np.int16(0))
        for found in (labels, *others(schema.spacing))
    ]
    source = Others({f"case{i}": found for i, found in enumerate(known)}, schema)
    return CaseContext(source.load("case0"), Placement(), labels.shape, 0, pool_of(source))


def at(
    case_pool: CasePool,
    case_id: str,
    index: int = 0,
    turn: int | None = None,
    labels: LabelArray | None = None,
    placement: Placement | None = None,
) -> CaseContext:
    """A case of a pool as it is cut there, or a stranger with labels of its own."""
    placement = placement or Placement()
    case = case_pool.cut(case_id, placement)
    shape = case_pool.cases(case_id).image.shape[1:]
    if labels is not None:
        image = np.where(labels == OUTSIDE, 0, 100)[None].astype(np.float32)
        case, shape = Case("other", "other", image, labels), labels.shape
    return CaseContext(case, placement, shape, index, case_pool, turn)


def run(edit: Edit, case_context: CaseContext, seed: int = 0) -> tuple[dict[str, Any], LabelArray]:
    """Parameters and labels; that these are what JSON of the parameters gives is checked."""
    schema = case_context.case_pool.schema
    context = EditContext(case_context.labels, schema, case_context)
    params = edit.draw(context, np.random.default_rng(seed))
    before = case_context.labels.copy()
    after = edit.apply(context, params).labels
    read = json.loads(json.dumps(params))
    again = make(edit.name).apply(EditContext(before, schema, case_context), read).labels
    assert np.array_equal(after, again)
    assert np.array_equal(before, case_context.labels)
    assert np.array_equal(after == OUTSIDE, before == OUTSIDE)
    return params, after
