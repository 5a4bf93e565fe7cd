"""Check whether a producer lives: the age of its heartbeat and the time spent on one batch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.bank.spec import HEARTBEAT, read_heartbeat


@dataclass(frozen=True)
class HeartbeatLimits:
    """Time limits of the supervisor, in seconds unless stated otherwise."""

    backoff: float = 1.0  # pause before the first restart; doubled before each further one in a row
    longest: float = 30.0  # longest pause before a restart
    look: float = 1.0  # interval between two reads of the heartbeat
    silent: float = 60.0  # time without a heartbeat after which a producer counts as hung
    # time limit for the first heartbeat; loading a large run from a slow disk takes long
    start: float = 600.0
    batch: float = 600.0  # time limit for one batch; three times that for the first one
    usual: float = 20.0  # multiple of a batch's usual time that it may take, if that is longer
    # lifetime after the first batch from which a producer counts as healthy, even if it has
    # published nothing
    well: float = 10.0


class Heartbeat:
    """Measure how long a producer has been silent or at work on one batch.

    Only time between reads counts, and each interval is capped: the machine may have been asleep.
    """

    def __init__(self, bank: Path, pid: int, limits: HeartbeatLimits) -> None:
        self._bank, self._pid, self._limits = bank, pid, limits
        self.document: Mapping[str, Any] = {}  # the last heartbeat
        self.well = 0.0  # seconds that the producer has lived since its first batch
        self._looked = time.monotonic()
        self._beat = self._task = 0.0
        self._alive = False
        self._silent = self._busy = 0.0

    def hang_reason(self) -> str:
        """Return why the producer counts as hung, or ""."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < self._limits.look:
            return ""
        self._looked = now
        return self._judge(min(passed, 5 * self._limits.look))

    def _judge(self, passed: float) -> str:
        limits = self._limits
        beat, doc = self._last_beat(), read_heartbeat(self._bank)
        self.document = doc
        self._silent = self._silent + passed if beat == self._beat else 0.0
        self._beat = beat
        self._alive = self._alive or doc.get("pid") == self._pid
        if self._silent > (limits.silent if self._alive else limits.start):
            return f"hung, no sign of life for {self._silent:.0f} s"
        task = float(doc.get("working_since") or 0) if self._alive else 0.0
        self._busy = self._busy + passed if task and task == self._task else 0.0
        self._task = task
        usual = doc.get("usual")
        if self._alive and usual is not None:
            self.well += passed
        most = 3 * limits.batch if usual is None else max(limits.batch, limits.usual * usual)
        return f"hung, {self._busy:.0f} s at one batch" if self._busy > most else ""

    def _last_beat(self) -> float:
        try:
            return (self._bank / HEARTBEAT).stat().st_mtime_ns
        except OSError:
            return 0.0
