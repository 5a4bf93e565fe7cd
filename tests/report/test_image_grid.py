from dataclasses import replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from gansynth.core.schema import Boxes, Case, Sample, Schema
from gansynth.report.figures import read_metrics, write_curves
from gansynth.report.image_grid import (
    EDGE,
    GAP,
    LARGE,
    _caption,
    _columns,
    write_figure,
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
    radiological,
    three_planes,
)
from gansynth.testing import ToySource

TOY = ToySource(2).schema
PLANE = replace(TOY, channels=("T1",))


def size(path) -> tuple[int, int]:
    height, width = imread(path).shape[:2]
    return height, width


def cases(ndim: int, n: int) -> Any:
    source = ToySource(ndim)
    return [source.load(i) for i in source.train_ids[:n]]


def samples(ndim: int, n: int) -> list[Sample]:
    return [Sample(c.image, c.labels) for c in cases(ndim, n)]


@pytest.fixture
def sheet(tmp_path):
    """Writes a sheet, whose folder is made; returns its path: ``sheet(samples, cases, schema)``."""
    paths = (tmp_path / "sheets" / f"{number}.png" for number in count())
    return lambda *of, **more: write_sample_grid(next(paths), *of, **more)


def panels(path: Path, columns: int, rows: int = 1, edge: int = LARGE) -> list[list[Any]]:
    """The middle of each panel, as RGB (H, W, 3)."""
    pixels = imread(path)[-rows * (edge + GAP) :, :, :3]  # what is above are headings
    cells = [np.array_split(row, columns, axis=1) for row in np.array_split(pixels, rows)]
    return [[cell[35:-35, 35:-35] for cell in row] for row in cells]


def test_what_is_missing_leaves_gaps_and_with_one_channel_two_cases_share_a_line(sheet):
    one, some, every = (sheet(samples(2, n), cases(2, m), TOY) for n, m in ((1, 1), (3, 1), (3, 3)))
    assert size(some) == size(every)
    assert size(every)[1] == size(one)[1]  # a line each
    assert size(every)[0] > 2.5 * size(one)[0]
    assert some.read_bytes() != every.read_bytes()
    for real in (0, 3):
        assert size(sheet([], cases(2, real), TOY, title="now"))[1] > 100
    flat = [replace(case, image=case.image[:1]) for case in cases(2, 2)]
    drawn = [Sample(case.image, case.labels) for case in flat]
    single, two = size(sheet(drawn[:1], flat[:1], PLANE)), size(sheet(drawn, flat, PLANE))
    assert two == (single[0], 2 * single[1])


BOTH = ("first", "second")


@pytest.mark.parametrize(
    ("labelled", "given", "drawn", "headings"),
    [
        (True, (), False, "real first, synthetic first, real second, synthetic second, label"),
        (True, BOTH[:1], False, "given first, real second, synthetic second, label"),
        (True, BOTH, True, "given first, given second, real label, drawn label"),
        (False, BOTH, True, "given first, given second, drawn label"),
    ],
)
def test_real_and_synthetic_channels_alternate_and_given_ones_stand_there_once(
    labelled, given, drawn, headings
):
    real = [replace(case, labels=case.labels if labelled else None) for case in cases(2, 1)]
    found = _columns(samples(2, 1), real, TOY, given, drawn, inserts=False)
    assert ", ".join(column.heading for column in found) == headings


FLAT = np.zeros((1, 16, 16), np.float32)


def square(value: int, low: int = 4, high: int = 12) -> Any:
    labels = np.zeros((16, 16), np.int16)
    labels[low:high, low:high] = value
    return labels


