import gzip
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.registry import installed
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault
from tests.data.sets import AFFINE, SHAPE, check, only, opened, request, save
from tests.data.sets import lesion as labels
from tests.data.sets import volume as image

CASES = ("a", "b", "c", "d", "e")
IMAGE, LABEL = "images/b_0001.nii.gz", "labels/b.nii.gz"
FILES = ("images/{}_0000.nii.gz", "images/{}_0001.nii.gz", "labels/{}.nii.gz")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Five sound cases of two channels and two labels. Do not change it."""
    folder: Path = tmp_path_factory.mktemp("check") / "set"
    for number, case in enumerate(CASES):
        for channel in range(2):
            save(folder / FILES[channel].format(case), image((number, channel)))
        save(folder / FILES[2].format(case), labels())
    return folder


@pytest.fixture
def pairs(shared: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(shared, tmp_path / "set")
    return tmp_path / "set"


def test_a_sound_data_set_has_no_findings_and_progress_counts_cases(shared):
    calls: list[tuple[int, int]] = []
    checked = installed().check("nifti")(request(shared), lambda n, of: calls.append((n, of)))
    assert (checked.name, checked.cases, list(checked.findings)) == ("nifti:set", 5, [])
    assert calls == [(n, 5) for n in range(1, 6)]


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_header(path: Path, offset: int, form: str, *values: Any) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data), 1))


def overfill(path: Path) -> None:
    change_header(path, 40, "<4h", 3, 32767, 32767, 32767)


def singular(path: Path) -> None:
    change_header(path, 280, "<12f", 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)


def not_finite(path: Path) -> None:
    array = image()
    array[0, 0, :3] = np.nan, np.nan, np.inf
    save(path, array)


def everywhere(offset: int, form: str, *values: Any) -> Callable[[Path], None]:
    """Change the header of every file of the data set alike."""

    def change(path: Path) -> None:
        for file in path.parents[1].rglob("*.nii.gz"):
            change_header(file, offset, form, *values)

    return change


SLOPE, CODES, UNITS, SROW_X = 112, 252, 123, 280  # bytes of a header
FIRST = "labels/a.nii.gz"


def place_qform(path: Path) -> None:
    change_header(path, CODES, "<2h6f", 1, 2, 0, 0, 0, 5, 0, 0)


COLOUR = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
FAULTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "truncated": (IMAGE, halve, "truncated at byte"),
    "no gzip": (IMAGE, lambda p: p.write_bytes(b"x" * 400), "not a gzip file"),
    "empty": (IMAGE, lambda p: p.write_bytes(b""), "not a gzip file"),
    "absurd header": (IMAGE, overfill, "announces 140724603846652 bytes"),
    "nan": (IMAGE, not_finite, "2 NaN and 1 infinite voxel(s)"),
    "singular": (IMAGE, singular, "is singular or not finite"),
    "spacing": (IMAGE, lambda p: change_header(p, 80, "<3f", 1, 0, 1), "three voxel sizes"),
    "shape": (IMAGE, lambda p: save(p, image()[1:]), "shape is (5, 7, 8), but (6, 7, 8) in b.nii"),
    "affine": (IMAGE, lambda p: save(p, image(), AFFINE * 1.01), "affine differs"),
    "missing channel": (IMAGE, Path.unlink, "missing, expected for case 'b'"),
    "missing labels": (LABEL, Path.unlink, "missing, expected for case 'b'"),
    "2D": (IMAGE, lambda p: save(p, image()[..., 0]), "image is 2D of shape (6, 7), expected 3D"),
    "4D": (IMAGE, lambda p: save(p, np.stack([image()] * 2, -1)), "image is 4D"),
    "colour": (IMAGE, lambda p: save(p, COLOUR), "convert colour"),
    "fraction": (LABEL, lambda p: save(p, labels() / np.float32(2)), "[0.5] are no labels"),
    "negative": (LABEL, lambda p: save(p, labels().astype("i2") - 1), "[-1] are no labels"),
    "image as labels": (LABEL, lambda p: save(p, image()), "different values from"),
    "even": (IMAGE, lambda p: save(p, np.full(SHAPE, 7, np.int16)), "every voxel is 7"),
    "no lesion": (LABEL, lambda p: save(p, np.zeros(SHAPE, np.uint8)), "no foreground, only backg"),
    "labels + 1": (LABEL, lambda p: change_header(p, SLOPE, "<2f", 1, 1), "scl_inter 1, which"),
    "labels x 2": (LABEL, lambda p: change_header(p, SLOPE, "<2f", 2, 0), "scl_slope is 2 and"),
    "labels + 1 in ITK": (LABEL, lambda p: change_header(p, SLOPE, "<2f", 0, 1), "scl_slope is 0"),
    "sheared": (FIRST, everywhere(SROW_X, "<4f", 1, 0.2, 0, 0), "two axes meet at 78.7 degrees"),
    "no orientation": (FIRST, everywhere(CODES, "<2h", 0, 0), "read with x to the left"),
    "micrometres": (FIRST, everywhere(UNITS, "B", 3), "read as voxels of 0.001 x 0.001 x 0.002 mm"),
    "metres": (FIRST, everywhere(UNITS, "B", 1), "of 1000 x 1000 x 2000 mm"),
    "qform": (LABEL, place_qform, "by its qform it lies up to 5 mm from"),
    "two endings": (
        IMAGE,
        lambda p: p.with_suffix("").write_bytes(gzip.decompress(p.read_bytes())),
        "there is b_0001.nii too",
    ),
}


WARNINGS = ("even", "no lesion", "sheared", "no orientation", "micrometres", "metres", "qform")


@pytest.mark.fault(1, of="truncated|gzip|empty")
@pytest.mark.fault(4, of="absurd")
@pytest.mark.fault(6, of="nan")
@pytest.mark.fault(7, of="even|no lesion")
@pytest.mark.fault(8, of="singular|spacing")
@pytest.mark.fault(9, of="shape|affine")
@pytest.mark.fault(10, of="fraction|negative|as labels|labels . ")
@pytest.mark.fault(11, of="missing")
@pytest.mark.fault(14, of="2D|4D|colour")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_or_warning_that_names_the_file(pairs, fault):
    name, spoil, said = FAULTS[fault]
    spoil(pairs / name)
    finding = only(pairs)
    assert finding.level == ("warning" if fault in WARNINGS else "error")
    assert finding.message.startswith(str(pairs / name))
    assert said in finding.message
    assert wrong(pairs)[1] == (finding.level == "error")  # a source refuses the same, and no more


@pytest.mark.fault(1, 6, 10, 11)
def test_all_faults_are_found_in_one_pass(pairs):
    halve(pairs / "images/a_0000.nii.gz")
    not_finite(pairs / "images/a_0001.nii.gz")
    (pairs / IMAGE).unlink()
    not_finite(pairs / "images/c_0000.nii.gz")
    save(pairs / "labels/d.nii.gz", labels().astype("i2") - 1)
    found = {(f.case, Path(f.file).name) for f in check(pairs).findings}
    assert found == {
        ("a", "a_0000.nii.gz"),
        ("a", "a_0001.nii.gz"),
        ("b", "b_0001.nii.gz"),
        ("c", "c_0000.nii.gz"),
        ("d", "d.nii.gz"),
    }


def test_labels_that_are_named_are_kept_to(pairs):
    finding = only(pairs, labels="organ:1,other:2,third:3")
    assert (finding.level, "[3] occur in no case" in finding.message) == ("warning", True)
    save(pairs / LABEL, labels() * 3)
    messages = [f.message for f in check(pairs, labels="organ:1,other:2").findings]
    assert len(messages) == 1
    assert "label value(s) [3, 6] are not in --read labels, expected among [0, 1, 2]" in messages[0]


@pytest.mark.fault(10)
def test_a_gap_in_labels_is_an_error_unless_they_are_named(pairs):
    for number, case in enumerate(CASES):
        save(pairs / f"labels/{case}.nii.gz", labels() * (2 if number else 1))
    message = only(pairs).message
    assert "label values are [0, 1, 2, 4]" in message
    assert f"4 is in {pairs}/labels/{CASES[1]}.nii.gz" in message
    assert not check(pairs, labels="organ:1,other:2,third:4").findings


@pytest.mark.fault(12)
def test_check_refuses_names_that_clash(pairs):
    for name in FILES:
        save(pairs / name.format("B"), image() if "images" in name else labels())
    finding = only(pairs)
    assert finding.level == "error"
    assert "cases ['B', 'b'] differ in upper and lower case" in finding.message


def rows(pairs: Path, *more: str, header: str = "case,T1,label,subject,split") -> Path:
    sides = zip(CASES, ("train", "train", "train", "val", "test"), strict=True)
    own = [f"{c},images/{c}_0000.nii.gz,labels/{c}.nii.gz,{c},{side}" for c, side in sides]
    (pairs / "cases.csv").write_text("\n".join((header, *own, *more)))
    return pairs / "cases.csv"


@pytest.mark.fault(12, 19)
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,images/b_0001.nii.gz,labels/b.nii.gz,x,val", "case 'a' occurs twice"),
        ("f,images/b_0001.nii.gz,,x,val", "line 7: label is empty"),
        ("f,images/b_0001.nii.gz,labels/b.nii.gz,x,tset", "split is 'tset', expected train, val"),
        ("f,images/b_0001.nii.gz,labels/b.nii.gz,a,val", "f and a (subject a)"),
        ("f,../f.nii.gz,labels/b.nii.gz,f,val", "leads out of"),
        ("f,/etc/f.nii.gz,labels/b.nii.gz,f,val", "leads out of"),
        ("f,images/b_0000.nii.gz,labels/b.nii.gz,f,val", "cases b, f have the same image"),
    ],
)
def test_each_wrong_row_of_a_manifest_is_one_error(pairs, row, said):
    finding = only(rows(pairs, row))
    assert finding.level == "error"
    assert said in finding.message


def test_the_same_image_is_found_however_it_is_stored(pairs):
    row = "f,images/b_0000.nii.gz,labels/b.nii.gz,f,train"
    assert only(rows(pairs, row)).level == "warning"  # twice on one side
    array = np.asarray(nib.load(pairs / "images/a_0000.nii.gz").dataobj)  # type: ignore[attr-defined]
    save(pairs / "images/f_0001.nii.gz", array.astype(np.float64))
    row = "f,images/f_0001.nii.gz,labels/b.nii.gz,f,val"
    assert "cases a, f have the same image" in only(rows(pairs, row)).message


@pytest.mark.fault(13)
def test_too_few_cases_are_an_error(pairs):
    path = rows(pairs)
    path.write_text(path.read_text().replace("val", "train").replace("test", "train"))
    assert "no case under val" in only(path).message
    for kept, words in (("a", "expected at least 2"), ("", "no cases")):
        for file in pairs.rglob("*.nii.gz"):
            if not kept or not file.name.startswith(kept):
                file.unlink()
        finding = only(pairs)
        assert finding.level == "error"
        assert words in finding.message


@pytest.mark.fault(18, 24)
@pytest.mark.parametrize("name", ["ein fall", "脳-1", "Ünïcode", "a;rm -rf $HOME"])
def test_cases_with_unusual_names_are_read(pairs, name):
    for old in FILES:
        (pairs / old.format("b")).rename(pairs / old.format(name))
    assert not check(pairs).findings


@pytest.mark.fault(18)
def test_a_name_that_does_not_fit_a_line_is_shown_quoted(pairs):
    (pairs / IMAGE).rename(pairs / "images/b\nc_0001.nii.gz")
    messages = [f.message for f in check(pairs).findings]
    assert any(r"'images/b\nc_0001.nii.gz' holds '\n'" in message for message in messages)
    assert not any("\n" in message for message in messages)


@pytest.mark.fault(19)
def test_a_link_that_leads_out_is_found_and_not_followed(pairs, tmp_path):
    shutil.move(pairs / LABEL, tmp_path / "elsewhere.nii.gz")
    (pairs / LABEL).symlink_to(tmp_path / "elsewhere.nii.gz")
    assert any("leads out of" in f.message for f in check(pairs).findings)
    with pytest.raises(IntegrityFault):
        opened(pairs)


def test_mixed_spacing_is_a_warning(pairs):
    for name in (IMAGE, "images/b_0000.nii.gz"):
        save(pairs / name, image() + len(name), np.eye(4))
    save(pairs / LABEL, labels(), np.eye(4))
    assert (only(pairs).level, only(pairs).case) == ("warning", "b")
    assert not check(pairs, spacing="native").findings


MEASURE = """
import resource, sys
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest

