import csv
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

import gansynth
from gansynth.core import fingerprint
from gansynth.data.picture_files import read_picture
from tests.data import sets
from tests.data.sets import save_picture as save
from tests.expected import raises_fault

SHAPE = (20, 24)
CASE = "malignant/p0_3"


def picture(seed: int, dtype: Any = np.uint8, shape: tuple[int, ...] = SHAPE) -> Any:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def disc(radius: int) -> Any:
    rows, columns = np.indices(SHAPE)
    return (rows - 9) ** 2 + (columns - 11) ** 2 < radius**2


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Two classes of five people with two pictures each, and masks drawn as 255."""
    home: Path = tmp_path_factory.mktemp("pictures") / "set"
    for number in range(20):
        name = f"{('benign', 'malignant')[number % 2]}/p{number // 4}_{number}.png"
        save(home / "images" / name, picture(number))
        save(home / "masks" / name, (255 * disc(3 + number % 5)).astype(np.uint8))
    return home


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(shared, tmp_path / "set"))


def opened(folder: Path, **options: Any) -> Any:
    return sets.opened(folder, "pictures", **options)


STORED: dict[int, Any] = {
    2: np.fliplr,
    3: lambda a: a[::-1, ::-1],
    6: np.rot90,
    8: lambda a: np.rot90(a, -1),
}
"""How a camera that was held so stores what it sees, by its EXIF orientation."""


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_as_viewers_show_it(tmp_path, orientation, ending):
    seen, tags = (200 * disc(5)).astype(np.uint8), Image.Exif()
    tags[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](seen)))
    for name in "abcde":
        save(tmp_path / "masks" / f"{name}.png", disc(5).astype(np.uint8))
        image = tmp_path / "images" / f"{name}{ending}"
        image.parent.mkdir(exist_ok=True)
        stored.save(image, exif=tags)
    source = opened(tmp_path)
    assert (source.header("a").shape, source.space.size) == (SHAPE, (24, 24))
    np.testing.assert_array_equal(source.load("a").image[0] > 0.5, disc(5))


DEEP, COLOURED, FLOATS = picture(0, np.uint16), picture(0, shape=(*SHAPE, 3)), picture(0) - 999.0


@pytest.mark.parametrize(
    ("name", "pixels", "read", "expected"),
    [
        ("a.png", DEEP, {}, DEEP / 65535),
        ("a.tif", DEEP, {}, DEEP / 65535),
        ("a.tif", DEEP, {"window": "100:4095"}, ((DEEP - 100.0) / 3995).clip(0, 1)),
        ("a.JPG", np.full(SHAPE, 102, np.uint8), {}, np.full(SHAPE, 0.4)),
        ("a.tif", FLOATS.astype(np.float32), {}, FLOATS),
        ("a.png", COLOURED, {}, COLOURED / 255),
    ],
    ids=["16 bits", "16 bits of TIFF", "window", "JPEG", "floats", "colours"],
)
def test_pixels_of_every_kind_are_read(tmp_path, name, pixels, read, expected):
    save(tmp_path / name, pixels)
    source = opened(tmp_path, fold="all", **read)
    names = ("grey",) if pixels.ndim == 2 else ("red", "green", "blue")
    assert source.schema.channels == names
    case = source.load("a")
    assert case.labels is None
    shown = np.moveaxis(np.atleast_3d(expected), -1, 0)
    np.testing.assert_allclose(case.image, shown, atol=0.004 if name == "a.JPG" else 1e-5)


def test_masks_of_jpeg_are_read_by_the_threshold_that_check_proposes(tmp_path):
    for number in range(5):
        save(tmp_path / f"images/{number}.png", picture(number))
        save(tmp_path / f"masks/{number}.jpg", (255 * disc(5)).astype(np.uint8))
    findings = sets.check(tmp_path, "pictures").findings
    assert {f.message.rpartition(": --read ")[2] for f in findings} == {"threshold=128"}
    assert not sets.check(tmp_path, "pictures", threshold="128").findings
    labels = opened(tmp_path, threshold="128").load("0").labels
    np.testing.assert_array_equal(labels, disc(5))


@pytest.mark.parametrize(
    ("image", "mask", "found"),
    [
        ("a{}.png", "a{}_mask.png", {"mask_suffix": "_mask"}),
        ("b/a{}.png", "b/a{}-GT.png", {"mask_suffix": "-GT"}),
        ("images/a{}.png", "images/a{}_seg.png", {"mask_suffix": "_seg"}),
        ("images/a{}.png", "masks/a{}_label.png", {"mask_suffix": "_label"}),
        ("images/a{}.png", "Segmentations/a{}.png", {"masks": "Segmentations"}),
        ("img/a{}.png", "mask/a{}.png", {"images": "img", "masks": "mask"}),
        ("a{}.png", "gt/a{}_x.png", {"masks": "gt", "mask_suffix": "_x"}),
        ("a{}.png", "a{}_manual1.png", {"mask_suffix": "_manual1"}),
        ("Müller a{}.png", "Müller a{}Kontur.png", {"mask_suffix": "Kontur"}),
    ],
)
def test_masks_are_found_by_their_names(tmp_path, image, mask, found):
    for number in range(5):
        save(tmp_path / image.format(number), picture(number))
        if number:  # a picture without one is an error, no reason to read the others as images
            save(tmp_path / mask.format(number), disc(4))
    with raises_fault("pictures.picture-without-mask"):
        opened(tmp_path)
    save(tmp_path / mask.format(0), disc(4))
    source = opened(tmp_path)
    assert source.request.read == found
    cases = sorted(source.train_ids + source.held_out_ids)
    assert [Path(case).name[-2:] for case in cases] == [f"a{n}" for n in range(5)]
    np.testing.assert_array_equal(source.load(cases[0]).labels, disc(4))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mask_a{}.png", "5 of 10 names are like those of masks and are read as images, 'mask_a0'"),
        ("a{}.txt", "5 of 5 images have a text file of their name, .* as a data set of boxes"),
    ],
)
def test_check_warns_of_masks_and_boxes_that_are_not_read(tmp_path, name, says):
    for number in range(5):
        save(tmp_path / f"a{number}.png", picture(number))
        save(tmp_path / f"mask_a{number}.png", picture(5 + number))
        (tmp_path / f"mask_a{number}.png").rename(tmp_path / name.format(number))
    finding = sets.only(tmp_path, kind="pictures")
    assert finding.level == "warning"
    assert re.search(says, finding.message)


def test_read_classes_takes_subfolders_or_a_csv_as_classes(folder):
    source = opened(folder, classes="yes", resize="8x8")
    assert source.classes == source.schema.classes == ("benign", "malignant")
    for case_id, number in (("benign/p0_2", 0), (CASE, 1)):
        assert source.header(case_id).label_class == source.load(case_id).label_class == number
    plain = opened(folder)
    assert (plain.schema.classes, plain.header(CASE).label_class) == ((), None)
    cases = sorted(plain.train_ids + plain.held_out_ids)
    lines = [f"{case},{'left' if n < 5 else 'right'}" for n, case in enumerate(cases)]
    (folder / "classes.csv").write_text("\n".join(["case,class", *lines]))
    source = opened(folder, classes="classes.csv")
    assert source.schema.classes == ("left", "right")
    assert [source.header(case).label_class for case in cases] == [0] * 5 + [1] * 15


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("where", "read", "expected"),
    [
        ("none", {}, "listing.path-missing"),
        ("empty", {}, "pictures.no-picture"),
        ("set", {"masks": "gt"}, "pictures.folder-missing"),
        ("set", {}, "pictures.picture-without-mask"),
        (
            "set",
            {"classes": "short.csv"},
            "pictures.picture-without-class",
        ),
        ("set", {"classes": "odd.csv"}, "folds.case-has-two-values"),
        ("set", {"classes": "none.csv"}, "pictures.class-table-missing"),
    ],
)
def test_what_is_no_set_of_pictures_is_refused(tmp_path, where, read, expected):
    (tmp_path / "empty").mkdir()
    (tmp_path / "set/masks").mkdir(parents=True)  # with none in it, still one of masks
    for case in "ab":
        save(tmp_path / f"set/images/{case}.png", picture(0))
    (tmp_path / "set/short.csv").write_text("case,class\na,1\n")
    (tmp_path / "set/odd.csv").write_text("case,class\na,1\na,2\n")
    with raises_fault(expected):
        opened(tmp_path / where, fold="all", **read)


def test_a_folder_of_coordinates_is_not_taken_for_masks(tmp_path):
    save(tmp_path / "images" / "a.png", picture(0))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    for where in (tmp_path, tmp_path / "images"):
        source = opened(where, fold="all")
        assert source.schema.labels == {"background": 0}
        assert source.load("a").labels is None


@pytest.mark.fault(1)
@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_truncated_pictures_are_refused(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", picture(0))
    raw = path.read_bytes()
    for part in (0.0, 0.3, 0.6, 0.97):
        path.write_bytes(raw[: int(part * len(raw))])
        with raises_fault("picture-files.damaged", names=ending):
            read_picture(path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hand_made(path: Path, *header: int, body: bytes) -> Path:
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(body, 9)),
        chunk(b"IEND", b""),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def several(path: Path) -> Path:
    page = Image.fromarray(picture(0))
    page.save(path.with_suffix(".tif"), save_all=True, append_images=[page, page])
    return path.with_suffix(".tif")


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: hand_made(p, 8000, 8000, 8, 0, body=bytes(64)),
         "picture-files.too-many-pixels"),
        (lambda p: hand_made(p, 2, 1, 16, 2, body=bytes(13)), "picture-files.mode-unsupported"),
        (lambda p: save(p, picture(0, shape=(*SHAPE, 4))),
         "picture-files.mode-unsupported"),
        (several, "picture-files.several-pictures"),
        (lambda p: save(p, picture(0)).rename(p.with_suffix(".jpg")), "picture-files.damaged"),
    ],
    ids=["bomb", "deep colours", "transparent", "several", "other"],
)  # fmt: skip
def test_pictures_that_are_neither_grey_nor_rgb_are_refused(tmp_path, make, expected):
    with raises_fault(expected):
        read_picture(make(tmp_path / "a.png"))


@pytest.mark.fault(14)
def test_a_picture_of_another_bit_depth_is_refused(folder):
    source = opened(folder)
    other = source.train_ids[3]
    save(folder / "images" / f"{other}.png", picture(0, np.uint16))
    with raises_fault("pictures.picture-channels-differ"):
        source.load(other)


def test_check_finds_all_faults_of_pictures_in_one_pass(folder):
    images, masks = folder / "images", folder / "masks"
    path = images / "benign" / "p0_0.png"
    path.write_bytes(path.read_bytes()[:200])
    save(masks / "malignant" / "p0_1.png", disc(3)[:, 1:])
    save(masks / "benign" / "p0_2.png", np.full(SHAPE, 7, np.uint8))
    save(images / f"{CASE}.png", picture(0, np.uint16))
    (masks / "benign" / "p1_4.png").unlink()
    save(images / "benign" / "p1_6.tif", picture(0))
    save(images / "malignant" / "p1_5.png", picture(9))
    save(masks / "spare.png", disc(3))
    said = {
        "p0_0.png": "damaged",
        "p0_1.png": "20 x 23 pixels, its image 20 x 24",
        "p0_2.png": "holds the numbers [7]",
        "p0_3.png": "of uint16, expected 1 of uint8",
        "p1_4.png": "has no mask",
        "p1_6": "has the same name as p1_6.png",
        "p2_9.png": "same pixels as malignant/p1_5",
        "spare.png": "a mask without an image",
    }
    findings = sets.check(folder, "pictures").findings
    for name, words in said.items():
        assert [f for f in findings if name in f.message and words in f.message], (name, findings)
    assert len(findings) == len(said)
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels)
    assert [f.level for f in findings if "spare" in f.message] == ["warning"]


@pytest.mark.parametrize(
    ("subjects", "level"),
    [(None, ["warning"]), (r"(p\d)_", []), (r"p\d_(\d+)", ["error"])],
    ids=["unnamed", "right", "wrong"],
)
def test_check_names_near_identical_pictures_in_both_folds(tmp_path, subjects, level):
    neighbouring_slices(tmp_path)
    findings = sets.check(tmp_path, "pictures", subjects=subjects).findings
    said = [finding for finding in findings if "nearly identical" in finding.message]
    assert [finding.level for finding in said] == level
    assert all("--subjects" in finding.message for finding in said)


@pytest.mark.parametrize("subjects", [None, r"p\d_(\d+)", r"(p\d)_"], ids=["no", "wrong", "right"])
def test_check_writes_one_subject_for_look_alikes_over_no_other_table(tmp_path, subjects):
    neighbouring_slices(tmp_path / "set")
    table = tmp_path / "subjects.csv"
    where = f"pictures:{tmp_path / 'set'}"
    asked: Any = {"data": where, "subjects": subjects, "write_subjects": table}
    report = gansynth.check(**asked)
    assert not [finding for finding in report.findings if finding.level == "error"]
    rows = csv.DictReader(table.read_text().splitlines())
    volumes: dict[str, set[str]] = {}
    for row in rows:
        volumes.setdefault(row["subject"], set()).add(row["case"].partition("_")[0])
    assert sorted(map(sorted, volumes.values())) == [[f"p{number}"] for number in range(6)]
    assert not [f for f in report.findings if "nearly identical" in f.message]
    gansynth.check(**asked)  # which writes the same again
    table.write_text("case,subject\nmine,1\n")
    with raises_fault("look-alikes.table-exists", names=str(table)):
        gansynth.check(**asked)
    assert table.read_text() == "case,subject\nmine,1\n"


def test_look_alikes_that_all_pairs_at_once_miss_are_found_as_a_guard_finds_them(
    tmp_path, monkeypatch
):
    neighbouring_slices(tmp_path / "set")
    monkeypatch.setattr(fingerprint, "likely_pairs", lambda *_: ())
    monkeypatch.setitem(fingerprint.ALIKE, 2, 2.0)  # no picture looks the same as a whole
    gansynth.check(data=f"pictures:{tmp_path / 'set'}", write_subjects=tmp_path / "subjects.csv")
    rows = csv.DictReader((tmp_path / "subjects.csv").read_text().splitlines())
    assert len({row["subject"] for row in rows}) == 6


def neighbouring_slices(folder):
    """Write three neighbouring slices of each of six volumes."""
    for number in range(18):
        noise = np.random.default_rng(number // 3).random((64, 64, 8))
        slices = gaussian_filter(noise, (2, 2, 6)) * 6000 - 2900
        pixels = np.clip(slices[..., number % 3], 0, 255).astype(np.uint8)
        save(folder / f"p{number // 3}_{number}.png", pixels)


def test_check_refuses_the_same_picture_in_both_folds(folder):
    source = opened(folder)
    content = (folder / "images" / f"{source.train_ids[0]}.png").read_bytes()
    for other, level in ((source.train_ids[1], "warning"), (source.held_out_ids[0], "error")):
        path = folder / "images" / f"{other}.png"
        before = path.read_bytes()
        path.write_bytes(content)
        found = sets.only(folder, kind="pictures")
        assert (found.level, "same pixels" in found.message) == (level, True)
        path.write_bytes(before)


@pytest.mark.parametrize("beside", [True, False])
def test_further_masks_of_a_picture_are_joined_with_the_first(tmp_path, beside):
    """As BUSI has them."""
    left, right = disc(4) & (np.indices(SHAPE)[1] < 11), disc(4) & (np.indices(SHAPE)[1] > 11)
    for number, name in enumerate("abcde"):
        save(tmp_path / f"{'' if beside else 'images/'}{name}.png", picture(number))
        masks = [left, right] if name == "b" else [left]
        for place, mask in enumerate(masks):
            file = f"{'' if beside else 'masks/'}{name}_mask{'_1' * place}.png"
            save(tmp_path / file, (255 * mask).astype(np.uint8))
    source = opened(tmp_path, mask_suffix="_mask")
    assert sorted(source.train_ids + source.held_out_ids) == list("abcde")
    np.testing.assert_array_equal(source.load("b").labels, left | right)
    np.testing.assert_array_equal(source.load("a").labels, left)


def test_pictures_of_another_layout_are_read_by_patterns(tmp_path):
    for number, name in enumerate("abcde"):
        save(tmp_path / f"{name}/photo.png", picture(number))
        save(tmp_path / f"{name}/outline.png", disc(3 + number).astype(np.uint8))
    patterns = {"image": "{case}/photo.png", "label": "{case}/outline.png"}
    np.testing.assert_array_equal(opened(tmp_path, **patterns).load("c").labels, disc(5))
    (tmp_path / "d/outline.png").unlink()
    with raises_fault("pictures.picture-without-mask"):
        opened(tmp_path, **patterns)
