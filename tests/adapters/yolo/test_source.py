import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.source import FoldSplit, SourceRequest, case_record
from gansynth_yolo.mirror import mirror, mirrored
from gansynth_yolo.source import check_yolo, open_yolo
from tests.conftest import content
from tests.data.sets import save_picture
from tests.dividing import divided
from tests.expected import raises_fault
from tests.yolo_sets import opened, toy_yolo, write_image, write_yaml

MASKED = {"masks": "yes"}
SIDES = {"train": "images/train", "val": "images/val"}
FIRST = "train/p01_z000"
BOX = "0 0.500000 0.500000 0.250000 0.250000\n"


@pytest.fixture(scope="module")
def source(shared_yolo):
    return opened(shared_yolo)


def test_the_split_is_the_data_set_s_own(source, shared_yolo):
    assert (len(source.train_ids), len(source.held_out_ids)) == (16, 12)
    assert source.train_ids[0] == FIRST
    assert {case.split("/")[0] for case in source.held_out_ids} == {"val", "test"}
    assert [len(images) for images in source.images.values()] == [16, 8, 4]
    checked = check_yolo(SourceRequest("yolo", str(shared_yolo)), lambda *_: None)
    assert (checked.cases, checked.findings) == (28, [])
    everything = opened(shared_yolo, fold="all")
    assert (len(everything.train_ids), len(everything.held_out_ids)) == (24, 4)
    assert opened(shared_yolo.parent).name == source.name == "yolo:toy_yolo"


def test_a_case_is_its_pixels_and_its_boxes(source, shared_yolo):
    case = source.load(FIRST)
    case.validate(source.schema)
    pixels = np.asarray(Image.open(shared_yolo.parent / f"images/{FIRST}.png"))
    np.testing.assert_allclose(case.image[0], pixels / 255, atol=1e-6)
    bright = case.image[0] > 0.7
    drawn = np.zeros_like(bright)
    for top, left, bottom, right in case.boxes.coords.round().astype(int):
        assert bright[top:bottom, left:right].mean() > 0.6
        assert bright[top:bottom, left].any()
        assert bright[top, left:right].any()
        drawn[top:bottom, left:right] = True
    assert not (bright & ~drawn).any()
    assert source.schema.box_classes == ("lesion",)
    assert source.schema.labels == {"background": 0}
    empty = [i.case for i in source.images["train"] if not len(i.rows)]
    assert len(empty) == 4
    assert source.load(empty[0]).boxes.coords.shape == (0, 4)


def one(folder: Path, rows: int, columns: int) -> Path:
    """A data set of one shape, with one box of 0.4 x 0.4 around (0.5, 0.4)."""
    image = np.random.default_rng(0).random((rows, columns))
    for split in SIDES:
        write_image(folder, split, f"{split}_1", image * len(split) / 5, [(0, 0.4, 0.5, 0.4, 0.4)])
    return write_yaml(folder, {**SIDES, "names": ["lesion"]})


@pytest.mark.parametrize("shape", [(64, 64, 64), (60, 100, 128), (600, 600, 256)])
def test_the_usual_size_is_a_power_of_two(tmp_path, shape):
    *shape, size = shape
    source = opened(one(tmp_path, *shape))
    assert source.space.size == source.header("train/train_1").shape == (size, size)
    assert source.load("train/train_1").image.shape == (1, size, size)


@pytest.mark.parametrize(
    ("fit", "box", "rows"),
    [("pad", [25.6, 12.8, 38.4, 38.4], (16, 48)), ("stretch", [19.2, 12.8, 44.8, 38.4], (0, 64))],
)
def test_padding_distorts_nothing_and_stretching_fills_the_array(tmp_path, fit, box, rows):
    source = opened(one(tmp_path, 50, 100), read={"size": "64x64", "fit": fit})
    case: Any = source.load("train/train_1")
    shown = np.zeros(64, bool)
    shown[slice(*rows)] = True
    assert np.array_equal((case.image[0] > 0).all(axis=1), shown)
    assert np.array_equal((case.image[0] > 0).any(axis=1), shown)
    np.testing.assert_allclose(case.boxes.coords, [box], atol=1e-4)


