"""What is asked of ultralytics in a process of its own; prints one JSON document.

    python ultra_child.py '{"do": "train", "data": "data.yaml", "output": "out", "bank": "bank"}'

ultralytics changes its process for good: cv2's threads, ``torch.save``, deterministic algorithms.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.draw_log import summarise
from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.core.clock import Clock
from gansynth.core.injection import MixPlan
from gansynth.core.lineage import Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.runtime.errors import GansynthError
from gansynth_yolo.agpl.ultra import Ultra
from gansynth_yolo.detectors import DetectorJob
from gansynth_yolo.mixed import PARTNERS, Slots

DARK, BRIGHT = 0.25, 1.0
STOPPED = "stopped by the test"
JOB = DetectorJob(
    data=Path("data.yaml"),
    names=("lesion",),
    channels=1,
    model="yolov5n",
    epochs=2,
    imgsz=64,
    batch=8,
    workers=0,
    cache="off",
    device="cpu",
    seed=3,
    output=Path("out"),
)


def write_samples(folder: Path, *, samples: int = 200, size: int = 64) -> Path:
    """A frozen bank of samples with one bright rectangle each, right where its box is; or none."""
    rng = np.random.default_rng(7)
    drawn: list[tuple[Sample, dict[str, Any]]] = []
    for number in range(samples):
        top, left = rng.integers(4, size // 2, 2)
        height, width = rng.integers(size // 8, size // 3, 2)
        image = np.full((1, size, size), DARK, np.float32)
        image[:, top : top + height, left : left + width] = BRIGHT
        box = np.array([[top, left, top + height, left + width]], np.float32)
        sample = Sample(image, None, Boxes(box, np.zeros(1, np.int16)), {"n": number})
        drawn.append((sample, {}))
    schema = Schema(("grey",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("lesion",))
    spec = BankSpec(
        schema, Lineage("toy", "0", ()), "toy", "0" * 64, frozen=samples > 0, capacity=200
    )
    with BankWriter.create(folder, spec) as writer:
        if drawn:
            writer.publish(drawn)
            writer.finish()
    return folder


def make_slots(job: DetectorJob, bank: str, ratio: str, schedule: str, done: int = 0) -> Slots:
    """Places of the toy data set's training images."""
    images = job.data.parent / "images" / "train"
    real = sum(file.suffix in {".png", ".jpg"} for file in images.iterdir())
    log = job.output.parent / "log"
    plan = MixPlan[int](
        Path(bank),
        Ratio.parse(ratio),
        schedule=Schedule.parse(schedule),
        clock=Clock(log.with_name("clock"), job.epochs),
        seed=5,
        log=log,
        patience=1,
    )
    return Slots(plan, real, job.channels, done)


# -- training --------------------------------------------------------------------------------------


class Told:
    """Keeps what a training tells, and ends it after some epochs."""

    def __init__(self, stop: int) -> None:
        self.stop, self.steps = stop, 0
        self.epochs: list[int] = []

    def step(self, begin: float, end: float) -> None:
        self.steps += begin <= end

    def epoch(self, done: int, metrics: Any) -> None:
        self.epochs.append(done)
        if done == self.stop:
            raise RuntimeError(STOPPED)


def train(
    job: DetectorJob, bank: str, ratio: str = "1:1", schedule: str = "constant", stop: int = 0
) -> dict[str, Any]:
    """Train, and say what went in and what came out.

    Args:
        job: what is done.
        bank, ratio, schedule: of the places.
        stop: fail after so many epochs, then go on; below 0 it is to fail by itself.
    """
    from gansynth_yolo.agpl.options import engine

    engine()
    from gansynth_yolo.agpl.trainer import MixedTrainer

    seen: list[list[str]] = [[] for _ in range(job.epochs)]
    kept: dict[str, Any] = {"off": 0.0}
    original = MixedTrainer.preprocess_batch

    def watched(trainer: Any, batch: Any) -> Any:
        kept["trainer"] = trainer
        seen[trainer.epoch] += batch["im_file"]
        if not job.augment:
            kept["off"] = max(kept["off"], farthest(batch))
        return original(trainer, batch)

    MixedTrainer.preprocess_batch = watched
    told, ultra = Told(stop), Ultra()
    if stop < 0:
        try:
            ultra.train(job, make_slots(job, bank, ratio, schedule), told)
        except GansynthError as fault:
            return {"fault": f"{type(fault).__name__}: {fault}"}
    if stop:
        try:
            ultra.train(job, make_slots(job, bank, ratio, schedule), told)
        except GansynthError as fault:
            kept["fault"] = f"{type(fault).__name__}: {fault}"
        told.stop, job = 0, replace(job, resume=True)
    best = ultra.train(job, make_slots(job, bank, ratio, schedule, stop), told)
    trainer = kept.pop("trainer")
    validation = trainer.test_loader.dataset
    return {
        **kept,
        "seen": [[Path(n).name if "://" not in n else n for n in names] for names in seen],
        "best": str(best),
        "validation": [type(validation).__name__, len(validation)],
        "workers": trainer.train_loader.num_workers,
        "told": [told.epochs, told.steps],
        **drawn_in(job.output.parent / "log"),
        "convolution": trainer.model.model[0].conv.weight.shape[1],
        **found(job, best),
        "again": str(ultra.train(replace(job, resume=True), None, told)),  # type: ignore[arg-type]
    }


