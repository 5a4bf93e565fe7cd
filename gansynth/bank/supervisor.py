"""The keeper: a thread in the host's main process that starts its producer again when it has died.

    with Keeper.start(config, log) as keeper:
        keeper.wait(16, timeout=1800)
        ...                                  # train; now and then: for line in keeper.messages()

A host forks its workers from the process this thread lives in. So the thread holds no lock while it
waits, imports nothing, and neither prints nor logs: what it has to say is fetched by the host.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.bank.producer import ProducerConfig
from gansynth.bank.producer_process import Producer, start_janitor, wait_for_samples
from gansynth.bank.reader import BankReader
from gansynth.bank.segment import list_segments
from gansynth.bank.spec import HEARTBEAT, read_heartbeat
from gansynth.runtime.errors import EXIT_BUG, EXIT_OK, FAULTS, EnvironmentFault, GansynthError

_POLL_SECONDS = 0.1
_JOIN_SECONDS = 10.0
_PASSING = (EXIT_BUG, EnvironmentFault.exit_code)
"""Exit codes of a producer that may do better next time; other faults would only come again."""


@dataclass(frozen=True)
class Limits:
    """How patient a keeper is; in seconds, unless said otherwise.

    Attributes:
        backoff: before the first restart; twice as long before each further one in a row.
        longest: before a restart at most.
        look: between two looks at the heartbeat.
        silent: without a beat until a producer counts as hung.
        start: until the first beat; loading a large run from a slow disk takes its time.
        batch: at one batch until it counts as hung; three times that for the first one.
        usual: how many times its usual seconds a batch may take if that is longer.
        well: a producer that has lived so long since it drew its first batch was well, though it
            may rest too much to have published anything.
    """

    backoff: float = 1.0
    longest: float = 30.0
    look: float = 1.0
    silent: float = 60.0
    start: float = 600.0
    batch: float = 600.0
    usual: float = 20.0
    well: float = 10.0


class Keeper:
    """A producer that is started again when it dies; ``start`` makes one.

    Attributes:
        config: of the producer as it runs now.
        log: what all its lives have said.
        restarts: how often it was started again.
        ended: why it was given up; None while it is kept, and for a frozen bank that is complete.
    """

    def __init__(
        self, config: ProducerConfig, log: Path, restarts: int = 5, limits: Limits | None = None
    ) -> None:
        self.config = replace(config, parent=config.parent or os.getpid())
        self.log = log
        self.restarts = 0
        self.ended: GansynthError | None = None
        self.limits = limits or Limits()
        self._allowed = restarts
        self._in_a_row = 0
        self._said: deque[str] = deque()
        self._over = self._told_full = False
        self._stopping = threading.Event()
        self._janitor: subprocess.Popen[bytes] | None = None
        self._pid = os.getpid()
        self._begin()
        self._thread = threading.Thread(target=self._keep, name="gansynth-keeper", daemon=True)

    @classmethod
    def start(
        cls,
        config: ProducerConfig,
        log: Path,
        *,
        restarts: int = 5,
        limits: Limits | None = None,
    ) -> Keeper:
        """Start a producer and keep it running.

        Args:
            config: what the producer is told.
            log: what it says goes there.
            restarts: how often in a row it is started again; a segment published, or some time in
                good health, sets that back.
            limits: how patient the keeper is.

        Raises:
            EnvironmentFault: the log cannot be written.
        """
        keeper = cls(config, log, restarts, limits)
        keeper._thread.start()
        return keeper

    def wait(
        self, samples: int, timeout: float, progress: Callable[[int], None] | None = None
    ) -> None:
        """Wait until the bank shows enough samples, through deaths and restarts.

        Args:
            samples: how many.
            timeout: seconds.
            progress: called with the number of samples each time it has changed.

        Raises:
            GansynthError: the producer was given up; the fault it died of last, its last words.
            TrainingFault: it ended, or time was up, with fewer samples.
        """
        count, over = wait_for_samples(
            self.config.bank, samples, timeout, lambda: self._over, progress
        )
        if count < samples and over:
            code = self._producer.process.poll() or EXIT_OK
            raise self.ended or self._producer.fault(code, count, samples)
        if count < samples:
            raise self._producer.late(count, samples, timeout)

    def alive(self) -> bool:
        """Whether the producer runs, or is about to be started again."""
        return not self._over

    def messages(self) -> list[str]:
        """What the keeper has to say since it was last asked; for the host's log."""
        said = []
        with contextlib.suppress(IndexError):
            while True:
                said.append(self._said.popleft())
        return said

    def stop(self) -> None:
        """End the producer for good; in a forked child, nothing."""
        if os.getpid() != self._pid:
            return
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SECONDS)
        self._over = True
        self._producer.stop()
        self._dismiss_janitor()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the thread ------------------------------------------------------------------------------

    def _begin(self, again: bool = False) -> None:
        """Start a life."""
        self._before = self._newest()
        self._producer = Producer.start(self.config, self.log, again)
        self._pulse = _Pulse(Path(self.config.bank), self._producer.process.pid, self.limits)

    def _newest(self) -> int:
        return max(list_segments(Path(self.config.bank)), default=-1)

    def _keep(self) -> None:
        try:
            while not self._stopping.wait(_POLL_SECONDS):
                complaint = self._pulse.complaint()
                self._tell_full(self._pulse.doc)
                if complaint:
                    self._producer.process.kill()
                    self._producer.process.wait()
                code = self._producer.process.poll()
                if self._producer.finished:
                    return
                if code is not None and not self._revive(self._why(code, complaint), code):
                    return
        except (GansynthError, OSError) as error:  # a bank or log that cannot be read any more
            self._give_up(EnvironmentFault(f"producer: cannot be watched: {error}"))
        finally:
            self._over = True
            if self._stopping.is_set():  # it may have been started while nobody waited any more
                self._producer.stop()

    def _tell_full(self, doc: Mapping[str, Any]) -> None:
        if doc.get("squeezed") and not self._told_full:
            self._told_full = True
            self._said.append(
                f"{self.config.bank}: the disk is full: the bank holds {doc.get('held')} samples "
                f"instead of {self.config.capacity}; make room there"
            )

    def _why(self, code: int, complaint: str) -> GansynthError:
        if complaint:
            return EnvironmentFault(f"producer: {complaint}: killed; {self._producer.log_ends}")
        held = BankReader(self.config.bank).count()
        return self._producer.fault(code, held, self.config.capacity)

    def _revive(self, why: GansynthError, code: int) -> bool:
        """Start the producer again after a while; False if it was given up, or is not wanted."""
        if self._newest() > self._before or self._pulse.well >= self.limits.well:
            self._in_a_row = 0
        self._watch_bank()
        while True:
            self._in_a_row += 1
            if code in FAULTS and code not in _PASSING:
                return self._give_up(why)
            if self._in_a_row > self._allowed:
                return self._give_up(
                    type(why)(f"{why}; given up after {self._allowed} restart(s) in a row")
                )
            self._move_to_cpu()
            pause = min(self.limits.longest, self.limits.backoff * 2 ** (self._in_a_row - 1))
            self._said.append(
                f"{why}; it is started again in {pause:g} s "
                f"(restart {self._in_a_row} of at most {self._allowed} in a row)"
            )
            if self._stopping.wait(pause):
                return False
            try:
                self._begin(again=True)
            except (GansynthError, OSError) as error:
                why, code = EnvironmentFault(f"producer: cannot be started: {error}"), 4
                continue
            self.restarts += 1
            self._dismiss_janitor()
            return True

    def _give_up(self, why: GansynthError) -> bool:
        self.ended = why
        self._said.append(f"{why}; it is not started again")
        return False

    def _move_to_cpu(self) -> None:
        """Where the device had no room, the next life is one on the CPU."""
        if self.config.device != "cpu" and self._producer.out_of_room:
            self._said.append(
                f"{self.config.device} has no memory left for the producer, or is another "
                "process's alone: it goes on on the CPU"
            )
            self.config = replace(self.config, device="cpu")

    def _watch_bank(self) -> None:
        """While no producer does, let a janitor remove a scratch bank should the host be killed."""
        if self.config.temporary and self._janitor is None and Path(self.config.bank).exists():
            with contextlib.suppress(OSError):
                self._janitor = start_janitor(self.config)

    def _dismiss_janitor(self) -> None:
        if self._janitor is not None:
            self._janitor.kill()
            self._janitor.wait()
            self._janitor = None


class _Pulse:
    """For how long a producer has been silent, or at one batch.

    Only time between looks counts, and of that not much at once: of a machine that was asleep, or a
    host that was stopped, nothing is known.
    """

    def __init__(self, bank: Path, pid: int, limits: Limits) -> None:
        self._bank, self._pid, self._limits = bank, pid, limits
        self.doc: Mapping[str, Any] = {}
        self.well = 0.0
        self._looked = time.monotonic()
        self._beat = self._task = 0.0
        self._alive = False
        self._silent = self._busy = 0.0

    def complaint(self) -> str:
        """Why the producer counts as hung, or ""."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < self._limits.look:
            return ""
        self._looked = now
        return self._judge(min(passed, 5 * self._limits.look))

    def _judge(self, passed: float) -> str:
        limits = self._limits
        beat, doc = self._last_beat(), read_heartbeat(self._bank)
        self.doc = doc
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
