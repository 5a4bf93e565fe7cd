"""Label maps of bodies with lesions, their rooms, and an edit's run that checks what it says."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from gansynth.core.case_pool import CaseContext, CasePool
from gansynth.core.edit import Edit, EditContext
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Schema
from gansynth.core.space import Placement
from gansynth.data.connected_components import parts

THREE = Schema(("T1",), {"bg": 0, "a": 1, "b": 2, "c": 4}, (1.0, 1.0, 1.0), has_outside=True)


def body(shape: tuple[int, ...] = (24, 26, 28)) -> LabelArray:
    """Background with one voxel outside the body at each border."""
    labels = np.full(shape, OUTSIDE, np.int16)
    labels[tuple(slice(1, -1) for _ in shape)] = 0
    return labels


def with_ball(
    labels: LabelArray,
    centre: Sequence[float],
    radius: float,
    value: int = 1,
    core: int | None = None,
) -> LabelArray:
    """A ball, and a core of half its radius in it if a value is given for one."""
    grid = np.indices(labels.shape)
    middle = np.reshape(centre, (-1, *[1] * labels.ndim))
    away = np.sqrt(np.square(grid - middle).sum(axis=0))
    out = labels.copy()
    out[(away < radius) & (labels != OUTSIDE)] = value
    if core is not None:
        out[(away < radius / 2) & (labels != OUTSIDE)] = core
    return out


def pieces(labels: LabelArray, value: int) -> int:
    return len(parts(np.where(labels == value, labels, np.int16(0)), THREE))


def at(
    case_pool: CasePool,
    case_id: str,
    index: int = 0,
    turn: int | None = None,
    labels: LabelArray | None = None,
) -> CaseContext:
    """A whole case of a room as a scene, or a stranger with labels of its own."""
    case = case_pool.cut(case_id if labels is None else case_pool.ids[0], Placement())
    if labels is not None:
        image = np.where(labels == OUTSIDE, 0, 100)[None].astype(np.float32)
        case = Case("other", "other", image, labels)
    return CaseContext(case, Placement(), case.image.shape[1:], index, case_pool, turn)


def run(edit: Edit, case_context: CaseContext, seed: int = 0) -> tuple[dict[str, Any], LabelArray]:
    """Parameters and labels; that these are what JSON of the parameters gives is checked."""
    schema = case_context.case_pool.schema
    context = EditContext(case_context.labels, schema, case_context)
    params = edit.draw(context, np.random.default_rng(seed))
    before = case_context.labels.copy()
    after = edit.apply(context, params).labels
    read = json.loads(json.dumps(params))
    again = (
        installed().edit(edit.name)().apply(EditContext(before, schema, case_context), read).labels
    )
    assert np.array_equal(after, again)
    assert np.array_equal(before, case_context.labels)
    assert np.array_equal(after == OUTSIDE, before == OUTSIDE)
    return params, after
