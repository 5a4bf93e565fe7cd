# mypy: disallow-untyped-calls=False

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.lineage import guard_host
from gansynth.core.schema import Boxes
from gansynth.data.skull import find_brain, warn_of_limits
from gansynth.runtime.errors import IntegrityFault
from gansynth_yolo.mirror import mirror
from tests.data.sets import check, opened, save_picture
from tests.heads import head
from tests.yolo_sets import write_image, write_yaml

STRIP = {"skull_strip": "yes"}


@pytest.mark.parametrize("size", [24, 128, 512])
@pytest.mark.parametrize("scalp", [0.08, 0.25])
def test_the_brain_is_kept_and_scalp_and_bone_are_not(size, scalp):
    for seed in range(2):
        one = head(seed, size, scalp=scalp)
        mask = find_brain(one.image).mask
        if size == 24:
            assert mask.any()
            continue
        assert mask[one.brain].mean() > 0.95
        assert (mask & ~one.brain).sum() < 0.05 * one.brain.sum()


def test_a_slice_without_a_skull_is_cropped_and_loses_nothing():
    one = head()
    brain = find_brain(np.where(one.brain, one.image, 0))
    assert brain.mask[one.brain].mean() > 0.97
    assert brain.shape < one.image.shape
    assert find_brain(np.zeros((40, 30))).shape == (40, 30)


def test_a_box_in_the_crop_is_around_what_it_was_around_and_one_on_the_scalp_is_left_out():
    one = head()
    brain = find_brain(one.image)
    boxes = Boxes(np.array([one.box], np.float32), np.zeros(1, np.int16))
    (moved,) = brain.move(boxes).coords.astype(int)
    crop = brain.strip(one.image)[moved[0] : moved[2], moved[1] : moved[3]]
    whole = one.image[one.box[0] : one.box[2], one.box[1] : one.box[3]]
    np.testing.assert_array_equal(crop, whole)
    top = brain.crop[0].start
    coords = np.array([[0, 0, top, 9], [top - 5, 100, top + 20, 140]], np.float32)
    left = brain.move(Boxes(coords, np.array([0, 1], np.int16)))
    assert (left.labels.tolist(), left.coords[0, 0]) == ([1], 0)


