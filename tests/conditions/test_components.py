import json
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edit
from gansynth.core.edit import Edit, EditContext
from gansynth.core.schema import OUTSIDE, LabelArray
from gansynth.data.connected_components import LabelComponents, parts

INNER = {
    "shift": "inner.max_mm=6",
    "rotate": "inner.max_deg=90",
    "scale": "inner.low=0.8,inner.high=1.6",
    "elastic": "inner.amplitude_mm=3,inner.correlation_mm=4",
    "enlarge": "inner.high=3",
    "shrink": "inner.low=0.4",
    "flip": "inner.about=centroid,inner.axes=0+1",
}


@pytest.fixture
def crowd():
    """Nine squares of two classes, 4 voxels apart, every second one with a heart; some outside."""
    labels = np.zeros((32, 33), np.int16)
    for row in range(3):
        for column in range(3):
            top, left = 2 + 10 * row, 2 + 10 * column
            labels[top : top + 6, left : left + 6] = 1 + 3 * (row % 2)
            if (row + column) % 2:
                labels[top + 2 : top + 4, left + 2 : left + 4] = 2
    labels[:, 32] = OUTSIDE
    return labels


@pytest.fixture
def drawn(schema):
    """An edit's parameters and labels; it may be given as text, of ``components``."""

    def run(edit: Edit | str, labels: LabelArray, seed: int = 0) -> tuple[Any, LabelArray]:
        made = build_edit(f"components:edit={edit}") if isinstance(edit, str) else edit
        context = EditContext(labels, schema(labels.ndim))
        params = made.draw(context, np.random.default_rng(seed))
        return params, made.apply(context, json.loads(json.dumps(params))).labels

    return run


def pieces(labels: LabelArray) -> int:
    return len(LabelComponents.of(labels > 0).sizes)


@pytest.mark.parametrize("inner", sorted(INNER))
def test_parts_change_by_themselves_and_stay_apart(inner, crowd, drawn):
    params, after = drawn(f"{inner},{INNER[inner]}", crowd)
    assert pieces(after) == pieces(crowd) == 9
    assert len(params["parts"]) >= 5
    assert len({json.dumps(step["params"]) for step in params["parts"]}) > 1
    assert set(np.unique(after)) == set(np.unique(crowd))
    if inner != "flip":  # squares are their own mirror images
        assert not np.array_equal(after, crowd)


def test_each_part_moves_as_its_own_draw_says(crowd, drawn, schema):
    params, after = drawn("shift,inner.max_mm=3", crowd)
    before, there = (parts(labels, schema(2)) for labels in (crowd, after))
    for step in params["parts"]:
        target = np.add(before[step["part"]].centroid, step["params"]["shift_mm"])
        away = np.subtract([part.centroid for part in there], target)
        assert np.linalg.norm(away, axis=1).min() < 0.8


def test_chance_and_least_say_which_parts_are_edited(crowd, drawn):
    counts = [len(drawn("shift,chance=0.3", crowd, seed)[0]["parts"]) for seed in range(12)]
    assert 0.15 < np.mean(counts) / 9 < 0.45
    edited = [bool(drawn(f"shift,least={n}", crowd)[0]["parts"]) for n in (36, 37)]
    assert edited == [True, False]


@pytest.mark.parametrize(("chance", "least"), [(0.5, 1), (1.0, 1), (1.0, 4)])
def test_some_parts_are_left_out_whole(chance, least, make, crowd, drawn):
    edit, left = make("drop", chance=chance, least=least), []
    for seed in range(8):
        params, after = drawn(edit, crowd, seed)
        assert (after[after != crowd] == 0).all()
        assert pieces(after) == 9 - len(params["dropped"])
        assert set(np.unique(after)) == set(np.unique(crowd))
        left.append(pieces(after))
    assert min(left) == max(least, 2) if chance == 1 else 2 < np.mean(left) < 7
