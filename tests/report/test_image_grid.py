from dataclasses import replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gansynth.core.schema import Boxes, Case, Sample, Schema
from gansynth.data.picture_files import read_picture
from gansynth.report.figures import read_metrics, write_curves
from gansynth.report.image_grid import (
    EDGE,
    GAP,
    LARGE,
    _caption,
    _columns,
    write_image_grid,
    write_overlays,
    write_sample_grid,
)
from gansynth.report.png import (
    LINE,
    boxes_at,
    colour_of,
    middle_slice,
    outlined,
    plane_of,
    three_planes,
)
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


@pytest.fixture
def sheet(tmp_path):
    """Writes a sheet; returns its path: ``sheet(samples, cases, schema)``."""
    numbers = count()
    return lambda *of, **more: write_sample_grid(tmp_path / f"{next(numbers)}.png", *of, **more)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_case_is_real_and_synthetic_of_each_channel_then_its_label(sheet, ndim):
    schema = ToySource(ndim).schema
    alone = size(sheet(samples(ndim, 1), [], schema))
    with_real = size(sheet(samples(ndim, 1), cases(ndim, 1), schema))
    more = size(sheet(samples(ndim, 3), cases(ndim, 3), schema))
    panel = alone[1] / 3  # two channels, and the label
    assert with_real[1] == pytest.approx(5 * panel, rel=0.02)
    assert more[1] == with_real[1]
    assert more[0] > 2.5 * with_real[0]


def headings_of(*args: Any, **asked: Any) -> list[str]:
    return [
        column.heading
        for column in _columns(*args, **{"given_channels": (), "drawn": False, **asked})
    ]


@pytest.mark.parametrize(
    ("labelled", "asked", "headings"),
    [
        (
            True,
            {"given_channels": ("first",)},
            ["given first", "real second", "synthetic second", "label"],
        ),
        (True, {"drawn": True}, ["real label", "drawn label"]),
        (False, {"drawn": True}, ["drawn label"]),
    ],
)
def test_a_given_channel_stands_there_once_and_drawn_labels_beside_the_real_ones(
    labelled, asked, headings
):
    real, schema = cases(2, 1), ToySource(2).schema
    real = real if labelled else [replace(case, labels=None) for case in real]
    if asked.get("drawn"):
        asked = {"given_channels": schema.channels, **asked}
        headings = ["given first", "given second", *headings]
    assert headings_of(samples(2, 1), real, schema, **asked) == headings


def shows(panel: Any, colour: Any) -> bool:
    return bool((np.abs(panel - np.array(colour)) < 0.02).all(-1).any())


FLAT = np.zeros((1, 16, 16), np.float32)
PLANE = replace(ToySource(2).schema, channels=("T1",))


def square(value: int, low: int = 4, high: int = 12) -> Any:
    labels = np.zeros((16, 16), np.int16)
    labels[low:high, low:high] = value
    return labels


def test_what_a_part_has_drawn_has_a_column_of_its_own(sheet):
    """Tissues, but for where the tumour lies; outlines in images are the tumour's."""
    labels = {"background": 0, "tumour": 1, "tissues:GM": 2, "tissues:WM": 3}
    schema = Schema(("T1",), labels, (1.0, 1.0), "HW")
    sample = Sample(FLAT, square(1, 6, 10), under=np.full((16, 16), 3, np.int16))
    assert headings_of([sample], [], schema) == ["synthetic T1", "tissues", "label"]
    ((image, tissues, label),) = panels(sheet([sample], [], schema), 3)
    white_matter, tumour = to_rgb(colour_of(2)), to_rgb(colour_of(0))
    assert (shows(tissues, white_matter), shows(tissues, tumour)) == (True, False)
    assert (shows(label, white_matter), shows(label, tumour)) == (False, True)
    assert not np.allclose(image, image[0, 0])  # the tumour's outline


