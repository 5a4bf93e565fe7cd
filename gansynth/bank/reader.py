"""SampleBank: a folder of immutable HDF5 segments that a writer publishes and any process reads.

A reader lists the folder now and then, opens segments lazily in its own process, closes what was
retired, returns copies and never waits: there are no locks between readers and the writer, no torn
reads, and nothing to repair after a crash. On a tmpfs a bank *is* shared memory; on a shared file
system it serves many machines. Importing this module never imports torch or a framework.

    with BankWriter.create(folder, spec) as writer:
        writer.publish([(sample, {})])
    sample = BankReader(folder).draw(np.random.default_rng(0))
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import tempfile
import time
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.segment import (
    check_segment,
    damaged,
    list_segments,
    parse_id,
    read_header,
    sample_id,
    segment_name,
)
from gansynth.bank.segment_file import BankSample, SegmentFile
from gansynth.bank.spec import COMPLETE, HEARTBEAT, SPEC, BankSpec, load_spec
from gansynth.bank.writer import BankWriter, content_of
from gansynth.runtime.errors import EnvironmentFault, GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import disk_errors

__all__ = [
    "BankReader",
    "BankSample",
    "BankSpec",
    "BankWriter",
    "place_bank",
    "scratch_banks",
    "verify_bank",
]

SHARED_MEMORY = Path("/dev/shm")
_SCRATCH = re.compile(r"gansynth-.*-(\d+)-[a-z0-9_]+")
_ATTEMPTS = 100
"""Retired segments a draw meets in a row before it gives up; more means a bank in ruins."""


class _RetiredError(Exception):
    """A segment went away between listing and reading."""


class BankReader:
    """Reads a bank; cheap to make, may be pickled or inherited through fork, one per thread.

    Args:
        folder: the bank; it need not exist yet.
        rescan_seconds: how often a draw looks for new segments.
        handles: segments kept open at most.
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
        """What the bank says of itself.

        Raises:
            UsageFault: there is no bank.
            IntegrityFault: its description is not one.
        """
        if self._spec is None:
            self._spec = load_spec(self.folder)
        return self._spec

    @property
    def sha256(self) -> str | None:
        """SHA-256 of a complete bank's content; None while a bank is not complete."""
        try:
            return str(json.loads((self.folder / COMPLETE).read_bytes())["sha256"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise _no_marker(self.folder, error) from error

    # -- what is there ---------------------------------------------------------------------------

    def count(self) -> int:
        """Samples visible now."""
        self._scan()
        return self._total

    def ids(self) -> list[str]:
        """Ids of the samples visible now, oldest first."""
        self._scan()
        return [sample_id(n, row) for n, size in self._sizes.items() for row in range(size)]

    def age(self) -> float | None:
        """Seconds since the writer's last heartbeat; None for a frozen bank, which needs none.

        Raises:
            UsageFault: there is no bank.
        """
        if self.spec.frozen:
            return None
        for name in (HEARTBEAT, SPEC):
            with contextlib.suppress(FileNotFoundError):
                return max(0.0, time.time() - (self.folder / name).stat().st_mtime)
        return float("inf")

    def _scan(self) -> None:
        """List the folder; take up new segments and close retired ones."""
        if self._pid != os.getpid():  # HDF5 handles do not survive a fork
            self._forget()
        sizes = {}
        for number, path in list_segments(self.folder).items():
            with contextlib.suppress(FileNotFoundError):
                known = self._sizes.get(number)
                sizes[number] = known if known is not None else read_header(path).samples
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
        """Draw a sample, uniformly among those visible.

        Args:
            rng: the caller's own generator (one per worker process).

        Returns:
            A sample whose arrays are the caller's own, or None if the bank has none to give.

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
            except _RetiredError:
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
        except _RetiredError:
            raise KeyError(sample_id) from None

    def _read(self, number: int, row: int) -> BankSample:
        try:
            return self._handle(number).read(row)
        except (OSError, LookupError, ValueError, RuntimeError, TypeError, GansynthError) as error:
            self._close(number)
            path = self.folder / segment_name(number)
            # Of a segment retired meanwhile h5py says FileNotFoundError, or OSError without errno.
            if not path.exists():
                raise _RetiredError from None
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
    """Read every segment to its last bit and compare hashes.

    Returns:
        Number of segments verified.

    Raises:
        IntegrityFault: naming the segment that is damaged, missing or surplus.
        UsageFault: there is no bank.
    """
    folder = Path(folder)
    load_spec(folder)
    hashes = {}
    for path in list_segments(folder).values():
        with contextlib.suppress(FileNotFoundError):  # retired meanwhile
            hashes[path.name] = check_segment(path).sha256
    marker = folder / COMPLETE
    if not marker.exists():
        return len(hashes)
    try:
        doc = json.loads(marker.read_bytes())
        wanted, content = dict(doc["segments"]), doc["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_marker(folder, error) from error
    for name in sorted({*wanted, *hashes}):
        if wanted.get(name) != hashes.get(name):
            raise damaged(
                folder / name, f"its SHA-256 is {hashes.get(name)}, expected {wanted.get(name)}"
            )
    if content != content_of(hashes):
        raise _no_marker(folder, "its SHA-256 is not that of the segments it lists")
    return len(hashes)


def _no_marker(folder: Path, why: object) -> IntegrityFault:
    return IntegrityFault(
        f"{folder / COMPLETE}: not a complete bank's: {why}; delete the bank and make it again"
    )


# -- scratch banks -------------------------------------------------------------------------------


def place_bank(
    run_id: str, bytes_needed: int, scratch: Path | str | None = None
) -> tuple[Path, str]:
    """Make an empty folder for a bank, named after this process so that it can be told whose it is.

    Args:
        run_id: the generator's run, for the folder's name.
        bytes_needed: what a full bank takes.
        scratch: where to make it; None is shared memory if that has twice the room, else the
            temporary folder.

    Returns:
        The folder, and a sentence for the log if it is not in shared memory, else "".

    Raises:
        EnvironmentFault: there is no room, or it cannot be written.
        UsageFault: ``scratch`` is a file.
    """
    said = ""
    if scratch is not None:
        base = _writable(Path(scratch))
        _check_room(base, bytes_needed, "name a larger disk by --scratch")
        said = f"the bank is kept in {base}"
    elif why := _unfit(SHARED_MEMORY, bytes_needed):
        base = Path(tempfile.gettempdir())
        way_out = "name a larger disk by --scratch (or set TMPDIR)"
        _check_room(base, bytes_needed, way_out)
        said = (
            f"{why}: it is kept in {base} instead; enlarge shared memory (docker run --shm-size "
            "8g), or name a folder by --scratch"
        )
    else:
        base = SHARED_MEMORY
    prefix = f"gansynth-{Path(run_id).name}-{os.getpid()}-"
    with disk_errors(base):
        return Path(tempfile.mkdtemp(prefix=prefix, dir=base)), said


def bank_place(bytes_needed: int, scratch: Path | None = None) -> Path:
    """Where ``place_bank`` would make a bank now; nothing is written, nor is room checked for."""
    if scratch is not None:
        return scratch.absolute()
    unfit = _unfit(SHARED_MEMORY, bytes_needed)
    return Path(tempfile.gettempdir()) if unfit else SHARED_MEMORY


def _writable(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UsageFault(f"--scratch {folder}: is a file, expected a folder; name another one")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _check_room(base: Path, needed: int, way_out: str) -> None:
    if (free := _free(base)) < needed:
        raise EnvironmentFault(
            f"{base}: a bank needs {needed} bytes, {free} are free; make room, hold fewer samples "
            f"(--bank-size), or {way_out}"
        )


def _unfit(shared: Path, needed: int) -> str:
    """Why a bank is not kept in shared memory, or ""."""
    if not os.access(shared, os.W_OK):
        return f"there is no shared memory ({shared}) to keep the bank in"
    if (free := _free(shared)) < 2 * needed:
        return (
            f"shared memory ({shared}) has {free / 1e9:.1f} GB free, the bank needs "
            f"{needed / 1e9:.1f} GB and as much to spare"
        )
    return ""


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def scratch_banks() -> list[tuple[Path, int, int, bool]]:
    """Scratch banks in shared memory and the temporary folder.

    Returns:
        Of each its folder, its bytes, the process that made it, and whether that still runs.
    """
    found = []
    for base in dict.fromkeys((SHARED_MEMORY, Path(tempfile.gettempdir()))):
        for folder in sorted(base.glob("gansynth-*")):
            match = _SCRATCH.fullmatch(folder.name)
            if match is not None and folder.is_dir():
                pid = int(match[1])
                found.append((folder, _bytes(folder), pid, _runs(pid)))
    return found


def _bytes(folder: Path) -> int:
    sizes = []
    with contextlib.suppress(OSError):  # somebody else's, or removed meanwhile
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                sizes.append(path.stat().st_size)
    return sum(sizes)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it does, as somebody else's
        return True
    return True
