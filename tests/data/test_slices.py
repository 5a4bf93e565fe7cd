from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom

from gansynth.core.registry import installed
from gansynth.core.schema import Boxes, Case
from gansynth.core.source import (
    CaseHeader,
    CheckReport,
    Finding,
    SourceRequest,
    case_content,
    case_records,
    lineage_of,
)
from gansynth.data.h5 import write_h5
from gansynth.data.read_options import VolumeOptions
from gansynth.data.slices import SliceOptions, SliceSource, check_slices
from gansynth.testing import ToySource
from tests.data.sets import save
from tests.expected import raises_fault
from tests.offered import offered


class Volumes(ToySource):
    """Toy volumes of 14 x 15 x 16 voxels of which two belong to one person each."""

    read_options = VolumeOptions

    def __init__(self, request: SourceRequest):
        super().__init__(3)
        self.request = request

    def header(self, case_id: str) -> CaseHeader:
        return CaseHeader(f"p{int(case_id[-2:]) // 2}", (14, 15, 16), self.schema.spacing)

    def load(self, case_id: str) -> Case:
        case: Any = super().load(case_id)
        image, labels = case.image[:, 1:-1, 1:], case.labels[1:-1, 1:]
        boxes = Boxes(np.array([[2, 3, 4, 6, 8, 10]], np.float32), np.array([1], np.int16))
        return Case(case.id, self.header(case_id).subject, image, labels, boxes)


def check_volumes(request: Any, progress: Any) -> CheckReport:
    return CheckReport("volumes:x", 16, [])


@pytest.fixture(scope="module", autouse=True)
def volumes():
    with offered("volumes", sources={"volumes": Volumes}, checks={"volumes": check_volumes}):
        yield


VOLUME: Any = Volumes(SourceRequest("volumes", "x"))
LABELS = {case: VOLUME.load(case).labels for case in VOLUME.train_ids}


def request(where: str = "volumes:x", **read: str) -> SourceRequest:
    return SourceRequest("slices", where, read=read)


def opened(where: str = "volumes:x", **read: str) -> Any:
    return SliceSource(request(where, **read))


def labels_of(case_id: str, axis: int = 0) -> Any:
    case, number = case_id.split("/")
    return LABELS[case].take(int(number[3:]), axis)


@pytest.mark.parametrize(
    ("plane", "axis", "short"), [("axial", 0, "axi"), ("coronal", 1, "cor"), ("sagittal", 2, "sag")]
)
def test_a_plane_is_cut_across_its_axis(plane, axis, short):
    source = opened(plane=plane)
    case, volume = source.load(f"toy_01/{short}007"), VOLUME.load("toy_01")
    np.testing.assert_array_equal(case.image, volume.image.take(7, axis + 1))
    np.testing.assert_array_equal(case.labels, volume.labels.take(7, axis))
    assert len(source.train_ids) == 12 * (14, 15, 16)[axis]
    assert source.schema.axes == "HW"
    case.validate(source.schema)


def test_blank_slices_have_different_hashes():
    source = opened(plane="sagittal")
    blank = [i for i in source.train_ids if not source.load(i).image.any()]
    records = case_records(source, blank)
    assert len({record.sha256 for record in records}) == len(blank) > 1
    assert [case_content(source, record.id) for record in records] == [r.sha256 for r in records]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", [2]),
        ("12-99", [12, 13]),
        ("1,4-5", [1, 4, 5]),
        ("25%-50%", [3, 4, 5, 6]),
        ("0%-100%", list(range(14))),
    ],
)
def test_slices_are_chosen_by_number_or_share(text, expected):
    found = [i for i in opened(slices=text).train_ids if i.startswith("toy_00/")]
    assert found == [f"toy_00/axi{number:03d}" for number in expected]


@pytest.mark.parametrize(("thickness", "first", "last"), [(1.0, 80, 149), (2.0, 40, 74)])
def test_slices_of_some_millimetres_lie_there_whatever_their_thickness(thickness, first, last):
    chosen: Any = SliceOptions.model_validate({"slices": "80mm-150mm"}).slices
    assert chosen.of(round(240 / thickness), thickness) == list(range(first, last + 1))


