"""Detectors are trained in a process of its own, since they change global state for good.

cv2's threads, ``torch.save``, deterministic algorithms: ``run_jobs`` starts this file.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import PATTERN, summarise
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.hosts.mixing.epoch_plan import PARTNERS
from gansynth.hosts.mixing.mixer import BatchCounter, MixerConfig
from gansynth.runtime.errors import GansynthError
from gansynth_yolo.detectors import DETECTORS, DetectorJob, detector
from gansynth_yolo.mixed import EpochSlots

ROOT = Path(__file__).parents[3]
STOPPED = "stopped by the test"
MODELS = {"libreyolo": "yolox-n", "ultralytics": "yolov5n"}
USUAL: dict[str, Any] = {
    **{"names": ("lesion",), "channels": 1, "epochs": 2, "imgsz": 64, "batch": 8, "workers": 0},
    **{"cache": "off", "device": "cpu", "seed": 3},
}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.extra(DETECTORS[name].extra)


def run_jobs(folder: Path, **jobs: dict[str, Any]) -> Any:
    """Have this file do jobs, each in a folder of its name; what they came to, and ``log``."""
    for name, job in jobs.items():
        (folder / name).mkdir(parents=True)
        job["folder"] = str(folder / name)
    file = folder / "jobs.json"
    file.write_text(json.dumps(list(jobs.values())))
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    environ = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "PYTHONPATH": paths}
    words = [sys.executable, __file__, str(file)]
    ran = subprocess.run(words, env=environ, capture_output=True, text=True, cwd=folder)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout == ""
    done = json.loads(file.with_suffix(".out.json").read_text())
    return {**dict(zip(jobs, done, strict=True)), "log": ran.stderr}


def images_of(data: Path, split: str) -> list[Path]:
    folder = data.parent / "images" / split
    return sorted(file for file in folder.iterdir() if file.suffix in {".png", ".jpg"})


class Notes:
    """A watch that writes down what it is told and was drawn, and may end a training."""

    def __init__(self, log: Path, stop: int) -> None:
        self.log, self.stop = log, stop
        self.steps = 0
        self.epochs: list[int] = []
        self.metrics: dict[str, float] = {}
        self.before: Counter[str] = Counter()
        self.seen: list[list[str]] = []

    def begin_round(self, done: int) -> None:
        """Nothing: a stopped training goes on where its epochs were told to end."""

    def log_step(self, begin: float, end: float) -> None:
        self.steps += begin <= end

    def end_round(self, done: int, /, **metrics: float) -> None:
        lines = [line for log in self.log.glob(PATTERN) for line in log.read_text().splitlines()]
        drawn = Counter(",".join(line.split(",")[:2]) for line in lines)
        self.seen.append(sorted((drawn - self.before).elements()))
        self.before, self.metrics = drawn, metrics
        self.epochs.append(done)
        if done == self.stop:
            raise RuntimeError(STOPPED)


def slots_of(job: DetectorJob, told: dict[str, Any], done: int = 0) -> EpochSlots:
    """Places of the toy data set's training images."""
    log = job.output.parent / "log"
    plan = MixerConfig[int](
        Path(told["bank"]),
        Ratio.parse(told.get("ratio", "1:1")),
        schedule=Schedule.parse(told.get("schedule", "constant")),
        batch_counter=BatchCounter(log.with_name("clock"), job.epochs),
        chosen=tuple(told.get("chosen", ())),
        strict=told.get("strict", False),
        seed=5,
        log=log,
        sample_timeout=1,
    )
    return EpochSlots(plan, len(images_of(job.data, "train")), job.channels, done)


@contextmanager
def watched(job: DetectorJob) -> Iterator[dict[str, Any]]:
    """What ultralytics trains on: its workers draw epochs ahead."""
    from gansynth_yolo.agpl.ultra import MixedTrainer

    kept: dict[str, Any] = {"off": 0.0, "seen": [[] for _ in range(job.epochs)]}
    original = MixedTrainer.preprocess_batch

    def preprocess(trainer: Any, batch: Any) -> Any:
        kept["trainer"] = trainer
        kept["seen"][trainer.epoch] += batch["im_file"]
        if not job.augment:
            kept["off"] = max(kept["off"], farthest(batch))
        return original(trainer, batch)

    MixedTrainer.preprocess_batch = preprocess
    try:
        yield kept
    finally:
        MixedTrainer.preprocess_batch = original


