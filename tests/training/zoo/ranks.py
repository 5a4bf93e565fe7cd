"""Trainings of the zoo by several processes: ``torchrun ... -m tests.training.zoo.ranks
JOBS.json``.

A job is ``{"name": ..., "folder": ..., "options": {...}}`` and perhaps ``"on_rank_1"``, which
happens to the second process alone. Each process writes what it saw to ``rank0.json``, and so on.
"""

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from gansynth.core.generator import Generator
from gansynth.runtime.distributed import ProcessGroup, process_group
from gansynth.runtime.signals import Interrupted, StopRequest
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loop import train
from tests.recorder import Recorder
from tests.training.zoo.members import StopAfter, loop, member, toy_batches


def falling_ill(generator: Generator, what: str) -> None:
    """Let a loss or a buffer of the first player be NaN in step 5, once."""
    first, *others = generator.phases()
    net = generator.nets[generator.players()[first.player][0]]
    times: list[int] = []

    def loss(step: Any) -> Any:
        terms = dict(first.loss(step))
        if step.index == 5 and not times and what:
            times.append(step.index)
            if what == "loss":
                return {k: v * math.nan for k, v in terms.items()}
            net.get_buffer("spoilt").fill_(math.nan)
        return terms

    net.register_buffer("spoilt", torch.zeros(1))
    ill = type(first)(first.player, loss, first.interval, first.offset, first.after)
    generator.phases = lambda: (ill, *others)  # type: ignore[method-assign]


def run(job: Any, processes: ProcessGroup) -> dict[str, Any]:
    """One training, as one of the processes sees it."""
    mine = job.get("on_rank_1", "") if processes.rank == 1 else ""
    generator, words = member(job["name"]), Recorder()
    if job.get("on_rank_1") in ("loss", "buffer"):
        falling_ill(generator, mine)
    stop = StopAfter(3) if mine == "stop" else StopRequest()
    callbacks = TrainingCallbacks(reporter=words, stop=stop)
    options, saw = loop(job["name"], **job["options"]), dict[str, Any]()
    try:
        report = train(
            generator,
            toy_batches(job["name"]),
            options,
            folder=Path(job["folder"]),
            callbacks=callbacks,
            process_group=processes,
        )
        saw = {"rollbacks": report.rollbacks, "notes": report.notes, "images": report.images}
    except Interrupted as stopped:
        saw = {"stopped": stopped.number}
    weights = [
        p.detach().numpy().tobytes() for n in generator.nets.values() for p in n.parameters()
    ]
    return {**saw, "warned": words.warned, "weights": hashlib.sha256(b"".join(weights)).hexdigest()}


def main(jobs: Path) -> None:
    with process_group(torch.device("cpu")) as processes:
        seen = [run(job, processes) for job in json.loads(jobs.read_text())]
        jobs.with_name(f"rank{processes.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
