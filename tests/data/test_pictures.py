"""``pictures:``: PNG, TIFF and JPEG folders; masks, classes, folds; damage refused, bombs too."""
# mypy: disallow-untyped-calls=False

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.data.picture_check import check_pictures
from gansynth.data.picture_files import read_picture
from gansynth.data.pictures import open_pictures
from gansynth.runtime.errors import DataFault, UsageFault

SHAPE = (20, 24)


def save(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def picture(seed: int, dtype: Any = np.uint8, shape: tuple[int, ...] = SHAPE) -> Any:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def disc(radius: int) -> Any:
    rows, columns = np.indices(SHAPE)
    return (rows - 9) ** 2 + (columns - 11) ** 2 < radius**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of five people with two pictures each, and masks drawn as 255."""
    for number in range(20):
        name = f"{('benign', 'malignant')[number % 2]}/p{number // 4}_{number}.png"
        save(tmp_path / "set" / "images" / name, picture(number))
        save(tmp_path / "set" / "masks" / name, (255 * disc(3 + number % 5)).astype(np.uint8))
    return tmp_path / "set"


def opened(folder: Path, subjects: str | None = None, fold: str = "0", **read: str) -> Any:
    request = SourceRequest("pictures", str(folder), read=read, subjects=subjects, fold=fold)
    return open_pictures(request)


# -- reading ---------------------------------------------------------------------------------------


def test_grey_pictures_fill_0_to_1_and_masks_are_labels(folder):
    source = opened(folder)
    case = source.load("malignant/p0_3")
    np.testing.assert_allclose(case.image[0], picture(3) / 255, atol=1e-6)
    np.testing.assert_array_equal(case.labels, disc(6))
    assert source.schema.labels == {"background": 0, "foreground": 1}
    assert source.schema.channels == ("grey",)
    case.validate(source.schema)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_all_16_bits_are_read(tmp_path, ending):
    deep = picture(0, np.uint16)
    save(tmp_path / f"a.{ending}", deep)
    image = opened(tmp_path, fold="all").load("a").image
    np.testing.assert_allclose(image[0], deep / 65535, atol=1e-6)
    assert opened(tmp_path, fold="all", window="100:4095").load("a").image.max() == 1


def test_colours_are_three_channels(tmp_path):
    save(tmp_path / "a.png", picture(0, shape=(*SHAPE, 3)))
    source = opened(tmp_path, fold="all")
    assert source.schema.channels == ("red", "green", "blue")
    case = source.load("a")
    assert case.labels is None
    np.testing.assert_allclose(case.image[2], picture(0, shape=(*SHAPE, 3))[..., 2] / 255, 1e-6)
    assert opened(tmp_path, fold="all", channels="T1,T2,FLAIR").schema.channels[1] == "T2"


def test_a_jpeg_is_read(tmp_path):
    save(tmp_path / "a.JPG", np.full(SHAPE, 100, np.uint8))
    np.testing.assert_allclose(opened(tmp_path, fold="all").load("a").image, 100 / 255, atol=0.01)


def test_floats_stay_as_they_are(tmp_path):
    save(tmp_path / "a.tif", picture(0).astype(np.float32) - 1000)
    image = opened(tmp_path, fold="all").load("a").image
    np.testing.assert_array_equal(image[0], picture(0).astype(np.float32) - 1000)


def test_percentiles_are_the_picture_s(folder):
    low, high = np.percentile(picture(3), (5, 95))
    image = opened(folder, window="5%:95%").load("malignant/p0_3").image[0]
    expected = ((picture(3).astype(np.float32) - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(image, expected, atol=1e-5)


def test_pictures_are_resampled_to_one_size(folder):
    source = opened(folder, resize="16x12")
    case = source.load("malignant/p0_3")
    assert case.image.shape == (1, 16, 12)
    assert set(np.unique(case.labels)) == {0, 1}
    assert (source.space.size, source.shape("malignant/p0_3")) == ((16, 12), (16, 12))
    assert opened(folder).space.size == (24, 24)


def test_labels_are_numbered_by_their_numbers_in_the_masks(folder):
    for path in (folder / "masks").rglob("*.png"):
        save(path, np.where(disc(2), 200, 50 * disc(5)).astype(np.uint8))
    source = opened(folder, labels="core:200,edema:50")
    assert source.schema.labels == {"background": 0, "edema": 1, "core": 2}
    expected = np.where(disc(2), 2, disc(5))
    np.testing.assert_array_equal(source.load("malignant/p0_3").labels, expected)


def test_masks_may_lie_beside_their_images(tmp_path):
    for number in range(5):
        save(tmp_path / f"a{number}.png", picture(number))
        save(tmp_path / f"a{number}_mask.png", disc(4))
    source = opened(tmp_path, mask_suffix="_mask")
    assert sorted(source.train_ids + source.held_out_ids) == [f"a{n}" for n in range(5)]
    np.testing.assert_array_equal(source.load("a0").labels, disc(4))


# -- classes, subjects, folds ----------------------------------------------------------------------


def test_subfolders_are_classes_if_asked(folder):
    source = opened(folder, classes="yes")
    assert source.classes == ("benign", "malignant")
    assert [source.label_class(f"{name}/p0_{n}") for name, n in (("benign", 0), ("malignant", 1))]
    assert source.label_class("benign/p0_0") == 0
    assert source.label_class("malignant/p0_1") == 1
    assert opened(folder).label_class("malignant/p0_1") is None


def test_classes_are_named_in_the_schema_and_told_of_each_case(folder):
    source = opened(folder, classes="yes", resize="8x8")
    assert source.schema.classes == ("benign", "malignant")
    for case_id in ("benign/p0_2", "malignant/p0_3"):
        number = source.schema.classes.index(case_id.split("/")[0])
        assert source.label_class(case_id) == source.load(case_id).label_class == number


def write_classes(folder: Path, lines: list[str]) -> None:
    (folder / "classes.csv").write_text("\n".join(["case,class", *lines]) + "\n", "utf-8")


def test_classes_may_be_those_of_a_csv(folder):
    files = sorted((folder / "images").rglob("*.png"))
    cases = [path.relative_to(folder / "images").with_suffix("").as_posix() for path in files]
    write_classes(
        folder, [f"{case},{'left' if n < 5 else 'right'}" for n, case in enumerate(cases)]
    )
    source = opened(folder, classes="classes.csv")
    assert source.schema.classes == ("left", "right")
    assert [source.label_class(case) for case in cases] == [0] * 5 + [1] * 15
    assert opened(folder).schema.classes == ()
    assert opened(folder).load("benign/p0_2").label_class is None


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["benign/p0_0,a"], "has no class, expected one for each picture; add a line"),
        (["benign/p0_0,a", "benign/p0_0,b"], "line 3: case 'benign/p0_0' has class 'a' and 'b'"),
    ],
)
def test_a_csv_that_does_not_say_each_class_once_is_refused(folder, lines, says):
    write_classes(folder, lines)
    with pytest.raises(DataFault, match=says):
        opened(folder, classes="classes.csv")


def test_a_csv_that_is_not_there_is_refused(folder):
    with pytest.raises(DataFault, match=r"no file .*classes\.csv, expected yes, no, or a CSV"):
        opened(folder, classes="classes.csv")


@pytest.mark.parametrize("where", ["", "images"])
def test_a_folder_of_coordinates_is_not_taken_for_masks(tmp_path, where):
    save(tmp_path / "images" / "a.png", picture(0))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    source = opened(tmp_path / where, fold="all")
    assert source.schema.labels == {"background": 0}
    assert source.load("a").labels is None


def test_an_empty_folder_of_masks_is_still_one(tmp_path):
    save(tmp_path / "images" / "a.png", picture(0))
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataFault, match="has no mask"):
        opened(tmp_path, fold="all")


def test_no_subject_is_on_both_sides_of_any_fold(folder):
    pattern, held_out = r"/(p\d)_", set()
    for fold in range(5):
        source = opened(folder, pattern, fold=str(fold))
        sides = [
            {source.subject(case) for case in ids}
            for ids in (source.train_ids, source.held_out_ids)
        ]
        assert sides[0].isdisjoint(sides[1])
        held_out |= set(source.held_out_ids)
    assert len(held_out) == 20


def test_a_fold_that_is_not_there_is_refused(folder):
    with pytest.raises(UsageFault, match=r"--fold '5'.*folds 0 to 4"):
        opened(folder, fold="5")
    with pytest.raises(DataFault, match=r"5 subject\(s\) for 6 folds"):
        opened(folder, r"/(p\d)_", folds="6")


# -- damage ----------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_png_is_found(tmp_path):
    path = save(tmp_path / "a.png", picture(0, np.uint16, (7, 9)))
    raw, before = path.read_bytes(), read_picture(path)
    missed = []
    for offset in range(len(raw)):
        bad = bytearray(raw)
        bad[offset] ^= 1 << offset % 8
        path.write_bytes(bad)
        try:
            assert np.array_equal(read_picture(path), before)
            missed.append(offset)
        except DataFault:
            continue
    assert all(offset >= len(raw) - 12 for offset in missed)  # the chunk that says END


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_truncated_pictures_are_refused(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", picture(0))
    raw = path.read_bytes()
    for part in (0.0, 0.3, 0.6, 0.97):
        path.write_bytes(raw[: int(part * len(raw))])
        with pytest.raises(DataFault, match=rf"a\.{ending}: no .* file, or a damaged one"):
            read_picture(path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_bomb_is_refused_by_its_header(tmp_path):
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(64), 9)
    path = tmp_path / "bomb.png"
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataFault, match=r"8000 x 8000 pixels in .* a decompression bomb"):
        read_picture(path)


def test_what_is_no_grey_or_colour_picture_is_refused(tmp_path):
    save(tmp_path / "a.png", picture(0, shape=(*SHAPE, 4)))
    with pytest.raises(DataFault, match="mode RGBA, expected grey or 8-bit RGB"):
        read_picture(tmp_path / "a.png")
    pages = [Image.fromarray(picture(n)) for n in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataFault, match="holds 3 pictures, expected one"):
        read_picture(tmp_path / "a.tif")
    save(tmp_path / "b.png", picture(0)).rename(tmp_path / "b.jpg")
    with pytest.raises(DataFault, match="no JPEG file"):
        read_picture(tmp_path / "b.jpg")


def test_colours_of_16_bits_are_refused_for_pillow_would_cut_them(tmp_path):
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = zlib.compress(b"\0" + bytes(12))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataFault, match="RGB of 16 bits"):
        read_picture(tmp_path / "a.png")


def test_another_depth_than_the_first_picture_s_is_refused(folder):
    source = opened(folder)
    other = source.train_ids[3]
    save(folder / "images" / f"{other}.png", picture(0, np.uint16))
    with pytest.raises(DataFault, match=r"1 channel\(s\) of uint16, expected 1 of uint8"):
        source.load(other)


def test_an_image_without_its_mask_is_refused(folder):
    (folder / "masks" / "benign" / "p0_0.png").unlink()
    with pytest.raises(DataFault, match=r"p0_0\.png: has no mask, expected one in .*masks"):
        opened(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataFault, match="no picture"):
        opened(tmp_path)
    with pytest.raises(DataFault, match="no such folder"):
        opened(tmp_path / "none")
    with pytest.raises(DataFault, match="--read masks=gt: no folder"):
        opened(tmp_path, masks="gt")


def test_check_tells_everything_in_one_pass(folder):
    images, masks = folder / "images", folder / "masks"
    path = images / "benign" / "p0_0.png"
    path.write_bytes(path.read_bytes()[:200])
    save(masks / "malignant" / "p0_1.png", disc(3)[:, 1:])
    save(masks / "benign" / "p0_2.png", np.full(SHAPE, 7, np.uint8))
    save(images / "malignant" / "p0_3.png", picture(0, np.uint16))
    (masks / "benign" / "p1_4.png").unlink()
    save(images / "benign" / "p1_6.tif", picture(0))
    save(images / "malignant" / "p1_5.png", picture(9))
    save(masks / "spare.png", disc(3))
    checked = check_pictures(SourceRequest("pictures", str(folder)), lambda done, total: None)
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
    found = [finding.message for finding in checked.findings]
    for name, words in said.items():
        assert [m for m in found if name in m and words in m], (name, found)
    assert len(found) == len(said)
    levels = [finding.level for finding in checked.findings]
    assert levels == sorted(levels)
    assert [f.level for f in checked.findings if "spare" in f.message] == ["warning"]


def test_the_same_picture_on_both_sides_is_an_error(folder):
    source = opened(folder)
    content = (folder / "images" / f"{source.train_ids[0]}.png").read_bytes()
    for other, level in ((source.train_ids[1], "warning"), (source.held_out_ids[0], "error")):
        path = folder / "images" / f"{other}.png"
        before = path.read_bytes()
        path.write_bytes(content)
        checked = check_pictures(source.request, lambda done, total: None)
        assert [(f.level, "same pixels" in f.message) for f in checked.findings] == [(level, True)]
        path.write_bytes(before)


def test_check_finds_nothing_wrong_with_a_sound_folder(folder):
    request = SourceRequest("pictures", str(folder), subjects=r"/(p\d)_")
    checked = check_pictures(request, lambda done, total: None)
    assert (checked.cases, list(checked.findings)) == (20, [])