def farthest(batch: Any) -> float:
    """How far, in pixels, a sample's box is from the rectangle in its image at most."""
    off = 0.0
    images = batch["img"].numpy()
    for number, name in enumerate(batch["im_file"]):
        if not name.startswith("synthetic://"):
            continue
        bright = images[number, 0] > 160
        rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
        right = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        (box,) = batch["bboxes"][batch["batch_idx"] == number].numpy() * len(bright)
        corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
        off = max(off, float(np.abs(corners - right).max()))
    return off


def found(job: DetectorJob, weights: Path) -> dict[str, Any]:
    """Boxes found in the validation images, and how many of the true ones are among the best."""
    folder = job.data.parent / "images" / "val"
    files = sorted(f for f in folder.iterdir() if f.suffix in {".png", ".jpg"})
    reached, hits, truths = 0.0, 0, 0
    results = Ultra().predict(job, weights, files)
    for file, one in zip(files, results, strict=True):
        reached = max(reached, float(one.boxes.max(initial=0)))
        label = folder.parents[1] / "labels" / "val" / f"{file.stem}.txt"
        for row in np.loadtxt(label, ndmin=2):
            truths += 1
            hits += any(overlap(row[1:] * 64, box) >= 0.5 for box in one.boxes[:5])
    return {"found": [len(r.boxes) for r in results], "reached": reached, "hits": hits / truths}


def overlap(row: Any, box: Any) -> float:
    """IoU of centre and size with corners."""
    low = np.maximum(row[:2] - row[2:] / 2, box[:2])
    high = np.minimum(row[:2] + row[2:] / 2, box[2:])
    shared = float(np.prod(np.maximum(0, high - low)))
    return shared / (float(np.prod(row[2:]) + np.prod(box[2:] - box[:2])) - shared)


# -- without a model -------------------------------------------------------------------------------


def draw(
    job: DetectorJob, bank: str, ways: Sequence[dict[str, str]], passes: int
) -> dict[str, Any]:
    """Go through mixed training sets as a sampler does; count what they give."""
    from gansynth_yolo.agpl.options import settings, silent_stdout

    told = settings(job)
    from ultralytics.cfg import get_cfg
    from ultralytics.data.utils import check_det_dataset

    from gansynth_yolo.agpl.trainer import MixedDataset

    counts = []
    for number, way in enumerate(ways):
        job = replace(job, output=job.output.parent / str(number) / "out")
        slots = make_slots(job, bank, way["ratio"], "constant")
        with silent_stdout():
            data = check_det_dataset(str(job.data))
            mixed = MixedDataset(
                img_path=data["train"], imgsz=job.imgsz, batch_size=job.batch, data=data,
                augment=True, hyp=get_cfg(overrides=told), cache=way["cache"], slots=slots,
            )  # fmt: skip
        counts.append(go_through(mixed, slots, passes) | drawn_in(job.output.parent / "log"))
    return {"ways": counts}


def go_through(mixed: Any, slots: Slots, passes: int) -> dict[str, Any]:
    """Ask for every place once a pass; look at which real images stay in memory."""
    random.seed(1)
    most, held = 0, True
    for _ in range(passes):
        for place in random.sample(range(len(mixed)), len(mixed)):
            mixed[place]
            pixels = {i for i, image in enumerate(mixed.ims) if image is not None}
            most = max(most, len(pixels))
            kept = mixed.buffer.values()
            held &= pixels == {one.drawn.real for one in kept if one.image is None}
    typical = [len(label["cls"]) for label in mixed.labels[slots.real :]]
    return {"typical": typical, "limit": mixed.max_buffer_length, "most": most, "held": held}


def drawn_in(log: Path) -> dict[str, Any]:
    """Draws so far: real and synthetic."""
    own, partners = summarise(log), summarise(log / PARTNERS)
    return {
        "primaries": [own.real, own.synthetic],
        "partners": [partners.real, partners.synthetic],
    }


def check(job: DetectorJob, changes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is said of each job; and what is imported by then that must not be."""
    early = "ultralytics" in sys.modules
    said = []
    for change in changes:
        try:
            Ultra().check(replace(job, **change))
            said.append("")
        except GansynthError as fault:
            said.append(f"{type(fault).__name__}: {fault}")
    import ultralytics.utils as utils

    config = sorted(file.name for file in utils.USER_CONFIG_DIR.iterdir())
    return {"early": early, "said": said, "online": utils.ONLINE, "config": config}


def main(asked: dict[str, Any]) -> Any:
    """Answer one question."""
    do = {"train": train, "draw": draw, "check": check}[asked.pop("do")]
    own = asked.pop("own")
    job = replace(JOB, data=Path(asked.pop("data")), output=Path(asked.pop("output")))
    answer: Any = do  # each has arguments of its own
    return answer(replace(job, **asked), **own)


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
