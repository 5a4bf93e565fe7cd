"""Results of jobs: a folder per job, named by its key and published atomically.

    STORE/KEY/result.json         the result: see ``ResultStore.result``
    STORE/KEY/log.txt             output of the job, over all attempts
    STORE/KEY/...                 files of the job
    STORE/.work/KEY.lock          held by the running attempt
    STORE/.work/KEY.json          that attempt, or the last one: ``AttemptTrace``
    STORE/.work/KEY.log           its log, until it is published
    STORE/.work/KEY/              its folder, until it is published

Any number of runs, on any number of machines, may share a store whose file system has locks.
``.work`` may be deleted when no run is active; interrupted jobs then start from the beginning.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError
from gansynth.runtime.files import (
    disk_errors,
    publish_dir,
    read_json,
    replace_text,
    write_json_atomic,
)
from gansynth.runtime.serialise import Document

RESULT, LOG, UNDER_WAY = "result.json", "log.txt", ".work"
SIGHT = 60.0  # seconds until a network file system shows files published on another machine


@dataclass(frozen=True)
class AttemptTrace:
    """An attempt at a job: the running one, or the last one that failed."""

    run: str  # id of the run of the graph
    machine: str  # name of the machine
    pid: int  # of its process
    since: str  # start as text with the time zone
    attempts: int  # number of attempts, this one included
    seconds: float  # of earlier attempts that this one resumes; its own are added at the end
    line: str = ""  # its last line; empty while it runs


class ResultStore:
    """A folder of results.

    Args:
        folder: where results are published; created if missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.work = self.folder / UNDER_WAY
        with disk_errors(self.work):
            self.work.mkdir(parents=True, exist_ok=True)

    # -- results -----------------------------------------------------------------------------------

    def at_hand(self, key: str) -> bool:
        """Whether a job's complete folder is here."""
        return _read(self.folder / key, key) is not None

    def result(self, key: str) -> dict[str, Any]:
        """Return a job's ``result.json``.

        Returns:
            ``key``, ``title``, ``group``, ``machine``, ``device``, ``finished_at``. ``seconds`` is
            the time of all ``attempts``. ``version`` is gansynth's. ``document`` is what the job
            returned, with NaN and infinities as null.
        """
        result = _read(self.folder / key, key)
        if result is None:
            raise DataFault(
                "benchmark.no-complete-result",
                f"{self.folder / key / RESULT}: no complete result of this job; run the plan again",
            )
        return result

    def log(self, key: str) -> Path:
        """Return the log of a finished, running or failed job."""
        published = self.folder / key / LOG
        return published if published.exists() else self.work / f"{key}.log"

    def expect(self, key: str, patience: float = SIGHT) -> bool:
        """Whether a result published on any machine becomes visible here in time."""
        end = time.monotonic() + patience
        while not self.at_hand(key):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
            with suppress(OSError):
                os.listdir(self.folder)  # refreshes a network file system
        return True

    # -- attempts ----------------------------------------------------------------------------------

    @contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Lock a job for this process; yields False if another one, on any machine, holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.work / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            raise EnvironmentFault(
                "benchmark.result-lock-unavailable",
                f"{lock.lock_file}: cannot be locked ({error}); expected a file system with locks, "
                "which keep a job from running twice. Choose another folder",
            ) from error
        try:
            yield True
        finally:
            lock.release()

    def held(self, key: str) -> bool:
        """Whether any run on any machine is attempting a job."""
        if not (self.work / f"{key}.lock").exists():
            return False
        with self.lock(key) as mine:
            return not mine

    def trace(self, key: str) -> AttemptTrace | None:
        """Return the running attempt, or the last failed one; None if there is none."""
        try:
            return AttemptTrace(**read_json(self.work / f"{key}.json"))
        except (GansynthError, TypeError):
            return None

    def leave_trace(self, key: str, trace: AttemptTrace) -> None:
        """Write the trace of an attempt."""
        path = self.work / f"{key}.json"
        with disk_errors(path):
            replace_text(path, json.dumps(asdict(trace)))

    def work_folder(self, key: str) -> Path:
        """Return the folder of a job's attempts; only for the holder of the job's lock."""
        folder = self.work / key
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def rescue(self, key: str) -> bool:
        """Publish a finished result of a killed attempt, if there is one."""
        finished = _read(self.work / key, key) is not None
        if finished:
            self._publish(key, self.work / key)
        return finished

    def finish(self, key: str, work: Path, result: Mapping[str, Any]) -> None:
        """Publish an attempt's folder with its log and result; only for the holder of the lock."""
        log = self.work / f"{key}.log"
        with disk_errors(work / LOG):
            if log.exists():
                os.replace(log, work / LOG)
        write_json_atomic(work / RESULT, result)
        self._publish(key, work)

    def _publish(self, key: str, work: Path) -> None:
        final = self.folder / key
        if final.exists():  # damaged: a complete one is never computed again
            aside = self.work / f"{key}-damaged-{uuid.uuid4().hex[:8]}"
            with disk_errors(final):
                os.replace(final, aside)
            shutil.rmtree(aside, ignore_errors=True)
        publish_dir(work, final)
        (self.work / f"{key}.json").unlink(missing_ok=True)


def _read(folder: Path, key: str) -> dict[str, Any] | None:
    """Return a folder's result if it is complete, else None."""
    try:
        result: dict[str, Any] = read_json(folder / RESULT)
    except GansynthError:
        return None
    whole = result.get("key") == key and "document" in result
    return result if whole else None


@dataclass(frozen=True)
class JobSpec(Document):
    """A function and its argument, addressed by their content."""

    key: str  # content address, hexadecimal digits. Two jobs with one key are one job.
    title: str  # readable name: `cgan, N=6, draw 1, seed 0`
    group: str  # row of the progress table: `fit`, `train`
    # `MODULE:FUNCTION`, called with `document` and the job's folder, which is published whole; it
    # returns a JSON document. It resumes from files that an earlier attempt left in the folder.
    function: str
    _: KW_ONLY
    document: Mapping[str, Any] = field(default_factory=dict, hash=False)
    needs: tuple[str, ...] = ()
    # environment variables of the job, over those of the calling process
    env: Mapping[str, str] = field(default_factory=dict, hash=False)

    def run(self, folder: Path) -> Any:
        """Run the job in this process, and return its document."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)(self.document, folder)
