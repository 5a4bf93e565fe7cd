"""``gansynth cache``: one file, then everything as with the original."""

import json

import h5py
import pytest

from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.files import disk_errors


@pytest.fixture
def cached(toys, run_json, tmp_path):
    """A cache of ``toy:3``, and what was reported."""
    return tmp_path / "toy.h5", run_json("cache", "toy:3", "-o", tmp_path / "toy.h5")


def test_a_source_is_cached_in_one_file(cached):
    path, report = cached
    assert report["bytes"] == path.stat().st_size
    assert (report["train_cases"], report["held_out_cases"]) == (12, 4)
    assert [p.name for p in path.parent.iterdir()] == ["toy.h5"]


def test_a_dry_run_writes_nothing_and_estimates_the_size(toys, run_json, tmp_path):
    report = run_json("cache", "toy:3", "-o", tmp_path / "toy.h5", "--dry-run")
    assert not list(tmp_path.iterdir())
    written = run_json("cache", "toy:3", "-o", tmp_path / "toy.h5")
    assert report["bytes"] == pytest.approx(written["bytes"], rel=0.3)


def test_nothing_is_overwritten(cached, refuse):
    path, _ = cached
    refuse(
        "cache", "toy:3", "-o", path, code=2, says=["toy.h5", "exists already"], keep=[path.parent]
    )


def test_a_missing_folder_is_refused(toys, refuse, tmp_path):
    refuse("cache", "toy:3", "-o", tmp_path / "a" / "b.h5", code=2, says=["no folder", "make it"])


def test_a_full_disk_is_the_machine_s_fault(toys, refuse, tmp_path, monkeypatch):
    def refused(descriptor, offset, length):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refused)
    says = ["toy.h5", "the disk is full", "bytes needed", "bytes free"]
    refuse("cache", "toy:3", "-o", tmp_path / "toy.h5", code=4, says=says, keep=[tmp_path])


def test_another_fold_than_the_cached_one_is_refused(cached, refuse, tmp_path):
    path, _ = cached
    words = ["toy.h5", "--fold 1", "holds fold 0", "gansynth cache toy:3"]
    refuse(
        *("fit", "means", "--data", f"h5:{path}", "--fold", "1", "-o", tmp_path / "run"),
        code=2,
        says=words,
    )


def test_a_damaged_cache_is_named_case_by_case(cached, refuse):
    path, _ = cached
    with h5py.File(path) as file:
        at = int(file["cases/000003/image"].id.get_chunk_info(0).byte_offset)
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 8]) + raw[at + 1 :])
    refuse("check", f"h5:{path}", code=3, says=["toy.h5", "'toy_03'", "damaged"])


def test_a_run_of_the_cache_is_a_run_of_the_original(cached, toys, run_json, tmp_path):
    path, _ = cached
    run_json("fit", "means", "--data", f"h5:{path}", "-o", tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["lineage"]["dataset"] == "toy:3"
    report = run_json("sample", tmp_path / "run", "-n", "1")
    assert report["samples"] == 1
    run_json(
        *("augment", "--target", "toyhost", "--data", "toy:3", "--ratio", "1:1"),
        *("--generator", tmp_path / "run"),
    )
    assert toys.started


def test_a_generator_of_another_fold_is_refused_as_the_original_s_is(cached, refuse, run_json):
    path, _ = cached
    run = path.with_name("run")
    run_json("fit", "means", "--data", f"h5:{path}", "-o", run)
    refuse(
        *("augment", "--target", "toyhost", "--data", "toy:3", "--fold", "1", "--ratio", "1:1"),
        *("--generator", run),
        code=6,
        says=["leakage", "toy_00"],
    )


def test_what_a_disk_says_without_a_number_is_the_machine_s_fault():
    with pytest.raises(EnvironmentFault, match="HDF5 says so"), disk_errors("x", 3):
        raise OSError("HDF5 says so")
