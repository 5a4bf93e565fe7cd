"""The supervisor of a producer: starts it, watches its heartbeat, starts it again when it has died.

    with Keeper.start(config, log) as keeper:
        keeper.wait(16, timeout=1800)
        ...                                  # train; now and then: for line in keeper.messages()

It is a thread in the host's main process, from which the host forks its workers. So the thread
holds no lock while it waits, imports nothing, and neither prints nor logs: the host fetches its
messages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.bank.heartbeat import Heartbeat, Limits
from gansynth.bank.producer import ProducerConfig
from gansynth.bank.reader import BankReader
from gansynth.bank.segment import list_segments
from gansynth.bank.spec import read_heartbeat
from gansynth.runtime import watchdog
from gansynth.runtime.errors import (
    EXIT_BUG,
    EXIT_OK,
    FAULTS,
    EnvironmentFault,
    GansynthError,
    TrainingFault,
)
from gansynth.runtime.files import disk_errors, write_json_atomic

NO_ROOM = "no room on the device: "
"""Begins the last line of a producer whose device had no memory left, or was not to be shared."""
_POLL_SECONDS = 0.1
_JOIN_SECONDS = 10.0
_STOP_SECONDS = 5.0
_LOG_BYTES = 1 << 16
_PASSING = (EXIT_BUG, EnvironmentFault.exit_code)
"""Exit codes of a producer that may do better next time; other faults would only come again."""


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
        self._watchdog: subprocess.Popen[bytes] | None = None
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
            log: what it says is appended there, its configuration beside it.
            restarts: how often in a row it is started again; a segment published, or some time in
                good health, sets that back.
            limits: how patient the keeper is.

        Raises:
            EnvironmentFault: the log cannot be written.
        """
        keeper = cls(config, log, restarts, limits)
        keeper._thread.start()
        return keeper

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The producer as it runs now."""
        return self._producer.process

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
        reader, reported, end = BankReader(self.config.bank), -1, time.monotonic() + timeout
        while True:
            over = self._over  # before counting, so that the last segment counts
            count = reader.count()
            if count != reported and progress is not None:
                progress(count)
            reported = count
            if count >= samples:
                return
            if over:
                code = self.process.poll() or EXIT_OK
                raise self.ended or self._producer.fault(code, count, samples)
            if time.monotonic() >= end:
                raise TrainingFault(
                    f"producer: {count} of {samples} samples after {timeout:g} s; "
                    f"{self._producer.log_ends}. Wait longer, or hold fewer samples"
                )
            time.sleep(_POLL_SECONDS)

    def alive(self) -> bool:
        """Whether the producer runs, or is about to be started again."""
        return not self._over

    def messages(self) -> list[str]:
        """What the keeper has to say since it was last asked; for the host's log."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._said.popleft())
        return lines

    def stop(self) -> None:
        """End the producer for good; in a forked child, nothing."""
        if os.getpid() != self._pid:
            return
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SECONDS)
        self._over = True
        self._producer.stop()
        self._end_watchdog()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the thread ------------------------------------------------------------------------------

    def _begin(self, again: bool = False) -> None:
        self._before = self._newest()
        self._producer = _Producer(self.config, self.log, again)
        self._heartbeat = Heartbeat(Path(self.config.bank), self.process.pid, self.limits)

    def _newest(self) -> int:
        return max(list_segments(Path(self.config.bank)), default=-1)

    def _keep(self) -> None:
        try:
            while not self._stopping.wait(_POLL_SECONDS):
                hung = self._heartbeat.hang_reason()
                self._tell_full(self._heartbeat.document)
                if hung:
                    self.process.kill()
                    self.process.wait()
                code = self.process.poll()
                if self._producer.finished:
                    return
                if code is not None and not self._revive(self._why(code, hung), code):
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

    def _why(self, code: int, hung: str) -> GansynthError:
        if hung:
            return EnvironmentFault(f"producer: {hung}: killed; {self._producer.log_ends}")
        held = BankReader(self.config.bank).count()
        return self._producer.fault(code, held, self.config.capacity)

    def _revive(self, why: GansynthError, code: int) -> bool:
        """Start the producer again after a while; False if it was given up, or is not wanted."""
        if self._newest() > self._before or self._heartbeat.well >= self.limits.well:
            self._in_a_row = 0
        self._start_watchdog()
        while True:
            self._in_a_row += 1
            if not self._allowed or (code in FAULTS and code not in _PASSING):
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
            self._end_watchdog()
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

    def _start_watchdog(self) -> None:
        """While no producer does, another process removes a scratch bank if the host is killed."""
        if self.config.temporary and self._watchdog is None and Path(self.config.bank).exists():
            null = subprocess.DEVNULL
            with contextlib.suppress(OSError):
                self._watchdog = subprocess.Popen(
                    watchdog_command(self.config),
                    stdin=null,
                    stdout=null,
                    stderr=null,
                    close_fds=False,
                )

    def _end_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()
            self._watchdog = None


