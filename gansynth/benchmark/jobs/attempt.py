"""One attempt at a job, in its own process: ``python -m gansynth.benchmark.jobs.attempt``.

Every executor starts this process, on any machine, and writes an ``AttemptSpec`` to its stdin. The
process takes the job's lock, runs the command, and publishes the result. It ends the command and
itself when its stdin is closed, so nothing outlives the executor. ``start`` starts it; an
``AttemptResult`` is its outcome.
"""

from __future__ import annotations

import io
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from gansynth.benchmark.jobs.job import JobSpec
from gansynth.benchmark.jobs.machine import describe, device_names
from gansynth.benchmark.jobs.store import AttemptTrace, ResultStore
from gansynth.runtime.child import FAULT
from gansynth.runtime.errors import EXIT_SIGTERM, EnvironmentFault, GansynthError, TrainingFault
from gansynth.runtime.files import disk_errors
from gansynth.runtime.processes import ChildCommand, ProcessResult
from gansynth.runtime.serialise import Document
from gansynth.runtime.version import __version__

DONE, UNTRAINED, FAILED, HELD, FOUND, STOPPED = 0, 69, 70, 75, 76, EXIT_SIGTERM
"""Exit codes: published; command failed (reason on stdout), by a ``TrainingFault`` or otherwise;
another attempt holds the job; already done; stopped. Any other code is an error or a bug: stdout
ends with a line about it."""
GRACE = 30.0  # seconds for a command to stop: a training writes a checkpoint
PATIENCE = 10.0  # seconds after the grace period until jobs are killed


@dataclass(frozen=True)
class AttemptSpec(Document):
    """The input of an attempt."""

    job: JobSpec
    store: Path
    cwd: Path
    run: str  # id of the run of the graph, for the trace
    grace: float = GRACE  # seconds for the command to stop

    def to_line(self) -> bytes:
        """Serialise as one line of JSON."""
        return json.dumps(self.to_json()).encode() + b"\n"


@dataclass(frozen=True)
class AttemptResult:
    """The outcome of an attempt."""

    key: str
    code: int  # exit code of its process, see above; -N for signal N
    words: str  # its last line of output, or the executor's explanation


def start(line: bytes, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start an attempt.

    Args:
        line: the order, as ``AttemptSpec.to_line`` makes it.
        environ: environment variables of the command; the job's own take precedence.

    Returns:
        The process. It runs while its ``stdin`` is open; its ``stdout`` closes when it ends.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "gansynth.benchmark.jobs.attempt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        start_new_session=True,  # Ctrl-C reaches it once, through the executor
    )
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process


def main() -> int:
    """Read an order from stdin, and attempt it."""
    try:
        return attempt(AttemptSpec.from_json(json.loads(_first_line())))
    except GansynthError as error:
        print(f"{FAULT}{error}", flush=True)
        return error.exit_code


def _first_line() -> bytes:
    """Read the order without a buffer, since a thread waits for the rest of stdin."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(sys.stdin.fileno(), 65536)
        if not piece:
            raise EnvironmentFault("no order on stdin; only gansynth itself starts this process")
        line += piece
    return bytes(line)


def attempt_here(order: AttemptSpec) -> AttemptResult:
    """Attempt a job in this process: for a debugger, a profiler, or a test."""
    try:
        return AttemptResult(order.job.key, attempt(order, _run_here), "")
    except GansynthError as error:
        code = UNTRAINED if isinstance(error, TrainingFault) else FAILED
        return AttemptResult(order.job.key, code, str(error))


def attempt(
    order: AttemptSpec, run: Callable[[AttemptSpec, ResultStore], int] | None = None
) -> int:
    """Attempt a job.

    Args:
        run: runs it, once its lock is held and its needs are there; by default in a process.

    Returns:
        One of the exit codes above.
    """
    store, key = ResultStore(order.store), order.job.key
    with store.lock(key) as mine:
        if not mine:
            return HELD
        if store.at_hand(key):
            return FOUND
        if store.rescue(key):
            return DONE
        for need in order.job.needs:
            if not store.expect(need):
                raise EnvironmentFault(
                    f"{store.folder / need}: not visible on {platform.node()}, expected a "
                    "published result; check that all machines share this file system"
                )
        return (run or _run)(order, store)


def _run_here(order: AttemptSpec, store: ResultStore) -> int:
    job, began = order.job, time.perf_counter()
    work = store.work_folder(job)
    about = AttemptTrace(order.run, platform.node(), os.getpid(), _now(), 1, 0.0)
    store.leave_trace(job.key, about)
    main, before = import_module(job.argv[2]).main, dict(os.environ)
    said = io.StringIO()
    os.environ.update(job.env)
    try:
        with redirect_stdout(said):
            main(*job.command(work)[3:])
    finally:
        os.environ.clear()
        os.environ.update(before)
    ended = ProcessResult(os.getpid(), 0, time.perf_counter() - began, "", said.getvalue())
    store.finish(job.key, work, _result(job, ended, ended.seconds, 1, device_names(os.environ)))
    return DONE


def _run(order: AttemptSpec, store: ResultStore) -> int:
    job, former = order.job, store.trace(order.job.key)
    spent = former.seconds if former and job.resumable else 0.0
    attempts = (former.attempts if former else 0) + 1
    environ = {**os.environ, **job.env}
    work = store.work_folder(job)
    about = AttemptTrace(order.run, platform.node(), os.getpid(), _now(), attempts, spent)
    store.leave_trace(job.key, about)
    log = store.work / f"{job.key}.log"
    with disk_errors(log), log.open("a", encoding="utf-8") as stream:
        stream.write(f"# attempt {attempts} on {about.machine}, {about.since}\n")
    command = ChildCommand(
        job.command(work), environ, cwd=order.cwd, log=log, document=True, grace=order.grace
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: command.stop())
    watch = threading.Thread(target=_stop_when_deserted, args=[command], daemon=True)
    ended = command.run(watch.start)
    spent += ended.seconds
    if ended.code == 0:
        result = _result(job, ended, spent, attempts, device_names(environ))
        store.finish(job.key, work, result)
        return DONE
    line = "stopped" if ended.stopped else ended.line
    print(line, flush=True)
    store.leave_trace(job.key, AttemptTrace(**{**vars(about), "seconds": spent, "line": line}))
    if ended.stopped:
        return STOPPED
    return UNTRAINED if ended.code == TrainingFault.exit_code else FAILED


def _result(
    job: JobSpec, ended: ProcessResult, seconds: float, attempts: int, device: str
) -> dict[str, Any]:
    return {
        "key": job.key,
        "title": job.title,
        "group": job.group,
        "argv": list(job.argv),
        "rc": ended.code,
        "seconds": round(seconds, 3),
        "attempts": attempts,
        "machine": describe(),
        "device": device,
        "finished_at": _now(),
        "version": __version__,
        "document": ended.document,
    }


def _stop_when_deserted(command: ChildCommand) -> None:
    """Stop the command when our stdin is closed."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    command.stop()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
