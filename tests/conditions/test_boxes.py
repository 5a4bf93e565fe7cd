from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.boxes import (
    BoxContext,
    box_drawer,
    own_boxes,
    place_boxes,
)
from gansynth.conditions.location_prior import KERNEL, PlacementPrior
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.body_mask import organ_mask, share_inside
from gansynth.core.case_pool import CasePool
from gansynth.core.sample_request import absolute_boxes
from gansynth.core.schema import Case, Schema
from gansynth.imaging.body_box import BodyBox
from gansynth.runtime.errors import DataFault
from tests.boxed_heads import Heads, on_skull
from tests.conditions.rooms import at, pool_of
from tests.expected import raises_fault
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


def test_boxes_are_moved_and_resized_and_keep_their_classes():
    own, drawn = own_boxes(CASE), draws("jitter:count=0", count=30)
    assert all(boxes.labels.tolist() == [1, 0] for boxes in drawn)
    sides = own.coords[:, 2:] - own.coords[:, :2]
    scales = [(boxes.coords[:, 2:] - boxes.coords[:, :2]) / sides for boxes in drawn]
    assert 0.08 < np.log(scales).std() < 0.2
    near, far = (
        np.array([b.coords for b in draws(f"jitter:position={p},size=0,count=0")])
        for p in (0.05, 0.4)
    )
    assert 3 * np.abs(near - own.coords).mean() < np.abs(far - own.coords).mean()
    boxes, told = draw("jitter:position=0,size=0,count=0")
    assert np.allclose(boxes.coords, own.coords, atol=1e-5)
    assert told["from"] == [0, 1]


def test_boxes_stay_in_the_body_unless_told_otherwise_and_off_each_other():
    case = spotted(1, (3, 20, 11, 28))  # at the body's upper end
    body = organ_mask(case.image)
    inside, out = (
        [share_inside(body, boxes.coords[0]) for boxes in draws(text, case, 40)]
        for text in ("jitter:position=1,inside=yes", "jitter:position=1,inside=no")
    )
    assert min(inside) >= min(0.9, share_inside(body, own_boxes(case).coords[0]))
    assert min(out) < 0.3
    close = spotted(2, (16, 14, 24, 22), (16, 24, 24, 32))
    for boxes in draws("jitter:position=0.6", close, 40):
        a, b = boxes.coords
        assert (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) <= 0).any()


def test_boxes_in_corners_stay_in_the_image():
    case = spotted(3, (0, 0, 8, 8), (40, 40, 48, 48))
    drawn = draws("jitter:position=1,inside=no,count=0", case, 40)
    corners = np.concatenate([boxes.coords for boxes in drawn])
    assert (corners.min() >= 0, corners.max() <= 48) == (True, True)


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
    empty = spotted(5)  # a background stays one unless it is asked for otherwise
    boxes, told = draw("jitter:count=1", empty, 0, [CASE])
    assert boxes.coords.shape == replay(told).coords.shape == (0, 4)
    full = spotted(6, (4, 4, 44, 44))  # no room for another
    assert counts(draws("jitter:count=1,position=0,size=0", full, 5, [three])) == {1}


@pytest.mark.parametrize(
    ("text", "expected", "names"),
    [
        *(
            (text, "conditions.boxes-option-malformed", "training, jitter")
            for text in ("jittr", "jitter:", "file:", "training:1")
        ),
        ("jitter:postion=1", "options.word-unknown-or-repeated", "'position'"),
        ("jitter:count=2", "options.value-invalid", ": count: "),
        ("jitter:position=nan", "options.value-invalid", "position=nan"),
    ],
)
def test_wrong_boxes_text_is_refused_with_the_way_out(text, expected, names):
    with raises_fault(expected, names=names) as found:
        box_drawer(text)
    assert "--boxes" in str(found.value)


HEAD = "class,xmin,ymin,xmax,ymax"
DEEP = "class,xmin,ymin,zmin,xmax,ymax,zmax"


def listed(folder: Path, *lines: str) -> str:
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"file:{folder / 'boxes.csv'}"


