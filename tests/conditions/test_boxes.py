# mypy: disallow-untyped-calls=False

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.conditions.boxes import BoxContext, TrainingBoxes, box_drawer, own_boxes
from gansynth.core.body_mask import organ_mask, share_inside
from gansynth.core.sample_request import absolute_boxes
from gansynth.core.schema import Boxes, Case, Schema
from gansynth.runtime.errors import DataFault, UsageFault
from tests.spots import boxes_of, replay, spotted

SCHEMA = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("core", "rim"))
ONE, TWO = (12, 12, 20, 22), (26, 24, 34, 36)
CASE = spotted(0, ONE, TWO, labels=[1, 0])


def draw(text: str, case: Case = CASE, seed: int = 0, others: Any = None, index: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    another = None if others is None else lambda: others[int(rng.integers(len(others)))]
    return box_drawer(text).draw(BoxContext(case, SCHEMA, rng, index, another))


def draws(text: str, case: Case = CASE, count: int = 20, others: Any = None) -> list[Any]:
    return [draw(text, case, seed, others)[0] for seed in range(count)]


def counts(drawn: list[Any]) -> set[int]:
    return {len(boxes.labels) for boxes in drawn}


def sides(boxes: Boxes) -> Any:
    return boxes.coords[:, 2:] - boxes.coords[:, :2]


@st.composite
def cases(choose: Any) -> Case:
    """Any boxes at all, of 1 to 3 classes, on a picture with a body or on none."""
    size = choose(st.tuples(st.integers(8, 40), st.integers(8, 40)))
    count = choose(st.integers(0, 4))
    rows = []
    for _ in range(count):
        ends = [sorted(choose(st.tuples(*[st.floats(0, n, width=32)] * 2))) for n in size]
        row = [e[0] for e in ends] + [e[1] for e in ends]
        if all(np.float32(a) < np.float32(b) for a, b in ends):
            rows.append(row)
    labels = [choose(st.integers(0, 1)) for _ in rows]
    rng = np.random.default_rng(choose(st.integers(0, 9)))
    image = rng.normal(0, 0.1, (1, *size)).astype(np.float32)
    image[:, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] += choose(st.floats(0, 3))
    return Case("c", "c", image, None, boxes_of(*rows, labels=labels))


@settings(max_examples=25, deadline=None)
@given(
    case=cases(),
    other=cases(),
    position=st.floats(0, 10),
    size=st.floats(0, 1),
    inside=st.sampled_from(["yes", "no"]),
    seed=st.integers(0, 2**32),
)
def test_whatever_the_case_boxes_stay_in_the_image_and_replay(
    case, other, position, size, inside, seed
):
    text = f"jitter:position={position},size={size},count=1,inside={inside},backgrounds=1"
    boxes, told = draw(text, case, seed, [case, other])  # Boxes itself refuses empty ones
    assert (boxes.coords[:, :2] >= 0).all()
    assert (boxes.coords[:, 2:] <= case.image.shape[1:]).all()
    known = {*own_boxes(case).labels.tolist(), *own_boxes(other).labels.tolist()}
    assert set(boxes.labels.tolist()) <= known
    again = replay(json.loads(json.dumps(told, allow_nan=False)))
    assert np.array_equal(again.coords, boxes.coords)
    assert np.array_equal(again.labels, boxes.labels)
    same = draw(text, case, seed, [case, other])[0]
    assert np.array_equal(same.coords, boxes.coords)


def test_boxes_are_moved_and_resized_and_keep_their_classes():
    own, drawn = own_boxes(CASE), draws("jitter:count=0", count=60)
    assert all(boxes.labels.tolist() == [1, 0] for boxes in drawn)
    moved = np.array([boxes.coords for boxes in drawn]).mean(axis=2) - own.coords.mean(axis=1)
    assert np.abs(moved).max() > 1
    assert 0.08 < np.log([sides(boxes) / sides(own) for boxes in drawn]).std() < 0.2
    near, far = (
        np.array([b.coords for b in draws(f"jitter:position={p},size=0,count=0", count=40)])
        for p in (0.05, 0.4)
    )
    assert 3 * np.abs(near - own.coords).mean() < np.abs(far - own.coords).mean()
    assert np.allclose(near[:, :, 2:] - near[:, :, :2], sides(own), atol=1e-4)
    boxes, told = draw("jitter:position=0,size=0,count=0")
    assert np.allclose(boxes.coords, own.coords, atol=1e-5)
    assert told["from"] == [0, 1]


def test_boxes_stay_in_the_body_unless_told_otherwise():
    case = spotted(1, (3, 20, 11, 28))  # at the body's upper end
    body = organ_mask(case.image)
    inside, out = (
        [share_inside(body, boxes.coords[0]) for boxes in draws(text, case, 40)]
        for text in ("jitter:position=1,inside=yes", "jitter:position=1,inside=no")
    )
    assert min(inside) >= min(0.9, share_inside(body, own_boxes(case).coords[0]))
    assert min(out) < 0.3


def test_boxes_do_not_come_to_lie_on_each_other():
    close = spotted(2, (16, 14, 24, 22), (16, 24, 24, 32))
    for boxes in draws("jitter:position=0.6", close, 40):
        a, b = boxes.coords
        assert (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) <= 0).any()


