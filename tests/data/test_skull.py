"""Skull-stripping of slices: what is kept of phantoms with a skull, and boxes that move along."""
# mypy: disallow-untyped-calls=False

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.lineage import guard_host
from gansynth.core.schema import Boxes
from gansynth.core.source import SourceRequest
from gansynth.data.picture_check import check_pictures
from gansynth.data.pictures import open_pictures
from gansynth.data.skull import WHOLE, find_brain
from gansynth.runtime.errors import IntegrityFault
from gansynth_yolo.check import check_yolo
from gansynth_yolo.mirror import mirror
from gansynth_yolo.source import open_yolo
from tests.conftest import DATA
from tests.heads import head
from tests.yolo_sets import write_image, write_yaml

REAL = DATA / "figshare_brain_tumor_axial_yolo"
STRIP = {"skull_strip": "yes"}


# -- what is brain ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [128, 256, 512])
@pytest.mark.parametrize("scalp", [0.08, 0.25])
def test_the_brain_is_kept_and_scalp_and_bone_are_not(size, scalp):
    for seed in range(4):
        one = head(seed, size, scalp=scalp)
        mask = find_brain(one.image).mask
        assert mask[one.brain].mean() > 0.95
        assert (mask & ~one.brain).sum() < 0.05 * one.brain.sum()


@pytest.mark.parametrize("rim", [0.0, 0.5, 0.85])
def test_a_bright_lesion_is_kept_to_the_brain_s_surface(rim):
    for seed in range(4):
        one = head(seed, rim=rim)
        assert find_brain(one.image).mask[one.lesion].mean() > WHOLE


