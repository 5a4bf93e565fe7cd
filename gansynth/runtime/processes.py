"""Child processes: their output is kept, signals are forwarded, and none is left behind.

``run`` shows a command's output and handles Ctrl-C for it. ``ChildCommand`` can be asked to stop.
The started process's side is in ``child``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gansynth.runtime.child import FAULT, PARENT, SHOWN
from gansynth.runtime.errors import EXIT_SIGTERM, FAULTS, TrainingFault
from gansynth.runtime.files import MAX_JSON_BYTES, disk_errors

if TYPE_CHECKING:
    import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOT_FOUND = 127  # exit code of a command that could not be started, as in shells
TAIL = 1 << 16  # bytes kept of the end of each stream
SET_CHILD_SUBREAPER = 36  # option of Linux's prctl(2)


@dataclass(frozen=True)
class ProcessResult:
    """Result of a command."""

    pid: int  # 0 if it could not be started
    code: int  # exit code, -N for signal N
    seconds: float  # duration
    errors: str  # the end of its stderr, and of its stdout unless that is a document
    output: str = ""  # the end of its stdout if that is a document
    stopped: int = 0  # the signal that asked it to stop; 0 for none

    @property
    def last(self) -> list[str]:
        """The last lines of its output."""
        return _lines(self.errors)

    @property
    def line(self) -> str:
        """A one-line reason if the code is not 0."""
        return last_words(self.code, self.errors, self.output[-TAIL:]) if self.code else ""

    @property
    def document(self) -> Any:
        """The JSON at the end of its stdout, or None."""
        return document_of(self.output)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


def run(
    words: Sequence[str],
    environ: Mapping[str, str],
    log: Path | None = None,
    *,
    document: bool = False,
    show: Callable[[str], None] = _to_stderr,
) -> ProcessResult:
    """Run a command that ends with this process; show its output; wait for its end.

    SIGINT and SIGTERM reach it once, from here, since it has its own session. A signal that this
    process ignores (under nohup, say) stays ignored.

    Args:
        words: program and arguments.
        environ: all of its environment variables.
        log: file to which its output is appended.
        document: its stdout is a document: kept, and not shown.
        show: called with each line of its output, from another thread.
    """
    environ = {**environ, PARENT: str(os.getpid())}
    command = ChildCommand(words, environ, log=log, show=show, document=document)
    if threading.current_thread() is not threading.main_thread():
        return command.run()  # only the main thread may handle signals
    signals = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {n: signal.signal(n, lambda number, _: command.stop(number)) for n in signals}
    try:
        return command.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if_stopped(ended: ProcessResult) -> None:
    """Raise KeyboardInterrupt, or SystemExit with 143, after a forwarded signal."""
    if ended.stopped == signal.SIGINT:
        raise KeyboardInterrupt
    if ended.stopped == signal.SIGTERM:
        raise SystemExit(EXIT_SIGTERM)


def raise_if_failed(ended: ProcessResult, name: str) -> None:
    """Raise this process's own error for a failed command, quoting its last line.

    Raises:
        KeyboardInterrupt, SystemExit: as ``raise_if_stopped``.
        GansynthError: the command's own typed fault, or TrainingFault for any other failure.
    """
    raise_if_stopped(ended)
    if ended.code == 0:
        return
    if ended.code in FAULTS:
        raise FAULTS[ended.code](ended.line)
    line = ended.last[-1] if ended.last else "no output"
    ending = f"exit {ended.code}" if ended.code > 0 else f"signal {_signal(-ended.code)}"
    raise TrainingFault(f"{name} failed ({ending}): {line}")


class ChildCommand:
    """A command in its own session; if it fails, its remaining processes are killed.

    Args:
        words: program and arguments.
        environ: all of its environment variables.
        cwd: working directory.
        log: file to which its output is appended.
        show: called with each line of its output, from another thread.
        document: its stdout is a document.
    """

    def __init__(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        *,
        cwd: Path | None = None,
        log: Path | None = None,
        show: Callable[[str], None] = lambda line: None,
        document: bool = False,
    ) -> None:
        self._words, self._cwd, self._log = list(words), cwd, log
        self._show, self._document = show, document
        # Unbuffered, so that the last output comes last.
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = 0

    def run(self) -> ProcessResult:
        """Run it and wait for its end."""
        began = time.monotonic()
        with self._open_log() as log:
            try:
                child = self._start()
            except OSError as error:
                line = f"{error.filename}: cannot be run: {error.strerror}"
                if log is not None:
                    log.write(f"{line}\n".encode())
                return ProcessResult(0, NOT_FOUND, 0.0, line)
            pipe = child.stderr if self._document else child.stdout
            errors = _LogStream(pipe, log, TAIL, self._show)
            output = _LogStream(child.stdout, log, MAX_JSON_BYTES) if self._document else None
            code = self._wait(child)
            for stream in filter(None, (errors, output)):
                stream.join()
        text = "" if output is None else output.text()
        seconds = time.monotonic() - began
        return ProcessResult(child.pid, code, seconds, errors.text(), text, self._stopped)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to stop; may be called from a signal handler or another thread."""
        self._stopped = number
        if self._child is not None:
            # Only to the command: else its workers would die before it could end them in order.
            self._child.send_signal(number)

    def _open_log(self) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        if self._log is None:
            return contextlib.nullcontext()
        with disk_errors(self._log):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            return self._log.open("ab", buffering=0)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self._document else subprocess.STDOUT,
            env=self._environ,
            cwd=self._cwd,
            start_new_session=True,
        )

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        self._child = child
        if self._stopped:  # the request came before the start
            child.send_signal(self._stopped)
        code = child.wait()
        if code != 0:
            _kill_group(child.pid)
        return code


