"""Executors, which run jobs, by name, and the local one.

An executor starts a process for each order, ``gansynth.benchmark.jobs.attempt.start(line,
environ)``, on any machine that sees the store. It keeps the process's stdin open while the job is
wanted, and reports the exit code. The process handles locks, work folders, logs, results and the
command's children. A new executor is a class with the public members of ``LocalExecutor``, a part
of ``Executor``, and a line in ``parse_executor``.
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
from typing import TYPE_CHECKING, TypeAlias

from gansynth.benchmark.jobs.attempt import (
    PATIENCE,
    AttemptResult,
    AttemptSpec,
    attempt_here,
    start,
)
from gansynth.benchmark.jobs.machine import THREADS, VISIBLE, cuda_devices
from gansynth.runtime.child import PARENT
from gansynth.runtime.errors import EnvironmentFault, UsageFault, did_you_mean
from gansynth.runtime.machine import cores

if TYPE_CHECKING:
    from gansynth.benchmark.jobs.ray_executor import RayExecutor

    Executor: TypeAlias = "HereExecutor | LocalExecutor | RayExecutor"

NAMES = ("here", "local", "ray")
EXPECTED = "expected here, local, local:4, ray or ray:cpus=2,gpus=1"


def parse_executor(text: str) -> Executor:
    """Return the executor of a name: ``here``, ``local[:N]``, or ``ray[:cpus=C,gpus=G]``."""
    name, colon, options = text.strip().partition(":")
    if name not in NAMES or (colon and not options):
        hint = "" if name in NAMES else did_you_mean(name, NAMES)
        raise UsageFault(f"executor {text!r}: {EXPECTED}.{hint}")
    if name == "here" and not colon:
        return HereExecutor()
    if name == "local":
        if colon and not (options.isdecimal() and int(options)):
            raise UsageFault(f"executor {text!r}: expected a number of jobs, as in local:4")
        return LocalExecutor(int(options) if colon else None)
    if name == "here":
        raise UsageFault(f"executor {text!r}: runs one job at once; {EXPECTED}")
    from gansynth.benchmark.jobs.ray_executor import RayExecutor

    shares = _shares(text, options)
    return RayExecutor(cpus=shares.get("cpus", 1), gpus=shares.get("gpus"))


def _shares(text: str, options: str) -> Mapping[str, float]:
    """Parse ``cpus=2,gpus=0.5``."""
    shares: dict[str, float] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        number = _number(value)
        fits = number >= (1 if key == "cpus" else 0) and (
            number.is_integer() or (key == "gpus" and number < 1)
        )
        if key not in ("cpus", "gpus") or key in shares or not fits:
            raise UsageFault(
                f"executor {text!r}: {option!r}: expected cpus (an integer from 1) or gpus (an "
                "integer, or a fraction below 1) for each job, as in ray:cpus=2,gpus=1"
            )
        shares[key] = number
    return shares


def _number(text: str) -> float:
    """Return a finite number, or -1 for any other text."""
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0


class HereExecutor:
    """Runs jobs in this process, one after the other: for a debugger, a profiler, or a test."""

    queues, slots = False, 1

    def __init__(self) -> None:
        self._ended: list[AttemptResult] = []

    def open(self, store: Path) -> None:
        """Need nothing."""

    def submit(self, order: AttemptSpec) -> None:
        """Run a job, to its end."""
        self._ended.append(attempt_here(order))

    def wait(self, seconds: float) -> list[AttemptResult]:
        """Return attempts that ended, each once."""
        ended, self._ended = self._ended, []
        return ended

    def cancel(self) -> None:
        """Do nothing: no job is left."""

    def close(self) -> None:
        """Do nothing: no job is left."""


class LocalExecutor:
    """Runs attempts at jobs on this machine, ``slots`` in parallel, at most one of each job.

    Each job gets its share of the cores (OMP_NUM_THREADS, if not set). With CUDA devices it gets
    one of them, in turn (CUDA_VISIBLE_DEVICES).

    Args:
        slots: None for the number of CUDA devices, at least one.
        devices: CUDA devices for the jobs; None for the visible ones.
    """

    queues = False  # whether it accepts more jobs than slots, and starts them later

    def __init__(self, slots: int | None = None, devices: tuple[str, ...] | None = None) -> None:
        self._asked, self._devices = slots, devices
        self._running: dict[str, _RunningAttempt] = {}

    @property
    def slots(self) -> int:
        """Number of parallel jobs."""
        return self._asked or max(1, len(self.devices))

    @property
    def devices(self) -> tuple[str, ...]:
        """The CUDA devices that jobs get."""
        if self._devices is None:
            self._devices = cuda_devices()
        return self._devices

    def open(self, store: Path) -> None:
        """Check the platform."""
        if os.name != "posix":
            raise EnvironmentFault(f"jobs run on Linux and macOS; this is {os.name!r}")

    def submit(self, order: AttemptSpec) -> None:
        """Start an attempt in a free slot; its handle is the job's key."""
        taken = {running.slot for running in self._running.values()}
        slot = next(number for number in range(self.slots) if number not in taken)
        process = start(order.to_line(), self.environ(slot))
        self._running[order.job.key] = _RunningAttempt(process, slot, order.grace)

    def environ(self, slot: int) -> dict[str, str]:
        """Return the environment variables of jobs in a slot."""
        variables = {key: value for key, value in os.environ.items() if key != PARENT}
        variables.setdefault(THREADS, str(max(1, cores() // self.slots)))
        if self.devices:
            variables[VISIBLE] = self.devices[slot % len(self.devices)]
        return variables

    def wait(self, seconds: float) -> list[AttemptResult]:
        """Return attempts that ended, each once; waits up to ``seconds`` for the first."""
        pipes = {running.process.stdout: key for key, running in self._running.items()}
        if not pipes:
            time.sleep(seconds)
            return []
        # A pipe closes when its process ends; it may hold a few last lines.
        return [self._end(pipes[pipe]) for pipe in wait(list(pipes), seconds)]  # type: ignore[arg-type, index]

    def _end(self, key: str) -> AttemptResult:
        process = self._running.pop(key).process
        assert process.stdout is not None
        with process:
            lines = process.stdout.read().decode("utf-8", "replace").split("\n")
        return AttemptResult(
            key, process.returncode, next((x for x in reversed(lines) if x.strip()), "")
        )

    def cancel(self) -> None:
        """Close the stdin of each attempt, which stops it, and wait."""
        for running in self._running.values():
            assert running.process.stdin is not None
            running.process.stdin.close()
        for running in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(running.grace + PATIENCE)

    def close(self) -> None:
        """Make running attempts kill their commands; also after ``open`` failed."""
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
class _RunningAttempt:
    process: subprocess.Popen[bytes]
    slot: int
    grace: float
