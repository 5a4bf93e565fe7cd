import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import DataFault
from gansynth_yolo.coco import CocoSource, check_coco, open_coco
from gansynth_yolo.mirror import mirror
from gansynth_yolo.source import read_labels
from tests.expected import raises_fault
from tests.yolo_sets import coco_set

PEOPLE = "(p[0-9]+)_"
ROBOFLOW = ("train/_annotations.coco.json", "valid/_annotations.coco.json", "{split}/{name}")
OWN = (
    "annotations/instances_train2017.json",
    "annotations/instances_val2017.json",
    "images/{split}2017/{name}",
)


def opened(home: Path, **read: str) -> CocoSource:
    return open_coco(SourceRequest("coco", str(home), subjects=PEOPLE, read=read))


def told(home: Path, **read: str) -> str:
    """All that a check finds."""
    request = SourceRequest("coco", str(home), subjects=PEOPLE, read=read)
    return "\n".join(f.message for f in check_coco(request, lambda *_: None).findings)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("layout", [ROBOFLOW, OWN])
@pytest.mark.parametrize("form", ["polygons", "rle", "counts"])
def test_boxes_and_label_maps_are_those_of_pycocotools(tmp_path, run_cli, form, layout):
    train, _ = coco_set(tmp_path, form, layout)
    source, truth = opened(tmp_path), COCO(train)
    checked = run_cli("check", tmp_path, "--subjects", PEOPLE)
    assert f"coco:{tmp_path.name}: 12 cases; files: 0 error(s), 0 warning(s)" in checked.stdout
    assert f"next: gansynth fit parametric --data coco:{tmp_path} --subjects" in checked.stderr
    assert (len(source.train_ids), len(source.held_out_ids)) == (8, 4)
    assert source.schema.labels == {"background": 0, "lesion": 1, "cyst": 2}
    by_name = {Path(image["file_name"]).stem: number for number, image in truth.imgs.items()}
    seen = set()
    for case_id in source.train_ids:
        case: Any = source.load(case_id)
        annotations = truth.imgToAnns[by_name[case_id.split("/")[-1]]]
        expected = np.zeros((64, 64), np.int16)
        for each in sorted(annotations, key=lambda a: -a["bbox"][2] * a["bbox"][3]):
            expected[truth.annToMask(each) > 0] = each["category_id"]
        np.testing.assert_array_equal(case.labels, expected)
        x, y, w, h = np.reshape([a["bbox"] for a in annotations], (-1, 4)).T
        np.testing.assert_allclose(case.boxes.coords.T, [y, x, y + h, x + w], atol=1e-3)
        seen |= set(expected.ravel().tolist())
    assert seen == {0, 1, 2}


def test_a_detector_gets_the_same_boxes_as_files(tmp_path):
    coco_set(tmp_path / "set", "none", OWN)
    source = opened(tmp_path / "set")
    assert source.schema.labels == {"background": 0}
    copy = mirror(source, tmp_path / "mirror").parent
    files = sorted((copy / "labels/train").iterdir())
    for image, file in zip(source.images["train"], files, strict=True):
        rows, _, _ = read_labels(file, source.file.names, 0)
        np.testing.assert_allclose(rows, image.rows, atol=1e-5)


def test_one_file_without_a_split_has_folds_by_subject(tmp_path):
    train, _ = coco_set(tmp_path, "polygons", OWN)
    source = opened(train, folds="2", size="32x32")
    case: Any = source.load(source.train_ids[0])
    assert case.labels.shape == (32, 32)
    assert len({case.split("_")[0] for case in source.train_ids}) == 1
    assert len(source.train_ids) == len(source.held_out_ids) == 4
    assert source.request.where == str(train)


def annotation(**told: Any) -> Callable[[dict[str, Any]], None]:
    return lambda doc: doc["annotations"][0].update(told)


def image(**told: Any) -> Callable[[dict[str, Any]], None]:
    return lambda doc: doc["images"][0].update(told)


RLE = {"size": [64, 64], "counts": [70]}
FAULTS = [
    (annotation(category_id=7), "category_id is 7, expected one of the categories: 1 lesion"),
    (annotation(bbox=[1, 2, 0, 4]), "annotation 1, of p01_z000.png: w is '0.0'"),
    (annotation(bbox=[1, 2, 3, 90]), "the box reaches from x 0.01"),
    (annotation(bbox=[1, 2, float("nan"), 4]), "bbox.2: nan: Input should be a finite number"),
    (annotation(bbox=[], segmentation=[]), "neither bbox nor segmentation"),
    (annotation(segmentation=[[1, 2, 3]]), "segmentation"),
    (annotation(segmentation=[[1, 1, 1e9, 1, 5, 5]]), "a polygon reaches from 1 to 1e+09 pixels"),
    (annotation(segmentation=RLE), "RLE of 70 pixels and size [64, 64], expected those"),
    (annotation(segmentation=RLE | {"counts": "oooo"}), "RLE of"),
    (annotation(segmentation=RLE | {"counts": "\u20ac"}), "RLE of"),
    (image(file_name="none.png"), "image 1: none.png: no such image below"),
    (image(file_name="../../p.png"), "image 1: ../../p.png: no such image below"),
    (image(height=65), "64 x 64 pixels, but"),
    (lambda doc: doc["categories"].pop(), "categories are"),
    (lambda doc: doc["annotations"].clear(), "train: no image has an annotation"),
]
"""A change of the training images' file, and what a check and an opened source say."""


@pytest.mark.parametrize(("change", "says"), FAULTS)
def test_a_fault_is_named_with_its_entry(tmp_path, run_cli, change, says):
    train, _ = coco_set(tmp_path, "polygons", ROBOFLOW)
    document = json.loads(train.read_text())
    change(document)
    train.write_text(json.dumps(document))
    with pytest.raises(DataFault) as caught:
        _ = [source.load(c) for source in [opened(tmp_path, masks="yes")] for c in source.train_ids]
    assert says in str(caught.value)
    found = run_cli("check", tmp_path, "--read", "masks=yes")
    assert (found.exit_code, says in found.stdout + found.stderr) == (3, True)


def test_what_is_not_read_is_told(tmp_path):
    train, val = coco_set(tmp_path, "polygons", ROBOFLOW)
    document = json.loads(train.read_text())
    crowd, other = document["annotations"][:2]
    crowd |= {"iscrowd": 1, "segmentation": RLE}
    other["image_id"] = 999
    document["images"].pop()
    train.write_text(json.dumps(document))
    found = told(tmp_path)
    assert "1 annotation(s) of " in found
    assert "are crowds (iscrowd); they are left out, and count as background" in found
    assert "are of images that it does not list; they are not read" in found
    assert "1 image(s) are in no COCO file, such as " in found
    coco_set(tmp_path, "boxes", ROBOFLOW)
    assert "all outlines are rectangles; no label maps are made of them" in told(tmp_path)
    assert opened(tmp_path).schema.foreground == ()
    assert opened(tmp_path, masks="yes").schema.foreground == (1, 2)
    val.with_name("other.json").write_bytes(val.read_bytes())
    with raises_fault("yolo.coco-two-files-for-split"):
        opened(tmp_path)
