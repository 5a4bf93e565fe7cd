"""Results of jobs, each in a folder that is named by its key and published whole.

    STORE/KEY/result.json         what was computed: see ``Store.result``
    STORE/KEY/log.txt             what the command said, over all attempts
    STORE/KEY/...                 what it wrote
    STORE/.work/KEY.lock          held by the one attempt that is under way
    STORE/.work/KEY.json          that attempt, or the last one: ``Trace``
    STORE/.work/KEY.log           its log, until it is published
    STORE/.work/KEY[-ATTEMPT]/    its folder, until it is published

Any number of runs, on any number of machines, may share a store whose file system has locks.
``.work`` may be deleted when none is under way; what was interrupted then begins anew.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gansynth.benchmark.jobs.job import Job
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError
from gansynth.runtime.files import (
    disk_errors,
    publish_dir,
    read_json,
    replace_text,
    write_json_atomic,
)

RESULT, LOG, UNDER_WAY = "result.json", "log.txt", ".work"
SIGHT = 60.0
"""Seconds until a network file system shows on one machine what was published on another."""


@dataclass(frozen=True)
class Trace:
    """An attempt at a job: under way, or the last one, which did not end well.

    Attributes:
        run: which run of the graph made it.
        machine: where.
        pid: of the process that watches over the command.
        since: when it began, as text with the zone.
        attempts: how many there were, this one included.
        seconds: that earlier ones took, if this one goes on from them; with its own when it ended.
        line: what it ended with; empty while it is under way.
    """

    run: str
    machine: str
    pid: int
    since: str
    attempts: int
    seconds: float
    line: str = ""


class Store:
    """A folder of results.

    Args:
        folder: where results are published; made if it is not there.

    Raises:
        EnvironmentFault: the folder cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.work = self.folder / UNDER_WAY
        with disk_errors(self.work):
            self.work.mkdir(parents=True, exist_ok=True)

    # -- results -----------------------------------------------------------------------------------

    def at_hand(self, key: str) -> bool:
        """Whether a job's whole folder is here."""
        return _read(self.folder / key, key) is not None

    def result(self, key: str) -> dict[str, Any]:
        """A job's ``result.json``.

        Returns:
            ``key``, ``title``, ``group``, ``argv``; ``rc``, 0; ``seconds`` of the attempts that led
            to it, and ``attempts``, how many there were; ``machine`` and ``device``;
            ``finished_at``; ``version``, gansynth's; ``document``, the JSON that the command
            printed on stdout (NaN and infinities as null), None if it printed none.

        Raises:
            DataFault: there is none, or it is damaged.
        """
        found = _read(self.folder / key, key)
        if found is None:
            raise DataFault(
                f"{self.folder / key / RESULT}: no whole result of this job; run the plan again"
            )
        return found

    def log(self, key: str) -> Path:
        """The log of a job that is done, under way or failed."""
        published = self.folder / key / LOG
        return published if published.exists() else self.work / f"{key}.log"

    def expect(self, key: str, patience: float = SIGHT) -> bool:
        """Whether a result that was published, maybe on another machine, shows up here in time."""
        end = time.monotonic() + patience
        while not self.at_hand(key):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
            with suppress(OSError):
                os.listdir(self.folder)  # has a network file system look again
        return True

    # -- attempts ----------------------------------------------------------------------------------

    @contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Hold a job for this process; yields False if another one, on any machine, has it.

        Raises:
            EnvironmentFault: the file system has no locks, or no room.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.work / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            raise EnvironmentFault(
                f"{lock.lock_file}: cannot be locked ({error}); expected a file system with locks, "
                "so that no job is run twice at once. Choose another folder"
            ) from error
        try:
            yield True
        finally:
            lock.release()

    def held(self, key: str) -> bool:
        """Whether an attempt at a job is under way, of any run on any machine."""
        if not (self.work / f"{key}.lock").exists():
            return False
        with self.lock(key) as mine:
            return not mine

    def trace(self, key: str) -> Trace | None:
        """The attempt under way, or the last one that did not end well; None if there is none."""
        try:
            return Trace(**read_json(self.work / f"{key}.json"))
        except (GansynthError, TypeError):
            return None

    def leave_trace(self, key: str, trace: Trace) -> None:
        """Say what an attempt is about, or how it ended.

        Raises:
            EnvironmentFault: the disk refuses.
        """
        path = self.work / f"{key}.json"
        with disk_errors(path):
            replace_text(path, json.dumps(asdict(trace)))

    def work_folder(self, job: Job) -> Path:
        """The folder to attempt a job in; whoever holds its lock may ask.

        What earlier attempts left goes, unless the job is resumable.

        Raises:
            EnvironmentFault: the disk refuses.
        """
        kept = self.work / job.key
        for folder in self._folders(job.key):
            if folder != kept or not job.resumable:
                shutil.rmtree(folder, ignore_errors=True)
        folder = kept if job.resumable else self.work / f"{job.key}-{uuid.uuid4().hex[:8]}"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def rescue(self, key: str) -> bool:
        """Publish what an attempt had finished when it was killed, if there is such a thing."""
        for folder in self._folders(key):
            if _read(folder, key) is not None:
                self._publish(key, folder)
                return True
        return False

    def finish(self, key: str, work: Path, result: Mapping[str, Any]) -> None:
        """Publish an attempt's folder with its log and result; whoever holds the lock may ask.

        Raises:
            EnvironmentFault: the disk refuses.
        """
        log = self.work / f"{key}.log"
        with disk_errors(work / LOG):
            if log.exists():
                os.replace(log, work / LOG)
        write_json_atomic(work / RESULT, result)
        self._publish(key, work)

    def _publish(self, key: str, work: Path) -> None:
        final = self.folder / key
        if final.exists():  # damaged: a whole one is never computed again
            aside = self.work / f"{key}-damaged-{uuid.uuid4().hex[:8]}"
            with disk_errors(final):
                os.replace(final, aside)
            shutil.rmtree(aside, ignore_errors=True)
        publish_dir(work, final)
        (self.work / f"{key}.json").unlink(missing_ok=True)

    def _folders(self, key: str) -> list[Path]:
        found = (self.work / key, *self.work.glob(f"{key}-*"))
        return [path for path in found if path.is_dir()]


def _read(folder: Path, key: str) -> dict[str, Any] | None:
    """A folder's result, if it is whole and that of a job that ended well."""
    try:
        found: dict[str, Any] = read_json(folder / RESULT)
    except GansynthError:
        return None
    whole = found.get("key") == key and found.get("rc") == 0 and "document" in found
    return found if whole else None
