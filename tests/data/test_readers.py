"""Formats of volumes: each is written by a library of its own, and read as the NIfTI file is."""

import json
import locale
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from gansynth import SourceRequest, check_reader, check_source, installed, open_source
from gansynth.core.volumes import VolumeReader, endings, read_volume, read_volume_header
from gansynth.data.case_writer import write_prediction
from gansynth.data.readers.itk import asked
from gansynth.data.readers.nibabel_formats import Nifti
from gansynth.runtime.errors import DataFault
from tests.data.sets import SHAPE, check, lesion, only, opened, save, volume
from tests.expected import raises_fault
from tests.offered import offered, registered

SPACING, ORIGIN = (2.0, 1.5, 3.0), (10.0, -20.0, 30.0)
STRAIGHT = np.diag([-1.0, -1.0, 1.0])  # of ITK, as arrays without a direction are read
DIRECTIONS = {
    "straight": STRAIGHT,
    "flipped": np.diag([1.0, -1.0, -1.0]),
    "turned": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "oblique": Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix(),
}
UNDIRECTED = {".npy", ".npz", ".tif"}  # have no direction, and their voxel size beside
DICOM = "a folder of DICOM"
FORMATS = [*endings(), ".tif", DICOM]
Array = np.ndarray


def image_of(array: Array, direction: Array = STRAIGHT, origin: Any = ORIGIN) -> Any:
    """An image of ITK, of voxels (x, y, z)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(SPACING)
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(origin)
    return image


def write(path: Path, array: Array, direction: Array = STRAIGHT) -> Path:
    """Write voxels (x, y, z) by the library that the format of a file's ending is of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, ending = image_of(array, direction), "".join(path.suffixes)
    if ending in UNDIRECTED:
        path.with_suffix(".json").write_text(json.dumps({"spacing": SPACING[::-1]}))
        array = np.ascontiguousarray(array.T)
    if ending == ".npy":
        np.save(path, array)
    elif ending == ".npz":
        np.savez_compressed(path, array)
    elif ending == ".tif":
        from tifffile import imwrite

        imwrite(path, array)
    elif ending.startswith(".mg"):
        affine = np.diag([-1.0, -1, 1, 1]) @ matrix_of(image)
        nib.save(nib.MGHImage(array, affine), path)
    elif ending:
        sitk.WriteImage(image, str(path), useCompression=ending in (".mha", ".nrrd"))
    else:
        write_series(path, image, direction)
    return path


def matrix_of(image: Any) -> Array:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def write_series(folder: Path, image: Any, direction: Array, series: str = "1.2.3") -> None:
    """Write slices whose names and numbers are in another order than their places."""
    folder.mkdir(exist_ok=True)
    writer, count = sitk.ImageFileWriter(), image.GetDepth()
    writer.KeepOriginalImageUIDOn()
    for number in range(count):
        plane = image[:, :, number]
        place = image.TransformIndexToPhysicalPoint((0, 0, number))
        tags = {
            "0008|0018": f"{series}.{number + 1}",
            "0008|0060": "MR",
            "0020|000d": "1.2",
            "0020|000e": series,
            "0020|0052": "1.2.9",
            "0020|0013": f"{count - number}",
            "0020|0032": "\\".join(map(str, place)),
            "0020|0037": "\\".join(map(str, (*direction[:, 0], *direction[:, 1]))),
        }
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{number * 5 % count}.dcm"))
        asked(partial(writer.Execute, plane))


def named(folder: Path, name: str, form: str) -> Path:
    return folder / (name if form == DICOM else f"{name}{form}")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("form", FORMATS)