def test_the_number_of_boxes_goes_one_towards_that_of_another_case():
    one, three = spotted(3, ONE), spotted(4, ONE, TWO, (10, 28, 18, 36), labels=[0, 0, 1])
    fewer = draws("jitter:count=1", others=[one])
    assert counts(draws("jitter:count=1", others=[three])) == {3}
    assert counts(draws("jitter:count=0", others=[three])) == {2}
    assert counts(draws("jitter:count=1", others=[CASE])) == {2}
    assert counts(fewer) == {1}
    assert {tuple(boxes.labels) for boxes in fewer} == {(0,), (1,)}
    told = [draw("jitter:count=1", CASE, seed, [three])[1]["from"] for seed in range(20)]
    assert [0, 1, "case_4"] in told
    full = spotted(6, (4, 4, 44, 44))  # no room for another
    assert counts(draws("jitter:count=1,position=0,size=0", full, 5, [three])) == {1}


def test_the_last_box_is_never_taken_away_and_a_background_stays_one_unless_asked():
    empty = spotted(5)
    assert len(draw("jitter:count=1", spotted(3, ONE), 0, [empty])[0].labels) == 1
    boxes, told = draw("jitter:count=1", empty, 0, [CASE])
    assert boxes.coords.shape == replay(told).coords.shape == (0, 4)
    drawn = draws("jitter:backgrounds=0.5", empty, 40, [CASE])
    assert 10 < sum(len(boxes.labels) == 1 for boxes in drawn) < 30


def test_training_boxes_are_the_cases_own():
    boxes, told = draw("training")
    assert boxes is CASE.boxes
    assert np.array_equal(replay(told).coords, own_boxes(CASE).coords)
    assert isinstance(box_drawer("training"), TrainingBoxes)


def test_a_case_without_a_list_of_boxes_is_refused():
    with pytest.raises(DataFault, match="case 'x': has no boxes, expected a list"):
        draw("jitter", Case("x", "x", np.zeros((1, 8, 8), np.float32)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jittr", "expected training, jitter"),
        ("jitter:", "expected training, jitter"),
        ("file:", "expected training, jitter"),
        ("training:1", "expected training, jitter"),
        ("jitter:postion=1", "Did you mean 'position'"),
        ("jitter:size=1,size=1", "each once"),
        ("jitter:count=2", "count: expected a number less than or equal to 1"),
        ("jitter:inside=perhaps", "inside: expected yes or no"),
        ("jitter:position=nan", "position=nan"),
    ],
)
def test_wrong_boxes_text_is_refused_with_the_way_out(text, words):
    with pytest.raises(UsageFault) as found:
        box_drawer(text)
    assert words in str(found.value)
    assert "--boxes" in str(found.value)


