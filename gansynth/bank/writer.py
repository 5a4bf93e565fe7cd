"""The writer of a bank: one process, one lock, one rename per sample."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.store import (
    COMPLETE,
    HEARTBEAT,
    LOCK,
    SPEC,
    BankSpec,
    content_of,
    encode_sample,
    list_samples,
    load_spec,
    read_heartbeat,
    read_sha256,
    sample_path,
)
from gansynth.bank.throttle import PACE, WORK
from gansynth.core.schema import Sample
from gansynth.runtime.errors import EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.files import (
    digest_of,
    disk_errors,
    remove_temporaries,
    replace_text,
    write_bytes_atomic,
    write_json_atomic,
)

if TYPE_CHECKING:
    from gansynth.core.adapter import HostArrays

_BLOCK = 4096  # file sizes are rounded up to whole blocks
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SETTLE_SECONDS = 0.2  # until the space of a retired sample is free


class BankWriter:
    """Publish samples; made by ``create`` or ``attach``, one at a time per bank."""

    def __init__(self, folder: Path, spec: BankSpec, lock: Any) -> None:
        self.folder, self.spec, self._lock = folder, spec, lock
        self.published = 0  # samples this writer has published
        # for the heartbeat: one word; and samples refused before admission, by reason
        self.state, self.rejected = "filling", Counter[str]()
        # for the heartbeat: begin of the current batch (`time.monotonic()`), None between batches;
        # and usual seconds of a batch, None before the first
        self.working_since: float | None = None
        self.usual: float | None = None
        self.squeezed = False  # whether a full disk has reduced the size of a live bank
        self._beating = threading.Lock()
        remove_temporaries(folder)
        self._held = _look(folder)  # id -> bytes on the disk, oldest first
        self._next = max(map(int, self._held), default=-1) + 1
        self._budget = spec.max_bytes
        self.beat()

    @classmethod
    def create(cls, folder: Path | str, spec: BankSpec) -> BankWriter:
        """Make a new bank.

        Raises:
            UsageFault: the folder exists and is not empty.
            EnvironmentFault: it cannot be written, or another writer is making it.
        """
        folder = Path(folder)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _refuse_content(folder)
        return cls._locked(folder, spec, new=True)

    @classmethod
    def attach(cls, folder: Path | str) -> BankWriter:
        """Continue a bank whose writer has ended; half-written files are removed.

        Raises:
            DataFault: there is no bank.
            EnvironmentFault: another writer is using it.
        """
        return cls._locked(Path(folder), load_spec(Path(folder)))

    @classmethod
    def _locked(cls, folder: Path, spec: BankSpec, new: bool = False) -> BankWriter:
        from filelock import FileLock, Timeout

        # Not thread-local, or another thread of this process could acquire it again.
        lock = FileLock(folder / LOCK, thread_local=False)
        with disk_errors(folder / LOCK):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                pid = read_heartbeat(folder).get("pid", "unknown")
                raise EnvironmentFault(
                    f"{folder}: another process (pid {pid}) writes to this bank, expected one "
                    "writer; wait for it, stop it, or name another folder"
                ) from None
        try:
            if new:
                _refuse_content(folder)
                doc = spec.to_json()
                write_json_atomic(folder / SPEC, {**doc, "digest": digest_of(doc)})
            return cls(folder, spec, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def held(self) -> int:
        """Samples that readers can see."""
        return len(self._held)

    @property
    def total(self) -> int:
        """Samples ever published in this bank, by this and earlier writers: their numbers."""
        return self._next

    @property
    def full(self) -> bool:
        """Whether the oldest sample must be retired before another is published."""
        largest = max(self._held.values(), default=0)
        return self.held >= self.spec.capacity or (largest > 0 and self._tight(largest))

    @property
    def complete(self) -> bool:
        """Whether ``finish`` was called on this bank."""
        return (self.folder / COMPLETE).exists()

    def publish(self, sample: Sample, extras: HostArrays) -> Path:
        """Publish an admitted sample with the adapter's arrays; readers see all of it or nothing.

        A live bank retires its oldest samples: those beyond its capacity afterwards, and
        beforehand those that its bytes or a full disk have no room for. The last one always stays.

        Raises:
            UsageFault: the frozen bank is full, or complete.
            DataFault: the sample cannot be stored.
            EnvironmentFault: the disk is full, with the bytes needed and free; nothing is left
                behind.
        """
        if self.spec.frozen and (self.held >= self.spec.capacity or self.complete):
            raise UsageFault(
                f"{self.folder}: a sample cannot be added to the {self.held} of a "
                f"{'complete ' if self.complete else ''}bank of capacity {self.spec.capacity}; "
                "make another bank or raise the capacity"
            )
        sample_id = f"{self._next:06d}"
        path = sample_path(self.folder, sample_id)
        parts = encode_sample(sample, extras, self.spec.dtype)
        size = _on_disk(sum(map(len, parts)))
        while len(self._held) > 1 and self._tight(size):
            self._retire()
        while True:
            try:
                write_bytes_atomic(path, *parts, reserved=True)
                break
            except EnvironmentFault as fault:
                full = getattr(fault.__cause__, "errno", None) in _FULL
                if self.spec.frozen or not full or len(self._held) < 2:
                    raise
                self._retire()
                self.squeezed = True
                time.sleep(_SETTLE_SECONDS)
        with self._beating:
            self._next += 1
            self._held[sample_id] = size
            self.published += 1
        if self.squeezed:
            used = sum(self._held.values())
            self._budget = min(self._budget or used, used)
        self._trim()
        return path

    def _tight(self, more: int) -> bool:
        return self._budget is not None and sum(self._held.values()) + more > self._budget

    def _trim(self) -> None:
        while not self.spec.frozen and self.held > self.spec.capacity:
            self._retire()

    def _retire(self) -> None:
        oldest = next(iter(self._held))
        with disk_errors(self.folder):
            sample_path(self.folder, oldest).unlink(missing_ok=True)
        with self._beating:
            del self._held[oldest]

    def beat(self) -> None:
        """Write the heartbeat: process id, samples made and held, state, work.

        Any thread may call it.
        """
        path = self.folder / HEARTBEAT
        with self._beating, disk_errors(path):
            document = {
                "pid": os.getpid(),
                "total": self.total,
                "held": self.held,
                "state": self.state,
                "rejected": dict(sorted(self.rejected.copy().items())),
                "working_since": self.working_since,
                "usual": self.usual,
                "squeezed": self.squeezed,
            }
            try:  # not synced: after a crash the heartbeat is not needed
                replace_text(path, json.dumps(document))
            except OSError as error:
                if error.errno not in _FULL or not path.exists():
                    raise
                os.utime(path)  # no room for the document: only its time is updated

    def finish(self) -> None:
        """Mark a non-empty frozen bank as complete, with the SHA-256 of its content."""
        if not self.spec.frozen or not self._held:
            raise UsageFault(f"{self.folder}: only a frozen bank with samples can be finished")
        hashes = {i: read_sha256(sample_path(self.folder, i)) for i in list_samples(self.folder)}
        doc = {"sha256": content_of(hashes), "samples": hashes}
        write_json_atomic(self.folder / COMPLETE, doc)
        self.state = "complete"
        self.beat()

    def close(self) -> None:
        """Release the lock, so that another writer can attach."""
        try:
            if not self.spec.frozen:  # a signal may have interrupted the retirement of a sample
                with contextlib.suppress(GansynthError, OSError):
                    self._held = _look(self.folder)
                    self._trim()
        finally:
            self._lock.release()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse_content(folder: Path) -> None:
    # A training may already have written its pace.
    if any(p.name not in (LOCK, PACE, WORK) and ".tmp-" not in p.name for p in folder.iterdir()):
        raise UsageFault(
            f"{folder}: is not empty, expected a new or empty folder for a bank; name another one, "
            "or delete it"
        )


def _look(folder: Path) -> dict[str, int]:
    ids = list_samples(folder)
    return {i: _on_disk(sample_path(folder, i).lstat().st_size) for i in ids}


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