def test_a_volume_has_the_voxels_and_the_place_that_its_nifti_file_has(tmp_path, form, direction):
    if form in UNDIRECTED and direction != "straight":
        return
    voxels, axes = volume().astype(np.int16), DIRECTIONS[direction]
    expected = read_volume(write(tmp_path / "n.nii.gz", voxels, axes))
    found = read_volume(write(named(tmp_path, "x", form), voxels, axes))
    assert np.array_equal(found.array, voxels)
    assert found.array.dtype == np.int16
    assert np.allclose(found.affine[:3, :3], expected.affine[:3, :3], atol=1e-5)
    if form not in UNDIRECTED:
        assert np.allclose(found.affine, expected.affine, atol=1e-4)
    header = read_volume_header(named(tmp_path, "x", form))
    assert header.shape == SHAPE
    assert header.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_of_any_format_is_checked_read_and_written_back(tmp_path, form):
    read = {"folds": "2"}
    if form == ".tif":  # a folder of TIFF files is one of pictures, unless a pattern names them
        read |= {"image": "images/{case}.tif", "label": "labels/{case}.tif"}
    for kind in (form, ".nii.gz"):
        for number in range(4):
            home = tmp_path / ("nifti" if kind == ".nii.gz" else "other")
            write(named(home / "images", f"p{number}", kind), volume(number).astype(np.int16))
            drawn = ".nii.gz" if form == DICOM else kind
            write(named(home / "labels", f"p{number}", drawn), lesion(number))
    if form == ".nii.gz":
        shutil.copytree(tmp_path / "nifti", tmp_path / "other")
    assert [finding.message for finding in check(tmp_path / "other", **read).findings] == []
    expected = opened(tmp_path / "nifti", folds="2")
    source = opened(tmp_path / "other", **read)
    assert source.train_ids == expected.train_ids
    for case in source.train_ids:
        one, other = source.load(case), expected.load(case)
        assert np.allclose(one.image, other.image)
        assert np.array_equal(one.labels, other.labels)
        assert source.header(case) == expected.header(case)
    case = source.train_ids[0]
    written = write_prediction(source, case, source.load(case).labels, tmp_path / "out")
    own = form if form in (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".npy", ".npz") else ""
    assert written is not None
    assert written.name == f"{case}{own or form * (form == '.seg.nrrd') or '.nii.gz'}"
    assert np.array_equal(source.files(case).read(written), expected.load(case).labels)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 16
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "a pointer of git-lfs": lambda path: path.write_bytes(b"version https://git-lfs" * 99),
    "zeros": lambda path: path.write_bytes(bytes(999)),
}
PACKED = (".nii.gz", ".nrrd", ".mha", ".mgz", ".npz")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", [*endings(), ".tif"])
def test_a_damaged_file_is_one_line_with_its_path(tmp_path, form, damage):
    path = write(tmp_path / f"x{form}", volume().astype(np.int16))
    DAMAGES[damage](path)
    own = locale.setlocale(locale.LC_CTYPE)
    with pytest.raises(DataFault) as caught:
        read_volume(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert locale.setlocale(locale.LC_CTYPE) == own  # libraries may change it


@pytest.mark.parametrize("form", PACKED)
def test_a_flipped_bit_of_compressed_voxels_is_found(tmp_path, form):
    path = write(tmp_path / f"x{form}", volume().astype(np.int16))
    flip_a_bit(path)
    with pytest.raises(DataFault, match=r"damaged|cannot be read"):
        read_volume(path)


@pytest.mark.parametrize("form", [form for form in endings() if form != ".hdr"])
def test_limits_hold_for_every_format(tmp_path, form):
    holed = volume()
    holed[0, 0, :2] = np.nan, np.inf
    path = write(tmp_path / f"x{form}", holed)
    with raises_fault("nifti.voxels-not-finite", names="1 NaN and 1 infinite"):
        read_volume(path)
    for read in (read_volume, read_volume_header):
        with raises_fault("nifti.announced-voxels-too-large"):
            read(path, max_bytes=100)
    with raises_fault("nifti.image-axes-differ"):
        read_volume(path, ndim=(4,))
    path.unlink()
    with raises_fault("nifti.file-missing"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
def test_channels_come_last(tmp_path, ending):
    array = volume(channels=2)
    both = sitk.Compose(*[image_of(array[..., channel]) for channel in range(2)])
    sitk.WriteImage(both, str(tmp_path / f"x{ending}"))
    if ending == ".nii":  # with time before channels, as ITK writes vectors
        save(tmp_path / "x.nii", array[:, :, :, None])
    assert np.array_equal(read_volume(tmp_path / f"x{ending}", ndim=(4,)).array, array)


def test_slices_that_are_no_even_stack_are_refused(tmp_path):
    home = write(tmp_path / "s", volume().astype(np.int16))
    next(home.glob("*_0.dcm")).rename(tmp_path / "one.dcm")
    assert read_volume(home).array.shape == (6, 7, 7)  # an outer one
    next(home.glob("*_4.dcm")).unlink()
    with raises_fault("readers.dicom-slices-not-even", names="dcm2niix"):
        read_volume(home)
    write_series(home, image_of(volume().astype(np.int16)), STRAIGHT, series="1.2.4")
    with raises_fault("readers.dicom-not-one-series", names="2 DICOM series"):
        read_volume(home)


def test_series_are_found_by_a_pattern_of_folders(tmp_path):
    for number in range(4):
        write(tmp_path / f"p{number}" / "MR", volume(number).astype(np.int16))
        write(tmp_path / f"p{number}/outline.nii.gz", lesion(number))
    read = {"folds": "2", "image": "{case}/MR", "label": "{case}/outline.nii.gz"}
    assert not check(tmp_path, **read).findings
    assert opened(tmp_path, **read).header("p1").shape == SHAPE[::-1]
    for number in range(4):
        write(tmp_path / f"alone/images/p{number}", volume(number).astype(np.int16))
    assert "has no label maps" in only(tmp_path / "alone", folds="2").message


def write_segments(path: Path, series: Path, drawn: Array, kind: str) -> None:
    """Write labels 1 and 2 of a map (x, y, z) as segments, in frames of any order."""
    highdicom = pytest.importorskip("highdicom", reason="needs the extra dev: highdicom")
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    slices = [dcmread(file) for file in sorted(series.iterdir())]
    asked = ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime")
    for one in slices:
        for tag in (*asked, "AccessionNumber"):
            setattr(one, tag, "")
        one.PatientID, one.PatientName, one.SliceThickness = "p", "p^p", SPACING[2]
    across = np.cross(*np.reshape(slices[0].ImageOrientationPatient, (2, 3)))
    places = [np.dot(across, one.ImagePositionPatient) for one in slices]
    frames = drawn.T[np.argsort(np.argsort(places))]
    if kind != "LABELMAP":
        frames = np.stack([frames == 1, frames == 2], -1) * (1.0 if kind == "FRACTIONAL" else True)
    described = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Tissue, codes.SCT.Liver, algorithm_type="MANUAL"
        )
        for number, name in ((1, "liver"), (2, "tumour, large"))
    ]
    path.parent.mkdir(exist_ok=True)
    made = ("1.2.77", 9, "1.2.77.1", 1, "m", "m", "1", "1")
    written = highdicom.seg.Segmentation(slices, frames, kind, described, *made)
    if kind != "BINARY":  # of a byte for each voxel, so that frames are easily turned round
        count = int(written.NumberOfFrames)
        pixels = np.frombuffer(written.PixelData, "u1")[: count * drawn[..., 0].size]
        written.PixelData = pixels.reshape(count, -1)[::-1].tobytes()
        written.PerFrameFunctionalGroupsSequence = written.PerFrameFunctionalGroupsSequence[::-1]
    written.save_as(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("kind", "label"), [("BINARY", "seg.dcm"), ("FRACTIONAL", "SEG"), ("LABELMAP", "SEG")]
)
def test_segments_lie_where_they_were_drawn_on_their_series(tmp_path, direction, kind, label):
    """Frames without a voxel are not in the file, so it has another size."""
    axes = DIRECTIONS[direction]
    drawn = lesion()
    for number in range(2):
        home = tmp_path / f"p{number}"
        home.mkdir()
        image = image_of(volume(number).astype(np.int16), axes)
        write_series(home / "MR", image, axes, series=f"1.2.{number + 3}")
        file = home / label / "1-1.dcm" if label == "SEG" else home / label
        write_segments(file, home / "MR", drawn, kind)
    read = {"folds": "2", "image": "{case}/MR", "label": f"{{case}}/{label}"}
    (found,) = check(tmp_path, **read).findings
    assert "labels=liver:1,tumour_large:2" in found.message
    segments, grid = read_volume(file), read_volume(home / "MR")
    assert np.array_equal(segments.array, drawn)
    assert np.allclose(segments.affine, grid.affine)
    with raises_fault("readers.dicom-file-no-segmentation"):
        read_volume(next((home / "MR").iterdir()))
    shutil.rmtree(home / "MR")
    with raises_fault("readers.dicom-seg-without-series", names="segimage2itkimage"):
        read_volume(file)


