import json

import pytest

from gansynth.runtime.files import disk_errors
from tests.expected import raises_fault

AUGMENT = ("augment", "--target", "toyhost", "--data", "toy:3", "--ratio", "1:1", "--generator")


@pytest.fixture
def cached(toys, run_json, tmp_path):
    """A cache of ``toy:3``, and what was reported."""
    return tmp_path / "toy.h5", run_json("cache", "toy:3", "-o", tmp_path / "toy.h5")


def test_a_source_is_cached_in_one_file_whose_size_a_dry_run_estimates(cached, run_json, refuse):
    path, report = cached
    assert report["bytes"] == path.stat().st_size
    assert (report["train_cases"], report["held_out_cases"]) == (12, 4)
    dry = run_json("cache", "toy:3", "-o", path.with_name("other.h5"), "--dry-run")
    assert dry["bytes"] == pytest.approx(report["bytes"], rel=0.3)
    assert [p.name for p in path.parent.iterdir()] == ["toy.h5"]
    says = ["toy.h5", "exists already"]
    refuse("cache", "toy:3", "-o", path, code=2, says=says, keep=[path.parent])


@pytest.mark.fault(31)
def test_a_full_disk_is_the_machine_s_fault(toys, refuse, tmp_path, monkeypatch):
    def refused(descriptor, offset, length):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refused)
    says = ["toy.h5", "the disk is full", "bytes needed", "bytes free"]
    refuse("cache", "toy:3", "-o", tmp_path / "toy.h5", code=4, says=says, keep=[tmp_path])
    with raises_fault("files.cannot-be-written"), disk_errors("x", 3):
        raise OSError("HDF5 says so")


def test_a_run_of_the_cache_is_a_run_of_the_original(cached, toys, run_json, refuse, tmp_path):
    run = tmp_path / "run"
    run_json("fit", "means", "--data", f"h5:{cached[0]}", "-o", run)
    assert json.loads((run / "manifest.json").read_text())["lineage"]["dataset"] == "toy:3"
    assert run_json("sample", run, "-n", "1")["samples"] == 1
    run_json(*AUGMENT, run)
    assert toys.started
    refuse(*AUGMENT, run, "--fold", "1", code=6, says=["leakage", "toy_00"])
