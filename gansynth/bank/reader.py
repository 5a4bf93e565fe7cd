"""Sample bank: a folder with a file for each sample, one writer and any number of readers.

A reader opens a file, copies what is in it and closes it. There are no locks between readers and
the writer. Reading needs numpy alone. A training draws in passes: no sample is drawn again before
all have been drawn.

    with BankWriter.create(folder, spec) as writer:
        writer.publish(sample, {})
    sample = BankReader(folder).draw(np.random.default_rng(0))
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.bank.store import (
    COMPLETE,
    HEARTBEAT,
    SPEC,
    BankSample,
    BankSpec,
    BankWriter,
    content_of,
    damaged,
    list_samples,
    load_spec,
    read_document,
    read_sample,
    read_sha256,
    sample_path,
)

__all__ = ["BankPasses", "BankReader", "BankSample", "BankSpec", "BankWriter", "verify_bank"]

_ATTEMPTS = 100  # retired samples a draw meets in a row before it gives up
_PASS = 30


class BankReader:
    """Read a bank; cheap to make, can be pickled or inherited through fork, one per thread.

    Args:
        folder: the bank; it need not exist yet.
        rescan_seconds: interval between two scans for new samples.
    """

    def __init__(self, folder: str | os.PathLike[str], *, rescan_seconds: float = 1.0) -> None:
        self.folder = Path(folder)
        self.rescan_seconds = rescan_seconds
        self._ids: list[str] = []
        self._scanned = -np.inf
        self._beat: float | None = None  # time of the last heartbeat, by its file
        self._seen, self._seen_at = False, 0.0  # whether it came meanwhile, and when, by our clock

    @cached_property
    def spec(self) -> BankSpec:
        """The bank's description; raises as ``load_spec``."""
        return load_spec(self.folder)

    @property
    def sha256(self) -> str | None:
        """SHA-256 of a complete bank's content; None while a bank is not complete."""
        hashes = _complete(self.folder)
        return None if hashes is None else content_of(hashes)

    def count(self) -> int:
        """Return the number of samples visible now."""
        return len(self.ids())

    def ids(self, *, recent: bool = False) -> list[str]:
        """Return the ids of the samples visible now, oldest first, as a new list.

        ``recent``: return the same list again until ``rescan_seconds`` have passed.
        """
        if not recent or time.monotonic() - self._scanned >= self.rescan_seconds:
            self._ids, self._scanned = list_samples(self.folder), time.monotonic()
        return self._ids

    def age(self) -> float | None:
        """Return the seconds since the writer's last heartbeat; None for a frozen bank.

        By the file's time, until another heartbeat is seen: the clock may be set meanwhile.
        """
        if self.spec.frozen:
            return None
        for name in (HEARTBEAT, SPEC):
            with contextlib.suppress(FileNotFoundError):
                beat, now = (self.folder / name).stat().st_mtime, time.monotonic()
                if beat != self._beat:
                    self._seen, self._beat, self._seen_at = self._beat is not None, beat, now
                return now - self._seen_at if self._seen else max(0.0, time.time() - beat)
        return float("inf")

    def draw(self, rng: np.random.Generator) -> BankSample | None:
        """Draw a sample, uniformly among those visible; None if there is none.

        Raises:
            IntegrityFault: a sample that was not retired is damaged.
            EnvironmentFault: a sample that was not retired cannot be opened.
        """
        ids = self.ids(recent=True)
        for _ in range(_ATTEMPTS):
            if not ids:
                break
            with contextlib.suppress(KeyError):
                return self.read(ids[int(rng.integers(len(ids)))])
            ids = self.ids()
        return None

    def read(self, sample_id: str) -> BankSample:
        """Read one sample by its id.

        Raises:
            KeyError: the bank does not hold it (any more).
            IntegrityFault, EnvironmentFault: as ``draw``.
        """
        if not sample_id.isdecimal():
            raise KeyError(sample_id)
        try:
            return read_sample(sample_path(self.folder, sample_id))
        except FileNotFoundError:
            raise KeyError(sample_id) from None


# -- in passes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerGroup:
    """The place of this process among the workers that draw in parallel."""

    number: int = 0  # number of this worker, from 0
    size: int = 1  # number of workers
    # number of the team's first process, where teams follow each other: workers of a `DataLoader`
    started: int | None = None
    # identity of a worker that knows no others and makes its own passes
    alone: tuple[int, ...] = ()

    @classmethod
    def here(cls, workers: int = 1) -> WorkerGroup:
        """Return the team of this process; ``workers`` are started in turn, 1 if unknown."""
        identity = tuple(getattr(multiprocessing.current_process(), "_identity", ()))
        if not identity:
            return cls()
        # Not imported here: workers of torch's own loaders have imported it.
        loading = sys.modules.get("torch.utils.data")
        info = None if loading is None else loading.get_worker_info()
        if info is not None:
            return cls(info.id, info.num_workers, identity[-1] - info.id)
        if workers > 1:
            return cls(identity[-1] % workers, workers)
        return cls(alone=identity)