@pytest.fixture
def data(tmp_path) -> Path:
    """A ``data.yaml`` of six heads, a lesion in each."""
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for seed in seeds:
            one = head(seed)
            box = np.array(one.box) / 256
            row = (0, (box[1] + box[3]) / 2, (box[0] + box[2]) / 2, *(box[2:] - box[:2])[::-1])
            write_image(tmp_path / "y", split, f"p{seed}", one.image, [row])
    names = {"names": {0: "lesion"}, "nc": 1, "channels": 1}
    file: Path = write_yaml(tmp_path / "y", {"train": "images/train", "val": "images/val", **names})
    return file


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five pictures of heads with masks of their lesions."""
    home: Path = tmp_path / "p"
    for seed in range(5):
        one = head(seed)
        save_picture(home / f"images/p{seed}.png", np.rint(255 * one.image).astype(np.uint8))
        save_picture(home / f"masks/p{seed}.png", 255 * one.lesion.astype(np.uint8))
    return home


def in_boxes(case: Any) -> float:
    top, left, bottom, right = case.boxes.coords[0].round().astype(int)
    assert bottom > top
    return float(case.image[0, top:bottom, left:right].mean())


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_detector_s_case_is_the_brain_alone_with_its_box_on_the_lesion(data, fit):
    sized = {"kind": "yolo", "size": "128x128"}
    plain, strip = opened(data, **sized), opened(data, **sized, fit=fit, **STRIP)
    for case in strip.train_ids:
        one, other = plain.load(case), strip.load(case)
        assert in_boxes(other) == pytest.approx(in_boxes(one), abs=0.04)
        rim = np.concatenate([other.image[0, [0, -1]].ravel(), other.image[0, :, [0, -1]].ravel()])
        assert rim.max() < 0.6  # no scalp
    shown = [(source.load(case).image > 0.7).mean() for source in (plain, strip)]
    assert shown[1] < 0.5 * shown[0]


def test_a_detector_is_shown_the_brain_that_a_generator_learns_from(data, tmp_path):
    source = opened(data, "yolo", **STRIP)
    folder = mirror(source, tmp_path / "shown").parent
    (file,) = sorted(folder.glob("images/train/*p2.png"))
    image = source.image("train/p2")
    np.testing.assert_array_equal(np.asarray(Image.open(file)), image.pixels())
    words = (folder / "labels/train" / f"{file.stem}.txt").read_text().split()
    np.testing.assert_allclose(np.array(words, float), image.rows[0], atol=1e-6)


def test_stripped_images_are_another_space_and_known_again(data, folder):
    plain, strip = opened(data, "yolo"), opened(data, "yolo", **STRIP)
    with pytest.raises(IntegrityFault, match="skull_strip: True != None"):
        guard_host(strip.host, plain.host)
    assert plain.records(plain.held_out_ids) == strip.records(strip.held_out_ids)
    assert opened(folder, "pictures", **STRIP).host["skull_strip"]
    assert "skull_strip" not in opened(folder, "pictures").host


@pytest.mark.parametrize("kind", ["pictures", "yolo"])
def test_what_thresholds_leave_is_said_once(kind, data, folder, caplog):
    warn_of_limits.cache_clear()
    for options in ({}, STRIP, STRIP):
        opened({"pictures": folder, "yolo": data}[kind], kind, **options)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "on many slices it leaves face or skull base" in line


def test_check_counts_the_boxes_that_lose_their_lesion(data):
    row = (0, 0.5, 0.02, 0.1, 0.03)  # in the air above
    write_image(data.parent, "train", "p9", head(9).image, [row])
    found = check(data, "yolo", **STRIP).findings
    (said,) = [finding for finding in found if "skull_strip" in finding.message]
    assert "leaves 6 of 7 box(es) whole (90% of them brain), not those of train/p9" in said.message


def test_a_picture_s_mask_and_boxes_move_along(folder):
    source = opened(folder, "pictures", **STRIP, boxes="yes")
    for case in source.train_ids:
        found, one = source.load(case), head(int(case[1:]))
        assert found.labels.sum() == one.lesion.sum()
        assert found.image[0][found.labels > 0].mean() > 0.7
        assert in_boxes(found) > 0.6
        assert source.shape(case) == found.image.shape[1:] < one.image.shape


@pytest.mark.parametrize(("read", "least"), [({}, 0.999), ({"resize": "64x64"}, 0.8)])
def test_what_is_predicted_of_a_brain_lies_where_it_was_in_the_file(folder, tmp_path, read, least):
    source = opened(folder, "pictures", **STRIP, **read)
    for case in source.held_out_ids:
        labels, truth = source.load(case).labels, head(int(case[1:])).lesion
        pixels = source.encode_labels(case, labels).astype(np.uint8)
        file = save_picture(tmp_path / f"{case}.png", pixels)
        found = source.read_predicted(case, file)
        assert found.shape == truth.shape
        assert 2 * (found * truth).sum() / (found.sum() + truth.sum()) > least
        np.testing.assert_array_equal(source.predicted(case, file), labels)


def test_check_names_the_picture_whose_lesion_is_stripped(folder):
    mask = np.zeros((256, 256), np.uint8)
    mask[2:20, 100:140] = 255  # on the scalp, and above
    save_picture(folder / "masks/p3.png", mask)
    findings = check(folder, kind="pictures", **STRIP).findings  # heads are neighbours, too
    (found,) = [finding for finding in findings if "skull_strip" in finding.message]
    assert (found.level, found.case) == ("warning", "p3")
    assert "skull_strip takes 100% of what the mask labels for no brain" in found.message
