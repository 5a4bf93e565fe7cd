"""Processes of a host and of a job: their output kept, signals passed on, nobody left behind.

``run`` shows what a host says and takes in Ctrl-C for it. ``Command`` keeps what a job says and
gives it time to stop. What the started process does for its part is in ``child``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gansynth.runtime.child import FAULT
from gansynth.runtime.errors import EXIT_SIGTERM, FAULTS, TrainingFault
from gansynth.runtime.files import MAX_JSON_BYTES, disk_errors
from gansynth.runtime.signals import SAME_REQUEST

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOT_FOUND = 127
"""Exit code of a command that could not be started, as shells have it."""
TAIL = 8192
"""Bytes of each stream that are remembered for its last words."""
LINGER = 1.0
"""Seconds for what a command has started to end after it, before it is killed."""
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
"""Of Linux's prctl(2)."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (-N for signal N), last lines, the signal we passed on."""

    pid: int
    code: int
    last: tuple[str, ...]
    passed_on: int | None


def run(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Ended:
    """Run a command, its output going to our stderr and to a log file, and wait for its end.

    The child has a session of its own: Ctrl-C and SIGTERM reach it once, from here. Whatever is
    left of a child that failed is killed.
    """
    last: deque[str] = deque(maxlen=200)
    held: list[str] = []
    with disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab", buffering=0) as kept,
        subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Unbuffered, or what was said last would not come last.
            env={**environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        ) as child,
        _passing_on(child) as caught,
    ):
        # A thread reads, for workers that outlive a killed child keep the pipe open.
        reader = threading.Thread(target=_show, args=(child.stdout, kept, last, held), daemon=True)
        reader.start()
        code = child.wait()
        if code != 0:
            _kill_group(child.pid)
        reader.join(timeout=10)
    if code not in FAULTS:  # else it is this process's own error, which is said once
        sys.stderr.writelines(held)
    return Ended(child.pid, code, tuple(last), caught[-1] if caught else None)


def raise_if_failed(ended: Ended, what: str) -> None:
    """Turn how a child ended into this process's own error, quoting its last line.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C.
        SystemExit: with 143, if this process was told to terminate.
        GansynthError: the child's own typed fault, or TrainingFault for any other failure.
    """
    if ended.passed_on == signal.SIGINT:
        raise KeyboardInterrupt
    if ended.passed_on == signal.SIGTERM:
        raise SystemExit(EXIT_SIGTERM)
    if ended.code == 0:
        return
    line = ended.last[-1] if ended.last else "it said nothing"
    if ended.code in FAULTS:
        told = [said for said in ended.last if said.startswith(FAULT)]
        raise FAULTS[ended.code](told[-1].removeprefix(FAULT) if told else line)
    ending = f"exit {ended.code}" if ended.code > 0 else f"signal {_signal(-ended.code)}"
    raise TrainingFault(f"{what} failed ({ending}): {line}")


def _show(output: IO[bytes], kept: IO[bytes], last: deque[str], held: list[str]) -> None:
    """Show a child's output as it comes, keep it, and remember the last lines.

    What it may have ended with is held back until something else of the kind is said.
    """
    for line in output:
        kept.write(line)
        text = line.decode("utf-8", "replace")
        shown = text
        if text.startswith(FAULT):
            shown = "".join(held)
            held[:] = [text]
        sys.stderr.write(shown)
        sys.stderr.flush()
        if text.strip():
            last.append(text.strip())