HEAD = "class,xmin,ymin,xmax,ymax"


def listed(folder: Path, *lines: str, name: str = "boxes.csv") -> str:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"file:{folder / name}"


def test_a_list_is_used_in_order_and_over_again(tmp_path):
    text = listed(tmp_path, HEAD, "core,1,2,3.5,6", "1,4,4,5,5")
    drawn = [draw(text, index=index) for index in range(3)]
    assert [b.coords.tolist() for b, _ in drawn] == [
        [[2, 1, 6, 3.5]],  # y before x, as arrays have them
        [[4, 4, 5, 5]],
        [[2, 1, 6, 3.5]],
    ]
    assert [b.labels.tolist() for b, _ in drawn] == [[0], [1], [0]]
    assert np.array_equal(replay(drawn[0][1]).coords, drawn[0][0].coords)


def test_a_column_says_which_boxes_belong_together_and_names_backgrounds(tmp_path):
    rows = ["core,1,2,3,6,a", ",,,,,b", "rim,4,4,5,5,a", ""]
    text = listed(tmp_path, f"{HEAD},image", *rows)
    drawn = [draw(text, index=index)[0] for index in range(2)]
    assert [b.labels.tolist() for b in drawn] == [[0, 1], []]


def test_boxes_of_volumes_have_a_z(tmp_path):
    text = listed(tmp_path, "class,xmin,ymin,zmin,xmax,ymax,zmax", "core,1,2,3,4,5,6")
    case = Case("v", "v", np.zeros((1, 8, 8, 8), np.float32))
    assert draw(text, case)[0].coords.tolist() == [[3, 2, 1, 6, 5, 4]]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["class,ymin"], "boxes.csv, line 1: the header is class,ymin, expected class,xmin"),
        ([HEAD], "holds no boxes, expected a line for each"),
        ([HEAD, "core,1,2,3"], "line 2: 4 cells, expected 5"),
        ([HEAD, "core,1,2,3,x"], "line 2: 'x' is no number"),
        ([HEAD, "core,1,2,3,nan"], "line 2: 'nan' is no number"),
        ([HEAD, "core,1,2,1,6"], "line 2: the box is empty, expected min below max"),
        ([HEAD, "core,1,1,2,2", 'core,"1'], "line 3: unexpected end of data, expected CSV"),
        ([f"{HEAD},image", "core,1,1,2,2,"], "line 2: no image, expected a word"),
        ([HEAD, "core,1,1,2,2", "cor,1,1,2,2"], "line 3: class 'cor' is unknown, expected one of"),
        ([HEAD, "2,1,1,2,2"], "line 2: class '2' is unknown"),
        ([HEAD, "core,1,1,2,49"], "line 2: the box leaves the generator's image of 48 x 48"),
        ([HEAD, "core,-1,1,2,4"], "line 2: the box leaves"),
        (["class,xmin,ymin,zmin,xmax,ymax,zmax", "core,1,2,3,4,5,6"], "a box of 3 axes"),
    ],
)
def test_a_bad_list_is_refused_with_file_and_line(tmp_path, lines, words):
    with pytest.raises(DataFault) as found:
        draw(listed(tmp_path, *lines))
    assert words in str(found.value)
    assert "boxes.csv" in str(found.value)


def test_a_missing_or_binary_box_list_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageFault, match=r"none.csv: No such file or directory, expected a CSV"):
        box_drawer(f"file:{tmp_path / 'none.csv'}")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFault, match="is no UTF-8 text"):
        box_drawer(f"file:{tmp_path / 'b.csv'}")
    monkeypatch.chdir(tmp_path)
    assert absolute_boxes("file:a.csv") == f"file:{tmp_path / 'a.csv'}"  # for other processes
    assert (absolute_boxes("jitter"), absolute_boxes(None)) == ("jitter", None)