def test_what_a_part_has_drawn_has_a_column_of_its_own(sheet):
    """Tissues, but for where the tumour lies; outlines in images are the tumour's."""
    labels = {"background": 0, "tumour": 1, "tissues:GM": 2, "tissues:WM": 3}
    schema = Schema(("T1",), labels, (1.0, 1.0), "HW")
    sample = Sample(FLAT, square(1, 6, 10), under=np.full((16, 16), 3, np.int16))
    headings = [
        column.heading for column in _columns([sample], [], schema, (), False, inserts=False)
    ]
    assert headings == ["synthetic T1", "tissues", "label"]
    ((image, *maps),) = panels(sheet([sample], [], schema), 3)
    white_matter, tumour = to_rgb(colour_of(2)), to_rgb(colour_of(0))
    found = [[(abs(m - c) < 0.02).all(-1).any() for c in (white_matter, tumour)] for m in maps]
    assert found == [[True, False], [False, True]]
    assert not np.allclose(image, image[0, 0])  # the tumour's outline


def test_each_panel_shows_what_its_heading_says(sheet):
    ramp = np.linspace(0, 1, 16, dtype=np.float32)[None, None].repeat(16, 1)
    real = Case("a", "a", ramp, square(0))
    sample = Sample(ramp[:, ::-1].transpose(0, 2, 1).copy(), square(8))
    schema = replace(PLANE, labels={str(value): value for value in range(9)})
    ((left, middle, right),) = panels(sheet([sample], [real], schema), 3)
    assert left[:, -1].mean() > left[:, 0].mean() + 0.3  # the ramp goes to the right
    assert abs(middle[:, -1].mean() - middle[:, 0].mean()) < 0.2
    assert 50 < (np.ptp(middle, axis=-1) > 0.2).sum() < 1500  # the label's outline
    assert (np.abs(right - to_rgb(colour_of(7))).max(-1) < 0.05).mean() > 0.4


def test_a_real_case_is_shown_in_its_samples_slice(sheet):
    labels = np.zeros((6, 16, 16), np.int16)
    labels[4] = square(1)
    image = np.zeros((1, 6, 16, 16), np.float32)
    image[:, 4, :, 8:] = 1
    real = Case("a", "a", image, np.roll(labels, -3, axis=0))
    path = sheet([Sample(image, labels)], [real], replace(ToySource(3).schema, channels=("T1",)))
    (((left, _, _), *_)) = panels(path, 3, rows=3, edge=EDGE)
    assert left[:, -1].mean() > left[:, 0].mean() + 0.5


def test_a_volume_is_shown_in_three_planes_through_its_labels_the_head_up(sheet):
    """Oriented ones with the front up, too, and the patient's right on the left."""
    labels = np.zeros((6, 8, 10), np.int16)
    labels[4, 5, 7] = 1  # rather in the head, in front, on the right
    planes = three_planes(labels, labels.shape)
    assert planes == ((0, 4), (1, 5), (2, 7))
    shown = [plane_of(labels, plane, (3.0, 1.0, 1.0)) for plane in planes]
    assert [plane.shape for plane in shown] == [(8, 10), (18, 10), (18, 8)]
    assert [np.argwhere(plane)[0].tolist() for plane in shown] == [[5, 7], [3, 7], [3, 5]]
    turned = [radiological(flat, plane) for flat, plane in zip(shown, planes, strict=True)]
    assert [np.argwhere(plane)[0].tolist() for plane in turned] == [[2, 2], [3, 2], [3, 2]]
    # One of one slice, as of nnU-Net's 2d, is shown as that slice alone.
    volumes = [Sample(c.image[:, None], c.labels[None]) for c in cases(2, 1)]
    alone = sheet(samples(2, 1), [], TOY)
    assert size(sheet(volumes, [], ToySource(3).schema)) == size(alone)


def colours_of(path: Path, above: int) -> list[list[int]]:
    """Corners (least, most) of what is coloured below the captions."""
    coloured = np.argwhere(np.ptp(imread(path)[above:, :, :3], axis=-1) > 0.1)
    return [coloured.min(0).tolist(), coloured.max(0).tolist()]