def test_a_list_is_used_in_order_and_over_again(tmp_path):
    text = listed(tmp_path, HEAD, "core,1,2,3.5,6", "1,4,4,5,5")
    drawn = [draw(text, index=index) for index in range(3)]
    wanted = [[[2, 1, 6, 3.5]], [[4, 4, 5, 5]], [[2, 1, 6, 3.5]]]  # y before x, as arrays have them
    assert [b.coords.tolist() for b, _ in drawn] == wanted
    assert [b.labels.tolist() for b, _ in drawn] == [[0], [1], [0]]
    assert np.array_equal(replay(drawn[0][1]).coords, drawn[0][0].coords)
    case = Case("v", "v", np.zeros((1, 8, 8, 8), np.float32))
    (deep, _) = draw(listed(tmp_path, DEEP, "core,1,2,3,4,5,6"), case)
    assert deep.coords.tolist() == [[3, 2, 1, 6, 5, 4]]


def test_a_column_says_which_boxes_belong_together_and_names_backgrounds(tmp_path):
    rows = ["core,1,2,3,6,a", ",,,,,b", "rim,4,4,5,5,a", ""]
    text = listed(tmp_path, f"{HEAD},image", *rows)
    drawn = [draw(text, index=index)[0] for index in range(2)]
    assert [b.labels.tolist() for b in drawn] == [[0, 1], []]


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
        ([DEEP, "core,1,2,3,4,5,6"], "a box of 3 axes"),
    ],
)
def test_a_bad_list_is_refused_with_file_and_line(tmp_path, lines, words):
    with pytest.raises(DataFault) as found:
        draw(listed(tmp_path, *lines))
    assert words in str(found.value)
    assert "boxes.csv" in str(found.value)


def test_a_missing_or_binary_box_list_is_refused(tmp_path, monkeypatch):
    with raises_fault("conditions.case-without-boxes"):
        draw("jitter", Case("x", "x", np.zeros((1, 8, 8), np.float32)))
    with raises_fault("conditions.box-file-not-readable"):
        box_drawer(f"file:{tmp_path / 'none.csv'}")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with raises_fault("conditions.box-file-not-utf8"):
        box_drawer(f"file:{tmp_path / 'b.csv'}")
    monkeypatch.chdir(tmp_path)
    assert absolute_boxes("file:a.csv") == f"file:{tmp_path / 'a.csv'}"  # for other processes
    assert (absolute_boxes("jitter"), absolute_boxes(None)) == ("jitter", None)


@pytest.fixture(scope="module")
def heads() -> CasePool:
    source = Heads()
    return pool_of(source, source.space)


def test_placed_boxes_lie_within_the_skull_where_those_of_their_class_do(heads):
    source = Heads()
    sampler = ConditionSampler(
        source, source.space, labelled=False, boxes=box_drawer("jitter"), backgrounds=True
    )
    away: dict[int, list[float]] = {0: [], 1: []}
    seat = PlacementPrior.learn_boxes(heads, 0).centres.mean(axis=0)
    for condition in map(sampler.draw, range(24)):
        image, boxes = condition.background, condition.boxes
        assert image is not None
        assert boxes is not None
        skull, frame = on_skull(image), BodyBox.of(organ_mask(image))
        for row, label in zip(boxes.coords, boxes.labels, strict=True):
            low, high = np.floor(row[:2]).astype(int), np.ceil(row[2:]).astype(int)
            assert not skull[low[0] : high[0], low[1] : high[1]].any()
            middle = frame.relative(((row[:2] + row[2:]) / 2 - 0.5)[None])
            away[int(label)].append(float(np.abs(middle - seat).max()))
    assert len(away[0]) > 5
    assert max(away[0]) < KERNEL
    assert np.median(away[1]) > 2 * KERNEL


def test_a_box_without_any_room_is_left_out(heads):
    asked = boxes_of((5, 5, 90, 90), labels=[1])
    found = place_boxes(asked, at(heads, "h01"), np.random.default_rng(0), as_asked=False)
    assert len(found.boxes.labels) == 0
    assert found.moved == [None]
    assert len(found.present.labels) == 1
