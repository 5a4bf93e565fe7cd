"""Real detectors, trained by ``gansynth augment`` as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.source import FoldSplit
from gansynth.hosts.record import FILE
from gansynth.metrics.detection.record import read_detections
from gansynth.runtime.files import read_json
from tests.adapters.yolo.detector_child import needs
from tests.dividing import state
from tests.processes import family, until
from tests.yolo_sets import opened

pytestmark = [needs("libreyolo"), pytest.mark.slow]
REAL = 16
"""Training images of ``shared_yolo``."""
BOTH = pytest.mark.parametrize(
    "name", ["libreyolo", pytest.param("ultralytics", marks=needs("ultralytics"))]
)


def command(
    data: Path, run: Path | None, output: Path, *more: object, ratio: str = "1:1", epochs: int = 2
) -> list[str]:
    small = {"epochs": epochs, "imgsz": 64, "batch": 8, "workers": 2, "device": "cpu"}
    named = () if run is None else ("--generator", run, "--device", "cpu", "--bank-size", 8)
    words = ("augment", "--target", "yolo", "--data", f"yolo:{data}", "--ratio", ratio, *named)
    settings = (f"--set={key}={value}" for key, value in small.items())
    python = (sys.executable, "-m", "gansynth_cli")
    return list(map(str, (*python, *words, "-o", output, "--json", *settings, *more)))


def augmented(*asked: Any, **how: Any) -> dict[str, Any]:
    ended = subprocess.run(command(*asked, **how), capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_libreyolo_trains_on_a_fold_and_its_last_weights_are_judged(shared_yolo, tmp_path):
    source = opened(shared_yolo, read={"volumes": r"(p\d+)_z(\d+)", "size": "64x64"})
    before = state(shared_yolo.parent)
    train = [case for case in source.train_ids if not case.startswith("train/p01")]
    train += [image.case for image in source.images["test"]]
    request = source.divided([FoldSplit(train=train, val=["train/p01_z000"])], tmp_path / "new")
    read = (word for key, value in request.read.items() for word in ("--read", f"{key}={value}"))
    more = ("--subjects", request.subjects, *read, "--", "eval_interval=0")
    said = augmented(request.where, None, tmp_path / "out", *more, ratio="1:0")
    assert said["drawn_real"] == 2 * len(train)
    found = read_detections(tmp_path / "out" / "gansynth_detections.json")
    assert [image.id for image in found.images] == ["train/p01_z000"]
    assert found.about["weights"].endswith("last.pt")
    assert state(shared_yolo.parent) == before


@pytest.mark.fault(28)
@BOTH
def test_a_killed_training_is_gone_on_with(shared_yolo, box_run, tmp_path, name):
    output, how = tmp_path / "out", ("--detector", name)
    words, record = command(shared_yolo, box_run, output, *how, epochs=6), output / FILE

    def reached() -> bool:
        sessions = read_json(record)["sessions"] if record.exists() else []
        return any(session["epochs"][1] >= 2 for session in sessions)

    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        until(lambda: reached() or process.poll() is not None)
        assert process.poll() is None
        process.kill()
    until(lambda: not family(output))
    if name == "libreyolo":  # as if killed while it wrote its weights
        last = output / "detector" / "weights" / "last.pt"
        last.write_bytes(last.read_bytes()[:-100])
    said = augmented(shared_yolo, box_run, output, *how, epochs=6)
    document = read_json(record)
    assert document["complete"]
    first, second = document["sessions"]
    assert second["epochs"] == [first["epochs"][1], 6]
    assert all(one["places_synthetic"] == REAL for one in second["per_epoch"])
    assert second["licence"].startswith({"libreyolo": "MIT", "ultralytics": "AGPL-3.0"}[name])
    assert second["versions"][name]
    found = read_detections(output / "gansynth_detections.json")
    held_out = opened(shared_yolo).images["val"]
    assert [image.id for image in found.images] == [image.case for image in held_out]
    assert {"map_50", "sensitivity_25", "fp_per_slice_50"} <= said["metrics_on_real_cases"].keys()
    assert not Path(read_json(output / "gansynth_producer.json")["bank"]).exists()
