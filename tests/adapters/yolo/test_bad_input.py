"""What is wrong with a YOLO data set is one line: file, line or key, value, what was expected."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth_yolo.check import check_yolo
from gansynth_yolo.source import open_yolo
from tests.yolo_sets import toy_yolo

FIRST = "p01_z000"


def opened(data: Path, **asked: Any) -> Any:
    return open_yolo(SourceRequest("yolo", str(data), **asked))


def change(data: Path, **keys: Any) -> None:
    """Change keys of ``data.yaml``; None takes one out."""
    document = yaml.safe_load(data.read_text()) | keys
    document = {key: value for key, value in document.items() if value is not None}
    data.write_text(yaml.safe_dump(document, sort_keys=False))


def label(data: Path, name: str = FIRST) -> Path:
    return data.parent / "labels" / "train" / f"{name}.txt"


def picture(data: Path, name: str = FIRST) -> Path:
    return data.parent / "images" / "train" / f"{name}.png"


def refused(data: Path, kind: type[GansynthError], *says: object, **asked: Any) -> None:
    """Opening raises one line; checking finds that very line."""
    with pytest.raises(kind) as caught:
        opened(data, **asked)
    message = str(caught.value)
    assert "\n" not in message
    assert [str(words) for words in says if str(words) not in message] == [], message
    assert message in errors(SourceRequest("yolo", str(data), **asked))


def errors(request: SourceRequest) -> list[str]:
    """What checking finds, or what it stops at."""
    try:
        checked = check_yolo(request, lambda *_: None)
    except GansynthError as fault:
        return [str(fault)]
    return [f.message for f in checked.findings if f.level == "error"]


GOOD = "0 0.5 0.5 0.1 0.1"
LINES = {
    "three columns": ("0 0.5 0.5", "3 column(s), expected 5: CLASS XC YC W H"),
    "a confidence": (GOOD + " 0.9", "6 columns"),
    "a polygon": ("0 .1 .1 .2 .1 .2 .2 .1 .2", "9 columns, a polygon of 4 points"),
    "a word": ("0 0.5 half 0.1 0.1", "yc is 'half', expected a finite number"),
    "NaN": ("0 0.5 0.5 nan 0.1", "w is 'nan', expected a finite number"),
    "infinite": ("0 0.5 0.5 1e999 0.1", "the box reaches from"),
    "a class too many": ("1 0.5 0.5 0.1 0.1", "class is 1, expected a whole number from 0 to 0"),
    "a huge class": ("1e99 0.5 0.5 0.1 0.1", "class is 1e99"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", "class is 0.5"),
    "a class below": ("-1 0.5 0.5 0.1 0.1", "class is -1"),
    "no width": ("0 0.5 0.5 0 0.1", "w and h are 0 and 0.1, expected both above 0"),
    "a height below": ("0 0.5 0.5 0.1 -0.1", "w and h are 0.1 and -0.1"),
    "outside": ("0 0.99 0.5 0.1 0.1", "to x 1.04, y 0.55, expected shares of the image, 0 to 1"),
    "above": ("0 0.5 0.02 0.1 0.1", "from x 0.45, y -0.03"),
    "pixels": ("0 32 32 10 10", "are these pixels?"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_named(yolo_copy, name):
    line, says = LINES[name]
    label(yolo_copy).write_text(f"{GOOD}\n\n{line}\n")
    refused(yolo_copy, DataFault, f"{label(yolo_copy)}: line 3: ", says)


def test_a_little_overshoot_is_clipped(yolo_copy):
    label(yolo_copy).write_text("0 0.955 0.5 0.1 0.1\n")
    case = opened(yolo_copy).load(f"train/{FIRST}")
    np.testing.assert_allclose(case.boxes.coords, [[28.8, 57.92, 35.2, 64]], atol=1e-4)


def test_more_overshoot_is_clipped_where_it_is_asked_for(yolo_copy):
    label(yolo_copy).write_text("0 0.99 0.5 0.1 0.1\n")
    case = opened(yolo_copy, read={"overshoot": "0.05"}).load(f"train/{FIRST}")
    np.testing.assert_allclose(case.boxes.coords[0, 3], 64)


def test_a_label_file_that_is_no_text(yolo_copy):
    label(yolo_copy).write_bytes(b"0 0.5 0.5 0.1 0.1\n\xff\xfe0 0.5\n")
    refused(yolo_copy, DataFault, f"{label(yolo_copy)}: line 2: byte 18 is not UTF-8")


def test_a_byte_order_mark_and_other_line_ends_are_read(yolo_copy):
    label(yolo_copy).write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n".encode())
    assert len(opened(yolo_copy).image(f"train/{FIRST}").rows) == 1


def test_a_huge_label_file(yolo_copy, monkeypatch):
    monkeypatch.setattr("gansynth_yolo.labels.MOST_BYTES", 30)
    label(yolo_copy).write_text(f"{GOOD}\n" * 2)
    refused(yolo_copy, DataFault, f"{label(yolo_copy)}: 36 bytes, expected at most 30")


def test_a_missing_label_file(yolo_copy):
    label(yolo_copy).unlink()
    says = (picture(yolo_copy), label(yolo_copy), "--read missing=background")
    refused(yolo_copy, DataFault, *says)
    source = opened(yolo_copy, read={"missing": "background"})
    assert source.load(f"train/{FIRST}").boxes.coords.shape == (0, 4)


def test_an_empty_label_file_is_a_background(yolo_copy):
    label(yolo_copy).write_text("")
    assert opened(yolo_copy).load(f"train/{FIRST}").boxes.coords.shape == (0, 4)


# -- images ----------------------------------------------------------------------------------------


def test_colour_among_grey(yolo_copy):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(picture(yolo_copy))
    refused(yolo_copy, DataFault, picture(yolo_copy), "is RGB, expected grey as 27 of 28")
    assert opened(yolo_copy, read={"colour": "grey"}).schema.channels == ("grey",)


def test_grey_among_colour(yolo_copy):
    for path in yolo_copy.parent.rglob("*.png"):
        if path != picture(yolo_copy):
            Image.open(path).convert("RGB").save(path)
    refused(yolo_copy, DataFault, picture(yolo_copy), "is grey, expected RGB")


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "no PNG file"), (b"\x89PNG\r\n\x1a\n", "no PNG file")]
)
def test_no_image_in_the_file(yolo_copy, content, says):
    picture(yolo_copy).write_bytes(content)
    refused(yolo_copy, DataFault, picture(yolo_copy), says, "copy it from its source again")


def test_a_flipped_bit_is_found_by_check(yolo_copy):
    data = bytearray(picture(yolo_copy).read_bytes())
    data[len(data) // 2] ^= 1
    picture(yolo_copy).write_bytes(data)
    checked = check_yolo(SourceRequest("yolo", str(yolo_copy)), lambda *_: None)
    assert [(f.level, f.file) for f in checked.findings][:1] == [("error", picture(yolo_copy))]


def test_a_tiny_image(yolo_copy):
    Image.fromarray(np.zeros((8, 64), np.uint8)).save(picture(yolo_copy))
    refused(yolo_copy, DataFault, picture(yolo_copy), "8 x 64 pixels, expected at least 10 x 10")


def test_a_transparent_image(yolo_copy):
    Image.fromarray(np.zeros((64, 64, 4), np.uint8)).save(picture(yolo_copy))
    refused(yolo_copy, DataFault, picture(yolo_copy), "mode RGBA, expected grey of 8 or 16 bits")


def test_an_image_that_is_to_be_turned(yolo_copy):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(picture(yolo_copy), exif=exif)
    refused(yolo_copy, DataFault, picture(yolo_copy), "EXIF orientation is 6")


def test_an_unsupported_format(yolo_copy):
    path = picture(yolo_copy).with_suffix(".bmp")
    Image.open(picture(yolo_copy)).save(path)
    refused(yolo_copy, DataFault, path, "is no .png, .tif, .tiff, .jpg, .jpeg", "convert it")


def test_two_images_of_one_label_file(yolo_copy):
    Image.open(picture(yolo_copy)).save(picture(yolo_copy).with_suffix(".jpg"))
    refused(yolo_copy, DataFault, f"has the same label file as {FIRST}")


# -- data.yaml -------------------------------------------------------------------------------------

KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "no val": ({"val": None}, "val: missing, expected a folder of images"),
    "no train": ({"train": ""}, "train: '', expected a folder of images"),
    "train is a number": ({"train": 3}, "train: 3, expected a folder"),
    "train is not there": ({"train": "pictures"}, "train: 'pictures' is neither a folder nor"),
    "names and nc": ({"nc": 2}, "nc: 2, but names has 1, expected equal"),
    "nc is a word": ({"nc": "one"}, "nc: 'one', expected the number of classes"),
    "no names": ({"names": None, "nc": None}, "names: None, expected the names of the classes"),
    "names from one": ({"names": {1: "lesion"}}, "names: has the keys [1], expected 0, 1, 2"),
    "names twice": ({"names": ["a", "a"], "nc": 2}, "names: 'a' occurs twice"),
    "no is a name": ({"names": [False]}, "class 0 is False, expected a name (YAML takes"),
    "a name of two lines": ({"names": ["a\nb"]}, "expected a name that prints on one line"),
    "four channels": ({"channels": 4}, "channels: 4, expected 1 or 3"),
    "path is not there": ({"path": "nowhere"}, "path: 'nowhere' is no folder"),
    "an empty folder": ({"train": "empty"}, "train: no image (.png, .tif"),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_bad_key_is_named(yolo_copy, name):
    keys, says = KEYS[name]
    (yolo_copy.parent / "empty").mkdir()
    change(yolo_copy, **keys)
    refused(yolo_copy, DataFault, f"{yolo_copy}: ", says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "not YAML"),
        (b"- 1", "holds a list"),
        (b"", "holds a NoneType"),
        (b"names: \xff", "byte 7 is not UTF-8"),
        (b"train: 2020-99-99", "not YAML"),
    ],
)
def test_no_yaml(yolo_copy, content, says):
    yolo_copy.write_bytes(content)
    refused(yolo_copy, DataFault, f"{yolo_copy}: ", says)


def test_nothing_in_it_is_run(yolo_copy, tmp_path):
    change(yolo_copy, download=f"open({str(tmp_path / 'ran')!r}, 'w')")
    opened(yolo_copy)
    yolo_copy.write_text("names: !!python/object/apply:os.getcwd []\n")
    refused(yolo_copy, DataFault, "not YAML")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["train", "val", "test", "path"])
def test_a_path_that_leads_out(yolo_copy, tmp_path, key):
    shutil.copytree(yolo_copy.parent / "images", tmp_path / "other" / "images")
    change(yolo_copy, **{key: f"../other/images/{key}" if key != "path" else "../other"})
    refused(yolo_copy, IntegrityFault, f"{yolo_copy}: {key}: ", "'../other", "allow_outside=yes")


def test_an_absolute_path_inside_is_fine_and_one_outside_is_not(yolo_copy, tmp_path):
    change(yolo_copy, path=str(yolo_copy.parent))
    opened(yolo_copy)
    change(yolo_copy, path=str(tmp_path))
    refused(yolo_copy, IntegrityFault, f"{yolo_copy}: path: ", "allow_outside=yes")


def test_the_usual_slip_of_exports_is_explained(yolo_copy):
    change(yolo_copy, train="../images/train")
    refused(yolo_copy, IntegrityFault, "'../images/train' ('images/train' is there)")


def test_a_link_that_leads_out(yolo_copy, tmp_path):
    moved = tmp_path / "elsewhere.png"
    picture(yolo_copy).rename(moved)
    picture(yolo_copy).symlink_to(moved)
    refused(yolo_copy, IntegrityFault, picture(yolo_copy), "leads out of", "allow_outside=yes")
    assert f"train/{FIRST}" in opened(yolo_copy, read={"allow_outside": "yes"}).train_ids


def test_a_label_link_that_leads_out(yolo_copy, tmp_path):
    label(yolo_copy).rename(tmp_path / "elsewhere.txt")
    label(yolo_copy).symlink_to(tmp_path / "elsewhere.txt")
    refused(yolo_copy, IntegrityFault, label(yolo_copy), "leads out of")


def test_links_in_a_circle_end(yolo_copy):
    (yolo_copy.parent / "images" / "train" / "again").symlink_to("../train")
    assert len(opened(yolo_copy).train_ids) == 16


def test_a_list_with_an_image_that_is_not_there(yolo_copy):
    listed = yolo_copy.with_name("train.txt")
    listed.write_text(f"images/train/{FIRST}.png\nimages/train/gone.png\n")
    change(yolo_copy, train="train.txt")
    refused(yolo_copy, DataFault, f"{listed}: line 2: no image", "gone.png")


def test_a_list_that_is_no_text(yolo_copy):
    listed = yolo_copy.with_name("train.txt")
    listed.write_bytes(b"images/train/a.png\n\xff\n")
    change(yolo_copy, train="train.txt")
    refused(yolo_copy, DataFault, f"{listed}: line 2: not UTF-8")


def test_no_box_in_train(yolo_copy):
    for path in (yolo_copy.parent / "labels" / "train").glob("*.txt"):
        path.write_text("")
    refused(yolo_copy, DataFault, f"{yolo_copy}: train: none of 16 images has a box")


# -- leakage ---------------------------------------------------------------------------------------


def test_val_is_train(yolo_copy):
    change(yolo_copy, val="images/train")
    refused(yolo_copy, IntegrityFault, "16 image(s) are in two splits: train/p01_z000 (train and")


def test_a_list_of_val_names_a_training_image(yolo_copy):
    yolo_copy.with_name("val.txt").write_text(f"images/train/{FIRST}.png\n")
    change(yolo_copy, val=["images/val", "val.txt"])
    refused(yolo_copy, IntegrityFault, f"1 image(s) are in two splits: train/{FIRST}")


def other(data: Path) -> Path:
    return data.parent / "images" / "val" / "p05_z000.png"


def test_the_same_file_under_two_names(yolo_copy):
    other(yolo_copy).unlink()
    os.link(picture(yolo_copy), other(yolo_copy))
    refused(yolo_copy, IntegrityFault, f"train/{FIRST} (train) and val/p05_z000 (val), one file")


def test_the_same_bytes_under_two_names(yolo_copy):
    shutil.copy(picture(yolo_copy), other(yolo_copy))
    refused(yolo_copy, IntegrityFault, f"{FIRST} (train) and val/p05_z000 (val), the same bytes")


def test_the_same_pixels_in_another_file_are_found_by_check(yolo_copy):
    pixels = Image.open(picture(yolo_copy))
    pixels.save(other(yolo_copy), compress_level=1)
    source = opened(yolo_copy)
    records = [source.record(case).sha256 for case in (f"train/{FIRST}", "val/p05_z000")]
    assert records[0] == records[1]
    checked = check_yolo(SourceRequest("yolo", str(yolo_copy)), lambda *_: None)
    assert "same pixels" in checked.findings[0].message


def test_blank_images_are_no_leak(yolo_copy):
    for path in (picture(yolo_copy), other(yolo_copy)):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    source = opened(yolo_copy)
    cases = (f"train/{FIRST}", "val/p05_z000")
    records = {source.record(case).sha256 for case in cases}
    assert len(records) == 2
    assert {source.content(case) for case in cases} == records


def test_a_person_on_both_sides(yolo_copy):
    refused(yolo_copy, IntegrityFault, "whose subject is also in training", subjects="z([0-9]+)")


def test_a_volume_on_both_sides(tmp_path):
    data = toy_yolo(tmp_path / "set", val=4, test=0)
    for kind in ("images", "labels"):
        for path in (tmp_path / "set" / kind / "val").iterdir():
            path.rename(path.with_name(path.name.replace("p05", "p01").replace("_z", "_z1")))
    read = {"volumes": "(.+)_z([0-9]+)"}
    refused(data, IntegrityFault, "(subject p01)", read=read)
    refused(data, IntegrityFault, "(subject p01)", subjects="(.+)_z")


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"fold": "1"}, "--fold '1'"),
        ({"read": {"sizes": "1"}}, "Did you mean 'size'?"),
        ({"read": {"volumes": "(p)"}}, "has 1 group(s), expected two"),
        ({"read": {"volumes": "("}}, "no regular expression"),
        ({"read": {"overshoot": "2"}}, "--read overshoot=2"),
    ],
)
def test_a_bad_option(shared_yolo, asked, says):
    with pytest.raises(UsageFault) as caught:
        opened(shared_yolo, **asked)
    assert says in str(caught.value)


def test_an_expression_that_does_not_match(shared_yolo):
    read = {"volumes": "(q)_([0-9]+)"}
    refused(shared_yolo, DataFault, "finds no volume and number of a slice", read=read)


@pytest.mark.parametrize("where", ["nowhere", "nowhere/data.yaml"])
def test_no_such_data_set(tmp_path, where):
    with pytest.raises(DataFault, match="no such file, expected data"):
        opened(tmp_path / where)


# -- warnings --------------------------------------------------------------------------------------


def warnings(data: Path, **read: str) -> str:
    checked = check_yolo(SourceRequest("yolo", str(data), read=read), lambda *_: None)
    assert all(finding.level == "warning" for finding in checked.findings)
    return "\n".join(finding.message for finding in checked.findings)


def test_check_warns_of_repeated_rows_and_spare_label_files(yolo_copy):
    label(yolo_copy).write_text(f"{GOOD}\n{GOOD}\n")
    label(yolo_copy, "spare").write_text(GOOD)
    label(yolo_copy, "classes").write_text("lesion\n")
    (yolo_copy.parent / "labels" / "train.cache").write_bytes(b"\0")
    said = warnings(yolo_copy)
    assert f"{label(yolo_copy)}: line 2: repeats an earlier line" in said
    assert f"{label(yolo_copy, 'spare')}: a label file without an image" in said
    assert len(said.splitlines()) == 2
    assert len(opened(yolo_copy).image(f"train/{FIRST}").rows) == 1


def test_check_warns_of_16_bits_in_a_small_range(tmp_path):
    data = toy_yolo(tmp_path / "set", bits=16)
    assert warnings(data) == ""
    for path in data.parent.rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) // 20).astype(np.uint16)).save(path)
    assert "detectors see the upper byte, " in warnings(data)


def test_check_warns_of_tiny_boxes_and_of_backgrounds_only(yolo_copy):
    label(yolo_copy).write_text("0 0.5 0.5 0.01 0.01\n")
    for path in (yolo_copy.parent / "labels" / "val").glob("*.txt"):
        path.write_text("")
    said = warnings(yolo_copy)
    assert "boxes of less than 8 pixels at an image size of 640, the least 6.4" in said
    assert "val: no image has a box" in said


def test_check_warns_of_a_class_without_boxes(yolo_copy):
    change(yolo_copy, names=["lesion", "cyst"], nc=2)
    assert "class 1 'cyst' has no box in train" in warnings(yolo_copy)
