"""Jobs in processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from gansynth.benchmark.jobs.executor import Ending
from gansynth.benchmark.jobs.machine import VISIBLE, cores, cuda_devices
from gansynth.benchmark.jobs.order import Order, start
from gansynth.runtime.child import PARENT
from gansynth.runtime.errors import EnvironmentFault

THREADS = "OMP_NUM_THREADS"
PATIENCE = 10.0
"""Seconds beyond the grace of jobs until they are killed."""


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    slot: int
    grace: float


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