@pytest.mark.parametrize("of_boxes", [False, True])
def test_a_slice_of_oriented_volumes_is_turned_with_its_labels_or_boxes(tmp_path, of_boxes):
    """A sheet, a strip of images and a figure; others are shown as they run."""
    labels = np.zeros((16, 32), np.int16)
    labels[2:5, 3:8] = 1
    boxes = Boxes(np.array([[2, 3, 5, 8]], np.float32), np.array([0], np.int16))
    sample = Sample(np.zeros((1, 16, 32), np.float32), None if of_boxes else labels, boxes)
    schema = Schema(("T1",), {"background": 0, "a": 1}, (1.0, 1.0), "HW", box_classes=("a",))

    def strip(oriented: bool) -> Path:
        path = tmp_path / "strip.png"
        return write_image_grid(path, [("", [sample])], schema, edge=LARGE, oriented=oriented)

    def sheet(oriented: bool) -> Path:
        return write_sample_grid(tmp_path / "s.png", [sample], [], schema, oriented=oriented)

    def figure(oriented: bool) -> Path:
        path = tmp_path / "figure.png"
        return write_figure(path, [("", sample)], schema, oriented=oriented)

    times = LARGE // 32
    low, high = np.array([2, 3]) * times, np.array([5, 8]) * times - 1
    for write, lines in ((strip, 2), (sheet, 3), (figure, 3)):
        plain, turned = (colours_of(write(oriented), lines * LINE) for oriented in (False, True))
        assert plain[0] == low.tolist()
        end = np.array([16, 32]) * times - 1
        assert turned[0] == (end - high).tolist()


def test_a_caption_has_case_slice_class_and_edits_in_voxels_of_the_case():
    told = {"placement": {"corner": [10, -2, 0]}, "shape": [60, 8, 8], "class": "glioma"}
    edits = {"edits": [{"edit": "elastic", "params": {}}, {"edit": "scale"}]}
    image = np.zeros((1, 6, 8, 8), np.float32)
    case = Case("brain_1", "someone", image)
    sample = Sample(image, provenance={**told, **edits})
    caption = _caption(sample, case, ((0, 4), (1, 5), (2, 7)))
    assert caption == "case brain_1, slice 14, row 3, column 7, glioma: elastic, scale"
    reason = "no room for a lesion, expected a background with some"
    flawed = replace(sample, provenance={**sample.provenance, "reject_reason": reason})
    found = _caption(flawed, case, ((0, 4), (1, 5), (2, 7)))
    assert found == f"REJECTED, no room for a lesion. {caption}"
    flat = Sample(image[:, 0], provenance={"placement": {"corner": [-4, 0], "slice_index": 12}})
    for shown in (None, (0, 0)):
        assert _caption(flat, case, (shown,)) == "case brain_1, slice 12"
    assert _caption(flat, None, (None,)) == "slice 12"


def test_any_number_of_labels_has_colours_of_their_own():
    colours = [to_rgb(colour_of(index)) for index in range(40)]
    assert len(set(colours)) == 40
    pairs = combinations(colours[:16], 2)
    assert min(np.abs(np.subtract(one, other)).max() for one, other in pairs) > 0.08


@pytest.mark.parametrize(("factor", "labels"), [(0, 1), (0, None), (1, 0)])
def test_labels_may_be_anything_and_images_constant(sheet, factor, labels):
    image = factor * np.random.default_rng(0).standard_normal((2, 8, 8)).astype(np.float32)
    of_one = None if labels is None else np.full((8, 8), labels, np.int16)
    path = sheet([Sample(image, of_one)], [], TOY)
    assert path.stat().st_size > 0
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["x" * 60, "a case of many words " * 3])
def test_captions_of_neighbours_do_not_touch_and_are_whole(tmp_path, name):
    """Long ones take more lines; they ran into the next caption and off the sheet."""

    def dark(captions, across):
        cells = [(caption, [item]) for caption, item in zip(captions, cases(2, 2), strict=True)]
        return imread(write_image_grid(tmp_path / "s.png", cells, TOY, across=across))[..., 0] < 0.5

    beside, wide = dark([name, name], 2), dark([name, ""], 1)
    lines = (len(beside) - len(dark(["", ""], 2))) // LINE
    assert lines >= 2
    below_names = slice(LINE, LINE * (2 + lines))
    left, right = np.array_split(beside[below_names], 2, axis=1)
    assert not left[:, -GAP:].any()
    assert left.sum() == right.sum() == wide[below_names].sum()


