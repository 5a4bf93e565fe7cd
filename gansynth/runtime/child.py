"""Runs a host's process: its output shown and kept, signals passed on, nobody left behind.

``run`` is for the process that starts a host, ``obey`` for the one that is started.
"""

from __future__ import annotations

import contextlib
import logging
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
from typing import IO

from gansynth.runtime.errors import EXIT_SIGINT, EXIT_SIGTERM, FAULTS, GansynthError, TrainingFault
from gansynth.runtime.files import disk_errors
from gansynth.runtime.signals import on_sigterm

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FAULT = "error: "
"""Begins the line in which a child says what it ended with; its threads may go on talking."""
PARENT = "GANSYNTH_PARENT"
"""Variable with the pid of the process that must stay alive; without it a child goes on alone."""


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
    ending = f"exit {ended.code}"
    if ended.code < 0:
        ending = f"signal {signal.Signals(-ended.code).name}"
        if -ended.code == signal.SIGKILL:
            ending += ", as the system does when memory runs out"
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


def _kill_group(group: int) -> None:
    """Kill workers that a failed child left running; some survive a killed parent."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


# -- in the child --------------------------------------------------------------------------------


def obey() -> None:
    """In a child: leave by ``SystemExit`` on SIGTERM, which also comes when the parent is gone."""
    on_sigterm(_leave)
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        threading.Thread(target=_follow, args=(int(parent),), daemon=True).start()


def entry(work: Callable[[], None]) -> int:
    """A child's work, from its first line to its exit code.

    Returns:
        The exit code; a line on stderr says why it is not 0.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    obey()
    try:
        work()
    except GansynthError as error:
        sys.stderr.write(f"{FAULT}{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT
    return 0


def limit_threads(device: str) -> None:
    """Keep torch to ``cpu_threads`` where it trains on the CPU (``cpu``), else to one."""
    import torch

    torch.set_num_threads(cpu_threads() if device == "cpu" else 1)


def cpu_threads() -> int:
    """Threads for torch on the CPU: OMP_NUM_THREADS if set, else all cores but one.

    Hosts take every core. One core too many is not a little slower but tens of times, and the
    producer and a host's workers need some too.
    """
    text = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(text) if text.isdigit() else (os.cpu_count() or 2) - 1)


def _leave(number: int, frame: object) -> None:
    """On SIGTERM: unwind, so that the producer is stopped and the bank removed."""
    raise SystemExit(EXIT_SIGTERM)


def _follow(parent: int) -> None:
    """Leave when the process that started us is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