class _LogStream:
    """A thread that logs and shows lines from a pipe."""

    def __init__(
        self,
        pipe: IO[bytes] | None,
        log: IO[bytes] | None,
        keep: int,
        show: Callable[[str], None] = lambda line: None,
    ) -> None:
        assert pipe is not None
        self._pipe, self._log, self._keep, self._show = pipe, log, keep, show
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
        own = b"".join(line.partition(SHOWN.encode())[0] for line in lines)
        self._kept += own
        del self._kept[: -self._keep]
        # Neither a full disk nor a closed terminal must stop the command.
        with contextlib.suppress(OSError, ValueError):
            if self._log is not None:
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


# -- its output ------------------------------------------------------------------------------------


def last_words(code: int, errors: str, output: str) -> str:
    """Return the end of a command in one line: its own fault, else its last line of output."""
    lines = _lines(errors) or _lines(output)
    faults = [line.removeprefix(FAULT) for line in lines if line.startswith(FAULT)]
    if code in FAULTS and faults:
        return faults[-1]
    line = lines[-1] if lines else "no output"
    if code > 0:
        return line if lines else f"exit {code}: {line}"
    ending = f"killed by {_signal(-code)}"
    return f"{ending}; last output: {line}" if lines else ending


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _signal(number: int) -> str:
    hint = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
    return signal.Signals(number).name + hint


def document_of(output: str) -> Any:
    """Return the JSON object or list at the end of an output; NaN and infinities become None."""
    begin = max(output.rfind("\n{"), output.rfind("\n["))
    for text in (output, output[begin + 1 :]):
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(text, parse_constant=lambda name: None)
            if isinstance(document, dict | list):
                return document
    return None


# -- its descendants -------------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process, whatever their session (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_family(linger: float) -> None:
    """Kill this process's descendants that do not end in some seconds."""
    import psutil

    left = psutil.Process().children(recursive=True)
    left = [process for process in left if not _ends_with_us(process)]
    _, alive = psutil.wait_procs(left, timeout=linger)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=linger)


def _ends_with_us(process: psutil.Process) -> bool:
    """Whether it is the process of multiprocessing that frees what others left."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return "resource_tracker" in " ".join(process.cmdline())
    return False


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