def test_a_nifti_file_is_read_by_its_bytes_and_a_wrong_name_is_told(tmp_path):
    for number in range(4):
        for part, array in (("images", volume(number)), ("labels", lesion(number))):
            save(tmp_path / f"{part}/p{number}.nii", array)
            (tmp_path / f"{part}/p{number}.nii").rename(tmp_path / f"{part}/p{number}.nii.gz")
    finding = only(tmp_path, folds="2")
    assert (finding.level, "it is not compressed" in finding.message) == ("warning", True)
    assert np.array_equal(opened(tmp_path, folds="2").load("p1").labels, lesion(1).T)


def test_arrays_without_a_voxel_size_are_told(tmp_path):
    for number in range(4):
        write(tmp_path / f"images/p{number}_0000.npy", volume(number))
        write(tmp_path / f"labels/p{number}.npy", lesion(number))
    assert not check(tmp_path, folds="2").findings
    for file in tmp_path.rglob("*.json"):
        file.unlink()
    assert 'Write {"spacing": [z, y, x]}' in only(tmp_path, folds="2").message
    file.write_text('{"spacing": [1, 0, 1]}')
    assert {f.level for f in check(tmp_path, folds="2").findings} == {"error", "warning"}


def test_an_archive_of_two_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", image=volume(), label=lesion())
    with raises_fault("readers.npz-not-one-array", names="image, label"):
        read_volume(tmp_path / "x.npz")