def test_millimetres_of_volumes_without_a_voxel_size_are_refused(monkeypatch):
    monkeypatch.setattr(SliceSource, "unit", "px")
    with raises_fault("slices.voxel-size-not-known"):
        opened(slices="2mm-5mm").train_ids  # noqa: B018


def test_slices_are_chosen_by_their_foreground():
    every = opened(plane="sagittal").train_ids
    counts = {case: int((labels_of(case, 2) > 0).sum()) for case in every}
    some = opened(plane="sagittal", foreground="with", min_foreground="20").train_ids
    none = opened(plane="sagittal", foreground="without").train_ids
    assert set(some) == {case for case, count in counts.items() if count >= 20}
    assert set(none) == {case for case, count in counts.items() if count == 0}


def test_resized_slices_have_bilinear_images_and_nearest_labels():
    source = opened(resize="28x30")
    case, plane = source.load("toy_00/axi007"), opened().load("toy_00/axi007")
    assert source.space.size == (28, 30)
    how: dict[str, Any] = {"zoom": (28 / 15, 30 / 16), "grid_mode": True, "mode": "nearest"}
    np.testing.assert_array_equal(case.labels, zoom(plane.labels, order=0, **how))
    image = [zoom(channel, order=1, **how) for channel in plane.image]
    np.testing.assert_allclose(case.image, image, atol=1e-4)


def test_window_percentiles_are_those_of_the_volume():
    source = opened(window="1%:99%,0:1", plane="coronal")
    volume = VOLUME.load("toy_00").image
    low, high = np.percentile(volume[0], (1, 99))
    plane = source.load("toy_00/cor005").image
    np.testing.assert_allclose(plane[0], ((volume[0, :, 5] - low) / (high - low)).clip(0, 1), 1e-5)
    np.testing.assert_array_equal(plane[1], volume[1, :, 5].clip(0, 1))
    assert source.schema.outside_fill is None


def test_window_applies_to_the_outside_too():
    source = opened(window="-1:3")
    assert source.schema.outside_fill == (0.25, 0.25)
    case = source.load("toy_00/axi000")
    assert (case.image[:, case.labels == -1] == 0.25).all()


def test_channels_are_kept_by_name_or_are_cases_of_their_own():
    kept, image = opened(channels="second"), VOLUME.load("toy_00").image[:, 4]
    assert kept.schema.channels == ("second",)
    np.testing.assert_array_equal(kept.load("toy_00/axi004").image, image[1:])
    cases = opened(concat="yes", slices="4").train_ids
    assert cases[:2] == ("toy_00/axi004/first", "toy_00/axi004/second")


@pytest.fixture(scope="module")
def volume_cache(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("cache") / "v.h5"
    write_h5(VOLUME, path, chunk=8)
    return path


@pytest.mark.parametrize(
    "read",
    [{"slices": "4-5"}, {"plane": "sagittal", "foreground": "with"}, {"classes": "label"}],
    ids=str,
)
def test_slices_of_a_cache_are_those_of_the_original(volume_cache, read):
    cached = opened(f"h5:{volume_cache}", window="1%:99%", **read)
    source = opened(window="1%:99%", **read)
    assert cached.train_ids == source.train_ids
    if "slices" in read:
        assert lineage_of(cached) == lineage_of(source)
    one, two = (side.load(source.train_ids[8]) for side in (cached, source))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.boxes.coords, two.boxes.coords)
    some = source.train_ids[14:24]
    classes = [[side.header(i).label_class for i in some] for side in (cached, source)]
    assert classes[0] == classes[1]


def oriented(folder: Path, codes: str) -> str:
    """The same five heads in files whose voxels run as ``codes`` say; ``nifti:`` and the folder."""
    turn = nib.orientations.ornt_transform(
        *map(nib.orientations.axcodes2ornt, ("LPS", codes)),
    )
    rng = np.random.default_rng(0)
    for number in range(5):
        image = rng.normal(size=(12, 10, 8)).astype(np.float32)  # (x, y, z) to the left, back, head
        second = np.zeros(image.shape, np.uint8)
        second[2] = 1
        for part, array in (("images", image), ("labels", second)):
            stored = nib.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0]))
            turned = stored.as_reoriented(turn)
            path = folder / codes / part / f"case_{number}.nii.gz"
            save(path, np.asarray(turned.dataobj), turned.affine)
    return f"nifti:{folder / codes}"


