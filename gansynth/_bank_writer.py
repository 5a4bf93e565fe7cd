"""The writing side of a bank: one process, one lock, one rename per segment."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth._bank_spec import COMPLETE, HEARTBEAT, LOCK, SPEC, BankSpec, load_spec
from gansynth._segment import encode_segment, list_segments, read_header, segment_name
from gansynth.errors import EnvironmentFault, UsageFault
from gansynth.integrity import (
    disk_errors,
    remove_temporaries,
    reserve,
    temporary_beside,
    write_json_atomic,
)
from gansynth.schema import Sample

if TYPE_CHECKING:
    from gansynth.adapter import HostArrays


class BankWriter:
    """Publishes segments; made by ``create`` or ``attach``, one at a time per bank.

    Attributes:
        folder: the bank.
        spec: what the bank says of itself.
        published: samples this writer has published.
        state: one word for the heartbeat.
        rejected: samples refused before admission, by reason, for the heartbeat.
    """

    def __init__(self, folder: Path, spec: BankSpec, lock: Any) -> None:
        self.folder = folder
        self.spec = spec
        self.published = 0
        self.state = "filling"
        self.rejected: Counter[str] = Counter()
        self._lock = lock
        remove_temporaries(folder)
        self._sizes = {n: read_header(p).samples for n, p in list_segments(folder).items()}
        self._next = max(self._sizes, default=-1) + 1
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
        """Go on with a bank whose writer has ended; what a killed one left half-written goes.

        Raises:
            UsageFault: there is no bank.
            EnvironmentFault: another writer is at work in it.
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
        """Samples readers can see."""
        return sum(self._sizes.values())

    @property
    def next_size(self) -> int:
        """Samples the next segment should hold; 0 if a frozen bank is full.

        A full live bank swaps its oldest segment for one of the same size, so it stays full.
        """
        room = self.spec.capacity - self.held
        if room > 0 or self.spec.frozen:
            return min(self.spec.segment_samples, room)
        return self._sizes[min(self._sizes)]

    @property
    def complete(self) -> bool:
        """Whether ``finish`` was called on this bank."""
        return (self.folder / COMPLETE).exists()

    def publish(self, samples: Sequence[tuple[Sample, HostArrays]]) -> Path:
        """Publish one segment of admitted samples: readers see all of it or nothing.

        The oldest segments beyond the bank's capacity are retired, unless it is frozen.

        Args:
            samples: in the host's space, each with what the adapter's ``finalise`` made.

        Returns:
            The segment's path.

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
        _place(path, encode_segment(number, samples, self.spec.dtype))
        self._next += 1
        self._sizes[number] = len(samples)
        self.published += len(samples)
        self._retire()
        return path

    def _retire(self) -> None:
        while not self.spec.frozen and self.held > self.spec.capacity:
            oldest = min(self._sizes)
            with disk_errors(self.folder):
                (self.folder / segment_name(oldest)).unlink(missing_ok=True)
            del self._sizes[oldest]

    def beat(self) -> None:
        """Show that the writer lives: process id, time, samples published and held, state.

        Raises:
            EnvironmentFault: it cannot be written.
        """
        doc = {
            "pid": os.getpid(),
            "time": time.time(),
            "published": self.published,
            "held": self.held,
            "state": self.state,
            "rejected": dict(sorted(self.rejected.items())),
        }
        path = self.folder / HEARTBEAT
        temporary = temporary_beside(path)
        with disk_errors(path):
            try:  # not forced to the disk: after a crash there is no life to show
                temporary.write_text(json.dumps(doc), "utf-8")
                os.replace(temporary, path)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)

    def finish(self) -> None:
        """Mark a frozen bank complete, with the SHA-256 of its content.

        Raises:
            UsageFault: the bank is refreshed, so it is never complete; or it is empty.
        """
        if not self.spec.frozen or not self._sizes:
            raise UsageFault(f"{self.folder}: only a frozen bank with samples can be finished")
        hashes = {p.name: read_header(p).sha256 for p in list_segments(self.folder).values()}
        doc = {"samples": self.held, "sha256": content_of(hashes), "segments": hashes}
        write_json_atomic(self.folder / COMPLETE, doc)
        self.state = "complete"
        self.beat()

    def close(self) -> None:
        """Let another writer attach."""
        self._lock.release()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def content_of(hashes: Mapping[str, str]) -> str:
    """SHA-256 of a bank's content: of its segments' names and hashes, in order."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


def _refuse_content(folder: Path) -> None:
    if any(p.name != LOCK for p in folder.iterdir()):
        raise UsageFault(
            f"{folder}: is not empty, expected a new or empty folder for a bank; name another one, "
            "or delete it"
        )


def _acquire(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    # Not bound to the thread, or another thread of the owner could take it again.
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
    try:
        return f" (pid {json.loads((folder / HEARTBEAT).read_bytes())['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _place(path: Path, parts: Sequence[bytes]) -> None:
    """Write a file atomically, its space reserved first.

    Without the reservation a segment that does not fit would fill the disk to the last byte before
    it fails, and another writer (the host saving a checkpoint, say) would meet a full disk.
    """
    size = sum(map(len, parts))
    temporary = temporary_beside(path)
    with disk_errors(path, size):
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
            with open(os.open(temporary, flags, 0o666), "wb", buffering=0) as stream:
                reserve(stream.fileno(), size)
                for part in parts:
                    rest = memoryview(part)
                    while rest:
                        rest = rest[stream.write(rest) :]
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:  # also on SystemExit from a signal
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