class BankPasses:
    """Draw each sample of a bank once before any is drawn again.

    A frozen bank is read in passes, each in an order that depends on the seed alone. The turn of a
    draw determines its sample. The training gives the turn, or each of N workers takes every Nth.
    Each process reads a live bank independently, newest samples first. There is no lock.

    Args:
        key: seed of the order of a frozen bank's passes; the same in all processes of a team.
        rng: random generator of this process, for the order of a live bank's samples.
        workers: see ``WorkerGroup.here``.
        turns: path of the files in which workers record the number of turns they took, for the
            teams after them; a team and a worker are added to its name. None records nothing.
    """

    def __init__(
        self,
        reader: BankReader,
        key: Sequence[int],
        rng: np.random.Generator,
        *,
        workers: int = 1,
        turns: Path | None = None,
    ) -> None:
        self.reader, self._key, self._rng = reader, tuple(key), rng
        self._team = team = WorkerGroup.here(workers)
        self._turn, self._turns = team.number, None  # the next one
        self._ids: list[str] = []
        self._waiting: list[str] = []
        self._pass = 0
        if turns is not None and team.started is not None:
            self._turns = turns.with_name(f"{turns.name}-{team.started}-{team.number}")
            with contextlib.suppress(OSError):
                turns.parent.mkdir(parents=True, exist_ok=True)
                for path in turns.parent.glob(f"{turns.name}-*-*"):  # of the teams that have ended
                    if int(path.name.split("-")[-2]) < team.started:
                        self._turn += path.stat().st_size

    def draw(self, turn: int | None = None) -> BankSample | None:
        """Return the next sample, or a frozen bank's one at ``turn``; None if there is none."""
        ids = self.reader.ids(recent=True)
        for _ in range(_ATTEMPTS):
            if not ids:
                break
            frozen = self.reader.spec.frozen
            with contextlib.suppress(KeyError):  # the sample was retired in between
                return self.reader.read(self._planned(ids, turn) if frozen else self._fresh(ids))
            if not self._waiting:
                ids = self.reader.ids()
        return None

    def _planned(self, ids: Sequence[str], turn: int | None) -> str:
        """Return the sample of a frozen bank at ``turn``, or at this process's next turn."""
        key = self._key
        if turn is None:
            key, turn = (*key, *self._team.alone), self._turn
            self._turn += self._team.size
            if self._turns is not None:
                # If writing fails, the next team begins a little earlier.
                with contextlib.suppress(OSError), open(self._turns, "ab", buffering=0) as file:
                    file.write(b".")
        lap, place = divmod(turn, len(ids))
        return ids[int(_order(key, lap, len(ids))[place])]

    def _fresh(self, ids: list[str]) -> str:
        """Return a live bank's next sample in this pass, new ones first."""
        if ids is not self._ids:  # listed anew
            new = set(ids).difference(self._ids)
            left = set(self._waiting).intersection(ids)
            self._waiting = [i for i in self._waiting if i in left]
            self._waiting += self._shuffled([i for i in self._own(ids) if i in new])
            self._ids = ids
        if not self._waiting:
            self._pass += 1
            self._waiting = self._shuffled(self._own(ids) or ids)
        return self._waiting.pop()

    def _own(self, ids: Sequence[str]) -> list[str]:
        """Return the samples that this worker, and no other, draws in this pass."""
        team = self._team
        return [i for i in ids if (int(i) + self._pass) % team.size == team.number]

    def _shuffled(self, ids: Sequence[str]) -> list[str]:
        return [ids[place] for place in self._rng.permutation(len(ids))]


@lru_cache(maxsize=4)
def _order(key: tuple[int, ...], lap: int, total: int) -> npt.NDArray[Any]:
    """Return the order of a frozen bank's places in one pass."""
    seed = np.random.SeedSequence(key, spawn_key=(_PASS, lap))
    return np.random.default_rng(seed).permutation(total)


# -- verification ---------------------------------------------------------------------------------


def verify_bank(folder: str | os.PathLike[str]) -> int:
    """Hash every sample, compare with the record, and return the number of samples."""
    folder = Path(folder)
    load_spec(folder)
    hashes = {}
    for sample_id in list_samples(folder):
        with contextlib.suppress(FileNotFoundError):  # it was retired in between
            hashes[sample_id] = read_sha256(sample_path(folder, sample_id), check=True)
    expected = _complete(folder)
    expected = hashes if expected is None else expected
    for sample_id in sorted({*hashes, *expected}):
        listed, found = expected.get(sample_id), hashes.get(sample_id)
        if listed != found:
            path = sample_path(folder, sample_id)
            raise damaged(path, f"its SHA-256 is {found}, expected {listed}")
    return len(hashes)


def _complete(folder: Path) -> dict[str, str] | None:
    """Return the SHA-256 of each sample of a complete bank; None while it is not complete."""
    path = folder / COMPLETE
    try:
        doc = read_document(path)
        hashes: dict[str, str] = doc["samples"]
        if doc.keys() != {"sha256", "samples"} or doc["sha256"] != content_of(hashes):
            raise ValueError("its SHA-256 is not that of the samples it lists")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    return hashes
