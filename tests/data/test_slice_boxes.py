from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.run_source import open_source
from tests.data.sets import save, save_picture
from tests.expected import raises_fault

WHOLE = [(0, 2, 3, 6, 9), (0, 8, 10, 11, 12)]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """Two volumes (z, y, x) of 4 x 12 x 16, alike but for noise. Do not change them.

    A part of 1 and 2 together and one of 2 alone in the slices 1 and 2; a speck of 2 in slice 1.
    """
    folder: Path = tmp_path_factory.mktemp("boxes") / "set"
    rng = np.random.default_rng(0)
    labels = np.zeros((4, 12, 16), np.uint8)
    labels[1:3, 2:6, 3:9] = 1
    labels[1:3, 4:6, 5:8] = labels[1:3, 8:11, 10:12] = labels[1, 0, 15] = 2
    for case in ("a", "b"):
        image = rng.normal(100, 10, labels.shape).astype(np.float32)
        for kind, array in (("images", image), ("labels", labels)):
            turned = array.transpose(2, 1, 0)[::-1, ::-1]
            save(folder / kind / f"{case}.nii.gz", turned, np.diag([-1.0, -1.0, 1.0, 1.0]))
    return folder


def opened(text: str, **read: str) -> Any:
    return open_source(SourceRequest.parse(text, read={"folds": "2", **read}))


def rows(source: Any, case_id: str) -> list[tuple[int, ...]]:
    boxes = source.load(case_id).boxes
    pairs = zip(boxes.labels, boxes.coords, strict=True)
    return [(int(label), *map(int, box)) for label, box in pairs]


@pytest.mark.parametrize(
    ("read", "classes", "expected"),
    [
        ({"boxes": "lesion:1+2"}, ("lesion",), [*WHOLE, (0, 0, 15, 1, 16)]),
        ({"boxes": "lesion:1+2", "least": "2"}, ("lesion",), WHOLE),
        ({"inner.boxes": "lesion:1+2", "inner.least": "2"}, ("lesion",), WHOLE),
        ({"boxes": "yes", "labels": "edema:1,core:2", "least": "2"}, ("edema", "core"),
         [(0, 2, 3, 6, 9), (1, 4, 5, 6, 8), (1, 8, 10, 11, 12)]),
        ({"boxes": "whole:1+2,core:2", "least": "2"}, ("whole", "core"),
         [*WHOLE, (1, 4, 5, 6, 8), (1, 8, 10, 11, 12)]),
    ],
    ids=["together", "least", "of the volume", "each", "overlapping"],
)  # fmt: skip
def test_parts_of_labels_have_boxes(volumes, read, classes, expected):
    source = opened(f"slices:nifti:{volumes}", **read)
    assert source.schema.box_classes == classes
    assert rows(source, "a/axi001") == expected
    assert source.load("a/axi000").boxes.coords.shape == (0, 4)


def test_what_is_asked_for_is_in_the_record_and_nothing_else_is(volumes):
    plain = opened(f"slices:nifti:{volumes}", boxes="no")
    assert not {"boxes", "least"} & set(plain.space.host["slices"])
    assert plain.schema.box_classes == ()
    asked = opened(f"slices:nifti:{volumes}", boxes="lesion:1+2").space.host["slices"]
    assert asked["boxes"] == {"of": {"lesion": (1, 2)}, "least": 1}


@pytest.mark.parametrize(
    ("kind", "boxes", "says"),
    [
        ("slices:nifti", "lesion:3", "has no label 3, expected among 1 label 1, 2 label 2"),
        ("nifti", "lesion:3", "has no label 3, expected among 1 label 1, 2 label 2"),
        ("nifti", "lesion", "'lesion' is not NAME:NUMBER+NUMBER"),
        ("nifti", "a:1,a:2", "'a' occurs twice"),
        ("nifti", "a:0", "is not NAME:NUMBER"),
    ],
)
def test_what_cannot_be_boxed_is_refused(volumes, kind, boxes, says):
    with pytest.raises(UsageFault) as caught:
        assert opened(f"{kind}:{volumes}", boxes=boxes).schema
    assert says in str(caught.value)


def test_volumes_without_labels_have_no_boxes(volumes, tmp_path):
    (tmp_path / "images").symlink_to(volumes / "images")
    with raises_fault("connected-components.no-label-maps"):
        opened(f"slices:nifti:{tmp_path}", boxes="yes", **{"inner.allow_absolute": "yes"})


def test_pictures_have_boxes_of_their_masks(tmp_path):
    mask = np.zeros((20, 24), np.uint8)
    mask[3:9, 4:7] = mask[12:15, 10:20] = 255
    for case in "abcd":
        save_picture(tmp_path / f"images/{case}.png", mask + 1)
        save_picture(tmp_path / f"masks/{case}.png", mask)
    source = opened(f"pictures:{tmp_path}", boxes="yes", resize="10x12")
    assert source.schema.box_classes == ("foreground",)
    np.testing.assert_allclose(source.load("a").boxes.coords, [[6, 5, 7.5, 10], [1.5, 2, 4.5, 3.5]])
