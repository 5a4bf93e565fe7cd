"""The writer of a bank: one process, one lock, one rename per segment."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gansynth.bank.segment import encode_segment, list_segments, read_header, segment_name
from gansynth.bank.spec import COMPLETE, HEARTBEAT, LOCK, SPEC, BankSpec, load_spec, read_heartbeat
from gansynth.bank.throttle_state import PACE, WORK
from gansynth.core.schema import Sample
from gansynth.runtime.errors import EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.files import (
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
_SETTLE_SECONDS = 3.0
"""Time that readers may hold a retired segment's space before the next one is retired."""
_RETRY_SECONDS = 0.2


class _Segment(NamedTuple):
    samples: int
    bytes: int


class BankWriter:
    """Publish segments; made by ``create`` or ``attach``, one at a time per bank."""

    def __init__(self, folder: Path, spec: BankSpec, lock: Any) -> None:
        self.folder = folder  # the bank
        self.spec = spec  # the bank's description
        self.published = 0  # samples this writer has published
        self.state = "filling"  # one word for the heartbeat
        # samples refused before admission, by reason, for the heartbeat
        self.rejected: Counter[str] = Counter()
        # begin of the current batch (`time.monotonic()`), for the heartbeat; None between batches
        self.working_since: float | None = None
        # usual seconds of a batch, for the heartbeat; None before the first
        self.usual: float | None = None
        self.squeezed = False  # whether a full disk has reduced the size of a live bank
        self._lock = lock
        self._beating = threading.Lock()
        remove_temporaries(folder)
        self._held = _look(folder)
        self._next = max(self._held, default=-1) + 1
        self._budget = spec.max_bytes
        self._before = self._published_before()
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
        lock = _acquire(folder)
        try:
            _refuse_content(folder)
            write_json_atomic(folder / SPEC, spec.to_json())
            return cls(folder, spec, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def attach(cls, folder: Path | str) -> BankWriter:
        """Continue a bank whose writer has ended; half-written files are removed.

        Raises:
            UsageFault: there is no bank.
            EnvironmentFault: another writer is using it.
        """
        folder = Path(folder)
        spec = load_spec(folder)
        lock = _acquire(folder)
        try:
            return cls(folder, spec, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def held(self) -> int:
        """Samples that readers can see."""
        return sum(segment.samples for segment in self._held.values())

    @property
    def bytes_held(self) -> int:
        """Bytes the segments take on their file system."""
        return sum(segment.bytes for segment in self._held.values())

    @property
    def total(self) -> int:
        """Samples ever published in this bank, by this and earlier writers."""
        return self._before + self.published

    @property
    def full(self) -> bool:
        """Whether the oldest segment must be retired before another is published."""
        largest = max((segment.bytes for segment in self._held.values()), default=0)
        tight = self._budget is not None and self.bytes_held + largest > self._budget
        return self.held >= self.spec.capacity or (tight and largest > 0)

    @property
    def next_size(self) -> int:
        """Samples of the next segment: as many as the oldest of a full bank; 0 if it is frozen."""
        room = self.spec.capacity - self.held
        if room > 0 or self.spec.frozen:
            return min(self.spec.segment_samples, room)
        return self._held[min(self._held)].samples

    @property
    def complete(self) -> bool:
        """Whether ``finish`` was called on this bank."""
        return (self.folder / COMPLETE).exists()

    def publish(self, samples: Sequence[tuple[Sample, HostArrays]]) -> Path:
        """Publish one segment of admitted samples; readers see all of it or nothing.

        A live bank retires its oldest segments: those beyond its capacity afterwards, and
        beforehand those that its bytes or a full disk have no room for. The last segment always
        stays.

        Raises:
            UsageFault: more samples than the bank may hold, none, or the bank is complete.
            DataFault: samples that cannot be stored together.
            EnvironmentFault: the disk is full, with the bytes needed and free; nothing is left
                behind.
        """
        held = self.held if self.spec.frozen else 0
        if not samples or held + len(samples) > self.spec.capacity or self.complete:
            raise UsageFault(
                f"{self.folder}: {len(samples)} samples cannot be added to the {held} of a "
                f"{'complete ' if self.complete else ''}bank of capacity {self.spec.capacity}; "
                "make another bank or raise the capacity"
            )
        number = self._next
        path = self.folder / segment_name(number)
        parts = encode_segment(number, samples, self.spec.dtype)
        size = _on_disk(sum(map(len, parts)))
        if self._budget is not None:
            while len(self._held) > 1 and self.bytes_held + size > self._budget:
                self._retire()
        self._place(path, parts)
        with self._beating:
            self._next += 1
            self._held[number] = _Segment(len(samples), size)
            self.published += len(samples)
        if self.squeezed:
            self._budget = min(self._budget or self.bytes_held, self.bytes_held)
        self._trim()
        return path

    def _place(self, path: Path, parts: Sequence[bytes]) -> None:
        """Write a segment; on a full disk retire old ones, and wait until readers release them."""
        settled = -float("inf")
        while True:
            try:
                return write_bytes_atomic(path, *parts, reserved=True)
            except EnvironmentFault as fault:
                if self.spec.frozen or getattr(fault.__cause__, "errno", None) not in _FULL:
                    raise
                if time.monotonic() >= settled:
                    if len(self._held) < 2:
                        raise
                    self._retire()
                    self.squeezed = True
                    settled = time.monotonic() + _SETTLE_SECONDS
                else:
                    time.sleep(_RETRY_SECONDS)

    def _trim(self) -> None:
        while not self.spec.frozen and self.held > self.spec.capacity:
            self._retire()

    def _retire(self) -> None:
        oldest = min(self._held)
        with disk_errors(self.folder):
            (self.folder / segment_name(oldest)).unlink(missing_ok=True)
        with self._beating:
            del self._held[oldest]

    def _published_before(self) -> int:
        """Count the samples of earlier writers, including one that was killed."""
        beat = read_heartbeat(self.folder)
        total, following = beat.get("total"), beat.get("next")
        if not isinstance(total, int) or not isinstance(following, int):
            total, following = 0, 0
        return total + sum(s.samples for n, s in self._held.items() if n >= following)

    def beat(self) -> None:
        """Write the heartbeat: process id, time, samples published and held, state, work.

        Any thread may call it.
        """
        path = self.folder / HEARTBEAT
        with self._beating, disk_errors(path):
            try:  # not synced: after a crash the heartbeat is not needed
                replace_text(path, json.dumps(self._life()))
            except OSError as error:
                if error.errno not in _FULL or not path.exists():
                    raise
                os.utime(path)  # no room for the document: only its time is updated

    def _life(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "time": time.time(),
            "published": self.published,
            "total": self.total,
            "next": self._next,
            "held": self.held,
            "state": self.state,
            "rejected": dict(sorted(self.rejected.copy().items())),
            "working_since": self.working_since,
            "usual": self.usual,
            "squeezed": self.squeezed,
        }

    def finish(self) -> None:
        """Mark a non-empty frozen bank as complete, with the SHA-256 of its content."""
        if not self.spec.frozen or not self._held:
            raise UsageFault(f"{self.folder}: only a frozen bank with samples can be finished")
        hashes = {p.name: read_header(p).sha256 for p in list_segments(self.folder).values()}
        doc = {"samples": self.held, "sha256": content_of(hashes), "segments": hashes}
        write_json_atomic(self.folder / COMPLETE, doc)
        self.state = "complete"
        self.beat()

    def close(self) -> None:
        """Release the lock, so that another writer can attach."""
        try:
            if not self.spec.frozen:  # a signal may have interrupted the retirement of a segment
                with contextlib.suppress(GansynthError, OSError):
                    self._held = _look(self.folder)
                    self._trim()
        finally:
            self._lock.release()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def content_of(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 of a bank's content: its segments' names and hashes, in order."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


def _refuse_content(folder: Path) -> None:
    # A training may already have written its pace.
    if any(p.name not in (LOCK, PACE, WORK) and ".tmp-" not in p.name for p in folder.iterdir()):
        raise UsageFault(
            f"{folder}: is not empty, expected a new or empty folder for a bank; name another one, "
            "or delete it"
        )


def _acquire(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    # Not thread-local, or another thread of this process could acquire it again.
    lock = FileLock(folder / LOCK, thread_local=False)
    with disk_errors(folder / LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise EnvironmentFault(
                f"{folder}: another process{_owner(folder)} writes to this bank, expected one "
                "writer; wait for it, stop it, or name another folder"
            ) from None
    return lock


def _owner(folder: Path) -> str:
    pid = read_heartbeat(folder).get("pid")
    return "" if pid is None else f" (pid {pid})"


def _look(folder: Path) -> dict[int, _Segment]:
    return {
        number: _Segment(read_header(path).samples, _on_disk(path.stat().st_size))
        for number, path in list_segments(folder).items()
    }


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
