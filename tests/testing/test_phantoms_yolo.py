"""Phantoms for detection: small enhancing lesions, vessels as bright, and the YOLO data set."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from gansynth.runtime.errors import UsageFault
from gansynth.testing.phantoms import MetastasisOptions, PhantomOptions, make_metastases, write_yolo
from gansynth.testing.phantoms._yolo import FEWEST_PIXELS

pytest.importorskip("nilearn", reason="nilearn, which ships the MNI152 maps, is not installed")

BODY = PhantomOptions(spacing_mm=4.0, channels=("T1c",))
COARSE = MetastasisOptions(BODY, radius_mm=(4.0, 9.0))


@pytest.fixture(scope="module")
def phantoms():
    return [make_metastases(index, 0, COARSE) for index in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_yolo(tmp_path_factory.mktemp("yolo") / "phantoms", 5, 0, COARSE).parent


def tree(folder) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def pictures(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    """Name, pixels, boxes (x1, y1, x2, y2 in pixels) of every slice."""
    for path in sorted(folder.glob("images/*/*.png")):
        text = (folder / "labels" / path.parent.name / f"{path.stem}.txt").read_text()
        pixels = np.asarray(Image.open(path))
        rows = np.array([line.split() for line in text.splitlines()], float).reshape(-1, 5)[:, 1:]
        centre, size = rows[:, :2], rows[:, 2:]
        boxes = np.concatenate([centre - size / 2, centre + size / 2], 1) * pixels.shape[0]
        yield path.stem, pixels, boxes


def test_the_same_numbers_give_the_same_phantom_and_others_another(phantoms):
    again = make_metastases(2, 0, COARSE)
    assert np.array_equal(again.image, phantoms[2].image)
    assert np.array_equal(again.lesions, phantoms[2].lesions)
    assert not np.array_equal(make_metastases(2, 1, COARSE).image, phantoms[2].image)


def test_a_subject_has_several_small_lesions_in_its_brain(phantoms):
    for phantom in phantoms:
        numbers = np.unique(phantom.lesions[phantom.lesions > 0])
        assert 2 <= numbers.size <= 7
        assert (phantom.image[phantom.lesions > 0] > 0).all()
        for number in numbers:
            millilitres = np.count_nonzero(phantom.lesions == number) * 4.0**3 / 1000
            assert millilitres < 8  # a ball of 9 mm has 3


def test_lesions_do_not_touch(phantoms):
    for phantom in phantoms:
        count = ndimage.label(phantom.lesions > 0, np.ones((3, 3, 3)))[1]
        assert count <= np.unique(phantom.lesions).size - 1
        grown = ndimage.maximum_filter(phantom.lesions, 3)
        own = phantom.lesions > 0
        assert (grown[own] == phantom.lesions[own]).all()


def test_lesions_are_brighter_than_the_brain(phantoms):
    for phantom in phantoms:
        brain = phantom.image[(phantom.image > 0) & (phantom.lesions == 0)]
        for number in range(1, phantom.lesions.max() + 1):
            brightest = np.percentile(phantom.image[phantom.lesions == number], 75)
            assert brightest > 1.1 * np.median(brain)


def test_vessels_are_bright_where_no_lesion_is():
    without = make_metastases(0, 0, MetastasisOptions(BODY, vessels=(0, 0)))
    vessels = make_metastases(0, 0, MetastasisOptions(BODY))
    assert np.array_equal(without.lesions, vessels.lesions)
    far = ndimage.maximum_filter(vessels.lesions, 5) == 0
    brighter = far & (vessels.image > 1.2 * without.image + 20)
    assert brighter.sum() > 30
    bright = np.percentile(without.image[without.lesions > 0], 50)
    assert np.percentile(vessels.image[brighter], 90) > 0.6 * bright


def test_the_data_set_says_what_both_detectors_want_to_know(folder):
    content = yaml.safe_load((folder / "data.yaml").read_text())
    assert content == {
        "train": "images/train",
        "val": "images/val",
        "test": "images/test",
        "nc": 1,
        "names": {0: "metastasis"},
        "channels": 1,
    }
    assert (folder / "data.yaml").read_text().startswith("# PHANTOMS, NOT PATIENTS")


def test_no_subject_is_in_two_splits(folder):
    subjects = {
        split: {path.name[:7] for path in (folder / "images" / split).iterdir()}
        for split in ("train", "val", "test")
    }
    assert subjects["train"] == {"sub-000", "sub-001", "sub-002"}
    assert (subjects["val"], subjects["test"]) == ({"sub-003"}, {"sub-004"})


def test_slices_are_square_8_bit_grey_and_every_one_has_its_text(folder):
    images = sorted(p.relative_to(folder / "images") for p in folder.glob("images/*/*.png"))
    texts = sorted(p.relative_to(folder / "labels") for p in folder.glob("labels/*/*.txt"))
    assert [p.with_suffix(".txt") for p in images] == texts
    assert {(p.shape, p.dtype) for _, p, _ in pictures(folder)} == {((48, 48), np.dtype("u1"))}


def test_many_slices_are_free_of_lesions_and_the_counts_are_told(folder):
    free = sum(int(boxes.size == 0) for _, _, boxes in pictures(folder))
    total = sum(1 for _ in pictures(folder))
    splits = json.loads((folder / "phantoms.json").read_text())["splits"].values()
    assert 0.2 < free / total < 0.9
    assert free == sum(split["images_without_lesion"] for split in splits)
    assert total == sum(split["images"] for split in splits)


def test_every_box_is_around_something_bright(folder):
    inside = [
        pixels[int(y1 + 0.5) : int(y2 + 0.5), int(x1 + 0.5) : int(x2 + 0.5)].max()
        / np.median(pixels[pixels > 0])
        for _, pixels, boxes in pictures(folder)
        for x1, y1, x2, y2 in boxes
    ]
    assert len(inside) > 10
    assert min(inside) > 1.15


def test_boxes_lie_on_whole_pixels_and_hold_a_lesion(folder):
    for _, pixels, boxes in pictures(folder):
        assert np.allclose(boxes, np.rint(boxes), atol=1e-3)
        assert ((boxes >= -1e-3) & (boxes <= pixels.shape[0] + 1e-3)).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides.prod(axis=1) >= FEWEST_PIXELS - 0.01).all()


def test_the_front_is_up(folder):
    """The front of a brain's slice is narrower than its back half: it lies in the upper rows."""
    name, pixels, _ = max(pictures(folder), key=lambda found: np.count_nonzero(found[1]))
    rows = np.count_nonzero(pixels, axis=1)
    filled = np.flatnonzero(rows)
    quarter = filled.size // 4
    assert rows[filled[:quarter]].mean() < rows[filled[-quarter:]].mean(), name


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    write_yolo(tmp_path / "again", 5, 0, COARSE)
    assert tree(tmp_path / "again") == tree(folder)


def test_a_folder_that_is_in_use_is_refused(folder):
    before = tree(folder)
    with pytest.raises(UsageFault, match="exists already"):
        write_yolo(folder, 5, 0, COARSE)
    assert tree(folder) == before


def test_two_subjects_cannot_be_split_in_three(tmp_path):
    with pytest.raises(UsageFault, match="at least 3"):
        write_yolo(tmp_path / "new", 2, 0, COARSE)


@pytest.mark.parametrize(
    "wrong",
    [{"lesions": (3, 2)}, {"radius_mm": (0.0, 2.0)}, {"vessel_mm": (2.0, 1.0)}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(UsageFault, match=next(iter(wrong))):
        MetastasisOptions(BODY, **wrong)


def test_the_demo_writes_them_and_nothing_else(tmp_path):
    from gansynth_cli.main import cli

    asked = ["demo", "-o", str(tmp_path / "demo"), "--phantoms", "yolo", "--fast", "--json"]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["subjects"] == 6
    assert document["data"] == str(tmp_path / "demo" / "metastases" / "data.yaml")
    assert {p.name for p in (tmp_path / "demo").iterdir()} == {"DEMO.txt", "metastases"}