def farthest(batch: Any) -> float:
    """How far, in pixels, a sample's box is from the rectangle in its image at most."""
    off = 0.0
    images = batch["img"].numpy()
    for number, name in enumerate(batch["im_file"]):
        if name.startswith("synthetic://"):
            bright = images[number, 0] > 160
            rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
            right = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            (box,) = batch["bboxes"][batch["batch_idx"] == number].numpy() * len(bright)
            corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
            off = max(off, float(np.abs(corners - right).max()))
    return off


def train(name: str, job: DetectorJob, told: dict[str, Any]) -> dict[str, Any]:
    """Train, stop after some epochs and go on where that is told; what went in and came out."""
    library, stop = detector(name), told.get("stop", 0)
    notes: Any = Notes(job.output.parent / "log", stop)
    said: dict[str, Any] = {}

    def once(job: DetectorJob, done: int = 0) -> Path | None:
        try:
            return library.train(job, slots_of(job, told, done), notes)
        except GansynthError as fault:
            said["fault"] = f"{type(fault).__name__}: {fault}"
            return None

    def twice() -> Path | None:
        weights = once(job)
        if weights is None and stop:
            notes.stop = 0
            weights = once(replace(job, resume=True), stop)
        return weights

    if name == "ultralytics":
        with watched(job) as kept:
            weights = twice()
        if weights:
            trainer = kept.pop("trainer")
            validation = trainer.test_loader.dataset
            said["validation"] = [type(validation).__name__, len(validation)]
            said["convolution"] = trainer.model.model[0].conv.weight.shape[1]
        said |= kept
        said["seen"] = [[Path(n).name if "://" not in n else n for n in e] for e in kept["seen"]]
    else:
        weights = twice()
        said["seen"] = notes.seen
    if weights is None:
        return said
    said["told"] = [notes.epochs, notes.steps, sorted(notes.metrics)]
    again = library.train(replace(job, resume=True), None, notes)  # type: ignore[arg-type]
    partners = summarise(notes.log / PARTNERS)
    said |= {"weights": str(weights), "again": str(again)}
    said["partners"] = [partners.real, partners.synthetic]
    boxes = library.predict(job, weights, images_of(job.data, "val"), lambda done, total: None)
    assert all(len(one.boxes) == len(one.scores) == len(one.labels) for one in boxes)
    return said | {"found": [one.boxes.tolist() for one in boxes]}


def check(name: str, job: DetectorJob, told: dict[str, Any]) -> dict[str, Any]:
    """What a detector says of each job that cannot be done; nothing of others."""
    early, said = name in sys.modules, []
    for change in told["changes"]:
        try:
            detector(name).settings(replace(job, **change))
            said.append("")
        except GansynthError as fault:
            said.append(f"{type(fault).__name__}: {fault}")
    online = name == "ultralytics" and sys.modules["ultralytics.utils"].ONLINE
    return {"said": said, "early": early, "online": online}


OURS = ("bank", "ratio", "schedule", "chosen", "strict", "stop", "changes")


def run(folder: str, name: str, data: str, start: str = "", **job: Any) -> Any:
    if start:
        multiprocessing.set_start_method(start, force=True)
    told = {key: job.pop(key) for key in OURS if key in job}
    asked = {**USUAL, "model": MODELS[name], **job}
    do = check if "changes" in told else train
    return do(name, DetectorJob(data=Path(data), output=Path(folder) / "out", **asked), told)


if __name__ == "__main__":
    jobs = Path(sys.argv[1])
    done = [run(**job) for job in json.loads(jobs.read_text())]
    jobs.with_suffix(".out.json").write_text(json.dumps(done))
