import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gansynth.core.source import SourceRequest, case_content, case_record
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth_yolo.source import check_yolo
from tests.yolo_sets import opened, toy_yolo

Change = Callable[[Path], Any]
IMAGE, LABEL = "images/train/p01_z000.png", "labels/train/p01_z000.txt"
OTHER = "images/val/p02_z000.png"
FIRST, GOOD = "train/p01_z000", "0 0.5 0.5 0.1 0.1"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A person in each split."""
    folder: Path = tmp_path_factory.mktemp("toy") / "set"
    toy_yolo(folder, train=4, val=4, test=4)
    return folder


@pytest.fixture
def data(original, tmp_path) -> Path:
    """``data.yaml`` of a data set that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "set")) / "data.yaml"


def keys(**told: Any) -> Change:
    """Changes keys of ``data.yaml``; None takes one out."""

    def change(home: Path) -> None:
        document = yaml.safe_load((home / "data.yaml").read_text()) | told
        document = {key: value for key, value in document.items() if value is not None}
        (home / "data.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    return change


def text(content: str | bytes, name: str = LABEL, **told: Any) -> Change:
    """Writes a file, and changes keys of ``data.yaml``."""

    def change(home: Path) -> None:
        (home / name).write_bytes(content.encode() if isinstance(content, str) else content)
        if told:
            keys(**told)(home)

    return change


def picture(*shape: int, **how: Any) -> Change:
    return lambda home: Image.fromarray(np.zeros(shape, np.uint8)).save(home / IMAGE, **how)


def saved(name: str, **how: Any) -> Change:
    return lambda home: Image.open(home / IMAGE).save(home / name, **how)


def moved_out(name: str) -> Change:
    """Lets a file lie elsewhere, with a link to it."""

    def change(home: Path) -> None:
        (home / name).rename(home.parent / "elsewhere")
        (home / name).symlink_to(home.parent / "elsewhere")

    return change


def colour_others(home: Path) -> None:
    for path in home.rglob("*.png"):
        if path != home / IMAGE:
            Image.open(path).convert("RGB").save(path)


def emptied(split: str) -> Change:
    return lambda home: [p.write_text("") for p in (home / "labels" / split).glob("*.txt")]


TURNED = Image.Exif()
TURNED[274] = 6
LINES = {
    "0 0.5 0.5": "3 column(s), expected 5: CLASS XC YC W H",
    "0 .1 .1 .2 .1 .9": "6 column(s), expected 5: CLASS XC YC W H, without a confidence, or CLASS",
    "0 .1 .1 .2 .1 .2 .2 .1": "8 column(s), expected 5: ~X and Y of each corner of a polygon",
    "0 .1 .1 .2 .1 .3 .1": "the polygon has no area",
    "0 .1 .1 .2 nan .2 .2": "the polygon has no area, or a corner that is not a number",
    "0 .5 .9 .6 .9 .6 1.1": "to x 0.6, y 1.1, expected shares of the image, 0 to 1",
    "0 0.5 0.5 nan 0.1": "w is 'nan': Input should be a finite number",
    "1 0.5 0.5 0.1 0.1": "class is 1, but data.yaml names 1, counted from 0",
    "0 0.5 0.5 0 0.1": "w is '0': Input should be greater than 0",
    "0 0.99 0.5 0.1 0.1": "to x 1.04, y 0.55, expected shares of the image, 0 to 1",
    "0 32 32 10 10": "are these pixels?",
}
LISTED = {"name": "train.txt", "train": "train.txt"}
BAD: list[tuple[Change, str]] = [
    *((text(f"{GOOD}\n\n{line}\n"), f"{LABEL}: line 3: ~{said}") for line, said in LINES.items()),
    (text(f"{GOOD}\n".encode() + b"\xff\xfe0 0.5\n"), f"{LABEL}: line 2: byte 18 is not UTF-8"),
    (lambda home: (home / LABEL).unlink(), f"{IMAGE}~{LABEL}~--read missing=background"),
    (emptied("train"), "data.yaml: train: none of 4 images has a box"),
    # Images.
    (picture(64, 64, 3), f"{IMAGE}: is RGB, expected as 11 of 12"),
    (colour_others, f"{IMAGE}: is grey, expected as 11 of 12"),
    (text(b"", IMAGE), f"{IMAGE}~no PNG file~copy it from its source again"),
    (picture(8, 64), f"{IMAGE}~8 x 64 pixels~expected at least 10 x 10"),
    (picture(64, 64, 4), f"{IMAGE}~mode RGBA~grey of 8 or 16 bits"),
    (picture(64, 64, exif=TURNED), f"{IMAGE}~EXIF orientation 6"),
    (saved("images/train/p01_z000.bmp"), "000.bmp~is no .png, .tif, .tiff, .jpg, .jpeg~convert it"),
    (saved("images/train/p01_z000.jpg"), "has the same label file as p01_z000"),
    # data.yaml.
    (keys(val=None), "data.yaml: ~val: ~expected a folder of images"),
    (keys(train=""), "data.yaml: ~train: '', ~expected a folder of images"),
    (keys(train="pictures"), "data.yaml: ~train: 'pictures' is neither a folder nor"),
    (keys(test="../nowhere"), "data.yaml: test: '../nowhere' is neither~, or leave it out"),
    (keys(nc=2), "data.yaml: ~nc: 2, but names has 1, expected equal"),
    (keys(names=None, nc=None), "data.yaml: ~names: none, expected the names of the classes"),
    (keys(names={1: "lesion"}), "data.yaml: ~names: has the keys [1], not 0, 1, 2"),
    (keys(names=["a", "a"], nc=2), "data.yaml: ~names: 'a' occurs twice"),
    (keys(names=[False]), "data.yaml: ~names: False, ~yes, no, on and off in quotes"),
    (keys(channels=4), "data.yaml: ~channels: 4, ~1 or 3"),
    (keys(path="nowhere"), "data.yaml: ~path: 'nowhere' is no folder"),
    (keys(val="x" * 300), "data.yaml: val: ~is neither a folder nor"),
    (text("- 1", "data.yaml"), "data.yaml: ~holds a list"),
    (text("names: !!python/object/apply:os.getcwd []\n", "data.yaml"), "not YAML"),
    (text(f"{IMAGE}\nimages/train/gone.png\n", **LISTED), "train.txt: line 2: no image~gone.png"),
]  # fmt: skip
"""What is changed, and what is said then, parted by ~; a ``DataFault``."""
LEAKS: list[tuple[Change, str]] = [
    *((keys(**{key: f"../other/images/{key}"}), f"data.yaml: {key}: ~'../other~allow_outside=yes")
      for key in ("train", "val", "test")),
    (keys(val="../../val"), "data.yaml: val: ~'../../val' leads out of~allow_outside=yes"),
    (keys(path="../other"), "data.yaml: path: ~'../other~allow_outside=yes"),
    (moved_out(IMAGE), f"{IMAGE}~leads out of~allow_outside=yes"),
    (moved_out(LABEL), f"{LABEL}~leads out of"),
    (keys(val="images/train"), "4 image(s) are in two splits: train/p01_z000 (train and"),
    (text(IMAGE, "val.txt", val=["images/val", "val.txt"]), "1 image(s) are in two splits"),
    (lambda home: shutil.copy(home / IMAGE, home / OTHER),
     f"{FIRST} (train) and val/p02_z000 (val), the same bytes"),
]  # fmt: skip
"""The same where it is an ``IntegrityFault``."""
CASES = [*((DataFault, *case) for case in BAD), *((IntegrityFault, *case) for case in LEAKS)]


def refused(data: Path, kind: type[GansynthError], says: str, **asked: Any) -> None:
    """Opening raises one line; checking finds that very line."""
    with pytest.raises(kind) as caught:
        opened(data, **asked)
    message = str(caught.value)
    assert "\n" not in message
    assert [words for words in says.split("~") if words not in message] == [], message
    try:
        checked = check_yolo(SourceRequest("yolo", str(data), **asked), lambda *_: None)
        found = [f.message for f in checked.findings if f.level == "error"]
    except GansynthError as fault:
        found = [str(fault)]
    assert message in found


@pytest.mark.fault(14, of="RGB")
@pytest.mark.fault(16, of="line 3|line 2: byte|missing=")
@pytest.mark.fault(19, of="allow_outside|leads out|../images")
@pytest.mark.fault(22, of="YAML|a list|UTF-8")
@pytest.mark.parametrize(("kind", "change", "says"), CASES, ids=[case[2] for case in CASES])
def test_what_is_wrong_is_one_line(data, tmp_path, kind, change, says):
    if "../other" in says:
        shutil.copytree(data.parent / "images", tmp_path / "other" / "images")
    change(data.parent)
    refused(data, kind, says)


@pytest.mark.parametrize(
    ("asked", "kind", "says"),
    [
        ({"subjects": "z([0-9]+)"}, IntegrityFault, "whose subject is also in training"),
        ({"read": {"volumes": "(q)_([0-9]+)"}}, DataFault, "finds no volume and number of a slice"),
        ({"read": {"volumes": "(p)"}}, UsageFault, "has 1 group(s), expected two"),
        ({"read": {"volumes": "("}}, UsageFault, "missing )"),
        ({"read": {"overshoot": "2"}}, UsageFault, "--read overshoot=2"),
    ],
)
def test_a_bad_option_is_one_line(data, asked, kind, says):
    refused(data, kind, says, **asked)


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    ("change", "read", "boxes"),
    [
        (text("0 0.955 0.5 0.1 0.1\n"), {}, [[28.8, 57.92, 35.2, 64]]),
        (text("0 0.99 0.5 0.1 0.1\n"), {"overshoot": "0.05"}, [[28.8, 60.16, 35.2, 64]]),
        (text(f"\ufeff{GOOD}\r\n"), {}, [[28.8, 28.8, 35.2, 35.2]]),
        (text(f"{GOOD}\n{GOOD}\n"), {}, [[28.8, 28.8, 35.2, 35.2]]),
        (text("0 .5 .905 .6 .905 .6 1.005\n"), {}, [[57.92, 32, 64, 38.4]]),
        (text(f"{GOOD} .5 .6 .7 .8\n", kpt_shape=[2, 2]), {}, [[28.8, 28.8, 35.2, 35.2]]),
        (text(""), {}, np.zeros((0, 4))),
        (lambda home: (home / LABEL).unlink(), {"missing": "background"}, np.zeros((0, 4))),
        (lambda home: [picture(64, 64, 3)(home), text(GOOD)(home)], {"colour": "grey"},
         [[28.8, 28.8, 35.2, 35.2]]),
        (lambda home: [moved_out(IMAGE)(home), text(GOOD)(home)], {"allow_outside": "yes"},
         [[28.8, 28.8, 35.2, 35.2]]),
    ],
    ids=["overshoot", "more", "mark", "twice", "polygon", "keypoints", "empty", "missing", "colour",
         "outside"],
)  # fmt: skip
def test_what_is_odd_is_let_in_where_it_is_harmless_or_asked_for(data, change, read, boxes):
    change(data.parent)
    source = opened(data, read=read)
    assert source.schema.channels == ("grey",)
    found = source.load(FIRST).boxes
    assert found is not None
    np.testing.assert_allclose(found.coords, boxes, atol=1e-4)


