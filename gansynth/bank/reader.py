"""Sample bank: a folder with a file for each sample, one writer and any number of readers.

A reader opens a file, copies what is in it and closes it. There are no locks between readers and
the writer. Reading needs numpy alone.

    with BankWriter.create(folder, spec) as writer:
        writer.publish(sample, {})
    sample = BankReader(folder).draw(np.random.default_rng(0))
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import cached_property
from pathlib import Path

import numpy as np

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

__all__ = ["BankReader", "BankSample", "BankSpec", "BankWriter", "verify_bank"]

_ATTEMPTS = 100  # retired samples a draw meets in a row before it gives up


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

    def ids(self) -> list[str]:
        """Return the ids of the samples visible now, oldest first."""
        self._ids = list_samples(self.folder)
        self._scanned = time.monotonic()
        return self._ids.copy()

    def age(self) -> float | None:
        """Return the seconds since the writer's last heartbeat; None for a frozen bank."""
        if self.spec.frozen:
            return None
        for name in (HEARTBEAT, SPEC):
            with contextlib.suppress(FileNotFoundError):
                return max(0.0, time.time() - (self.folder / name).stat().st_mtime)
        return float("inf")

    def draw(self, rng: np.random.Generator) -> BankSample | None:
        """Draw a sample, uniformly among those visible; None if there is none.

        Raises:
            IntegrityFault: a sample that was not retired is damaged.
            EnvironmentFault: a sample that was not retired cannot be opened.
        """
        if time.monotonic() - self._scanned >= self.rescan_seconds:
            self.ids()
        for _ in range(_ATTEMPTS):
            if self._ids:
                with contextlib.suppress(KeyError):
                    return self.read(self._ids[int(rng.integers(len(self._ids)))])
            if not self.ids():
                return None
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


def verify_bank(folder: str | os.PathLike[str]) -> int:
    """Hash every sample, compare with the record, and return the number of samples.

    Raises:
        IntegrityFault: a file, which is named, is damaged, missing or surplus.
        DataFault: there is no bank.
    """
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
