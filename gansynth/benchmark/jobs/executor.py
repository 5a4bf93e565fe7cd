"""Where jobs run: the contract, the executors that there are by name, and that of this machine.

An executor starts one process for each order, ``gansynth.benchmark.jobs.attempt.start(line,
environ)``, on any machine that sees the store; keeps its stdin open for as long as the job is
wanted; and says with which code it ended. Locks, work folders, logs, results and what becomes of
the command's own children are that process's business. A new executor is a class with these six
members, and a line in ``parse_executor``.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from gansynth.benchmark.jobs.attempt import PATIENCE, Ending, Order, start
from gansynth.benchmark.jobs.machine import THREADS, VISIBLE, cuda_devices
from gansynth.runtime.child import PARENT
from gansynth.runtime.errors import EnvironmentFault, UsageFault, did_you_mean
from gansynth.runtime.machine import cores

NAMES = ("local", "ray")
EXPECTED = "expected local, local:4, ray or ray:cpus=2,gpus=1"


class Executor(Protocol):
    """Runs attempts at jobs, at most one of each job at a time."""

    @property
    def slots(self) -> int:
        """How many jobs can run at once, as far as is known now."""

    @property
    def queues(self) -> bool:
        """Whether it takes more jobs than it has slots for, and starts them when it can."""

    def open(self, store: Path) -> None:
        """Get ready to run jobs of a store.

        Raises:
            GansynthError: what it needs is not there.
        """

    def submit(self, order: Order) -> None:
        """Start an attempt, or queue it; its handle is the job's key."""

    def wait(self, seconds: float) -> list[Ending]:
        """Attempts that ended, each told once; waits so long if there are none yet.

        A lost machine is the executor's business: it starts the attempt again somewhere else.
        """

    def cancel(self) -> None:
        """Stop all attempts in good order, and wait for their end."""

    def close(self) -> None:
        """Let go of everything, at once; also after ``open`` failed."""


def parse_executor(text: str) -> Executor:
    """The executor of a name: ``local[:N]``, or ``ray[:cpus=C,gpus=G]``.

    Raises:
        UsageFault: no such executor, or no such option of it.
    """
    name, colon, options = text.strip().partition(":")
    if name not in NAMES or (colon and not options):
        hint = "" if name in NAMES else did_you_mean(name, NAMES)
        raise UsageFault(f"executor {text!r}: {EXPECTED}.{hint}")
    if name == "local":
        if colon and not (options.isdecimal() and int(options)):
            raise UsageFault(f"executor {text!r}: expected a number of jobs at once, as in local:4")
        return LocalExecutor(int(options) if colon else None)
    from gansynth.benchmark.jobs.ray_executor import RayExecutor

    found = _shares(text, options)
    return RayExecutor(cpus=found.get("cpus", 1), gpus=found.get("gpus"))


def _shares(text: str, options: str) -> Mapping[str, float]:
    """``cpus=2,gpus=0.5`` as numbers."""
    found: dict[str, float] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        number = _number(value)
        fits = number >= (1 if key == "cpus" else 0) and (
            number.is_integer() or (key == "gpus" and number < 1)
        )
        if key not in ("cpus", "gpus") or key in found or not fits:
            raise UsageFault(
                f"executor {text!r}: {option!r}: expected cpus (1 or more, whole) or gpus (whole, "
                "or a part of one) for each job, as in ray:cpus=2,gpus=1"
            )
        found[key] = number
    return found


def _number(text: str) -> float:
    """A finite number, or -1 for what is none."""
    try:
        found = float(text)
    except ValueError:
        return -1.0
    return found if math.isfinite(found) else -1.0


class LocalExecutor:
    """Runs ``slots`` jobs at once.

    Each gets its share of the cores (OMP_NUM_THREADS, where that is not set) and, where there are
    CUDA devices, one of them, in turn (CUDA_VISIBLE_DEVICES).

    Args:
        slots: None for as many as there are CUDA devices, or one.
        devices: CUDA devices to deal out; None for those that are visible.
    """

    queues = False

    def __init__(self, slots: int | None = None, devices: tuple[str, ...] | None = None) -> None:
        self._asked, self._devices = slots, devices
        self._running: dict[str, _Running] = {}

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        return self._asked or max(1, len(self.devices))

    @property
    def devices(self) -> tuple[str, ...]:
        """The CUDA devices that are dealt out."""
        if self._devices is None:
            self._devices = cuda_devices()
        return self._devices

    def open(self, store: Path) -> None:
        """Nothing to get ready.

        Raises:
            EnvironmentFault: on Windows, whose processes cannot be ended as a group.
        """
        if os.name != "posix":
            raise EnvironmentFault(f"jobs run on Linux and macOS; this is {os.name!r}")

    def submit(self, order: Order) -> None:
        """Start an attempt in a free slot."""
        taken = {running.slot for running in self._running.values()}
        slot = next(number for number in range(self.slots) if number not in taken)
        process = start(order.to_line(), self.environ(slot))
        self._running[order.job.key] = _Running(process, slot, order.grace)

    def environ(self, slot: int) -> dict[str, str]:
        """The variables of the jobs in a slot."""
        found = {key: value for key, value in os.environ.items() if key != PARENT}
        found.setdefault(THREADS, str(max(1, cores() // self.slots)))
        if self.devices:
            found[VISIBLE] = self.devices[slot % len(self.devices)]
        return found

    def wait(self, seconds: float) -> list[Ending]:
        """Attempts that ended."""
        pipes = {running.process.stdout: key for key, running in self._running.items()}
        if not pipes:
            time.sleep(seconds)
            return []
        # A pipe is at an end when its process is, or has the few last words said before that.
        return [self._end(pipes[pipe]) for pipe in wait(list(pipes), seconds)]  # type: ignore[arg-type, index]

    def _end(self, key: str) -> Ending:
        process = self._running.pop(key).process
        assert process.stdout is not None
        with process:
            said = process.stdout.read().decode("utf-8", "replace").split("\n")
        return Ending(key, process.returncode, next((x for x in reversed(said) if x.strip()), ""))

    def cancel(self) -> None:
        """Close each one's stdin, which tells it to stop, and wait."""
        for running in self._running.values():
            assert running.process.stdin is not None
            running.process.stdin.close()
        for running in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(running.grace + PATIENCE)

    def close(self) -> None:
        """End what still runs: being told again, an attempt kills its command at once."""
        left = [running.process for running in self._running.values()]
        self._running.clear()
        for process in left:
            process.send_signal(signal.SIGTERM)
        for process in left:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            with contextlib.suppress(OSError), process:  # closes its pipes
                pass


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    slot: int
    grace: float