def test_with_one_channel_two_cases_share_a_line(sheet):
    flat = [replace(case, image=case.image[:1]) for case in cases(2, 2)]
    drawn = [Sample(case.image, case.labels) for case in flat]
    one, two = size(sheet(drawn[:1], flat[:1], PLANE)), size(sheet(drawn, flat, PLANE))
    assert two == (one[0], 2 * one[1])


def panels(path: Path, columns: int, rows: int = 1, edge: int = LARGE) -> list[list[Any]]:
    """The middle of each panel, as RGB (H, W, 3)."""
    from matplotlib.image import imread

    pixels = imread(path)[..., :3]
    pixels = pixels[-rows * (edge + GAP) :]  # what is above are headings
    cells = [np.array_split(row, columns, axis=1) for row in np.array_split(pixels, rows)]
    return [[cell[35:-35, 35:-35] for cell in row] for row in cells]


def test_each_panel_shows_what_its_heading_says(sheet):
    ramp = np.linspace(0, 1, 16, dtype=np.float32)[None, None].repeat(16, 1)
    real = Case("a", "a", ramp, square(0))
    sample = Sample(ramp[:, ::-1].transpose(0, 2, 1).copy(), square(2))
    ((left, middle, right),) = panels(sheet([sample], [real], PLANE), 3)
    assert left[:, -1].mean() > left[:, 0].mean() + 0.3  # the ramp goes to the right
    assert abs(middle[:, -1].mean() - middle[:, 0].mean()) < 0.2
    centre = right[len(right) // 2, right.shape[1] // 2]
    assert np.allclose(centre, to_rgb(colour_of(1)), atol=0.02)


def test_a_real_case_is_shown_in_its_samples_slice(sheet):
    schema = replace(ToySource(3).schema, channels=("T1",))
    labels = np.zeros((6, 16, 16), np.int16)
    labels[4] = square(1)
    image = np.zeros((1, 6, 16, 16), np.float32)
    image[:, 4, :, 8:] = 1
    real = Case("a", "a", image, np.roll(labels, -3, axis=0))
    path = sheet([Sample(image, labels)], [real], schema)
    (((left, _, _), *_)) = panels(path, 3, rows=3, edge=EDGE)
    assert left[:, -1].mean() > left[:, 0].mean() + 0.5


def test_a_volume_is_shown_in_three_planes_through_its_labels_the_head_up():
    labels = np.zeros((6, 8, 10), np.int16)
    labels[4, 5, 7] = 1
    planes = three_planes(labels, labels.shape)
    assert planes == ((0, 4), (1, 5), (2, 7))
    shown = [plane_of(labels, plane, (3.0, 1.0, 1.0)) for plane in planes]
    assert [plane.shape for plane in shown] == [(8, 10), (18, 10), (18, 8)]
    assert [np.argwhere(plane)[0].tolist() for plane in shown] == [[5, 7], [3, 7], [3, 5]]


def test_a_volume_of_one_slice_as_of_nnunets_2d_is_shown_as_that_slice_alone(sheet):
    volumes = [Sample(c.image[:, None], c.labels[None]) for c in cases(2, 1)]
    alone = sheet(samples(2, 1), [], ToySource(2).schema)
    assert size(sheet(volumes, [], ToySource(3).schema)) == size(alone)


def test_a_caption_has_case_slice_class_and_edits_in_voxels_of_the_case():
    told = {"placement": {"corner": [10, -2, 0]}, "shape": [60, 8, 8], "class": "glioma"}
    edits = {"edits": [{"edit": "elastic", "params": {}}, {"edit": "scale"}]}
    image = np.zeros((1, 6, 8, 8), np.float32)
    planes = ((0, 4), (1, 5), (2, 7))
    case = Case("brain_1", "someone", image)
    caption = _caption(Sample(image, provenance={**told, **edits}), case, planes)
    assert caption == "case brain_1, slice 14, row 3, column 7, glioma: elastic, scale"
    flat = Sample(image[:, 0], provenance={"placement": {"corner": [-4, 0], "slice_index": 12}})
    for shown in (None, (0, 0)):
        assert _caption(flat, case, (shown,)) == "case brain_1, slice 12"
    assert _caption(flat, None, (None,)) == "slice 12"


@pytest.mark.parametrize("real", [0, 3])
def test_no_samples_is_a_sheet_too(sheet, real):
    assert size(sheet([], cases(3, real), ToySource(3).schema, title="now"))[1] > 100


def test_fewer_real_cases_than_samples_leave_gaps(sheet):
    schema = ToySource(2).schema
    some, every = (sheet(samples(2, 3), cases(2, n), schema) for n in (1, 3))
    assert size(some) == size(every)
    assert some.read_bytes() != every.read_bytes()


def test_any_number_of_labels_has_colours_of_their_own():
    colours = [to_rgb(colour_of(index)) for index in range(40)]
    assert len(set(colours)) == 40
    pairs = combinations(colours[:16], 2)
    assert min(np.abs(np.subtract(one, other)).max() for one, other in pairs) > 0.08


def test_the_seventh_label_is_outlined_and_filled(sheet):
    schema = replace(PLANE, labels={str(value): value for value in range(9)})
    ((outlined, filled),) = panels(sheet([Sample(FLAT, square(8))], [], schema), 2)
    assert 50 < (np.ptp(outlined, axis=-1) > 0.2).sum() < 1500
    assert (np.abs(filled - to_rgb(colour_of(7))).max(-1) < 0.05).mean() > 0.4


def test_a_sheet_makes_its_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "samples" / "sheet.png"
    assert write_sample_grid(path, samples(2, 1), [], ToySource(2).schema, title="step 5") == path
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("labels", [None, np.ones((8, 8), np.int16), np.zeros((8, 8), np.int16)])
@pytest.mark.parametrize("factor", [0, 1])
def test_labels_may_be_anything_and_images_constant(sheet, labels, factor):
    image = factor * np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32)
    assert sheet([Sample(image, labels)], [], ToySource(2).schema).stat().st_size > 0