def test_overlays_show_truth_above_each_prediction_a_column_per_case(tmp_path):
    case, schema = cases(3, 1)[0], replace(ToySource(3).schema, channels=("one",))
    entry = ("toy", case.image[:1], dict.fromkeys("abc", case.labels))
    one, two = (size(write_overlays(tmp_path / "a.png", [entry] * n, schema)) for n in (1, 2))
    assert b"not to be shared" in (tmp_path / "a.png").read_bytes()
    assert two[1] == pytest.approx(2 * one[1], abs=2)
    assert one[0] > 2.5 * one[1]


def test_planes_of_a_figure_are_equally_large_and_items_without_labels_have_no_label_panel(
    tmp_path,
):
    schema = replace(ToySource(3).schema, channels=("T1", "T2"))
    labels = np.zeros((10, 20, 40), np.int16)
    labels[3:5, 5:9, 9:17] = 1
    item = Case("a", "a", np.ones((2, *labels.shape), np.float32), labels)
    path = tmp_path / "f.png"
    high, wide = size(write_figure(path, [("real", item)], schema, planes=3))
    times = LARGE // 40
    assert (wide, high) == (3 * (40 * times + GAP), 3 * LINE + (20 + 10 + 10) * times + 3 * GAP)
    other = replace(item, labels=None)
    _, wide = size(write_figure(path, [("real", item), ("other", other)], schema))
    assert wide == 2 * (40 * times + GAP)


def test_rows_of_one_place_show_the_slice_that_their_labels_share_and_a_body_if_asked(tmp_path):
    schema = replace(ToySource(3).schema, channels=("T1",))
    image = np.zeros((1, 8, 16, 16), np.float32)
    image[0, :, 4:12, 4:12] = np.arange(1, 9)[:, None, None]  # each slice has its own grey
    first, second = np.zeros((2, 8, 16, 16), np.int16)
    first[2:4, 6:8, 6:8], second[3, 6:8, 6:8], second[6, 4:12, 4:12] = 1, 1, 1
    cells = [(name, Sample(image, labels)) for name, labels in (("a", first), ("b", second))]
    path, seen = tmp_path / "f.png", []
    for beside in (None, 1):
        picture = imread(write_figure(path, cells, schema, beside=beside))[..., :3]
        seen.append(len(np.unique(picture[:, LARGE + GAP :].reshape(-1, 3), axis=0)))
    assert seen[0] > seen[1]  # one grey less
    drawn = imread(write_figure(path, cells, schema, beside=1, body=True))[2 * LINE :, ..., :3]
    around = to_rgb(colour_of(len(schema.foreground)))
    assert np.isclose(drawn, around, atol=1 / 255).all(-1).sum() > 8 * 8