@contextlib.contextmanager
def _passing_on(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on to the child; yields those that came.

    To the child alone: its workers would die before it could end them in good order. A signal that
    this process was told to ignore (under nohup, say) stays ignored.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return

    def pass_on(number: int, frame: object) -> None:
        caught.append(number)
        child.send_signal(number)

    wanted = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {n: signal.signal(n, pass_on) for n in wanted}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    Attributes:
        code: exit code, -N for signal N.
        seconds: it took.
        line: its last words, where the code is not 0.
        document: the JSON at the end of its stdout, None if there is none.
        stopped: whether it was told to stop.
    """

    code: int
    seconds: float
    line: str
    document: Any
    stopped: bool


class Command:
    """A command in a session of its own, for the main thread of a process of its own.

    On Linux it is killed when this process is, and what it leaves behind becomes ours to end.

    Args:
        words: program and arguments.
        environ: its variables, all of them.
        cwd: where it works.
        log: what it says on stdout and stderr is appended here.
        grace: seconds between the request to stop and the end.
    """

    def __init__(
        self,
        words: Sequence[str],
        environ: Mapping[str, str],
        *,
        cwd: Path,
        log: Path,
        grace: float,
    ) -> None:
        self._words, self._cwd, self._log, self._grace = list(words), cwd, log, grace
        # Unbuffered, or what was said last would not come last.
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: float | None = None

    def run(self, started: Callable[[], None] = lambda: None) -> CommandResult:
        """Run it, and wait for its end; threads may be started by ``started`` only."""
        began = time.monotonic()
        with self._log.open("ab", buffering=0) as log:
            try:
                child = self._start()
            except OSError as error:
                line = f"{error.filename}: cannot be run: {error.strerror}"
                log.write(f"{line}\n".encode())
                return CommandResult(NOT_FOUND, 0.0, line, None, False)
            started()
            out, err = _Stream(child.stdout, log, MAX_JSON_BYTES), _Stream(child.stderr, log, TAIL)
            code = self._wait(child)
            for stream in (out, err):
                stream.join()
        seconds = time.monotonic() - began
        line = last_words(code, err.text(), out.text()[-TAIL:]) if code else ""
        return CommandResult(code, seconds, line, document_of(out.text()), self._asked is not None)

    def stop(self) -> None:
        """Ask it to stop; may be called from a signal handler or another thread.

        When it is asked again, later than a second, or does not within the grace, it is killed.
        """
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            self._ask()
        elif now - self._asked > SAME_REQUEST:
            self._kill()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            cwd=self._cwd,
            start_new_session=True,
            preexec_fn=_dying_with(os.getpid()),
        )

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        self._child = child
        _adopt()
        if self._asked is not None:  # before there was anything to stop
            self._ask()
        code = child.wait()
        _end_family(child.pid, LINGER if code >= 0 else 0)
        return code

    def _ask(self) -> None:
        if self._child is None:
            return
        # To it alone: its workers would die before it could end them in good order.
        self._child.send_signal(signal.SIGTERM)
        timer = threading.Timer(self._grace, self._kill)
        timer.daemon = True
        timer.start()

    def _kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            _kill_group(self._child.pid)


class _Stream:
    """A thread that appends what comes from a pipe to a log, and remembers the end of it.

    Line by line: a command without buffers writes a line in pieces, and the log has two pipes.
    """

    def __init__(self, pipe: IO[bytes] | None, log: IO[bytes], keep: int) -> None:
        assert pipe is not None
        self._pipe, self._log, self._keep = pipe, log, keep
        self._kept = bytearray()
        # A daemon, for a process that got away may keep the pipe open.
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        begun = b""
        while chunk := os.read(self._pipe.fileno(), 65536):
            whole, begun = _whole_lines(begun + chunk)
            self._write(whole)
            self._kept += chunk
            del self._kept[: -self._keep]
        self._write(begun)

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk must not stop the command
            self._log.write(text)

    def join(self) -> None:
        self._thread.join(timeout=10)

    def text(self) -> str:
        return bytes(self._kept).decode("utf-8", "replace")


def _whole_lines(text: bytes) -> tuple[bytes, bytes]:
    """What can be logged, and the line that is begun; progress bars end lines by returning."""
    end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    if not end and len(text) > TAIL:
        end = len(text)
    return text[:end], text[end:]


# -- what it said ----------------------------------------------------------------------------------


def last_words(code: int, errors: str, output: str) -> str:
    """What a command ended with, in one line: its own fault, else the last line it said.

    Args:
        code: not 0; -N for signal N.
        errors: the end of its stderr.
        output: the end of its stdout.
    """
    said = [line.strip() for line in errors.splitlines() if line.strip()]
    said = said or [line.strip() for line in output.splitlines() if line.strip()]
    faults = [line.removeprefix(FAULT) for line in said if line.startswith(FAULT)]
    if code in FAULTS and faults:
        return faults[-1]
    line = said[-1] if said else "it said nothing"
    if code > 0:
        return line if said else f"exit {code}: {line}"
    ending = f"killed by {_signal(-code)}"
    return f"{ending}; last it said: {line}" if said else ending


def _signal(number: int) -> str:
    """A signal's name, and what SIGKILL most often means."""
    hint = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
    return signal.Signals(number).name + hint


def document_of(output: str) -> Any:
    """The JSON object or list at the end of what was printed; NaN and infinities become None."""
    begin = max(output.rfind("\n{"), output.rfind("\n["))
    for text in (output, output[begin + 1 :]):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text, parse_constant=lambda name: None)
            if isinstance(found, dict | list):
                return found
    return None


# -- its family ------------------------------------------------------------------------------------


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        _libc().prctl(option, value, 0, 0, 0)


def _adopt() -> None:
    """Have orphans among our descendants become our children, whatever session they are in."""
    _prctl(SET_CHILD_SUBREAPER, 1)


def _dying_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes another program: it asks to be killed with its parent.

    Safe after a fork, since a process that starts a command has one thread then.
    """

    def prepare() -> None:
        _prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(NOT_FOUND)

    return prepare


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _end_family(group: int, linger: float) -> None:
    """End what a command that is over has left: give it a moment, for it may be tidying up."""
    import psutil

    left = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(left, timeout=linger)
    _kill_group(group)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=linger)
