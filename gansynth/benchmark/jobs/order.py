"""What an attempt at a job is told, how it is started, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gansynth.benchmark.jobs.job import Job
from gansynth.runtime.errors import EXIT_SIGTERM

DONE, FAILED, HELD, FOUND, STOPPED = 0, 70, 75, 76, EXIT_SIGTERM
"""Exit codes: published; the command failed, and stdout says how; another attempt has the job; one
had done it; told to stop. Any other is a fault's, or a bug's: stdout ends with a line about it."""
GRACE = 30.0
"""Seconds for a command that is told to stop: a training writes a checkpoint."""


@dataclass(frozen=True)
class Order:
    """What an attempt is told.

    Attributes:
        job: the job.
        store: folder of the store.
        cwd: where the command works.
        run: name of the run of the graph, for its trace.
        grace: seconds for the command to stop.
    """

    job: Job
    store: Path
    cwd: Path
    run: str
    grace: float = GRACE

    def to_line(self) -> bytes:
        """As one line; see ``from_line``."""
        doc = {**vars(self), "job": self.job.to_json()}
        return json.dumps(doc, default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Order:
        """What ``to_line`` wrote."""
        doc = json.loads(line)
        job, store, cwd = Job.from_json(doc["job"]), Path(doc["store"]), Path(doc["cwd"])
        return cls(job, store, cwd, doc["run"], doc["grace"])


def start(line: bytes, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start an attempt.

    Args:
        line: the order, as ``Order.to_line`` makes it.
        environ: variables of the command, under those of the job itself.

    Returns:
        The process. It goes on while its ``stdin`` is open; its ``stdout`` is at an end when it is.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "gansynth.benchmark.jobs.attempt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        start_new_session=True,  # Ctrl-C reaches it once, through whoever started it
    )
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process