def watchdog_command(config: ProducerConfig) -> list[str]:
    """What removes a scratch bank once the parent is gone."""
    return [sys.executable, "-I", "-S", watchdog.__file__, str(config.parent), config.bank]


class _Producer:
    """One life of a producer; ``again``: after the death of another one."""

    def __init__(self, config: ProducerConfig, log: Path, again: bool) -> None:
        self.config, self.log = config, log
        settings = log.with_suffix(".json")
        write_json_atomic(settings, config.to_json())
        # The same modules in the same order as here, and none from the folder it happens to run in.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        env["OMP_NUM_THREADS"] = "1"  # more threads than free cores are slower, for both sides
        with contextlib.ExitStack() as stack:
            with disk_errors(log):
                stream = stack.enter_context(open(log, "ab", buffering=0))
                if again or stream.tell():
                    now = time.strftime("%Y-%m-%d %H:%M:%S")
                    stream.write(f"--- started, {now}\n".encode())
                self._first = stream.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gansynth.bank.producer_main", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=env,
                # Descriptors are not inherited anyway; so it is started by posix_spawn. Fork and
                # exec would wait on a pipe that a worker, forked meanwhile, held open for ever.
                close_fds=False,
            )

    def fault(self, code: int, count: int, samples: int) -> GansynthError:
        """What to raise when it ended with an exit code and some of the samples asked for."""
        made = f"with {count} of {samples} samples there"
        if code in FAULTS:
            return FAULTS[code](f"{self._last_words(1)} (producer ended {made}; log: {self.log})")
        if code < 0:
            return EnvironmentFault(
                f"producer: killed by {signal.Signals(-code).name} {made}; out of memory? "
                f"{self.log_ends}"
            )
        return TrainingFault(f"producer: ended with exit code {code} {made}; {self.log_ends}")

    @property
    def log_ends(self) -> str:
        """Half a sentence: where its log is, and the last it said in this life."""
        return f"its log {self.log} ends: {self._last_words()}"

    @property
    def out_of_room(self) -> bool:
        """Whether it ended because its device had no memory left, or was not to be shared."""
        code = self.process.poll()
        return code == EnvironmentFault.exit_code and self._last_words(1).startswith(NO_ROOM)

    def _last_words(self, lines: int = 5) -> str:
        try:
            with open(self.log, "rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._first, end - _LOG_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return "(no log)"
        last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
        return " | ".join(last) or "(nothing)"

    @property
    def finished(self) -> bool:
        """Whether it made a frozen bank complete; it may still watch over that."""
        if not self.config.frozen:
            return False
        code = self.process.poll()
        beat = read_heartbeat(Path(self.config.bank))
        mine = beat.get("pid") == self.process.pid and beat.get("state") == "complete"
        return mine and code in (None, EXIT_OK)

    def stop(self) -> None:
        """End the process: politely, and after a while not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