def test_spacing_follows_the_size_and_records_know_nothing_of_it(source, shared_yolo, tmp_path):
    data = one(tmp_path, 50, 100)
    assert opened(data).schema.spacing == (1, 1)
    assert opened(data, read={"size": "50x50", "spacing": "0.5"}).schema.spacing == (1, 1)
    other = opened(shared_yolo, read={"size": "32x32", "fit": "stretch", "classes": "boxes"})
    assert case_record(source, FIRST) == case_record(other, FIRST)
    assert source.space.host == other.space.host
    assert source.space.host["box_classes"] == ["lesion"]


def test_8_bits_come_back_whole_and_16_as_a_detector_has_them(source):
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = source.scaled(pixels)
    assert (image.min(), image.max()) == (0, 1)
    np.testing.assert_array_equal(np.rint(image[0] * 255), pixels >> 8)
    few = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(np.rint(source.scaled(few)[0] * 255), few)


@pytest.mark.extra("yolo")
def test_colours_are_read_as_grey_where_the_detector_has_one_channel(tmp_path):
    import cv2

    data = toy_yolo(tmp_path / "set", train=2, val=1, test=0, channels=3)
    rng = np.random.default_rng(0)
    for path in data.parent.rglob("*.png"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    assert opened(data).schema.channels == ("red", "green", "blue")
    data.write_text(data.read_text().replace("channels: 3", "channels: 1"))
    assert opened(data).schema.channels == ("grey",)
    seen = cv2.imread(str(data.parent / f"images/{FIRST}.png"), cv2.IMREAD_GRAYSCALE)
    assert np.abs(np.rint(opened(data).load(FIRST).image[0] * 255) - seen).max() <= 1


def test_lists_and_names_in_all_their_forms(tmp_path):
    toy_yolo(tmp_path, train=4, val=4, test=0)
    lines = ["# comment", "", "./../images/train/p01_z000.png", "images/train/p01_z001.png"]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("\n".join(lines))
    lists = {"path": ".", "train": ["lists/train.txt"], "val": ["images/val"]}
    source = opened(write_yaml(tmp_path, {**lists, "names": ["lesion", 7]}))
    assert source.train_ids == (FIRST, "train/p01_z001")
    assert source.schema.box_classes == ("lesion", "7")
    assert source.file.channels == 3


ROWS = [
    BOX + "2 .905 0.5 0.2 0.1\n",
    "1 .1 .2 .5 .2 .4 .6 .2 .7\n2 .3 .3 .4 .3 .5 .5\n",
    "0 .9 .5 1.005 .6 .9 .7 .8 .6\n",
    f"\ufeff{BOX}",
    "1 0.5 0.5 0.25 0.25 .4 .4 2 .6 .6 1\n",
    "",
]
"""Boxes, polygons, an oriented box, a mark before the text, keypoints, and nothing."""
THEIRS = """
import json, sys
from pathlib import Path
from gansynth_yolo.agpl import ultra
from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label

data, rows = check_det_dataset(sys.argv[1], autodownload=False), {}
for split in ("train", "val", "test"):
    images = sorted(map(str, Path(data[split]).iterdir()))
    for image, label in zip(images, img2label_paths(images)):
        found = verify_image_label((image, label, "", False, data["nc"], *data["kpt_shape"], False))
        assert found[0] == image, found[-1]
        rows[image] = found[1].tolist()
print(json.dumps({"names": data["names"], "rows": rows}))
"""
"""Reads ``data.yaml`` and label files by ultralytics' own functions."""


@pytest.mark.slow
@pytest.mark.extra("ultralytics")
def test_an_export_of_roboflow_is_read_as_ultralytics_reads_it(tmp_path):
    for number, rows in enumerate(ROWS * 3):
        folder = tmp_path / ("train", "valid", "test")[number // len(ROWS)]
        grey = np.random.default_rng(number).integers(0, 255, (48, 64), np.uint8)
        save_picture(folder / "images" / f"{number:02d}.png", grey)
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{number:02d}.txt").write_text(rows, "utf-8")
    sides = {"train": "../train/images", "validation": "../valid/images", "test": "../test/images"}
    names = {"2": "a", "0": "b", "1": "c"}
    data = write_yaml(tmp_path, {**sides, "nc": "3", "names": names, "kpt_shape": [2, 3]})
    source: Any = opened(data)
    line = [sys.executable, "-c", THEIRS, str(data)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    named = {str(number): name for number, name in enumerate(source.file.names)}
    assert named == theirs["names"] == names
    ours = {str(image.image): image.rows for image in source.found.pictures.values()}
    assert set(ours) == set(theirs["rows"])
    for path, rows in ours.items():
        np.testing.assert_allclose(rows, np.reshape(theirs["rows"][path], (-1, 5)), atol=1e-6)


def test_volumes_or_subjects_may_be_told(source, shared_yolo):
    volumes = opened(shared_yolo, read={"volumes": "(p[0-9]+)_z([0-9]+)"})
    assert volumes.place("train/p02_z005") == ("p02", 5)
    assert volumes.header("train/p02_z005").subject == "p02"
    assert source.place("train/p02_z005") == (None, None)
    assert opened(shared_yolo, subjects="(p[0-9]+)_").header("val/p05_z000").subject == "p05"


def test_an_image_is_of_the_class_of_its_largest_box(tmp_path):
    data = toy_yolo(tmp_path / "set", names=("small", "large"), train=2, val=1)
    for case, rows in ((FIRST, f"{BOX}1 .5 .5 .2 .4\n0 .5 .5 .1 .5\n"), ("train/p01_z001", "")):
        (data.parent / f"labels/{case}.txt").write_text(rows)
    source = opened(data, read={"classes": "boxes"})
    assert source.schema.classes == ("background", "small", "large")
    assert [source.load(case).label_class for case in source.train_ids] == [2, 0]


SPLITS = [
    FoldSplit(train=["val/p06_z004", "train/p01_z000"], val=["test/p07_z000", "train/p02_z004"]),
    FoldSplit(train=["train/p03_z008"], val=["train/p04_z012"]),
]
READ = {"volumes": r"(p\d+)_z(\d+)", "size": "64x64"}


def test_images_dealt_out_otherwise_are_the_same_data_set_to_all(shared_yolo, tmp_path):
    source = opened(shared_yolo, read=READ)
    first = open_yolo(divided(source, SPLITS, tmp_path / "new", shared_yolo.parent))
    assert first.header("val/p06_z004").subject == "p06"
    # A detector is shown the new sides.
    mirror(first, tmp_path / "mirror")
    shown = {
        side: sorted(p.name for p in (tmp_path / "mirror/images" / side).glob("*"))
        for side in ("train", "val", "test")
    }
    train, val = ["0_p01_z000.png", "1_p06_z004.png"], ["0_p07_z000.png", "1_p02_z004.png"]
    assert shown == {"train": train, "val": val, "test": []}
    # What was dealt out is dealt out again.
    second = open_yolo(first.divided(SPLITS[1:], tmp_path / "inner"))
    assert second.train_ids == ("train/p03_z008",)


@pytest.mark.parametrize(
    ("images", "names"),
    [("images", None), ("train/images", "cyst\ntumour\n"), ("images/train", None), (".", None)],
)
def test_a_folder_without_data_yaml_is_read_by_its_names(tmp_path, images, names):
    for number in range(10):
        case = tmp_path / images / f"p{number // 2}_{number}.png"
        save_picture(case, np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8))
        label = tmp_path / images.replace("images", "labels") / f"{case.stem}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{number % 2} 0.5 0.5 0.2 0.2\n")
    if names:
        (tmp_path / "classes.txt").write_text(names)
    source: Any = opened(tmp_path, fold="4", subjects=r"(p\d)_")
    classes = ("cyst", "tumour") if names else ("class_0", "class_1")
    assert source.schema.box_classes == classes
    assert (len(source.train_ids), len(source.held_out_ids)) == (8, 2)
    assert len({source.header(case).subject for case in source.held_out_ids}) == 1
    assert source.load(source.train_ids[0]).boxes.coords.shape == (1, 4)
    (finding,) = check_yolo(source.request, lambda done, total: None).findings
    assert f"no data.yaml; classes are {', '.join(classes)}" in finding.message
    with raises_fault("pictures.fold-unknown"):
        opened(tmp_path, fold="5")


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_a_mirror_is_the_same_data_set(source, shared_yolo, tmp_path, monkeypatch, links):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "symlink", refuse)
    before, folder = content(shared_yolo.parent), tmp_path / "mirror"
    again = opened(mirror(source, folder), read={"allow_outside": "yes"})
    assert content(shared_yolo.parent) == before
    for split, images in source.images.items():
        paths = mirrored(source, folder, split)
        assert list(paths) == [image.case for image in images]
        for one, two, path in zip(images, again.images[split], paths.values(), strict=True):
            assert one.image.read_bytes() == two.image.read_bytes()
            np.testing.assert_array_equal(one.rows, two.rows)
            label = folder / "labels" / split / f"{path.stem}.txt"
            assert (path.is_symlink(), label.is_symlink()) == (links, links)
            assert not links or path.resolve() == one.image.resolve()
    assert again.file.names == source.file.names
    assert again.file.channels == 1