RIGHT = {"plane": "sagittal", "slices": "2-4", "count_from": "right"}


@pytest.mark.parametrize("codes", ["RAS", "SPR"])
def test_slices_counted_from_a_side_are_the_same_whichever_way_the_file_runs(tmp_path, codes):
    lps, other = (opened(oriented(tmp_path, name), **RIGHT) for name in ("LPS", codes))
    assert lps.train_ids == other.train_ids
    assert (lps.space.oriented, opened().space.oriented) == (True, False)
    assert lps.schema.spacing == other.schema.spacing == (2, 1)
    assert lps.space.host["slices"]["count_from"] == "right"
    assert "count_from" not in opened().space.host["slices"]
    for case in lps.train_ids:
        one, two = lps.load(case), other.load(case)
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.labels, two.labels)
        # Of files that run from the right, as BRATS files do, it is their own second.
        assert (one.labels == 1).all() == case.endswith("009")
    with raises_fault("slices.side-not-of-plane"):
        opened(lps.request.where, **{**RIGHT, "count_from": "superior"})


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ({"plane": "axiall"}, "options.value-invalid"),
        ({"slices": "9-3"}, "options.value-invalid"),
        ({"slices": "10%-20"}, "options.value-invalid"),
        ({"window": "5:1"}, "options.value-invalid"),
        ({"window": "0:1,0:1,0:1"}, "picture-files.window-count-differs"),
        ({"channels": "T2"}, "slices.no-such-channel"),
        ({"resize": "64x64x64"}, "options.value-invalid"),
        ({"classes": "foreground", "foreground": "with"}, "slices.classes-with-one-foreground"),
        ({"classes": "label", "foreground": "without"}, "slices.classes-with-one-foreground"),
        (RIGHT, "slices.array-directions-unknown"),
        ({"where": "slices:volumes:x"}, "slices.slices-of-slices"),
        ({"where": "volumes"}, "source.data-malformed"),
    ],
)
def test_wrong_slice_options_are_refused(read, expected):
    with raises_fault(expected):
        opened(**read)


def test_unknown_slices_are_refused():
    with raises_fault("slices.no-such-slice"):
        opened().load("toy_00/axi014")
    for case in ("toy_00/sag001", "toy_00", "axi001"):
        with raises_fault("slices.no-such-case"):
            opened().load(case)


def test_check_slices_reports_faults_of_volumes_and_options(monkeypatch):
    def found(**read: str) -> CheckReport:
        return check_slices(request(**read), lambda done, total: None)

    assert found() == CheckReport("slices:volumes:x", 16 * 14, [])
    (error,) = found(slices="90-99").findings
    assert (error.level, "no slice is left of 12 train" in error.message) == ("error", True)
    (warning,) = found(classes="foreground", slices="8").findings
    assert warning.level == "warning"
    assert "no training case of fold 0 is of class 'without'" in warning.message
    damaged = Finding("error", "a", Path("a"), "damaged")
    inner = ("volumes", lambda: lambda request, progress: CheckReport("volumes:x", 3, [damaged]))
    monkeypatch.setitem(installed().loaders["checks"], "volumes", inner)
    assert found().findings == [damaged]


def test_a_slice_is_of_the_label_of_most_voxels():
    source = opened(classes="label")
    assert source.schema.classes == ("without", "one", "two")
    for case_id in source.train_ids[:40]:
        counts = [(labels_of(case_id) == value).sum() for value in (1, 2)]
        expected = 0 if not any(counts) else 1 + int(np.argmax(counts))
        assert source.header(case_id).label_class == expected
    only = opened(classes="label", foreground="with")
    assert only.schema.classes == ("one", "two")
    assert {only.header(i).label_class for i in only.train_ids} == {0, 1}