def test_the_body_around_a_samples_labels_is_that_of_the_real_image_of_its_place(tmp_path):
    schema = replace(ToySource(3).schema, channels=("T1",))
    image, labels = np.zeros((1, 8, 16, 16), np.float32), np.zeros((8, 16, 16), np.int16)
    image[0, :, 4:12, 4:12], labels[3, 6:8, 6:8] = 1, 1
    noise = np.random.default_rng(0).random(image.shape, np.float32)
    real_one: Sample | Case = Case("a", "a", image, labels)
    cells = [("real", real_one), ("drawn", Sample(noise, labels))]
    drawn = imread(write_figure(tmp_path / "f.png", cells, schema, beside=1, body=True))[..., :3]
    around = to_rgb(colour_of(len(schema.foreground)))
    body = np.isclose(drawn, around, atol=1 / 255).all(-1)[2 * LINE :].sum(1)
    real, sample = body[: len(body) // 2], body[len(body) // 2 :]
    assert real.sum() == sample.sum() > 0


FOREGROUND = np.zeros((5, 4, 4), np.int16)
FOREGROUND[1, 0], FOREGROUND[3] = 1, 2
BOXES = Boxes(np.array([[0, 0, 0, 2, 2, 2], [3, 1, 1, 6, 4, 4]], np.float32), np.zeros(2, np.int16))


@pytest.mark.parametrize(
    ("labels", "boxes", "shown"),
    [
        (FOREGROUND, None, 3),
        (np.full((5, 4, 4), -1, np.int16), None, 2),
        (None, BOXES, 4),
        (np.ones((4, 4), np.int16), None, None),
    ],
)
def test_the_slice_with_most_foreground_the_largest_box_or_the_middle_one_is_shown(
    labels, boxes, shown
):
    shape = (5, 4, 4) if labels is None else labels.shape
    assert middle_slice(labels, shape, boxes) == shown


METRICS = "step,images,seconds,g/a,g/b,d/a\n20,40,1.5,0.5,nan,1\n40,80,3,0.25,2,1\n"


def test_metrics_are_read_by_column_without_a_torn_line(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS + "60,9")
    columns = read_metrics(tmp_path / "metrics.csv")
    assert (columns["step"], columns["g/a"]) == ([20, 40], [0.5, 0.25])
    assert np.isnan(columns["g/b"][0])


def test_curves_have_a_panel_per_player(tmp_path):
    for players, text in ((1, "step,images,seconds,g/a\n20,40,1,0.5\n"), (2, METRICS)):
        (tmp_path / f"{players}.csv").write_text(text)
        write_curves(tmp_path / f"{players}.csv", tmp_path / f"{players}.png")
    one, two = (size(tmp_path / f"{players}.png") for players in (1, 2))
    assert two[1] == pytest.approx(2 * one[1], abs=2)


BOX = Boxes(np.array([[2, 3, 6, 9]], np.float32), np.array([1], np.int16))


def test_a_box_is_drawn_along_its_outermost_pixels_in_the_colour_of_its_class():
    picture = outlined(np.zeros((10, 12), np.uint8), None, (), edge=10, boxes=BOX)
    wanted = np.zeros((10, 12), bool)
    wanted[2:6, 3:9], wanted[3:5, 4:8] = True, False
    assert np.array_equal(picture.any(axis=2), wanted)
    colour = [round(255 * c) for c in to_rgb(colour_of(1))]
    assert (picture[wanted] == colour).all()


def test_boxes_of_a_slice_are_shown_of_items_without_labels_only(tmp_path):
    found = boxes_at(BOXES, 4)
    assert found is not None
    assert found.coords.tolist() == [[1, 1, 4, 4]]
    assert boxes_at(BOX, None) is BOX
    schema = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("a", "b"))
    for labels in (None, np.zeros((10, 12), np.int16)):
        sample = Sample(np.zeros((1, 10, 12), np.float32), labels, BOX)
        path = write_image_grid(tmp_path / "m.png", [("", [sample])], schema)
        assert np.ptp(imread(path)[..., :3], axis=-1).any() == (labels is None)


def test_a_lesion_in_a_real_image_is_shown_without_it_and_as_a_difference(sheet):
    (sample,), real = samples(2, 1), cases(2, 1)
    bare = np.zeros_like(sample.image)
    _, without, synthetic, difference = panels(
        sheet([sample], real, TOY, without=[bare]), columns=9
    )[0][:4]
    assert np.ptp(without) == 0
    assert np.ptp(synthetic) > 0
    assert np.ptp(difference) > 0
    same = panels(sheet([sample], real, TOY, without=[sample.image]), columns=9)[0][3]
    assert np.ptp(same) == 0
    assert same.mean() == pytest.approx(0.5, abs=0.01)
