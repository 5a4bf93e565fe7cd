"""One attempt at a job, in its own process: ``python -m gansynth_benchmark.jobs.attempt``.

Every executor starts this process, on any machine, and writes an ``AttemptSpec`` to its stdin. The
process takes the job's lock, runs the job, and publishes the result. It ends when its stdin is
closed, so nothing outlives the executor. ``start`` starts it, ``result_of`` waits for it.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gansynth.runtime import child
from gansynth.runtime.errors import (
    EXIT_SIGINT,
    EXIT_SIGTERM,
    EnvironmentFault,
    GansynthError,
    TrainingFault,
)
from gansynth.runtime.files import disk_errors
from gansynth.runtime.processes import adopt_orphans, end_family, kill_group
from gansynth.runtime.serialise import Document
from gansynth.runtime.system import apart, send_self
from gansynth.runtime.version import __version__
from gansynth_benchmark.jobs.machine import describe, device_names
from gansynth_benchmark.jobs.store import AttemptTrace, JobSpec, ResultStore

DONE, UNTRAINED, FAILED, HELD, FOUND, STOPPED = 0, 69, 70, 75, 76, EXIT_SIGTERM
"""Exit codes: published; failed (reason on stdout), by a ``TrainingFault`` or otherwise; another
attempt holds the job; already done; stopped."""
GRACE = 30.0  # seconds for a job to stop: a training writes a checkpoint
PATIENCE = 10.0  # seconds after the grace period until jobs are killed
LINGER = 1.0  # seconds for what a job leaves behind to end, before it is killed


@dataclass(frozen=True)
class AttemptSpec(Document):
    """The input of an attempt."""

    job: JobSpec
    store: Path
    cwd: Path
    run: str  # id of the run of the graph, for the trace
    grace: float = GRACE  # seconds for the job to stop


@dataclass(frozen=True)
class AttemptResult:
    """The outcome of an attempt."""

    code: int  # exit code of its process, see above; -N for signal N
    reason: str = ""  # why it failed, in one line


class Executor:
    """Runs attempts at jobs."""

    @property
    def slots(self) -> int:
        """Number of parallel jobs."""
        return 1

    def open(self, store: Path) -> None:
        """Check what jobs need; EnvironmentFault if it is missing."""

    def submit(self, order: AttemptSpec) -> Future[AttemptResult]:
        """Attempt a job."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Stop all jobs within their grace period, and wait."""

    def close(self) -> None:
        """Kill the jobs that are left; also after ``open`` failed."""


