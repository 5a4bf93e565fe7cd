"""Executors, which run jobs, by name, and the local one.

An executor starts a process for each order, ``gansynth_benchmark.jobs.attempt.start(order,
environ)``, and keeps the process's stdin open while the job is wanted. The process runs the job,
and handles its lock, folder, log and result. A new executor is a subclass of ``Executor``, and a
line in ``parse_executor``.
"""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from gansynth.runtime.child import PARENT
from gansynth.runtime.errors import EnvironmentFault, GansynthError, UsageFault, did_you_mean
from gansynth.runtime.machine import cores
from gansynth.runtime.system import KILLED
from gansynth_benchmark.jobs.attempt import (
    FAILED,
    PATIENCE,
    AttemptResult,
    AttemptSpec,
    Executor,
    attempt,
    result_of,
    start,
)
from gansynth_benchmark.jobs.machine import THREADS, VISIBLE, cuda_devices

NAMES = ("here", "local")
EXPECTED = "expected here, local or local:4; on several machines, type the command on each"


def parse_executor(text: str) -> Executor:
    """Return the executor of a name: ``here`` or ``local[:N]``."""
    name, colon, count = text.strip().partition(":")
    if name not in NAMES or (colon and not count):
        hint = "" if name in NAMES else did_you_mean(name, NAMES)
        raise UsageFault("benchmark.executor-unknown", f"executor {text!r}: {EXPECTED}.{hint}")
    if name == "here" and colon:
        raise UsageFault(
            "benchmark.executor-runs-one-job",
            f"executor {text!r}: runs one job at once; {EXPECTED}",
        )
    if colon and not (count.isdecimal() and int(count)):
        raise UsageFault(
            "benchmark.executor-jobs-no-number",
            f"executor {text!r}: expected a number of jobs, as in local:4",
        )
    if name == "here":
        return HereExecutor()
    return LocalExecutor(int(count) if colon else None)


class HereExecutor(Executor):
    """Runs jobs in this process, one after the other: for a debugger, a profiler, or a test."""

    def submit(self, order: AttemptSpec) -> Future[AttemptResult]:
        future, before = Future[AttemptResult](), dict(os.environ)
        os.environ.update(order.job.env)
        try:
            future.set_result(attempt(order, logged=False))
        except GansynthError as error:
            future.set_result(AttemptResult(FAILED, str(error)))
        finally:
            os.environ.clear()
            os.environ.update(before)
        return future


class LocalExecutor(Executor):
    """Runs attempts at jobs on this machine, ``slots`` in parallel, at most one of each job.

    Each job gets its share of the cores (OMP_NUM_THREADS, if not set). With CUDA devices it gets
    one of them, in turn (CUDA_VISIBLE_DEVICES).

    Args:
        slots: None for the number of CUDA devices, at least one.
        devices: CUDA devices for the jobs; None for the visible ones.
    """

    def __init__(self, slots: int | None = None, devices: tuple[str, ...] | None = None) -> None:
        self._given, self._devices = slots, devices
        self._running: dict[Future[AttemptResult], _RunningAttempt] = {}
        self._threads = ThreadPoolExecutor()

    @property
    def slots(self) -> int:
        """Number of parallel jobs."""
        return self._given or max(1, len(self.devices))

    @property
    def devices(self) -> tuple[str, ...]:
        """The CUDA devices that jobs get."""
        if self._devices is None:
            self._devices = cuda_devices()
        return self._devices

    def open(self, store: Path) -> None:
        if os.name != "posix":
            raise EnvironmentFault(
                "benchmark.jobs-on-unsupported-system",
                f"jobs run on Linux and macOS; this is {os.name!r}",
            )

    def submit(self, order: AttemptSpec) -> Future[AttemptResult]:
        used = {running.slot for running in self._left.values()}
        slot = min(set(range(self.slots)) - used)
        process = start(order, self.environ(slot))
        future = self._threads.submit(result_of, process)
        self._running[future] = _RunningAttempt(process, slot, order.grace)
        return future

    @property
    def _left(self) -> dict[Future[AttemptResult], _RunningAttempt]:
        return {future: each for future, each in self._running.items() if not future.done()}

    def environ(self, slot: int) -> dict[str, str]:
        """Return the environment variables of jobs in a slot."""
        variables = {key: value for key, value in os.environ.items() if key != PARENT}
        variables.setdefault(THREADS, str(max(1, cores() // self.slots)))
        if self.devices:
            variables[VISIBLE] = self.devices[slot % len(self.devices)]
        return variables

    def cancel(self) -> None:
        """Close the stdin of each attempt, which stops it, and wait."""
        left = self._left
        for running in left.values():
            assert running.process.stdin is not None
            running.process.stdin.close()
        graces = [running.grace for running in left.values()]
        wait(left, max(graces, default=0) + PATIENCE)

    def close(self) -> None:
        """Stop running attempts once more, then kill them."""
        for number in (signal.SIGTERM, KILLED):
            left = self._left
            for running in left.values():
                running.process.send_signal(number)
            wait(left, PATIENCE)
        for running in self._running.values():
            for pipe in (running.process.stdin, running.process.stdout):
                assert pipe is not None
                pipe.close()
        self._running.clear()


@dataclass(frozen=True)
class _RunningAttempt:
    process: subprocess.Popen[bytes]
    slot: int
    grace: float
