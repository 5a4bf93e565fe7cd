"""Trains LibreYOLO in a process of its own; see ``children``."""

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gansynth.bank.draw_log import summarise
from gansynth.core.clock import Clock
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth_yolo.detectors import DetectorJob, detector
from gansynth_yolo.mixed import Slots
from tests.adapters.yolo.children import answer


class Notes:
    """A watch that writes down what it is told."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.steps: list[float] = []
        self.epochs: list[tuple[int, dict[str, float], int, int, int]] = []

    def step(self, begin: float, end: float) -> None:
        self.steps.append(end - begin)

    def epoch(self, done: int, metrics: Any) -> None:
        drawn = summarise(self.log)
        self.epochs.append((done, dict(metrics), len(self.steps), drawn.real, drawn.synthetic))


def run(
    folder: str,
    bank: str,
    data: str,
    real: int,
    ratio: str = "1:1",
    schedule: str = "constant",
    epochs: int = 1,
    start: str = "",
    chosen: Sequence[int] = (),
    strict: bool = False,
    output: str = "",
    **told: Any,
) -> dict[str, Any]:
    """Train once; all arguments as JSON has them."""
    if start:
        multiprocessing.set_start_method(start, force=True)
    log, clock = Path(folder) / "log", Clock(Path(folder) / "clock", epochs)
    how = Ratio.parse(ratio), Schedule.parse(schedule), clock, tuple(chosen)
    plan = MixPlan[int](Path(bank), *how, log=log, seed=3, strict=strict)
    usual = {"model": "yolox-n", "imgsz": 64, "batch": 8, "workers": 0, "cache": "off", "seed": 0}
    usual |= {"names": ("lesion",), "channels": 1, "device": "cpu"}
    place = Path(output or Path(folder) / "detector")
    job = DetectorJob(data=Path(data), epochs=epochs, output=place, **{**usual, **told})
    library, notes, slots = detector("libreyolo"), Notes(log), Slots(plan, real, job.channels)
    library.check(job)
    began = time.perf_counter()
    weights = library.train(job, slots, notes)
    seconds = time.perf_counter() - began
    found = library.predict(job, weights, sorted(Path(data).parent.glob("images/val/*.png")))
    from libreyolo.data.dataset import YOLODataset
    from libreyolo.training import trainer

    return {
        "weights": str(weights),
        "places": len(slots),
        "steps": notes.steps,
        "epochs": notes.epochs,
        "seconds": seconds,
        "found": [[f.boxes.tolist(), f.scores.tolist(), f.labels.tolist()] for f in found],
        "restored": trainer.YOLODataset is YOLODataset,
    }


if __name__ == "__main__":
    answer(run)