@pytest.mark.parametrize("name", ["x" * 60, "a case of many words " * 3])
def test_captions_of_neighbours_do_not_touch_and_are_whole(tmp_path, name):
    """Long ones take more lines; they ran into the next caption and off the sheet."""
    first, second = cases(2, 2)

    def sheet(captions, across):
        cells = [(caption, [item]) for caption, item in zip(captions, (first, second), strict=True)]
        path = write_image_grid(tmp_path / "s.png", cells, ToySource(2).schema, across=across)
        return read_picture(path)

    beside, wide = sheet([name, name], 2), sheet([name, ""], 1)
    short = sheet(["", ""], 2)
    lines = (len(beside) - len(short)) // LINE
    assert lines >= 2
    texts = beside[LINE : LINE * (2 + lines)]  # below the names of labels
    middle = texts.shape[1] // 2
    assert (texts[:, middle - GAP : middle] == 255).all()
    left, right = (half < 128 for half in (texts[:, :middle], texts[:, middle:]))
    assert left.sum() == right.sum() == (wide[LINE : LINE * (2 + lines)] < 128).sum()


def test_overlays_show_truth_above_each_prediction_a_column_per_case(tmp_path):
    case, schema = cases(3, 1)[0], replace(ToySource(3).schema, channels=("one",))
    entry = ("toy", case.image[:1], dict.fromkeys("abc", case.labels))
    one, two = (size(write_overlays(tmp_path / "a.png", [entry] * n, schema)) for n in (1, 2))
    assert two[1] == pytest.approx(2 * one[1], abs=2)
    assert one[0] > 2.5 * one[1]


FOREGROUND = np.zeros((5, 4, 4), np.int16)
FOREGROUND[1, 0], FOREGROUND[3] = 1, 2


