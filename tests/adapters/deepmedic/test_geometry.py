"""Sizes of segments, of what is predicted of them, and of their contexts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.geometry import Geometry, tiles
from gansynth_deepmedic.model_config import read_model_config
from tests.deepmedic_sets import toy_deepmedic


def test_sizes_are_those_of_the_papers_and_of_the_example() -> None:
    paper = Geometry.cubes(25, 17, (3,))
    assert paper.output == (9, 9, 9)
    assert paper.low == ((19, 19, 19),)
    assert paper.margin == ((8, 8), (8, 8), (8, 8))
    example = Geometry.cubes(37, 17, (3, 5))
    assert (example.output, example.low) == ((21, 21, 21), ((23, 23, 23), (21, 21, 21)))


@pytest.mark.parametrize("size", [13, 14, 15, 16])
def test_centres_are_the_ones_whose_segments_lie_in_the_volume(size: int) -> None:
    geometry, length = Geometry.cubes(size, 7), 20
    fitting = [
        centre
        for centre in range(length)
        if geometry.start((centre,) * 3)[0] >= 0
        and geometry.box(geometry.start((centre,) * 3))[0].stop <= length
    ]
    allowed = geometry.centres((length,) * 3)[0]
    assert list(range(allowed.start, allowed.stop)) == fitting
    assert len(fitting) == length - size + 1


def test_a_volume_that_is_too_small_has_no_centres() -> None:
    allowed = Geometry.cubes(13, 7).centres((20, 12, 3))
    assert [cut.stop - cut.start for cut in allowed] == [8, 0, 0]


def test_labels_lie_in_the_middle_of_a_segment() -> None:
    geometry = Geometry((14, 13, 9), (7, 5, 9), ())
    start = geometry.start((20, 20, 20))
    box, predicted = geometry.box(start), geometry.predicted(start)
    assert [p.start - b.start for b, p in zip(box, predicted, strict=True)] == [3, 2, 4]
    assert [b.stop - p.stop for b, p in zip(box, predicted, strict=True)] == [3, 2, 4]


def test_predictions_of_all_tiles_cover_a_padded_volume_once_or_more() -> None:
    geometry, shape = Geometry((13, 14, 16), (7, 5, 9)), (30, 27, 16)
    covered = {
        (x, y)
        for start in tiles(shape, geometry)
        for x in range(*geometry.predicted(start)[0].indices(99))
        for y in range(*geometry.predicted(start)[1].indices(99))
    }
    (left, right), (front, back), _ = geometry.margin
    assert covered == {(x, y) for x in range(left, 30 - right) for y in range(front, 27 - back)}


@pytest.mark.parametrize(
    ("segment", "receptive", "factors", "head"),
    [
        ((13, 13, 13), (6, 7, 7), (), (0, 0, 0)),
        ((13, 13, 6), (7, 7, 7), (), (0, 0, 0)),
        ((13, 13, 8), (7, 7, 7), (), (2, 2, 2)),
        ((13, 13, 13), (7, 7, 7), (), (1, 2, 2)),
        ((13, 13, 13), (7, 7, 7), ((3, 0, 3),), (0, 0, 0)),
    ],
)
def test_sizes_that_cannot_be_are_refused(segment, receptive, factors, head):
    with pytest.raises(ValueError, match="expected"):
        Geometry(segment, receptive, factors, head)


def test_fully_connected_layers_without_padding_predict_less_of_the_same():
    plain, losing = Geometry.cubes(13, 7, (3,)), replace(Geometry.cubes(13, 7, (3,)), head=(2,) * 3)
    assert (losing.output, losing.low) == ((5, 5, 5), plain.low)
    assert losing.margin == ((4, 4),) * 3
    assert losing.predicted((0, 0, 0)) == (slice(4, 9),) * 3


def test_sizes_come_from_the_model(tmp_path):
    model = read_model_config(toy_deepmedic(tmp_path, train=1, val=0).model)
    assert Geometry.from_model(model) == Geometry.cubes(13, 7, (3,))
    assert Geometry.from_model(model, "inference").segment == (19, 19, 19)
    small = replace(model, segment_validation=(9, 11, 13))
    assert Geometry.from_model(small, "validation").output == (3, 5, 7)
    losing = replace(model, fc_kernels=((3, 3, 3), (1, 1, 1)), fc_padded=(False, False))
    assert Geometry.from_model(losing).output == (5, 5, 5)
    kept = replace(losing, fc_padded=(True, False))
    assert Geometry.from_model(kept) == Geometry.from_model(model)
    even = replace(model, kernels=((2, 3, 3), *model.kernels[1:]))
    for odd in (replace(model, padded=(True, False, False)), even):
        with pytest.raises(DataFault, match=r"modelConfig\.cfg: segmentsDimTrain .*padType"):
            Geometry.from_model(odd)