def test_colours_and_units_do_not_matter():
    one = head()
    mask = find_brain(one.image).mask
    colour = np.rint(one.image * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert (find_brain(colour).mask == mask).mean() > 0.999
    assert (find_brain(7 * one.image).mask == mask).all()


def test_a_slice_without_a_skull_is_cropped_and_loses_nothing():
    one = head()
    stripped = np.where(one.brain, one.image, 0)
    brain = find_brain(stripped)
    assert brain.mask[one.brain].mean() > 0.97
    assert brain.shape < one.image.shape


def test_a_blank_slice_stays_whole():
    assert find_brain(np.zeros((40, 30))).shape == (40, 30)


def test_a_slice_of_few_pixels_is_read():
    assert find_brain(head(size=24).image).mask.any()


def test_a_box_in_the_crop_is_around_what_it_was_around():
    one = head()
    brain = find_brain(one.image)
    boxes = Boxes(np.array([one.box], np.float32), np.zeros(1, np.int16))
    (moved,) = brain.move(boxes).coords.astype(int)
    crop = brain.strip(one.image)[moved[0] : moved[2], moved[1] : moved[3]]
    whole = one.image[one.box[0] : one.box[2], one.box[1] : one.box[3]]
    np.testing.assert_array_equal(crop, whole)


def test_a_box_on_the_scalp_is_left_out():
    brain = find_brain(head().image)
    top = brain.crop[0].start
    coords = np.array([[0, 0, top, 9], [top - 5, 100, top + 20, 140]], np.float32)
    left = brain.move(Boxes(coords, np.array([0, 1], np.int16)))
    assert left.labels.tolist() == [1]
    assert left.coords[0, 0] == 0


# -- yolo: and pictures: ---------------------------------------------------------------------------


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


def opened(data: Path, **read: str) -> Any:
    return open_yolo(SourceRequest("yolo", str(data), read=read))


def in_boxes(image: Any, boxes: Any) -> float:
    """Mean of an image (H, W) in its first box."""
    top, left, bottom, right = boxes[0].round().astype(int)
    return float(image[top:bottom, left:right].mean())


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_detector_s_case_is_the_brain_alone_with_its_box_on_the_lesion(data, fit):
    plain, strip = opened(data, size="128x128"), opened(data, size="128x128", fit=fit, **STRIP)
    for case in strip.train_ids:
        one, other = plain.load(case), strip.load(case)
        lesion = in_boxes(one.image[0], one.boxes.coords)
        assert in_boxes(other.image[0], other.boxes.coords) == pytest.approx(lesion, abs=0.04)
        assert other.boxes.coords[0, 2:].max() - other.boxes.coords[0, :2].min() > 0
        edge = np.concatenate([other.image[0, [0, -1]].ravel(), other.image[0, :, [0, -1]].ravel()])
        assert edge.max() < 0.6  # no scalp
    shown = [(source.load(case).image > 0.7).mean() for source in (plain, strip)]
    assert shown[1] < 0.5 * shown[0]


def test_a_detector_is_shown_the_brain_that_a_generator_learns_from(data, tmp_path):
    source = opened(data, **STRIP)
    folder = mirror(source, tmp_path / "shown").parent
    (file,) = sorted(folder.glob("images/train/*p2.png"))
    shown = np.asarray(Image.open(file))
    image = source.image("train/p2")
    assert shown.shape == image.shape
    np.testing.assert_array_equal(shown, image.pixels())
    words = (folder / "labels/train" / f"{file.stem}.txt").read_text().split()
    np.testing.assert_allclose(np.array(words, float), image.rows[0], atol=1e-6)


def test_a_generator_of_brains_does_not_enter_a_detector_of_heads(data):
    with pytest.raises(IntegrityFault, match="skull_strip: True != None"):
        guard_host(opened(data, **STRIP).host, opened(data).host)


def test_a_held_out_image_is_known_again_with_and_without_its_skull(data):
    plain, strip = opened(data), opened(data, **STRIP)
    assert plain.records(plain.held_out_ids) == strip.records(strip.held_out_ids)


def test_check_counts_the_boxes_that_lose_their_lesion(data):
    one = head(9)
    row = (0, 0.5, 0.02, 0.1, 0.03)  # in the air above
    write_image(data.parent, "train", "p9", one.image, [row])
    found = check_yolo(SourceRequest("yolo", str(data), read=STRIP), lambda *_: None).findings
    (said,) = [finding for finding in found if "skull_strip" in finding.message]
    assert "leaves 6 of 7 box(es) whole (90% of them brain), not those of train/p9" in said.message


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five pictures of heads with masks of their lesions."""
    for part in ("images", "masks"):
        (tmp_path / "p" / part).mkdir(parents=True)
    for seed in range(5):
        one = head(seed)
        pixels = np.rint(255 * one.image).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"p/images/p{seed}.png")
        Image.fromarray(255 * one.lesion.astype(np.uint8)).save(tmp_path / f"p/masks/p{seed}.png")
    found: Path = tmp_path / "p"
    return found


def test_a_picture_s_mask_and_boxes_move_along(folder):
    request = SourceRequest("pictures", str(folder), read={**STRIP, "boxes": "yes"})
    source: Any = open_pictures(request)
    for case in source.train_ids:
        found, one = source.load(case), head(int(case[1:]))
        assert found.labels.sum() == one.lesion.sum()
        assert found.image[0][found.labels > 0].mean() > 0.7
        assert in_boxes(found.image[0], found.boxes.coords) > 0.6
        assert source.shape(case) == found.image.shape[1:] < one.image.shape


def test_pixels_of_a_resized_brain_are_as_large_as_its_crop_says(folder):
    read = {**STRIP, "spacing": "2", "resize": "64x64"}
    source: Any = open_pictures(SourceRequest("pictures", str(folder), read=read))
    crops = [find_brain(head(int(case[1:])).image).shape for case in source.train_ids]
    np.testing.assert_allclose(source.schema.spacing, 2 * np.median(crops, axis=0) / 64, rtol=0.02)


@pytest.mark.parametrize("resize", [None, "64x64"])
def test_what_is_predicted_of_a_brain_lies_where_it_was_in_the_file(folder, tmp_path, resize):
    read = STRIP | ({} if resize is None else {"resize": resize})
    source = open_pictures(SourceRequest("pictures", str(folder), read=read))
    for case in source.held_out_ids:
        labels, truth = source.load(case).labels, head(int(case[1:])).lesion
        assert labels is not None
        file = tmp_path / f"{case}.png"
        Image.fromarray(source.encode_labels(case, labels).astype(np.uint8)).save(file)
        found = source.read_predicted(case, file)
        assert found.shape == truth.shape
        agree = 2 * (found * truth).sum() / (found.sum() + truth.sum())
        assert agree > (0.8 if resize else 0.999)
        np.testing.assert_array_equal(source.predicted(case, file), labels)


def test_stripped_pictures_are_another_space(folder):
    plain, strip = (
        open_pictures(SourceRequest("pictures", str(folder), read=read)) for read in ({}, STRIP)
    )
    assert strip.host["skull_strip"]
    assert "skull_strip" not in plain.host


def test_check_names_the_picture_whose_lesion_is_stripped(folder):
    mask = np.zeros((256, 256), np.uint8)
    mask[2:20, 100:140] = 255  # on the scalp, and above
    Image.fromarray(mask).save(folder / "masks/p3.png")
    request = SourceRequest("pictures", str(folder), read=STRIP)
    (found,) = check_pictures(request, lambda *_: None).findings
    assert (found.level, found.case) == ("warning", "p3")
    assert "skull_strip takes 100% of what the mask labels for no brain" in found.message


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent")
def test_real_slices_keep_nearly_all_their_tumours():
    labels = sorted((REAL / "labels").glob("*.txt"))[::15]
    whole = []
    for label in labels:
        image = np.asarray(Image.open(REAL / "images" / f"{label.stem}.jpg"))
        _, x, y, w, h = map(float, label.read_text().split())
        box = np.array([[y - h / 2, x - w / 2, y + h / 2, x + w / 2]]) * 512
        brain = find_brain(image)
        assert 0.08 < brain.mask.mean() < 0.7
        whole.append(brain.shares(box.astype(np.float32))[0] >= WHOLE)
    assert np.mean(whole) > 0.75