@pytest.mark.parametrize(
    ("labels", "shape", "shown"),
    [
        (FOREGROUND, (5, 4, 4), 3),
        (np.full((5, 4, 4), -1, np.int16), (5, 4, 4), 2),
        (None, (5, 4, 4), 2),
        (np.ones((4, 4), np.int16), (4, 4), None),
    ],
)
def test_the_slice_with_most_foreground_or_the_middle_one_is_shown(labels, shape, shown):
    assert middle_slice(labels, shape) == shown


METRICS = "step,images,seconds,g/a,g/b,d/a\n20,40,1.5,0.5,nan,1\n40,80,3,0.25,2,1\n"


@pytest.mark.parametrize(("lines", "torn"), [(0, ""), (2, ""), (2, "60,9"), (1, "40,80,2,0.5,1,")])
def test_metrics_are_read_by_column_also_of_no_line_or_a_torn_one(tmp_path, lines, torn):
    (tmp_path / "metrics.csv").write_text("".join(METRICS.splitlines(True)[: 1 + lines]) + torn)
    columns = read_metrics(tmp_path / "metrics.csv")
    assert list(columns) == ["step", "images", "seconds", "g/a", "g/b", "d/a"]
    assert columns["step"] == [20, 40][:lines]
    assert columns["g/a"] == [0.5, 0.25][:lines]
    assert np.isnan(columns["g/b"][:1]).all()


def test_an_empty_file_has_no_metrics(tmp_path):
    (tmp_path / "metrics.csv").touch()
    assert read_metrics(tmp_path / "metrics.csv") == {}


def test_curves_have_a_panel_per_player(tmp_path):
    (tmp_path / "two.csv").write_text(METRICS)
    (tmp_path / "one.csv").write_text("step,images,seconds,g/a\n20,40,1,0.5\n")
    two = write_curves(tmp_path / "two.csv", tmp_path / "two.png")
    one = write_curves(tmp_path / "one.csv", tmp_path / "one.png")
    assert size(two)[1] == pytest.approx(2 * size(one)[1], abs=2)


BOX = Boxes(np.array([[2, 3, 6, 9]], np.float32), np.array([1], np.int16))


def test_a_box_is_drawn_along_its_outermost_pixels_in_the_colour_of_its_class():
    picture = outlined(np.zeros((10, 12), np.uint8), None, (), edge=10, boxes=BOX)
    wanted = np.zeros((10, 12), bool)
    wanted[2:6, 3:9], wanted[3:5, 4:8] = True, False
    assert np.array_equal(picture.any(axis=2), wanted)
    assert {tuple(p) for p in picture[wanted].tolist()} == {
        tuple(round(255 * c) for c in to_rgb(colour_of(1)))
    }


def test_a_volume_without_labels_is_cut_where_its_largest_box_is():
    small, large = [0, 0, 0, 2, 2, 2], [5, 1, 1, 9, 6, 6]
    boxes = Boxes(np.array([small, large], np.float32), np.zeros(2, np.int16))
    assert middle_slice(None, (12, 8, 8), boxes) == 7
    found = boxes_at(boxes, 7)
    assert found is not None
    assert found.coords.tolist() == [[1, 1, 6, 6]]
    assert boxes_at(BOX, None) is BOX


def test_a_mosaic_shows_boxes_of_items_without_labels_only(tmp_path):
    schema = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("a", "b"))
    image = np.zeros((1, 10, 12), np.float32)
    labels = np.zeros((10, 12), np.int16)
    coloured = []
    for sample in (Sample(image, None, BOX), Sample(image, labels, BOX)):
        path = write_image_grid(tmp_path / "m.png", [("", [sample])], schema)
        pixels = read_picture(path, "image")
        pixels = pixels if pixels.shape[0] == 3 else np.moveaxis(pixels, -1, 0)
        coloured.append(bool((pixels.max(axis=0) != pixels.min(axis=0)).any()))
    assert coloured == [True, False]
