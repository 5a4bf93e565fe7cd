"""Images of a YOLO data set dealt out otherwise."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from gansynth.core.source import SourceRequest, Split
from gansynth.metrics.detection.record import read_detections
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth_yolo.mirror import mirror
from gansynth_yolo.source import YoloSource, open_yolo
from tests.dividing import assert_same_cases, state

SPLITS = [
    Split(train=["val/p06_z004", "train/p01_z000"], val=["test/p07_z000", "train/p02_z004"]),
    Split(train=["train/p03_z008"], val=["train/p04_z012"]),
]
READ = {"volumes": r"(p\d+)_z(\d+)", "size": "64x64"}


@pytest.fixture
def source(shared_yolo) -> YoloSource:
    """28 images of seven people."""
    return open_yolo(SourceRequest("yolo", str(shared_yolo), read=READ))


def test_folds_are_as_asked_and_images_as_before(source, shared_yolo, tmp_path):
    before = state(shared_yolo.parent)
    request = source.divided(SPLITS, tmp_path / "new")
    for number, split in enumerate(SPLITS):
        other = open_yolo(replace(request, fold=str(number)))
        assert other.train_ids == tuple(sorted(split["train"]))
        assert other.held_out_ids == tuple(sorted(split["val"]))
        assert_same_cases(source, other, (*other.train_ids, *other.held_out_ids))
    assert state(shared_yolo.parent) == before


def test_it_is_the_same_data_set_to_every_guard(source, tmp_path):
    other = open_yolo(source.divided(SPLITS, tmp_path / "new"))
    assert (other.name, other.host, other.schema) == (source.name, source.host, source.schema)
    assert other.subject("val/p06_z004") == "p06"


def test_a_detector_is_shown_the_new_sides(source, tmp_path):
    other = open_yolo(source.divided(SPLITS, tmp_path / "new"))
    mirror(other, tmp_path / "mirror")
    shown = {
        side: sorted(p.name for p in (tmp_path / "mirror/images" / side).glob("*"))
        for side in ("train", "val", "test")
    }
    assert shown == {
        "train": ["0_p01_z000.png", "1_p06_z004.png"],
        "val": ["0_p07_z000.png", "1_p02_z004.png"],
        "test": [],
    }


def test_what_was_dealt_out_is_dealt_out_again(source, tmp_path):
    first = open_yolo(source.divided(SPLITS[:1], tmp_path / "outer"))
    second = open_yolo(first.divided(SPLITS[1:], tmp_path / "inner"))
    assert second.train_ids == ("train/p03_z008",)


def test_a_volume_on_both_sides_is_a_leak(source, tmp_path):
    with pytest.raises(IntegrityFault, match="p01"):
        source.divided([Split(train=["train/p01_z000"], val=["train/p01_z001"])], tmp_path)


def test_without_a_split_there_is_one_fold(source):
    with pytest.raises(UsageFault, match="has one split, expected 0"):
        open_yolo(replace(source.request, fold="1"))


@pytest.mark.slow
def test_libreyolo_trains_on_a_fold_and_its_last_weights_are_judged(source, shared_yolo, tmp_path):
    before = state(shared_yolo.parent)
    train = [case for case in source.train_ids if not case.startswith("train/p01")]
    tests = [image.case for image in source.images["test"]]
    split = Split(train=[*train, *tests], val=["train/p01_z000"])
    request = source.divided([split], tmp_path / "new")
    small = {"epochs": 2, "imgsz": 64, "batch": 8, "workers": 0, "device": "cpu"}
    words = [sys.executable, "-m", "gansynth_cli", "augment", "--target", "yolo", "--json"]
    words += ["--data", f"yolo:{request.where}", "--ratio", "1:0", "--subjects", request.subjects]
    words += [word for key, value in request.read.items() for word in ("--read", f"{key}={value}")]
    words += [f"--set={key}={value}" for key, value in small.items()]
    words += [f"--set=output={tmp_path / 'out'}", "--", "eval_interval=0"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["drawn_real"] == 2 * len(split["train"])
    found = read_detections(tmp_path / "out" / "gansynth_detections.json")
    assert [image.id for image in found.images] == ["train/p01_z000"]
    assert found.about["weights"].endswith("last.pt")
    assert state(shared_yolo.parent) == before