def test_a_plugin_of_25_lines_adds_a_format(tmp_path):
    page = Path(__file__).parents[2] / "docs/plugin_formats.md"
    code = page.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    assert code.count("\n") <= 25
    plugin = ModuleType("gansynth_vox")
    exec(code, plugin.__dict__)
    for number in range(4):
        for part, array in (("images", volume(number)), ("labels", lesion(number))):
            home = tmp_path / part
            home.mkdir(exist_ok=True)
            about = json.dumps({"shape": SHAPE, "mm": SPACING}).encode()
            voxels = array.astype("<f4").tobytes("F")
            (home / f"p{number}.vox").write_bytes(about + b"\n" + voxels)
    with registered(plugin, "vox"):
        report = check_reader(installed().load("readers", "vox"), tmp_path)
        assert [c.name for c in report.checks if c.verdict != "passed"] == ["writes label maps"]
        assert report.passed
        assert not check(tmp_path, folds="2").findings
        source = opened(tmp_path, folds="2")
        assert source.schema.spacing == SPACING[::-1]
        assert np.array_equal(source.load("p1").labels, lesion(1).T)
        case = source.train_ids[0]
        written = write_prediction(source, case, source.load(case).labels, tmp_path / "out")
        assert np.array_equal(source.files(case).read(written), source.load(case).labels)
        spoilt = tmp_path / "images/p1.vox"
        cut(spoilt)
        assert only(tmp_path, folds="2").message.startswith(f"{spoilt}: cannot be read as .vox")


def test_a_list_of_files_makes_a_source_of_public_names(tmp_path):
    page = Path(__file__).parents[2] / "docs/plugin_sources.md"
    plugin = ModuleType("gansynth_pairs")
    exec(page.read_text("utf-8").split("```python\n")[2].partition("```")[0], plugin.__dict__)
    for number in range(4):
        save(tmp_path / f"scans/p{number}.nii.gz", volume(number))
        save(tmp_path / f"drawn/p{number}.nii.gz", lesion(number))
    with registered(plugin, "pairs"):
        request = SourceRequest("pairs", str(tmp_path), read={"folds": "2", "spacing": "2+1+1"})
        assert check_source(installed().load("sources", "pairs"), request).passed
        source = open_source(request)
        assert (len(source.train_ids), source.schema.spacing) == (2, (2.0, 1.0, 1.0))


class Second(VolumeReader):
    endings = (".mha", ".second")

    def header(self, path):
        return "no", "header"

    def read(self, path):
        raise AssertionError


def blind(self, path):
    return np.zeros(volume().shape, np.int16)


def moved(self, path, array, affine):
    save(path.with_suffix(".nii"), array, affine + np.eye(4))
    path.with_suffix(".nii").rename(path)


@pytest.mark.parametrize(
    ("members", "failed"),
    [
        ({}, []),
        ({"endings": (".nii",)}, ["files are its own"]),
        ({"read": lambda *_: np.zeros(3)}, ["files are read as announced"]),
        ({"read": blind}, ["refuses half a file"]),
        ({"write": moved}, ["writes label maps"]),
    ],
)
def test_each_breach_of_a_reader_is_found(tmp_path, members, failed):
    own: type[Nifti] = type("Own", (Nifti,), {"endings": (".own",), **members})
    path = write(tmp_path / "x.nii", volume()).rename(tmp_path / f"x{own.endings[0]}")
    with offered("stranger", readers={"own": own}):
        report = check_reader(own, path)
    assert [check.name for check in report.failed] == failed


def test_a_reader_whose_code_fails_or_whose_ending_is_taken_does_no_harm(tmp_path, caplog):
    path = write(tmp_path / "x.mha", volume())
    (tmp_path / "x.second").write_bytes(b"any")
    with offered("stranger", readers={"second": Second}):
        assert np.array_equal(read_volume(path).array, volume())
        assert ".mha is read already" in caplog.text
        with raises_fault("nifti.file-not-of-its-format", names="x.second"):
            read_volume(tmp_path / "x.second")
