"""Sheets, overlays and curves: pictures that open, whatever the labels are."""

from typing import Any

import numpy as np
import pytest

from gansynth.curves import read_metrics, write_curves
from gansynth.schema import Sample
from gansynth.sheets import middle_slice, write_overlays, write_sheet
from gansynth.testing import ToySource


def size(path) -> tuple[int, int]:
    from matplotlib.image import imread

    height, width = imread(path).shape[:2]
    return height, width


def cases(ndim: int, n: int) -> Any:
    source = ToySource(ndim)
    return [source.load(i) for i in source.train_ids[:n]]


def samples(ndim: int, n: int) -> list[Sample]:
    return [Sample(c.image, c.labels) for c in cases(ndim, n)]


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_sheet_has_a_column_per_case_and_a_row_per_channel(tmp_path, ndim):
    schema = ToySource(ndim).schema
    small = write_sheet(tmp_path / "a.png", samples(ndim, 1), [], schema)
    wide = write_sheet(tmp_path / "b.png", samples(ndim, 2), [], schema)
    tall = write_sheet(tmp_path / "c.png", samples(ndim, 1), cases(ndim, 1), schema)
    (height, width), more = size(small), (size(wide)[1], size(tall)[0])
    assert more[0] == pytest.approx(2 * width, abs=2)
    assert more[1] > 1.8 * height


def test_a_sheet_makes_its_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "samples" / "sheet.png"
    assert write_sheet(path, samples(2, 1), [], ToySource(2).schema, title="step 5") == path
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("labels", [None, np.ones((8, 8), np.int16), np.zeros((8, 8), np.int16)])
def test_labels_may_be_anything(tmp_path, labels):
    image = np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32)
    path = write_sheet(tmp_path / "a.png", [Sample(image, labels)], [], ToySource(2).schema)
    assert path.stat().st_size > 0


def test_the_outline_is_drawn(tmp_path):
    from matplotlib.image import imread

    drawn = samples(2, 1)
    plain = [Sample(s.image) for s in drawn]
    schema = ToySource(2).schema
    with_outline = imread(write_sheet(tmp_path / "a.png", drawn, [], schema))
    without = imread(write_sheet(tmp_path / "b.png", plain, [], schema))
    colour = np.ptp(with_outline[..., :3], axis=-1).max(), np.ptp(without[..., :3], axis=-1).max()
    assert colour[0] > 0.3 > 0.01 > colour[1]


def test_a_constant_image_can_be_shown(tmp_path):
    blank = Sample(np.zeros((2, 8, 8), np.float32))
    assert write_sheet(tmp_path / "a.png", [blank], [], ToySource(2).schema).exists()


def test_overlays_show_truth_above_prediction(tmp_path):
    case = cases(3, 1)[0]
    entry = ("toy", case.image, case.labels, np.zeros_like(case.labels))
    one = size(write_overlays(tmp_path / "a.png", [entry], ToySource(3).schema))
    two = size(write_overlays(tmp_path / "b.png", [entry] * 2, ToySource(3).schema))
    assert two[1] == pytest.approx(2 * one[1], abs=2)


def test_the_slice_with_most_foreground_is_shown():
    labels = np.zeros((5, 4, 4), np.int16)
    labels[1, 0], labels[3] = 1, 2
    assert middle_slice(labels, labels.shape) == 3


def test_without_foreground_it_is_the_middle_one():
    assert middle_slice(np.full((5, 4, 4), -1, np.int16), (5, 4, 4)) == 2
    assert middle_slice(None, (5, 4, 4)) == 2


def test_a_plane_has_no_slice():
    assert middle_slice(np.ones((4, 4), np.int16), (4, 4)) is None


# -- curves ----------------------------------------------------------------------------------------

METRICS = "step,images,seconds,g/a,g/b,d/a\n20,40,1.5,0.5,nan,1\n40,80,3,0.25,2,1\n"


def test_metrics_are_read_by_column(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    columns = read_metrics(tmp_path / "metrics.csv")
    assert list(columns) == ["step", "images", "seconds", "g/a", "g/b", "d/a"]
    assert (columns["step"], columns["g/a"]) == ([20, 40], [0.5, 0.25])
    assert np.isnan(columns["g/b"][0])


def test_metrics_may_have_no_line_yet(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,images,seconds,g/a\n")
    columns = read_metrics(tmp_path / "metrics.csv")
    assert columns == {"step": [], "images": [], "seconds": [], "g/a": []}


def test_curves_have_a_panel_per_player(tmp_path):
    (tmp_path / "two.csv").write_text(METRICS)
    (tmp_path / "one.csv").write_text("step,images,seconds,g/a\n20,40,1,0.5\n")
    two = write_curves(tmp_path / "two.csv", tmp_path / "two.png")
    one = write_curves(tmp_path / "one.csv", tmp_path / "one.png")
    assert size(two)[1] == pytest.approx(2 * size(one)[1], abs=2)
