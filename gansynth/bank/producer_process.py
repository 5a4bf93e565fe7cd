"""A producer process as seen from the host that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gansynth.bank.producer import ProducerConfig
from gansynth.bank.reader import BankReader
from gansynth.bank.spec import read_heartbeat
from gansynth.runtime import watchdog
from gansynth.runtime.errors import EXIT_OK, FAULTS, EnvironmentFault, GansynthError, TrainingFault
from gansynth.runtime.files import disk_errors, write_json_atomic

NO_ROOM = "no room on the device: "
"""Begins the last line of a producer whose device had no memory left, or was not to be shared."""
_POLL_SECONDS = 0.1
_LOG_BYTES = 1 << 16


def wait_for_samples(
    bank: str,
    samples: int,
    timeout: float,
    over: Callable[[], bool],
    progress: Callable[[int], None] | None = None,
) -> tuple[int, bool]:
    """Wait until a bank shows enough samples, nobody makes more of them, or time is up.

    Args:
        bank: its folder.
        samples: how many are enough.
        timeout: seconds.
        over: whether nobody will make any more.
        progress: called with the number of samples each time it has changed.

    Returns:
        Samples the bank shows, and whether nobody makes more.
    """
    reader = BankReader(bank)
    end = time.monotonic() + timeout
    shown = -1
    while True:
        ended = over()  # before counting, so that the last segment counts
        count = reader.count()
        if count != shown and progress is not None:
            progress(count)
        shown = count
        if count >= samples or ended or time.monotonic() >= end:
            return count, ended
        time.sleep(_POLL_SECONDS)


class Producer:
    """A running producer, seen from the process that started it."""

    def __init__(
        self, config: ProducerConfig, log: Path, process: subprocess.Popen[bytes], begin: int = 0
    ) -> None:
        self.config = config
        self.log = log
        self.process = process
        self._begin = begin

    @classmethod
    def start(cls, config: ProducerConfig, log: Path, again: bool = False) -> Producer:
        """Start a producer; what it says goes to ``log``, its configuration beside it.

        Args:
            config: what it is told.
            log: what earlier producers have said there is kept, above a line that marks the start.
            again: after the death of another one, so that the line is there whatever that said.

        Raises:
            EnvironmentFault: the log cannot be written.
            OSError: the process cannot be started.
        """
        config = replace(config, parent=config.parent or os.getpid())
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
                begin = stream.tell()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gansynth.bank.producer_main", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=env,
                # Descriptors are not inherited anyway; so it is started by posix_spawn. Fork and
                # exec would wait on a pipe that a worker, forked meanwhile, held open for ever.
                close_fds=False,
            )
        return cls(config, log, process, begin)

    def wait(
        self, samples: int, timeout: float, progress: Callable[[int], None] | None = None
    ) -> None:
        """Wait until the bank shows enough samples.

        Args:
            samples: how many.
            timeout: seconds.
            progress: called with the number of samples each time it has changed.

        Raises:
            GansynthError: the producer died; the fault it died of, with its last words.
            TrainingFault: it ended, or time was up, with fewer samples.
        """
        count, over = wait_for_samples(
            self.config.bank, samples, timeout, lambda: not self.alive(), progress
        )
        if count < samples:
            raise (
                self.fault(self.process.poll() or 0, count, samples)
                if over
                else self.late(count, samples, timeout)
            )

    def late(self, count: int, samples: int, timeout: float) -> TrainingFault:
        """What to raise when time is up."""
        return TrainingFault(
            f"producer: {count} of {samples} samples after {timeout:g} s; {self.log_ends}. Wait "
            "longer, or hold fewer samples"
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
                stream.seek(max(self._begin, end - _LOG_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return "(no log)"
        last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
        return " | ".join(last) or "(nothing)"

    @property
    def finished(self) -> bool:
        """Whether it made a frozen bank complete; it may still watch over that as a janitor."""
        if not self.config.frozen:
            return False
        code = self.process.poll()
        beat = read_heartbeat(Path(self.config.bank))
        mine = beat.get("pid") == self.process.pid and beat.get("state") == "complete"
        return mine and code in (None, EXIT_OK)

    def alive(self) -> bool:
        """Whether it is at work."""
        return self.process.poll() is None and not self.finished

    def stop(self) -> None:
        """End the process: politely, and after 5 s not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_janitor(config: ProducerConfig) -> subprocess.Popen[bytes]:
    """Start a process that removes a scratch bank once the parent is gone.

    Raises:
        OSError: it cannot be started.
    """
    null = subprocess.DEVNULL
    command = janitor_command(config)
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=null, close_fds=False)


def janitor_command(config: ProducerConfig) -> list[str]:
    """What a producer turns into when it has nothing left to do but to watch over its bank."""
    return [sys.executable, "-I", "-S", watchdog.__file__, str(config.parent), config.bank]
