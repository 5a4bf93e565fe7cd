"""Child processes: their output is kept, signals are forwarded, and none is left behind.

``run`` shows a command's output and handles Ctrl-C for it. Its own side is in ``child``.
``without_script`` is for libraries that start processes of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

from gansynth.runtime.child import FAULT, PARENT, SHOWN_PREFIX
from gansynth.runtime.errors import (
    EXIT_SIGHUP,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    FAULTS,
    GansynthError,
    TrainingFault,
)
from gansynth.runtime.files import disk_errors
from gansynth.runtime.signals import Interrupted
from gansynth.runtime.system import KILLED, apart, ask_to_stop, belongs_to

if TYPE_CHECKING:
    import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = (EXIT_SIGHUP, EXIT_SIGINT, EXIT_SIGTERM)  # exit codes of a command that heeds signals
NOT_FOUND = 127  # exit code of a command that could not be started, as in shells
TAIL = 1 << 16  # bytes kept of the end of the output
SET_CHILD_SUBREAPER = 36  # option of Linux's prctl(2)


@dataclass(frozen=True)
class ProcessResult:
    """Result of a command."""

    code: int  # exit code, -N for signal N
    output: str  # the end of its stdout and stderr
    stopped: int = 0  # the signal that asked it to stop; 0 for none

    @property
    def last(self) -> list[str]:
        """The last lines of its output."""
        return [line.strip() for line in self.output.splitlines() if line.strip()]

    @property
    def line(self) -> str:
        """Its own fault, else its last line of output."""
        faults = [line.removeprefix(FAULT) for line in self.last if line.startswith(FAULT)]
        return (faults or self.last or ["no output"])[-1]

    def raise_if_stopped(self) -> None:
        """Raise Interrupted after a forwarded signal."""
        if self.stopped:
            raise Interrupted(self.stopped)

    def raise_if_failed(self, name: str) -> None:
        """Raise Interrupted, the command's own typed fault, or TrainingFault by its last line."""
        self.raise_if_stopped()
        if self.code == 0:
            return
        if self.code in FAULTS:
            raise GansynthError.printed(self.code, self.line)
        line = self.last[-1] if self.last else "no output"
        number = self.code - 128 if self.code in STOPPED else -self.code
        ending = f"signal {_signal(number)}" if number > 0 else f"exit {self.code}"
        raise TrainingFault("processes.command-failed", f"{name} failed ({ending}): {line}")


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


def run(
    words: Sequence[str],
    environ: Mapping[str, str],
    log: Path,
    *,
    show: Callable[[str], None] = _to_stderr,
) -> ProcessResult:
    """Run a command that ends with this process; show its output; wait for its end.

    SIGINT and SIGTERM reach it once, from here, since it has its own session. A signal that this
    process ignores (under nohup, say) stays ignored.

    Args:
        words: program and arguments.
        environ: all of its environment variables.
        log: file to which its output is appended.
        show: called with each line of its output, from another thread.
    """
    # Unbuffered, so that the last output comes last.
    environ = dict(environ) | {PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    command = _Command(words, environ, log, show)
    if threading.current_thread() is not threading.main_thread():
        return command.run()  # only the main thread may handle signals
    signals = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {n: signal.signal(n, lambda number, _: command.stop(number)) for n in signals}
    try:
        return command.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(number: int) -> str:
    hint = ", as the system does when memory runs out" if number == KILLED else ""
    return signal.Signals(number).name + hint


@dataclass
class _Command:
    """A command in its own session; if it fails, its remaining processes are killed."""

    words: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    show: Callable[[str], None]
    child: subprocess.Popen[bytes] | None = None
    stopped: int = 0

    def run(self) -> ProcessResult:
        """Run it and wait for its end."""
        with disk_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            log = self.log.open("ab", buffering=0)
        with log:
            try:
                child = subprocess.Popen(
                    list(self.words),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=self.environ,
                    **apart(),
                )
            except OSError as error:
                line = f"{error.filename}: cannot be run: {error.strerror}"
                log.write(f"{line}\n".encode())
                return ProcessResult(NOT_FOUND, line)
            output = _LogStream(child.stdout, log, self.show)
            self.child = child
            if self.stopped:  # the request came before the start
                ask_to_stop(child, self.stopped)
            code = -KILLED  # if the waiting is ended
            try:
                code = child.wait()
            finally:
                if code != 0:
                    kill_group(child.pid)
                child.wait()
                output.join()
        return ProcessResult(code, output.text(), self.stopped)

    def stop(self, number: int) -> None:
        """Ask it to stop; may be called from a signal handler or another thread."""
        self.stopped = number
        if self.child is not None:
            # Only to the command: else its workers would die before it could end them in order.
            ask_to_stop(self.child, number)


class _LogStream:
    """A thread that logs and shows lines from a pipe."""

    def __init__(self, pipe: IO[bytes] | None, log: IO[bytes], show: Callable[[str], None]) -> None:
        assert pipe is not None
        self._pipe, self._log, self._show = pipe, log, show
        self._kept = bytearray()
        # A daemon, since an escaped process may keep the pipe open.
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        begun = b""
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 65536):
                whole, begun = _whole_lines(begun + chunk)
                self._write(whole)
        self._write(begun)

    def _write(self, text: bytes) -> None:
        lines = text.splitlines(keepends=True)
        own = b"".join([line.partition(SHOWN_PREFIX.encode())[0] for line in lines])
        self._kept += own
        del self._kept[:-TAIL]
        # Neither a full disk nor a closed terminal must stop the command.
        with contextlib.suppress(OSError, ValueError):
            self._log.write(own)
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                self._show(line.decode("utf-8", "replace"))

    def join(self) -> None:
        self._thread.join(timeout=10)

    def text(self) -> str:
        return bytes(self._kept).decode("utf-8", "replace")


def _whole_lines(text: bytes) -> tuple[bytes, bytes]:
    """Split text into complete lines and the last, incomplete one; a carriage return ends lines."""
    end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    if not end and len(text) > TAIL:
        end = len(text)
    return text[:end], text[end:]


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """Let spawned workers leave the user's script alone; only one thread at a time may need it.

    ``multiprocessing`` runs the file of ``__main__`` again in each worker that it spawns, and a
    plain script would train or prepare there again. A module without a file is not run.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


# -- its descendants -------------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process, whatever their session (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_family(linger: float, *, ask: bool = False) -> None:
    """Kill this process's descendants that do not end in some seconds.

    ``ask``: send its children SIGTERM first; they end their own.
    """
    import psutil

    left = psutil.Process().children(recursive=True)
    left = [process for process in left if not _ends_with_us(process)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            if ask and process.ppid() == os.getpid():
                process.terminate()
    _, alive = psutil.wait_procs(left, timeout=linger)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=linger)


def kill_group(leader: int) -> None:
    """Kill what is left of the process group of a process that has ended.

    Those are spared that free the shared memory of others when these have gone, and end then.
    """
    import psutil

    for _ in range(10):  # one may have started another meanwhile
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if belongs_to(process, leader) and not _ends_with_us(process):
                    left.append(process)
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def _ends_with_us(process: psutil.Process) -> bool:
    """Whether it is the process of multiprocessing, or loky, that frees what others left."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return "resource_tracker" in " ".join(_command_line(process))
    return False


def _command_line(process: psutil.Process) -> list[str]:
    """Its words. For an instant of its start a process has none: these must be waited for."""
    for _ in range(100):
        if words := process.cmdline():
            return words
        time.sleep(0.01)
    return []