check = installed().check("nifti")
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for folder in sys.argv[1:]:
    request = SourceRequest("nifti", folder)
    print(*[f.message for f in check(request, lambda done, total: None).findings], sep="\\n")
status = open("/proc/self/status").read()  # ru_maxrss would count what pytest held at the fork
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""
BOMBS = {
    (4096, 1024, 1024): "a decompression bomb?",
    (6, 7, 8): "holds more than the 336 bytes its header announces",
    (800, 800, 800): "holds more than the 512000000 bytes its header announces",
}


def bomb(path: Path, announced: tuple[int, ...]) -> None:
    """A header, then 4 GiB of zeros in 4 MB: one gzip member of 64 MiB, many times."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(announced)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(AFFINE, code=1)
    zeros = gzip.compress(bytes(64 << 20), 9)
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + zeros * 64)
    assert path.stat().st_size < 5 << 20


@pytest.mark.fault(4, 5)
@pytest.mark.slow
def test_bombs_are_refused_in_little_memory(shared, tmp_path):
    folders = [str(shutil.copytree(shared, tmp_path / str(n))) for n in range(len(BOMBS))]
    for folder, announced in zip(folders, BOMBS, strict=True):
        bomb(Path(folder) / IMAGE, announced)
    command = [sys.executable, "-c", MEASURE, *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *messages, peak = done.stdout.splitlines()
    for message, said in zip(messages, BOMBS.values(), strict=True):
        assert said in message
    assert int(peak) < 256


def test_a_manifest_that_is_no_json_stops_the_check(pairs):
    (pairs / "cases.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(DataFault, match="expected a list of objects"):
        check(pairs / "cases.json")


def mutant(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, length = int(rng.integers(len(changed))), int(rng.integers(1, 9))
        new = bytes(rng.integers(256, size=rng.integers(0, 9), dtype=np.uint8))
        changed[at : at + length] = new
    return bytes(changed)


def wrong(where: Path) -> tuple[bool, bool]:
    """Whether the check finds an error, and whether using the source raises one."""
    try:
        checked = any(finding.level == "error" for finding in check(where).findings)
    except GansynthError:
        checked = True
    try:
        source = opened(where)
        list(map(source.load, (*source.train_ids, *source.held_out_ids)))
    except GansynthError:
        return checked, True
    return checked, False


@pytest.mark.parametrize("name", ["cases.csv", "images/b_0000.nii.gz", "labels/b.nii.gz"])
def test_check_and_load_agree_on_damaged_bytes(pairs, name):
    path, rng = rows(pairs), np.random.default_rng(4)
    sound = (pairs / name).read_bytes()
    for _ in range(12):
        if name == "cases.csv":
            data = mutant(sound, rng)
        else:  # a checksum that fits, so that only header and voxels are at fault
            raw = gzip.decompress(sound)
            data = gzip.compress(mutant(raw[:352], rng) + raw[352:], 1)
        (pairs / name).write_bytes(data)
        checked, used = wrong(path)
        assert checked == used, data[:352]
