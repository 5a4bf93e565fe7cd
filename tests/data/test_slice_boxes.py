"""``--read boxes=``: a box around each connected part of labels; of slices, pictures, volumes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.opening import open_source
from tests.conftest import DATA, save_nifti

BRATS = DATA / "brats2015_deepmedic"


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Two volumes (z, y, x) of 4 x 12 x 16, alike but for noise.

    A part of 1 and 2 together and one of 2 alone in the slices 1 and 2; a speck of 2 in slice 1.
    """
    rng = np.random.default_rng(0)
    labels = np.zeros((4, 12, 16), np.uint8)
    labels[1:3, 2:6, 3:9] = 1
    labels[1:3, 4:6, 5:8] = 2
    labels[1:3, 8:11, 10:12] = 2
    labels[1, 0, 15] = 2
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    for case in ("a", "b"):
        image = rng.normal(100, 10, labels.shape).astype(np.float32)
        for kind, array in (("images", image), ("labels", labels)):
            turned = array.transpose(2, 1, 0)[::-1, ::-1]
            save_nifti(tmp_path / "set" / kind / f"{case}.nii.gz", turned, affine)
    return tmp_path / "set"


def opened(text: str, **read: str) -> Any:
    return open_source(SourceRequest.parse(text, read={"folds": "2", **read}))


def rows(case: Any) -> list[tuple[int, ...]]:
    return [(int(n), *map(int, box)) for n, box in zip(case.boxes.labels, case.boxes.coords,
                                                       strict=True)]  # fmt: skip


def test_labels_together_make_one_box(volumes):
    source = opened(f"slices:nifti:{volumes}", boxes="lesion:1+2")
    assert source.schema.box_classes == ("lesion",)
    case = source.load("a/axi001")
    assert rows(case) == [(0, 2, 3, 6, 9), (0, 8, 10, 11, 12), (0, 0, 15, 1, 16)]
    assert rows(source.load("a/axi002")) == [(0, 2, 3, 6, 9), (0, 8, 10, 11, 12)]
    assert source.load("a/axi000").boxes.coords.shape == (0, 4)


def test_small_parts_have_no_box(volumes):
    source = opened(f"slices:nifti:{volumes}", boxes="lesion:1+2", least="2")
    assert len(source.load("a/axi001").boxes.coords) == 2


def test_each_label_may_be_a_class(volumes):
    source = opened(f"slices:nifti:{volumes}", boxes="yes", labels="edema:1,core:2", least="2")
    assert source.schema.box_classes == ("edema", "core")
    found = rows(source.load("a/axi001"))
    assert found == [(0, 2, 3, 6, 9), (1, 4, 5, 6, 8), (1, 8, 10, 11, 12)]


def test_classes_may_overlap(volumes):
    source = opened(f"slices:nifti:{volumes}", boxes="whole:1+2,core:2", least="2")
    assert [row[0] for row in rows(source.load("a/axi001"))] == [0, 0, 1, 1]


def test_boxes_shrink_with_the_slice(volumes):
    source = opened(f"slices:nifti:{volumes}", boxes="lesion:1+2", resize="6x8")
    np.testing.assert_allclose(source.load("a/axi002").boxes.coords[0], [1, 1.5, 3, 4.5])


def test_volumes_have_boxes_of_their_own(volumes):
    case = opened(f"nifti:{volumes}", boxes="lesion:1+2", least="2").load("a")
    assert rows(case) == [(0, 1, 2, 3, 3, 6, 9), (0, 1, 8, 10, 3, 11, 12)]


def test_a_box_of_the_volume_may_be_cut_instead(volumes):
    asked = {"inner.boxes": "lesion:1+2", "inner.least": "2"}
    source = opened(f"slices:nifti:{volumes}", **asked)
    assert source.schema.box_classes == ("lesion",)
    assert len(source.load("a/axi001").boxes.coords) == 2


def test_what_is_asked_for_is_in_the_record_and_nothing_else_is(volumes):
    plain = opened(f"slices:nifti:{volumes}").space.host["slices"]
    assert not {"boxes", "least"} & set(plain)
    asked = opened(f"slices:nifti:{volumes}", boxes="lesion:1+2").space.host["slices"]
    assert asked["boxes"] == {"of": {"lesion": (1, 2)}, "least": 1}
    assert opened(f"slices:nifti:{volumes}", boxes="no").schema.box_classes == ()


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ("lesion:3", "has no label 3, expected among 1 label 1, 2 label 2"),
        ("lesion", "'lesion' is not NAME:NUMBER+NUMBER"),
        ("a:1,a:2", "'a' occurs twice"),
        ("a:0", "is not NAME:NUMBER"),
    ],
)
@pytest.mark.parametrize("kind", ["slices:nifti", "nifti"])
def test_what_cannot_be_boxed_is_refused(volumes, kind, boxes, says):
    with pytest.raises(UsageFault) as caught:
        assert opened(f"{kind}:{volumes}", boxes=boxes).schema
    assert says in str(caught.value)


def test_volumes_without_labels_have_no_boxes(volumes):
    for path in (volumes / "labels").iterdir():
        path.unlink()
    (volumes / "labels").rmdir()
    with pytest.raises(UsageFault, match="has no label maps, expected some to draw boxes around"):
        opened(f"slices:nifti:{volumes}", boxes="yes")


def test_pictures_have_boxes_of_their_masks(tmp_path):
    mask = np.zeros((20, 24), np.uint8)
    mask[3:9, 4:7] = mask[12:15, 10:20] = 255
    for case in "abcd":
        for kind, array in (("images", mask + 1), ("masks", mask)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"{case}.png")
    source = opened(f"pictures:{tmp_path}", boxes="yes", resize="10x12")
    assert source.schema.box_classes == ("foreground",)
    np.testing.assert_allclose(source.load("a").boxes.coords, [[6, 5, 7.5, 10], [1.5, 2, 4.5, 3.5]])


@pytest.mark.data
def test_real_tumours_have_boxes(tmp_path):
    rows = ["case,T1c,label"]
    for folder in sorted(BRATS.iterdir()):
        if folder.is_dir():
            rows.append(
                f"{folder.name},{folder}/T1c_subtrMeanDivStd.nii.gz,{folder}/OTMultiClass.nii.gz"
            )
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    asked = {"allow_absolute": "yes", "boxes": "tumour:1+2+3+4", "least": "20", "slices": "60-64"}
    asked |= {"labels": "necrosis:1,edema:2,other:3,enhancing:4"}
    source = opened(f"slices:nifti:{tmp_path / 'cases.csv'}", **asked)
    for case in source.cases(source.train_ids[::3]):
        for top, left, bottom, right in case.boxes.coords.astype(int):
            assert (case.labels[top:bottom, left:right] > 0).sum() >= 20
            for face in (case.labels[top, left:right], case.labels[top:bottom, right - 1]):
                assert (face > 0).any()