@pytest.mark.parametrize(
    ("line", "read", "written"),
    [
        (None, {"missing": "background"}, ""),
        ("0 0.95 0.5 0.2 0.2\n", {"overshoot": "0.1"}, "0 0.925000 0.500000 0.150000 0.200000\n"),
        (f"{BOX}0 .2 .3 .4 .3 .3 .7\n", {}, f"{BOX}0 0.300000 0.500000 0.200000 0.400000\n"),
        (f"\ufeff{BOX}", {}, BOX),
        (f"0.0{BOX[1:]}", {}, BOX),
        (f"{BOX}{BOX}", {}, BOX),
    ],
    ids=["missing", "far out", "polygon", "mark", "a class with a point", "twice"],
)
def test_labels_that_a_detector_would_refuse_are_written_there(tmp_path, line, read, written):
    data = toy_yolo(tmp_path / "set", train=2, val=1, test=0)
    label = data.parent / "labels" / f"{FIRST}.txt"
    label.unlink()
    if line is not None:
        label.write_text(line)
    mirror(opened(data, read=read), tmp_path / "mirror")
    first, *_ = sorted((tmp_path / "mirror" / "labels" / "train").iterdir())
    assert first.read_text() == written
    assert (label.read_text() if label.exists() else None) == line


@pytest.fixture
def masked(tmp_path) -> Path:
    """``data.yaml`` of a tiny data set whose masks are the insides of its boxes."""
    data = toy_yolo(tmp_path / "set", train=8, val=4, test=0, backgrounds=0)
    source: Any = opened(data)
    for case in (*source.train_ids, *source.held_out_ids):
        labels = np.zeros(source.header(case).shape, np.uint8)
        for top, left, bottom, right in source.load(case).boxes.coords.round().astype(int):
            labels[top:bottom, left:right] = 1
        save_picture(data.parent / f"masks/{case}.png", labels)
    return data