def test_a_path_inside_and_links_in_a_circle_are_fine_and_nothing_is_run(data, tmp_path):
    home, ran = data.parent, tmp_path / "ran"
    (home / "images" / "train" / "again").symlink_to("../train")
    keys(path=str(home), download=f"open({str(ran)!r}, 'w')")(home)
    assert len(opened(data).train_ids) == 4
    assert not ran.exists()


def test_blank_images_are_no_leak(data):
    for name in (IMAGE, OTHER):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(data.parent / name)
    source, cases = opened(data), (FIRST, "val/p02_z000")
    records = {case_record(source, case).sha256 for case in cases}
    assert len(records) == 2
    assert {case_content(source, case) for case in cases} == records


def findings(data: Path) -> list[Any]:
    return [*check_yolo(SourceRequest("yolo", str(data)), lambda *_: None).findings]


def test_check_finds_pixels_that_are_in_two_splits_and_a_flipped_bit(data):
    home = data.parent
    saved(OTHER, compress_level=1)(home)
    source = opened(data)
    assert case_record(source, FIRST).image == case_record(source, "val/p02_z000").image
    assert "same pixels" in findings(data)[0].message
    damaged = bytearray((home / IMAGE).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (home / IMAGE).write_bytes(damaged)
    assert [(f.level, f.file) for f in findings(data)][:1] == [("error", home / IMAGE)]


def sixteen_bits(part: int) -> Change:
    """Gives all images 16 bits, of whose range they fill a part."""

    def change(home: Path) -> None:
        for path in home.rglob("*.png"):
            wide = np.asarray(Image.open(path)).astype(np.uint32) * 257 // part
            Image.fromarray(wide.astype(np.uint16)).save(path)

    return change


def spare(home: Path) -> None:
    for name, line in (("spare.txt", GOOD), ("classes.txt", "lesion\n"), ("../train.cache", "")):
        (home / "labels" / "train" / name).write_text(line)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (spare, ["labels/train/spare.txt: a label file without an image"]),
        (sixteen_bits(1), []),
        (sixteen_bits(20), ["detectors see the upper byte, "] * 12),
        (
            text("0 0.5 0.5 0.01 0.01\n"),
            ["boxes of less than 8 pixels at an image size of 640, the least 6.4"],
        ),
        (emptied("val"), ["val: no image has a box"]),
        (
            text(f"{GOOD}\n0 .1 .1 .4 .1 .3 .4\n0 .5 .5 .8 .5 .8 .8 .5 .8\n"),
            ["2 row(s) are polygons, read as the boxes around them, as ultralytics does"],
        ),
        (keys(names=["lesion", "cyst"], nc=2), ["class 1 'cyst' has no box in train"]),
    ],
)
def test_check_warns(data, change, says):
    change(data.parent)
    warned = findings(data)
    assert {finding.level for finding in warned} <= {"warning"}
    assert len(warned) == len(says)
    for finding, words in zip(warned, says, strict=True):
        assert words in finding.message
