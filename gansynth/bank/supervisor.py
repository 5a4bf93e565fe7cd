"""The supervisor of a producer: it starts it, watches its heartbeat, and restarts it after a crash.

    with ProducerSupervisor(config, log) as supervisor:
        supervisor.wait(16, timeout=1800)
        ...                            # train; now and then: for line in supervisor.messages()

The supervisor is a thread in the training's main process, which forks workers. The thread therefore
holds no lock while it waits, imports nothing, and neither prints nor logs. The training fetches its
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

from gansynth.bank.producer import NO_ROOM, ProducerConfig
from gansynth.bank.store import HEARTBEAT, list_samples, read_heartbeat
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
from gansynth.runtime.life import Life
from gansynth.runtime.system import ENDS_ORPHANS

_POLL_SECONDS = 0.1
_JOIN_SECONDS = 10.0
_STOP_SECONDS = 5.0
_LOG_BYTES = 1 << 16
# Pause before the first restart, doubled before each further one in a row up to the longest.
_BACKOFF_SECONDS, _LONGEST_SECONDS = 1.0, 30.0
_LOOK_SECONDS = 1.0  # interval between two looks at the heartbeat
# Seconds without a heartbeat and without CPU time, or CPU seconds without a heartbeat, after which
# a producer counts as hung; it has none either while a batch takes far too long. And the limit for
# the first one: loading from a slow disk takes long.
_SILENT_SECONDS, _START_SECONDS = 60.0, 600.0
# By default glibc gives the memory of a large array back to the system, which fills it with zeros
# for the next one. To keep it saves up to a fifth of a sample's time, and takes up to 0.4 GiB.
_KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**33)}
# Exit codes after which a restart may help; other faults would only recur.
_PASSING = (EXIT_BUG, EnvironmentFault.exit_code)


class ProducerSupervisor:
    """A producer that runs, and is restarted when it dies.

    Args:
        log: log file; the configuration is written beside it.
        restarts: consecutive restarts at most; a published sample or a finished batch resets the
            count.
    """

    process: subprocess.Popen[bytes]  # the running producer

    def __init__(self, config: ProducerConfig, log: Path, *, restarts: int = 5) -> None:
        self.config = replace(config, parent=config.parent or os.getpid())
        self.log = log  # output of all its processes
        self.restarts = 0
        # why it was given up; None while it is watched, and for a complete frozen bank
        self.ended: GansynthError | None = None
        self._bank, self._allowed, self._in_a_row = Path(config.bank), restarts, 0
        self._messages: deque[str] = deque()
        self._squeezed = False  # a full disk has been reported
        self._stopping = threading.Event()
        self._pid = os.getpid()
        self._begin()
        self._watchdog: subprocess.Popen[bytes] | None = None
        if (
            config.temporary and ENDS_ORPHANS
        ):  # a process removes the scratch bank if this one is killed
            command = [sys.executable, "-I", "-S", watchdog.__file__, str(self._pid), config.bank]
            null = subprocess.DEVNULL
            with contextlib.suppress(OSError):
                self._watchdog = subprocess.Popen(
                    command, stdin=null, stdout=null, stderr=null, close_fds=False
                )
        self._thread = threading.Thread(target=self._watch, name="gansynth-keeper", daemon=True)
        self._thread.start()

    def wait(
        self,
        samples: int,
        timeout: float,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Wait until the bank holds enough samples, or is complete, through deaths and restarts.

        Args:
            timeout: seconds.
            progress: called with the number of samples whenever it changes.
        """
        reported, end = -1, time.monotonic() + timeout
        all_of_it = self.config.frozen and samples >= self.config.capacity
        while True:
            alive, late = self.alive(), time.monotonic() >= end  # before the last count
            count = len(list_samples(self._bank))
            if count != reported:
                progress(count)
            reported = count
            if count >= samples and not (alive and all_of_it):
                return
            if not alive:
                raise self.ended or self._fault(self.process.poll() or EXIT_OK, "")
            if late:
                raise TrainingFault(
                    "bank.producer-too-slow",
                    f"producer: {count} of {samples} samples after {timeout:g} s; "
                    f"{self._log_ends()}. Wait longer, or hold fewer samples",
                )
            time.sleep(_POLL_SECONDS)

    def alive(self) -> bool:
        """Return whether the producer runs, or is about to be restarted."""
        return self._thread.is_alive()

    def messages(self) -> list[str]:
        """Return the messages since the last call, for the training's log."""
        return [self._messages.popleft() for _ in range(len(self._messages))]

    def stop(self) -> None:
        """End the producer for good; does nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        self._stopping.set()
        self._thread.join(_JOIN_SECONDS)
        self._terminate()
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()

    def __enter__(self) -> ProducerSupervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the process -----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._newest_before = self._newest()
        settings = self.log.with_suffix(".json")
        write_json_atomic(settings, self.config.to_json())
        # The same modules in the same order as here, and none from the working directory.
        env = _KEEPS_MEMORY | os.environ
        env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        env["OMP_NUM_THREADS"] = "1"  # more threads than free cores slow down both processes
        with disk_errors(self.log):
            stream = open(self.log, "ab", buffering=0)  # noqa: SIM115 - closed below
        with stream:
            if self._in_a_row or stream.tell():  # it is not the first
                stream.write(f"--- started, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            self._log_start = stream.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gansynth.bank.producer", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=env,
                # Descriptors are not inherited anyway, so posix_spawn is used. Fork and exec would
                # wait forever on a pipe that a worker, forked in between, holds open.
                close_fds=False,
            )
        self._heartbeat: Mapping[str, Any] = {}  # the last one of this process
        self._beat, self._looked = 0, time.monotonic()
        self._silent: Life | None = None  # since the last heartbeat; None if there was a new one

    def _newest(self) -> int:
        return max(map(int, list_samples(self._bank)), default=-1)

    def _terminate(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def _fault(self, code: int, hung: str) -> GansynthError:
        if hung:
            return EnvironmentFault(
                "bank.producer-hung", f"producer: {hung}: killed; {self._log_ends()}"
            )
        made = f"with {len(list_samples(self._bank))} of {self.config.capacity} samples there"
        if code in FAULTS:
            fault = GansynthError.printed(code, self._last_words(1))
            return fault.reworded(f"{fault} (producer ended {made}; log: {self.log})")
        if code < 0:
            return EnvironmentFault(
                "bank.producer-killed",
                f"producer: killed by {signal.Signals(-code).name} {made}; out of memory? "
                f"{self._log_ends()}",
            )
        return TrainingFault(
            "bank.producer-ended",
            f"producer: ended with exit code {code} {made}; {self._log_ends()}",
        )

    def _log_ends(self) -> str:
        return f"its log {self.log} ends: {self._last_words(5)}"

    def _last_words(self, lines: int) -> str:
        try:
            with open(self.log, "rb") as stream:
                stream.seek(max(self._log_start, os.fstat(stream.fileno()).st_size - _LOG_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return "(no log)"
        last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
        return " | ".join(last) or "(nothing)"

    # -- the thread ------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            while not self._stopping.wait(_POLL_SECONDS):
                hung = self._hang_reason()
                if self._heartbeat.get("squeezed") and not self._squeezed:
                    self._squeezed = True
                    self._messages.append(
                        f"{self._bank}: the disk is full: the bank holds "
                        f"{self._heartbeat.get('held')} samples instead of "
                        f"{self.config.capacity}; make room there, and it grows again"
                    )
                if hung:
                    self.process.kill()
                    self.process.wait()
                code = self.process.poll()
                if code == EXIT_OK and self.config.frozen:  # the bank is complete
                    return
                if code is not None and not self._revive(self._fault(code, hung), code):
                    return
        except (GansynthError, OSError) as error:  # the bank or log cannot be read any more
            self._give_up(
                EnvironmentFault(
                    "bank.producer-not-watchable", f"producer: cannot be watched: {error}"
                )
            )
        finally:
            if self._stopping.is_set():  # it may have been started after the stop
                self._terminate()

    def _hang_reason(self) -> str:
        """Look at the heartbeat now and then; return why the producer counts as hung, or ""."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return ""
        self._looked = time.monotonic()
        document, beat = read_heartbeat(self._bank), 0
        with contextlib.suppress(OSError):
            beat = (self._bank / HEARTBEAT).stat().st_mtime_ns
        if document.get("pid") == self.process.pid:
            self._heartbeat = document
        if beat != self._beat:
            self._beat, self._silent = beat, None
        elif self._silent is None:
            self._silent = Life(self.process.pid)
        else:
            self._silent.look()
        limit = _SILENT_SECONDS if self._heartbeat else _START_SECONDS
        return "" if self._silent is None else self._silent.hung(limit)

    def _revive(self, why: GansynthError, code: int) -> bool:
        """Start it again after a pause; False if that would not help, or it was stopped."""
        if self._newest() > self._newest_before or self._heartbeat.get("usual") is not None:
            self._in_a_row = 0  # it was well: it has published, or finished a batch
        self._in_a_row += 1
        if not self._allowed or (code in FAULTS and code not in _PASSING):
            return self._give_up(why)
        if self._in_a_row > self._allowed:
            text = f"{why}; given up after {self._allowed} restart(s) in a row"
            return self._give_up(why.reworded(text))
        if self.config.device != "cpu" and code in FAULTS and str(why).startswith(NO_ROOM):
            self._messages.append(
                f"{self.config.device} has no memory left for the producer, or is another "
                "process's alone: it continues on the CPU"
            )
            self.config = replace(self.config, device="cpu")
        pause = min(_LONGEST_SECONDS, _BACKOFF_SECONDS * 2 ** (self._in_a_row - 1))
        self._messages.append(
            f"{why}; it is started again in {pause:g} s "
            f"(restart {self._in_a_row} of at most {self._allowed} in a row)"
        )
        if self._stopping.wait(pause):
            return False
        try:
            self._begin()
            self.restarts += 1
        except (GansynthError, OSError) as error:  # the next turn tries it again
            self._messages.append(f"producer: cannot be started: {error}")
        return True

    def _give_up(self, why: GansynthError) -> bool:
        self.ended = why
        self._messages.append(f"{why}; it is not started again")
        return False
