"""How long nnU-Net trains on this machine: its start, two real steps and a patch, in a process.

``python -m gansynth_nnunet.timing FILE`` times what the file says, and writes the result into it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gansynth import read_json, write_json_atomic
from gansynth.hosts.deciding.timing import noted_by
from gansynth.runtime import torchvision_compat
from gansynth.runtime.child import entry, limit_threads
from gansynth_nnunet.workers import WORKERS

TIMES = 2  # the first one is slower
ENOUGH = 60.0
"""Seconds of a first step after which no second one is waited for."""
VALIDATION = 1 / 3
"""A validation step has no backward pass, which takes about twice as long as the forward one."""


def time_of(
    asked: Mapping[str, Any],
    environment: Mapping[str, str],
    batches: tuple[int | None, int | None],
    epochs: int | None,
    windows: int,
) -> Mapping[str, Any]:
    """Return hours of a training, seconds of its step and epoch, and the GPU memory it takes.

    Nothing is written but to a temporary folder. Empty where nnU-Net does not train here.

    Args:
        asked: dataset, configuration, fold, plans, trainer, device, and the fold's split.
        environment: of nnU-Net's process.
        batches: of training and of validation in an epoch; None for the trainer's own number, as
            with ``epochs``.
        windows: patches that are predicted of the held-out cases at the end.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "timing.json"
        write_json_atomic(file, asked)
        own = dict(environment, nnUNet_results=scratch) | {WORKERS: "0"}
        found = noted_by([sys.executable, "-m", "gansynth_nnunet.timing", str(file)], own, file)
    if "step" not in found:
        return {}
    load = found["load"] / max(1, int(environment[WORKERS]))
    step = max(found["step"], load)
    validation = max(VALIDATION * found["step"], load)
    own_batches, own_epochs = found["batches"], epochs or found["epochs"]
    trained, validated = [given or own for given, own in zip(batches, own_batches, strict=True)]
    epoch = trained * step + validated * validation
    # nnU-Net's process starts, then those that judge what is predicted: its own, and gansynth's.
    start = max(0.0, found["at"] - found["began"])
    ends = 3 * start + windows * found.get("patch", VALIDATION * found["step"])
    return {
        "training_hours": round((epoch * own_epochs + ends) / 3600, 4),
        "seconds_to_start": round(start, 1),
        "seconds_an_epoch": round(epoch, 1),
        "seconds_a_step": round(step, 3),
        "gpu_memory_gib": found.get("memory"),
    }


def measure(file: Path) -> None:
    """Time two steps of the stock trainer, and a patch that is predicted, alone.

    What is known is written after each, since the time may be over. The trainer's folder of results
    is a temporary one.
    """
    import torch

    torchvision_compat.apply()
    from nnunetv2.run.run_training import get_trainer_from_args

    asked = read_json(file)
    device = torch.device(asked["device"])
    limit_threads(device.type)
    trainer = get_trainer_from_args(
        asked["dataset"],
        asked["configuration"],
        asked["fold"] if asked["fold"] == "all" else int(asked["fold"]),
        asked["trainer"],
        asked["plans"],
        device=device,
    )
    trainer.do_split = lambda: asked["split"]  # its own writes the folds, if there are none
    trainer.initialize()
    batches, _ = trainer.get_dataloaders()
    found: dict[str, Any] = {
        "at": time.monotonic(),
        "epochs": trainer.num_epochs,
        "batches": [trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch],
    }

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            found["memory"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        found[name] = time.perf_counter() - began
        return made

    for _ in range(TIMES):
        batch = timed("load", lambda: next(batches))
        timed("step", partial(trainer.train_step, batch))
        write_json_atomic(file, found)
        if found["step"] > ENOUGH:
            break
    trainer.network.eval()
    trainer.set_deep_supervision_enabled(False)
    patch = batch["data"][:1].to(device)
    with torch.inference_mode():
        for _ in range(TIMES):
            timed("patch", lambda: trainer.network(patch))
            write_json_atomic(file, found)
    os._exit(0)  # nnU-Net's threads of loading would be waited for


if __name__ == "__main__":
    sys.exit(entry(lambda: measure(Path(sys.argv[1]))))
