"""Kill trainings with SIGKILL at random moments: ``python -m tests.training.zoo.killing FOLDER SEED
KILLS``.

Children are forked from this process, which has imported everything and run nothing. Every run is
killed once to three times, some of them while a checkpoint is being written, then left to end. What
came of it is printed as JSON, a line for each run; ``differing`` names tensors that are not those
of a run that was never killed. The same seed kills at the same moments, as near as clocks allow.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch  # noqa: F401  # so that children need not import it

from gansynth.training.loop import train
from tests.training.zoo.members import differing, loop, member, newest, toy_batches

FIRST_KILL = {
    "cpggan": range(12, 17),  # in its second fade
    "mmgan": range(2, 11),  # its pool is full
    "ada": range(11),
    "wgan_gp": range(11),
    "pix2pix3d": range(11),
}
"""Newest checkpoint of a run that is killed for the first time."""
STEPS = {"cpggan": 18}
EVERY = 2
"""Steps between checkpoints."""
SLOWED = 0.005
"""Seconds a batch takes to read: kills shall not only hit what writes."""
SPAN = 0.04
"""Kills come so many seconds after a checkpoint at most: a step or three later."""


def attempt(folder: Path, name: str, every: int) -> int:
    """Start a child that trains, from where the folder's run was cut off; its process id."""
    child = os.fork()
    if child:
        return child
    read = toy_batches(name)

    def batches(*key: Any) -> Any:
        time.sleep(SLOWED)
        return read(*key)

    options = loop(name, steps=STEPS.get(name, 12), checkpoint_every=every)
    train(member(name), batches, options, folder=folder)
    os._exit(0)


def finish(folder: Path, name: str, every: int = EVERY) -> None:
    """Let a run go on to its end."""
    _, status = os.waitpid(attempt(folder, name, every), 0)
    assert status == 0, f"{name} ended with {status}"


def kill(folder: Path, name: str, rng: random.Random) -> dict[str, Any] | None:
    """Start a run and kill it; None if it ended before.

    Half of the kills come as soon as a checkpoint of a drawn step (or a later one) is being
    written, the others some time after such a checkpoint has appeared.
    """
    steps, at = STEPS.get(name, 12), reached(folder)
    target = rng.choice(FIRST_KILL[name][:-1] if at < 0 else range(min(at + 1, steps - 1), steps))
    writing, moment = rng.random() < 0.5, rng.random()
    moment *= 0.003 if writing else SPAN

    def due() -> bool:
        return bool(torn(folder, target)) if writing else reached(folder) >= target

    child = attempt(folder, name, EVERY)
    if not seen(due, child):
        return None
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return None
    found = {"torn": bool(torn(folder, 0)), "newest": reached(folder)}
    return {"target": target, "writing": writing, "after": round(moment, 4), **found}


def seen(due: Callable[[], bool], child: int) -> bool:
    """Wait until something is due; False if the child ends before."""
    while not due():
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.0003)
    return True


def reached(folder: Path) -> int:
    """Step of the newest checkpoint, -1 if there is none."""
    return max([int(p.name[5:]) for p in (folder / "checkpoints").glob("step-*")], default=-1)


def torn(folder: Path, least: int) -> list[Path]:
    """Checkpoints of this step and later ones that are being, or were left half, written."""
    left = (folder / "checkpoints").glob(".step-*")
    return [p for p in left if int(p.name[6:14]) >= least]


def trial(base: Path, name: str, rng: random.Random) -> dict[str, Any]:
    """Kill a run, end it, and compare it with the one that was never killed."""
    folder, first = base / "killed", None
    while first is None or first["newest"] not in FIRST_KILL[name]:
        # Where the machine was busy elsewhere, the kill came too late.
        shutil.rmtree(folder, ignore_errors=True)
        first = kill(folder, name, rng)
    kills = [first, *(kill(folder, name, rng) for _ in range(rng.randint(0, 2)))]
    finish(folder, name)
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    return {
        "name": name,
        "kills": [k for k in kills if k],
        "differing": differing(newest(folder), newest(base / name)),
        "checkpoints": sorted(p.name for p in (folder / "checkpoints").iterdir()),
        "logged": [int(row.partition(",")[0]) for row in rows] == list(range(1, len(rows) + 1)),
    }


def main(base: Path, seed: int, kills: int) -> None:
    """Kill the zoo's members by turns until so many were killed."""
    rng, done, turn = random.Random(seed), 0, 0
    while done < kills:
        name = list(FIRST_KILL)[turn % len(FIRST_KILL)]
        if not (base / name).exists():
            finish(base / name, name, every=100)
        result = trial(base, name, rng)
        print(json.dumps(result), flush=True)
        done, turn = done + len(result["kills"]), turn + 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
