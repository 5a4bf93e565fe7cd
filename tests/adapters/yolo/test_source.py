"""``yolo:``: images with boxes, their split kept; sizes, depths, colours, names, records."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.fitting.setup import resolve
from gansynth_yolo.cases import scaled
from gansynth_yolo.check import check_yolo
from gansynth_yolo.images import label_path
from gansynth_yolo.labels import as_rows, corners, label_text, read_labels
from gansynth_yolo.source import open_yolo
from tests.conftest import DATA
from tests.yolo_sets import toy_yolo, write_image, write_yaml

REAL = DATA / "figshare_brain_tumor_axial_yolo"


def opened(data: Path, read: dict[str, str] | None = None, **asked: Any) -> Any:
    return open_yolo(SourceRequest("yolo", str(data), read=read or {}, **asked))


def test_the_split_is_the_data_set_s_own(shared_yolo):
    source = opened(shared_yolo)
    assert (len(source.train_ids), len(source.held_out_ids)) == (16, 12)
    assert source.train_ids[0] == "train/p01_z000"
    assert {case.split("/")[0] for case in source.held_out_ids} == {"val", "test"}
    assert [len(images) for images in source.images.values()] == [16, 8, 4]


def test_fold_all_trains_on_val_too_and_holds_the_test_images_out(shared_yolo):
    source = opened(shared_yolo, fold="all")
    assert (len(source.train_ids), len(source.held_out_ids)) == (24, 4)


def test_a_folder_will_do(shared_yolo):
    assert opened(shared_yolo.parent).name == opened(shared_yolo).name == "yolo:toy_yolo"


def test_a_case_is_its_pixels_and_its_boxes(shared_yolo):
    source = opened(shared_yolo)
    case = source.load("train/p01_z000")
    case.validate(source.schema)
    pixels = np.asarray(Image.open(shared_yolo.parent / "images/train/p01_z000.png"))
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


def test_an_image_without_boxes_has_an_empty_list(shared_yolo):
    source = opened(shared_yolo)
    empty = [i.case for i in source.images["train"] if not len(i.rows)]
    assert len(empty) == 4
    assert source.load(empty[0]).boxes.coords.shape == (0, 4)


# -- sizes -----------------------------------------------------------------------------------------


def one(folder: Path, shape: tuple[int, int], row: tuple[float, ...]) -> Path:
    """A data set of one shape, with one box."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        write_image(folder, split, f"{split}_1", rng.random(shape), [row])
    names = {"names": ["lesion"]}
    return write_yaml(folder, {"train": "images/train", "val": "images/val", **names})


@pytest.mark.parametrize(
    ("shape", "size"), [((64, 64), 64), ((60, 100), 128), ((240, 240), 256), ((600, 600), 256)]
)
def test_the_usual_size_is_a_power_of_two(tmp_path, shape, size):
    source = opened(one(tmp_path, shape, (0, 0.5, 0.5, 0.5, 0.5)))
    assert source.space.size == source.shape("train/train_1") == (size, size)
    assert source.load("train/train_1").image.shape == (1, size, size)


def test_padding_distorts_nothing(tmp_path):
    # A box of 20 rows by 40 columns in an image of 50 x 100.
    source = opened(one(tmp_path, (50, 100), (0, 0.4, 0.5, 0.4, 0.4)), {"size": "64x64"})
    case = source.load("train/train_1")
    assert not case.image[0, :16].any()
    assert not case.image[0, 48:].any()
    assert case.image[0, 16:48].all()
    np.testing.assert_allclose(case.boxes.coords, [[25.6, 12.8, 38.4, 38.4]], atol=1e-4)


def test_stretching_fills_the_array(tmp_path):
    data = one(tmp_path, (50, 100), (0, 0.4, 0.5, 0.4, 0.4))
    case = opened(data, {"size": "64x64", "fit": "stretch"}).load("train/train_1")
    assert case.image.all()
    np.testing.assert_allclose(case.boxes.coords, [[19.2, 12.8, 44.8, 38.4]], atol=1e-4)


def test_spacing_follows_the_size(tmp_path):
    data = one(tmp_path, (50, 100), (0, 0.4, 0.5, 0.4, 0.4))
    assert opened(data).schema.spacing == (1, 1)
    assert opened(data, {"size": "50x50", "spacing": "0.5"}).schema.spacing == (1, 1)


def test_records_and_the_host_s_record_know_nothing_of_sizes(shared_yolo):
    one = opened(shared_yolo)
    other = opened(shared_yolo, {"size": "32x32", "fit": "stretch", "classes": "boxes"})
    assert one.record("train/p01_z000") == other.record("train/p01_z000")
    assert one.host == other.host
    assert one.host["box_classes"] == ["lesion"]


# -- pixels ----------------------------------------------------------------------------------------


def test_16_bits_are_what_a_detector_makes_of_them():
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = scaled(pixels, grey=True)
    assert image.min() == 0
    assert image.max() == 1
    np.testing.assert_array_equal(np.rint(image[0] * 255), pixels >> 8)


def test_8_bits_come_back_whole():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(np.rint(scaled(pixels, grey=True)[0] * 255), pixels)