def test_a_case_has_its_label_map_padded_as_its_image_and_the_same_image(masked):
    source, plain = opened(masked, read={**MASKED, "size": "64x96"}), opened(masked)
    case: Any = source.load(FIRST)
    case.validate(source.schema)
    assert dict(source.schema.labels) == {"background": 0, "lesion": 1}
    stored = np.asarray(Image.open(masked.parent / f"masks/{FIRST}.png"))
    np.testing.assert_array_equal(case.labels, np.pad(stored, ((0, 0), (16, 16))))
    assert case_record(source, FIRST).image == case_record(plain, FIRST).image
    assert source.space.host == plain.space.host
    assert plain.load(FIRST).labels is None


def test_boxes_are_drawn_around_parts_that_are_large_enough(masked):
    labels = np.zeros((64, 64), np.int16)
    labels[4:10, 20:25], labels[40, 40] = 1, 1
    boxes = opened(masked, read={**MASKED, "least": "2"}).boxes_around(labels)
    assert boxes is not None
    assert (boxes.coords.tolist(), boxes.labels.tolist()) == ([[4, 20, 10, 25]], [0])
    assert opened(masked).boxes_around(labels) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda path: write_yaml(path.parents[2], {**SIDES, "names": ["background"]}),
            "yolo.class-named-background",
        ),
        (Path.unlink, "yolo.mask-missing"),
        (lambda path: Image.new("L", (64, 64), 2).save(path), "pictures.mask-numbers-unknown"),
        (lambda path: Image.new("L", (32, 64)).save(path), "pictures.mask-shape-differs"),
    ],
)
def test_an_unusable_label_map_is_refused(masked, change, expected):
    change(masked.parent / f"masks/{FIRST}.png")
    with raises_fault(expected):
        opened(masked, read=MASKED).load(FIRST)
