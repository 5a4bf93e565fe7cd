"""Whether a process works, judged by the CPU time that it and its children use.

The clock on the wall cannot tell: at low priority on a loaded machine a process may get two seconds
of a core in four hundred, and be well.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

import psutil

_WORKING_SHARE = 1e-3
"""Share of a core that one of the processes uses if it works. To poll takes a tenth of that."""
_TICKS = 0.02  # CPU seconds; the system counts in steps of half of that
_LONGEST_STEP = 5.0  # seconds between two looks that count: the machine may have been asleep


class Life:
    """What a process and its children have done since this was made, or last looked.

    Attributes:
        idle: seconds since one of them last worked.
        used: CPU seconds of all together.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._looked = pid, time.monotonic()
        self._last = self._worked = cpu_seconds(pid)
        self.idle = self.used = 0.0

    def look(self) -> None:
        """Count what was done since the last look."""
        now, cpu = time.monotonic(), cpu_seconds(self._pid)
        self.idle += min(now - self._looked, _LONGEST_STEP)
        self.used += sum(_gained(cpu, self._last))
        self._looked, self._last = now, cpu
        if max(_gained(cpu, self._worked), default=0.0) > max(_TICKS, _WORKING_SHARE * self.idle):
            self._worked, self.idle = cpu, 0.0

    def hung(self, limit: float) -> str:
        """Return why it counts as hung, or "".

        Args:
            limit: seconds of standing still, and CPU seconds of going in circles, at most.
        """
        if self.idle > limit:
            return f"hung, no sign of life for {self.idle:.0f} s"
        if self.used > limit:
            return f"hung, no sign of life in {self.used:.0f} s of CPU time"
        return ""


def cpu_seconds(pid: int) -> Mapping[int, float]:
    """Return the CPU seconds of a process and of each of its children, by their ids.

    Of the calling process, those of this thread, which only looks, are left out.
    """
    found: dict[int, float] = {}
    with contextlib.suppress(psutil.Error):  # it has ended
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                found[one.pid] = times.user + times.system
    if pid in found and pid == os.getpid():
        found[pid] -= time.thread_time()
    return found


def _gained(now: Mapping[int, float], before: Mapping[int, float]) -> list[float]:
    return [max(0.0, seconds - before.get(pid, 0.0)) for pid, seconds in now.items()]