def test_colours_are_read_as_grey_where_the_detector_has_one_channel(tmp_path):
    data = toy_yolo(tmp_path / "set", channels=3)
    rng = np.random.default_rng(0)
    for path in data.parent.rglob("*.png"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    assert opened(data).schema.channels == ("red", "green", "blue")
    document = yaml.safe_load(data.read_text()) | {"channels": 1}
    data.write_text(yaml.safe_dump(document))
    source = opened(data)
    assert source.schema.channels == ("grey",)
    import cv2

    path = data.parent / "images/train/p01_z000.png"
    seen = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    image = source.load("train/p01_z000").image[0]
    assert np.abs(np.rint(image * 255) - seen).max() <= 1


# -- names, lists, subjects ------------------------------------------------------------------------


def test_lists_and_names_in_all_their_forms(yolo_copy):
    home = yolo_copy.parent
    (home / "lists").mkdir()
    lines = ["# comment", "", "./../images/train/p01_z000.png", "images/train/p01_z001.png"]
    (home / "lists" / "train.txt").write_text("\n".join(lines))
    names = ["lesion", 7]
    document = {"path": ".", "train": ["lists/train.txt"], "val": ["images/val"], "names": names}
    yolo_copy.write_text(yaml.safe_dump(document))
    source = opened(yolo_copy)
    assert source.train_ids == ("train/p01_z000", "train/p01_z001")
    assert source.schema.box_classes == ("lesion", "7")
    assert source.file.channels == 3


def test_labels_beside_the_images_are_found(tmp_path):
    data = toy_yolo(tmp_path / "set")
    for path in (tmp_path / "set" / "images" / "train").iterdir():
        label = tmp_path / "set" / "labels" / "train" / f"{path.stem}.txt"
        target = tmp_path / "set" / "train" / path.name
        target.parent.mkdir(exist_ok=True)
        label.rename(target.with_suffix(".txt"))
        path.rename(target)
    data.write_text(data.read_text().replace("train: images/train", "train: train"))
    assert len(opened(data).load("train/p01_z000").boxes.coords) > 0


def test_only_the_last_images_of_a_path_is_labels():
    path = label_path(Path("/images/a/images/b/c.v1.png"))
    assert path == Path("/images/a/labels/b/c.v1.txt")
    assert label_path(Path("/a/images_b/c.png")) == Path("/a/images_b/c.txt")


def test_volumes_make_people_and_numbers(shared_yolo):
    source = opened(shared_yolo, {"volumes": "(p[0-9]+)_z([0-9]+)"})
    assert source.place("train/p02_z005") == ("p02", 5)
    assert source.subject("train/p02_z005") == "p02"
    assert opened(shared_yolo).place("train/p02_z005") == (None, None)


def test_subjects_may_be_asked_for(shared_yolo):
    source = opened(shared_yolo, subjects="(p[0-9]+)_")
    assert source.subject("val/p05_z000") == "p05"


def test_an_image_is_of_the_class_of_its_largest_box(tmp_path):
    data = toy_yolo(tmp_path / "set", names=("small", "large"), train=24)
    source = opened(data, {"classes": "boxes"})
    assert source.schema.classes == ("background", "small", "large")
    for image in source.images["train"]:
        case = source.load(image.case)
        size = (case.boxes.coords[:, 2:] - case.boxes.coords[:, :2]).prod(axis=1)
        expected = 1 + case.boxes.labels[size.argmax()] if len(size) else 0
        assert case.label_class == expected


# -- label files -----------------------------------------------------------------------------------


def test_boxes_go_to_a_label_file_and_back(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (50, 2))
    boxes = np.hstack([low, low + rng.uniform(1, 23, (50, 2))]).astype(np.float32)
    rows = as_rows(boxes, rng.integers(0, 3, 50), (64, 80))
    (tmp_path / "a.txt").write_text(label_text(rows))
    back = read_labels(tmp_path / "a.txt", ("a", "b", "c"), 0.01)
    assert back.faults == ()
    np.testing.assert_array_equal(back.rows[:, 0], rows[:, 0])
    np.testing.assert_allclose(corners(back.rows, (64, 80)), boxes, atol=1e-4)


# -- the command line, the docs, real data ---------------------------------------------------------


def test_check_finds_nothing_in_a_good_data_set(shared_yolo):
    checked = check_yolo(SourceRequest("yolo", str(shared_yolo)), lambda *_: None)
    assert (checked.cases, checked.findings) == (28, [])


def test_batches_have_boxes(shared_yolo):
    job = resolve("dcgan", SourceRequest("yolo", str(shared_yolo)), {}, None, "cpu")
    batch = job.batches(0, job.generator.stages()[0], range(4))
    assert batch.image.shape == (4, 1, 64, 64)
    assert batch.boxes is not None
    assert batch.box_labels is not None
    assert batch.boxes.shape[0] == 4
    assert torch.equal(batch.box_labels == -1, (batch.boxes == 0).all(-1))


@pytest.mark.data
def test_the_real_data_set_is_read(tmp_path):
    numbers = sorted(map(str, (REAL / "images").iterdir()))
    (tmp_path / "train.txt").write_text("\n".join(numbers[:400]))
    (tmp_path / "val.txt").write_text("\n".join(numbers[410:]))
    names = (REAL / "classes.txt").read_text().split()
    document = {"path": str(REAL), "names": names, "channels": 1}
    lists = {split: str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    data = write_yaml(tmp_path, {**document, **lists})
    source = opened(data, {"allow_outside": "yes", "spacing": "0.49"})
    assert (len(source.train_ids), len(source.held_out_ids)) == (400, 125)
    assert source.space.size == (256, 256)
    assert source.schema.spacing == (0.98, 0.98)
    case = source.load("0001")
    np.testing.assert_allclose(
        case.boxes.coords, np.array([[0.345, 0.52, 0.495, 0.74]]) * 256, atol=1e-3
    )