def start(order: AttemptSpec, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start an attempt.

    Args:
        environ: environment variables of the job; its own take precedence.

    Returns:
        The process. It runs while its ``stdin`` is open.
    """
    variables = dict(environ)
    variables.update(order.job.env)
    variables["PYTHONUNBUFFERED"] = "1"  # so that the last output comes last
    process = subprocess.Popen(
        [sys.executable, "-m", "gansynth_benchmark.jobs.attempt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=variables,
        **apart(),  # Ctrl-C reaches it once, through the executor
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order.to_json()).encode() + b"\n")
    process.stdin.flush()
    return process


def result_of(process: subprocess.Popen[bytes]) -> AttemptResult:
    """Wait for the end of an attempt; what it leaves in its session is killed."""
    code = process.wait()
    kill_group(process.pid)
    assert process.stdout is not None
    lines = process.stdout.read().decode("utf-8", "replace").split("\n")
    written = [line for line in lines if line.strip()]
    return AttemptResult(code, written[-1] if written else "")


def main() -> int:
    """Read an order from stdin, attempt it, and write the reason of a failure to stdout."""
    wanted, answer = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    with os.fdopen(answer, "w") as stdout:
        try:
            order = AttemptSpec.from_json(json.loads(_first_line(wanted)))
            child.obey()
            adopt_orphans()
            threading.Thread(target=_stop_when_deserted, args=(wanted, order), daemon=True).start()
            with disk_errors(order.cwd):
                os.chdir(order.cwd)
            result = attempt(order, logged=True)
        except GansynthError as error:
            result = AttemptResult(FAILED, str(error))
        end_family(LINGER)
        stdout.write(result.reason)
    return result.code


def _first_line(stdin: int) -> bytes:
    """Read the order without a buffer, since a thread waits for the rest of stdin."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(stdin, 65536)
        if not piece:
            raise EnvironmentFault(
                "benchmark.no-order-on-stdin",
                "no order on stdin; only gansynth itself starts this process",
            )
        line += piece
    return bytes(line)


def _stop_when_deserted(stdin: int, order: AttemptSpec) -> None:
    """Stop the job when our stdin is closed; kill it if it does not stop in time."""
    while os.read(stdin, 4096):
        pass
    send_self(signal.SIGTERM)
    time.sleep(order.grace)
    end_family(0)
    os._exit(STOPPED)


def attempt(order: AttemptSpec, *, logged: bool) -> AttemptResult:
    """Attempt a job in this process.

    Args:
        logged: the output of this process goes to the job's log.
    """
    store, key = ResultStore(order.store), order.job.key
    with store.lock(key) as mine:
        if not mine:
            return AttemptResult(HELD)
        if store.at_hand(key):
            return AttemptResult(FOUND)
        if store.rescue(key):
            return AttemptResult(DONE)
        for need in order.job.needs:
            if not store.expect(need):
                raise EnvironmentFault(
                    "benchmark.result-not-visible",
                    f"{store.folder / need}: not visible on {platform.node()}, expected a "
                    "published result; check that all machines share this file system",
                )
        return _run(order, store, logged)


def _run(order: AttemptSpec, store: ResultStore, logged: bool) -> AttemptResult:
    job, former = order.job, store.trace(order.job.key)
    spent, attempts = (former.seconds, former.attempts + 1) if former else (0.0, 1)
    work = store.work_folder(job.key)
    trace = AttemptTrace(order.run, platform.node(), os.getpid(), _now(), attempts, spent)
    store.leave_trace(job.key, trace)
    if logged:
        _log_into(store.work / f"{job.key}.log")
        print(f"# attempt {attempts} on {trace.machine}, {trace.since}", flush=True)
    began = time.perf_counter()
    try:
        document = job.run(work)
    except GansynthError as error:
        code = UNTRAINED if isinstance(error, TrainingFault) else FAILED
        result = AttemptResult(code, str(error))
        print(f"{child.FAULT}{error.line}", file=sys.stderr)
    except SystemExit as error:
        if not logged and error.code in (EXIT_SIGINT, EXIT_SIGTERM):
            raise  # the job heard the signal in place of the run, which is to end
        stopped = error.code == EXIT_SIGTERM
        result = AttemptResult(STOPPED if stopped else FAILED, "stopped" if stopped else str(error))
        print(result.reason, file=sys.stderr)
    except Exception as error:
        if not logged:
            raise
        traceback.print_exc()
        result = AttemptResult(FAILED, "".join(traceback.format_exception_only(error)).strip())
    else:
        store.finish(job.key, work, _result(job, document, spent, began, attempts))
        return AttemptResult(DONE)
    spent += time.perf_counter() - began
    store.leave_trace(job.key, replace(trace, seconds=spent, line=result.reason))
    return result


def _log_into(log: Path) -> None:
    """Append all output of this process to a file."""
    with disk_errors(log), log.open("ab") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)


def _result(
    job: JobSpec, document: Any, spent: float, began: float, attempts: int
) -> dict[str, Any]:
    # NaN and infinities become null.
    text = json.dumps(document, default=str)
    return {
        "key": job.key,
        "title": job.title,
        "group": job.group,
        "seconds": round(spent + time.perf_counter() - began, 3),
        "attempts": attempts,
        "machine": describe(),
        "device": device_names(os.environ),
        "finished_at": _now(),
        "version": __version__,
        "document": json.loads(text, parse_constant=lambda name: None),
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
