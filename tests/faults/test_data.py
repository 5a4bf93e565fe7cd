"""Rows about data that no other test has: DICOM, pipes, archives, boxes, names with markup."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel import Nifti1Image, save

from gansynth.core.volumes import read_volume
from gansynth.metrics.detection.matching import match
from gansynth.runtime.files import read_json, sha256_file
from tests.cli.conftest import OFFERED, scans
from tests.expected import raises_fault
from tests.house import PRODUCT
from tests.metrics.detection.simulated import document, drawn, seen
from tests.offered import offered
from tests.test_bad_input import flip_a_bit

ROOT = Path(__file__).parents[2]
MARKUP = "<img src=x onerror=alert(1)>'\"%s{0}$\\frac;touch here"


@pytest.fixture
def volumes(tmp_path) -> Path:
    """A folder of four cases."""
    return scans(tmp_path / "set", "abcd", 0)


@pytest.mark.fault(2)
def test_two_hundred_flipped_bits_are_all_found(tmp_path):
    path, rng = tmp_path / "x.nii.gz", np.random.default_rng(0)
    save(Nifti1Image(rng.normal(size=(12, 11, 10)).astype(np.float32), np.eye(4)), path)
    sound = path.read_bytes()
    found = 0
    for position in rng.integers(10, len(sound), 200):  # before that there is a date, and such
        spoilt = bytearray(sound)
        spoilt[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoilt)
        with pytest.raises(Exception, match=r"x\.nii\.gz") as fault:
            read_volume(path)
        found += getattr(fault.value, "exit_code", 1) == 3
    assert found == 200


@pytest.mark.fault(3)
def test_a_bit_of_a_plain_volume_is_noticed_by_the_run_that_has_seen_it(tmp_path, run_cli, refuse):
    packed, folder = scans(tmp_path / "packed", "abcd", 0), tmp_path / "set"
    for path in packed.rglob("*.nii.gz"):
        there = folder / path.relative_to(packed).with_suffix("")
        there.parent.mkdir(parents=True, exist_ok=True)
        save(Nifti1Image(read_volume(path).array, np.eye(4)), there)
    run = tmp_path / "run"
    data = ("--data", f"nifti:{folder}", "--read", "size=16", "--read", "folds=2")
    with offered("toys", **OFFERED):
        assert run_cli("fit", "means", "-q", "-o", run, *data).exit_code == 0
        for case in "abcd":
            flip_a_bit(folder / "labels" / f"{case}.nii")
        refuse("sample", run, "-n", 4, "-o", tmp_path / "out", code=6, says=("is not the one",))


SERIES = bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0" + b"1e999\\nan"  # a value that is out of spec


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("nifti", "IM0001"),
        ("nifti", "case/1.dcm"),
        ("nifti", "images/a_0000.dcm"),
        ("pictures", "1.dcm"),
        ("slices:nifti", "1.dcm"),
    ],
)
def test_dicom_that_is_no_series_in_a_folder_is_named(tmp_path, refuse, kind, name):
    path = tmp_path / "set" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(SERIES)
    says = ("DICOM, expected a folder for each series", "dcm2niix")
    data = f"{kind}:{tmp_path / 'set'}"
    told = refuse("check", data, code=3, says=["error(s)"], keep=[tmp_path]).stdout
    assert [words for words in says if words not in told] == []
    fit = ("fit", "dcgan", "-o", tmp_path / "run", "--data", data)
    refuse(*fit, code=3, says=says, keep=[tmp_path])


@pytest.mark.fault(15)
def test_dicom_by_a_nifti_name_is_named(tmp_path):
    path = tmp_path / "x.nii"
    path.write_bytes(SERIES * 9)
    with raises_fault("nifti.dicom-file"):
        read_volume(path)


@pytest.mark.fault(17)
def test_boxes_without_area_overlap_by_zero_and_not_by_nan():
    image = seen("x", [(0, 0, 9, 9)], [(3, 3, 3, 9), (3, 3, 3, 3), (0, 0, 9, 9)], [0.9, 0.8, 0.7])
    assert match(document(image), (1e-9,)).hits[1e-9].tolist() == [-1, -1, 0]


@pytest.mark.fault(21)
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_archive_of_a_run_is_refused_and_not_unpacked(world, tmp_path, refuse, ending):
    archive = shutil.make_archive(str(tmp_path / "run"), ending, world / "toy")
    refuse("sample", archive, "-n", 1, code=2, says=(archive,), keep=[tmp_path])
    refuse("evaluate", archive, code=2, says=(archive,), keep=[tmp_path])


OF_CHECKSUMS = {
    "gansynth/runtime/files.py: import zipfile",
    "gansynth/runtime/files.py: with zipfile.ZipFile(path) as archive:",
}
"""Where an archive's checksums are compared, and nothing is unpacked."""
UNSAFE = re.compile(
    r"zipfile|\.extract(all)?\(|tarfile|unpack_archive|shell=True|os\.system|torch\.hub|joblib|allow_pickle=True"
    r"|weights_only=False|yaml\.(unsafe|full)_load|pickle\.loads?\(|(?<![.\w])(eval|exec)\("
)


