"""What is asked of ultralytics in a process of its own; see ``children``.

ultralytics changes its process for good: cv2's threads, ``torch.save``, deterministic algorithms.
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.draw_log import summarise
from gansynth.core.clock import Clock
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.runtime.errors import GansynthError
from gansynth_yolo.agpl.ultra import Ultra
from gansynth_yolo.detectors import DetectorJob
from gansynth_yolo.mixed import PARTNERS, Slots
from tests.adapters.yolo.children import answer

STOPPED = "stopped by the test"
USUAL: dict[str, Any] = {
    **{"names": ("lesion",), "channels": 1, "model": "yolov5n", "epochs": 2, "imgsz": 64},
    **{"batch": 8, "workers": 0, "cache": "off", "device": "cpu", "seed": 3},
}


def make_slots(job: DetectorJob, bank: str, ratio: str, schedule: str, done: int = 0) -> Slots:
    """Places of the toy data set's training images."""
    real = len(images_of(job, "train"))
    log = job.output.parent / "log"
    clock, how = Clock(log.with_name("clock"), job.epochs), Schedule.parse(schedule)
    kept = {"seed": 5, "log": log, "patience": 1}
    plan = MixPlan[int](Path(bank), Ratio.parse(ratio), schedule=how, clock=clock, **kept)
    return Slots(plan, real, job.channels, done)


def images_of(job: DetectorJob, split: str) -> list[Path]:
    folder = job.data.parent / "images" / split
    return sorted(file for file in folder.iterdir() if file.suffix in {".png", ".jpg"})


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
    try:
        if stop:
            try:
                ultra.train(job, make_slots(job, bank, ratio, schedule), told)
            except GansynthError as fault:
                kept["fault"] = f"{type(fault).__name__}: {fault}"
            if stop < 0:
                return {"fault": kept["fault"]}
            told.stop, job = 0, replace(job, resume=True)
        best = ultra.train(job, make_slots(job, bank, ratio, schedule, stop), told)
    finally:
        MixedTrainer.preprocess_batch = original
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
        if name.startswith("synthetic://"):
            bright = images[number, 0] > 160
            rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
            right = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            (box,) = batch["bboxes"][batch["batch_idx"] == number].numpy() * len(bright)
            off = max(off, float(np.abs(corners(box) - right).max()))
    return off


def corners(row: Any) -> Any:
    return np.concatenate([row[:2] - row[2:] / 2, row[:2] + row[2:] / 2])


def found(job: DetectorJob, weights: Path) -> dict[str, Any]:
    """Boxes found in the validation images, and how many of the true ones are among the best."""
    files = images_of(job, "val")
    reached, hits, truths = 0.0, 0, 0
    results = Ultra().predict(job, weights, files)
    for file, one in zip(files, results, strict=True):
        reached = max(reached, float(one.boxes.max(initial=0)))
        label = file.parents[2] / "labels" / "val" / f"{file.stem}.txt"
        for row in np.loadtxt(label, ndmin=2):
            truths += 1
            hits += any(overlap(corners(row[1:] * 64), box) >= 0.5 for box in one.boxes[:5])
    return {"found": [len(r.boxes) for r in results], "reached": reached, "hits": hits / truths}


def overlap(one: Any, other: Any) -> float:
    """IoU of boxes given by corners."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.maximum(0, high - low)))
    return shared / (float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared)


# -- without a model -------------------------------------------------------------------------------


def draw(job: DetectorJob, bank: str, ways: Sequence[Sequence[str]], passes: int) -> Any:
    """Go through mixed training sets as a sampler does; count what they give."""
    from gansynth_yolo.agpl.options import settings, silent_stdout

    told = settings(job)
    from ultralytics.cfg import get_cfg
    from ultralytics.data.utils import check_det_dataset

    from gansynth_yolo.agpl.trainer import MixedDataset

    counts = []
    for number, (cache, ratio) in enumerate(ways):
        job = replace(job, output=job.output.parent / str(number) / "out")
        slots = make_slots(job, bank, ratio, "constant")
        with silent_stdout():
            data = check_det_dataset(str(job.data))
            how = {"img_path": data["train"], "imgsz": job.imgsz, "batch_size": job.batch}
            how |= {"data": data, "augment": True, "hyp": get_cfg(overrides=told), "cache": cache}
            mixed = MixedDataset(slots=slots, **how)
        counts.append(go_through(mixed, slots, passes) | drawn_in(job.output.parent / "log"))
    return counts


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


DO: dict[str, Any] = {"train": train, "draw": draw, "check": check}


def run(do: str, folder: str, data: str, own: dict[str, Any], **job: Any) -> Any:
    """Answer one question."""
    told = {**USUAL, **job}
    return DO[do](DetectorJob(data=Path(data), output=Path(folder) / "out", **told), **own)


if __name__ == "__main__":
    answer(run)
