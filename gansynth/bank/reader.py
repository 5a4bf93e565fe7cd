"""Sample bank: a folder of immutable HDF5 segments, with one writer and any number of readers.

A reader opens segments in its own process, closes retired ones, returns copies and never waits.
There are no locks between readers and the writer. Neither torch nor a framework is imported.

    with BankWriter.create(folder, spec) as writer:
        writer.publish([(sample, {})])
    sample = BankReader(folder).draw(np.random.default_rng(0))
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.segment import (
    BankSample,
    SegmentFile,
    check_segment,
    damaged,
    list_segments,
    parse_id,
    read_header,
    sample_id,
    segment_name,
)
from gansynth.bank.spec import COMPLETE, HEARTBEAT, SPEC, BankSpec, load_spec
from gansynth.bank.writer import BankWriter, content_of
from gansynth.runtime.errors import EnvironmentFault, GansynthError, IntegrityFault
from gansynth.runtime.files import parse_json

__all__ = ["BankReader", "BankSample", "BankSpec", "BankWriter", "verify_bank"]

_ATTEMPTS = 100  # retired segments a draw meets in a row before it gives up


class _RetiredSegmentError(Exception):
    """A segment was retired between listing and reading."""


class BankReader:
    """Read a bank; cheap to make, can be pickled or inherited through fork, one per thread.

    Args:
        folder: the bank; it need not exist yet.
        rescan_seconds: interval between two scans for new segments.
        handles: most segments kept open.
    """

    def __init__(
        self, folder: Path | str, *, rescan_seconds: float = 1.0, handles: int = 3
    ) -> None:
        self.folder = Path(folder)
        self.rescan_seconds = rescan_seconds
        self.handles = max(1, handles)
        self._spec: BankSpec | None = None
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._open: OrderedDict[int, SegmentFile] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._numbers: list[int] = []
        self._ends: list[int] = []
        self._scanned = -np.inf

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("folder", "rescan_seconds", "handles")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def spec(self) -> BankSpec:
        """The bank's description; raises as ``load_spec``."""
        if self._spec is None:
            self._spec = load_spec(self.folder)
        return self._spec

    @property
    def sha256(self) -> str | None:
        """SHA-256 of a complete bank's content; None while a bank is not complete."""
        try:
            return str(parse_json((self.folder / COMPLETE).read_bytes())["sha256"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise _no_marker(self.folder, error) from error

    # -- what is there ---------------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of samples visible now."""
        self._scan()
        return self._total

    def ids(self) -> list[str]:
        """Return the ids of the samples visible now, oldest first."""
        self._scan()
        return [sample_id(n, row) for n, size in self._sizes.items() for row in range(size)]

    def age(self) -> float | None:
        """Return the seconds since the writer's last heartbeat; None for a frozen bank."""
        if self.spec.frozen:
            return None
        for name in (HEARTBEAT, SPEC):
            with contextlib.suppress(FileNotFoundError):
                return max(0.0, time.time() - (self.folder / name).stat().st_mtime)
        return float("inf")

    def _scan(self) -> None:
        """List the folder, add new segments and close retired ones."""
        if self._pid != os.getpid():  # HDF5 handles do not survive a fork
            self._forget()
        sizes = {}
        for number, path in list_segments(self.folder).items():
            with contextlib.suppress(FileNotFoundError):
                size = self._sizes.get(number)
                sizes[number] = size if size is not None else read_header(path).samples
        for number in [n for n in self._open if n not in sizes]:
            self._close(number)
        self._sizes = sizes
        self._numbers = list(sizes)
        self._ends = list(itertools.accumulate(sizes.values()))
        self._scanned = time.monotonic()

    @property
    def _total(self) -> int:
        return self._ends[-1] if self._ends else 0

    # -- reading ---------------------------------------------------------------------------------

    def draw(self, rng: np.random.Generator) -> BankSample | None:
        """Draw a sample, uniformly among those visible; None if there is none.

        Raises:
            IntegrityFault: a segment that was not retired is damaged.
            EnvironmentFault: a segment that was not retired cannot be opened.
        """
        due = time.monotonic() - self._scanned >= self.rescan_seconds
        if due or not self._ends or self._pid != os.getpid():
            self._scan()
        for _ in range(_ATTEMPTS):
            if not self._ends:
                return None
            place = int(rng.integers(self._total))
            index = bisect_right(self._ends, place)
            number = self._numbers[index]
            row = place - (self._ends[index - 1] if index else 0)
            try:
                return self._read(number, row)
            except _RetiredSegmentError:
                self._scan()
        return None

    def read(self, sample_id: str) -> BankSample:
        """Read one sample by its id.

        Raises:
            KeyError: the bank does not hold it (any more).
            IntegrityFault, EnvironmentFault: as ``draw``.
        """
        number, row = parse_id(sample_id)
        if self._pid != os.getpid() or number not in self._sizes:
            self._scan()
        if row >= self._sizes.get(number, 0):
            raise KeyError(sample_id)
        try:
            return self._read(number, row)
        except _RetiredSegmentError:
            raise KeyError(sample_id) from None

    def _read(self, number: int, row: int) -> BankSample:
        try:
            return self._handle(number).read(row)
        except (OSError, LookupError, ValueError, RuntimeError, TypeError, GansynthError) as error:
            self._close(number)
            path = self.folder / segment_name(number)
            # For a retired segment h5py raises FileNotFoundError, or OSError without errno.
            if not path.exists():
                raise _RetiredSegmentError from None
            if isinstance(error, OSError) and error.errno:
                raise EnvironmentFault(
                    f"{path}: cannot be opened: {error}; expected a readable segment. Check "
                    "permissions, and the limit of open files (ulimit -n)"
                ) from error
            raise damaged(path, error) from error

    def _handle(self, number: int) -> SegmentFile:
        handle = self._open.get(number)
        if handle is None:
            while len(self._open) >= self.handles:
                self._close(next(iter(self._open)))
            handle = self._open[number] = SegmentFile(self.folder / segment_name(number))
        self._open.move_to_end(number)
        return handle

    def _close(self, number: int) -> None:
        handle = self._open.pop(number, None)
        if handle is not None:
            handle.close()


def verify_bank(folder: Path | str) -> int:
    """Hash every segment, compare with the record, and return the number of segments.

    Raises:
        IntegrityFault: a segment, which is named, is damaged, missing or surplus.
        DataFault: there is no bank.
    """
    folder = Path(folder)
    load_spec(folder)
    hashes = {}
    for path in list_segments(folder).values():
        with contextlib.suppress(FileNotFoundError):  # it was retired in between
            hashes[path.name] = check_segment(path).sha256
    marker = folder / COMPLETE
    if not marker.exists():
        return len(hashes)
    try:
        doc = parse_json(marker.read_bytes())
        expected, content = dict(doc["segments"]), doc["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_marker(folder, error) from error
    for name in sorted({*expected, *hashes}):
        if expected.get(name) != hashes.get(name):
            raise damaged(
                folder / name, f"its SHA-256 is {hashes.get(name)}, expected {expected.get(name)}"
            )
    if content != content_of(hashes):
        raise _no_marker(folder, "its SHA-256 is not that of the segments it lists")
    return len(hashes)


def _no_marker(folder: Path, why: object) -> IntegrityFault:
    return IntegrityFault(
        f"{folder / COMPLETE}: not a complete bank's: {why}; delete the bank and make it again"
    )