@pytest.mark.fault(20, 21, 24)
def test_nothing_of_ours_unpacks_archives_unpickles_or_asks_a_shell():
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for shelf in PRODUCT
        for path in (ROOT / shelf).rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if UNSAFE.search(line)
    }
    assert found == OF_CHECKSUMS


@pytest.mark.fault(24)
def test_names_with_markup_are_literal_from_the_data_to_the_report(tmp_path, succeed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("a", "b", "c", f"d{MARKUP}", f"e{MARKUP}", "f$")
    data = f"nifti:{scans(tmp_path / MARKUP, names, 0)}"  # type: ignore[arg-type]
    with offered("toys", **OFFERED):
        for words in (
            ("check", data),
            ("fit", "means", "-q", "-o", "run", "--data", data, "--read", "size=16"),
            ("sample", "run", "-n", 6, "-o", f"out{MARKUP}"),
            ("evaluate", "run", "-n", 16, "--preset", "quick", "--only", "memorisation"),
        ):
            succeed(*words)
    assert {path.name for path in tmp_path.iterdir()} == {MARKUP, "run", f"out{MARKUP}"}
    for name in ("report.html", "report.md"):
        assert "<img src=x" not in (tmp_path / "run" / "evaluation" / name).read_text("utf-8")


@pytest.mark.fault(24)
def test_names_of_arms_are_no_markup_of_tables_nor_formulas_of_figures(tmp_path, succeed):
    from gansynth.metrics.detection.record import FILE, write_detections

    arms = [tmp_path / f"{arm}{MARKUP}" for arm in "ab"]
    for arm in arms:
        write_detections(arm / FILE, drawn(1, 60, per_subject=4))
    succeed("detections", *arms, "--bootstrap", 50, "-o", tmp_path / "out")
    assert "<img" not in (tmp_path / "out" / "table.md").read_text("utf-8")


@pytest.mark.fault(33)
@pytest.mark.parametrize("read", [read_volume, read_json, sha256_file])
def test_a_pipe_is_refused_and_nobody_waits_for_it(tmp_path, read):
    os.mkfifo(tmp_path / "x.nii.gz")
    with raises_fault("nifti.pipe-or-device"):
        read(tmp_path / "x.nii.gz")


@pytest.mark.fault(33)
def test_a_pipe_among_images_is_no_image(volumes, refuse):
    (volumes / "images" / "a_0001.nii.gz").unlink()
    os.mkfifo(volumes / "images" / "a_0001.nii.gz")
    data = (f"nifti:{volumes}", "--read", "folds=2")
    told = refuse("check", *data, code=3, says=["error(s), expected none"]).stdout
    assert "a_0001.nii.gz: a pipe or a device, expected a file" in told


@pytest.mark.fault(33)
def test_a_disk_that_cannot_be_read_is_named(volumes, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    path = volumes / "labels" / "a.nii.gz"
    monkeypatch.setattr("gansynth.runtime.nifti._read_layout", broken)
    with raises_fault("nifti.cannot-be-read", names=path):
        read_volume(path)
