"""Order of a bank's samples: none is drawn again before all have been drawn.

A frozen bank is read in passes, each in an order that depends on the seed alone. The turn of a draw
determines its sample. The training gives the turn, or each of N workers takes every Nth. Each
process reads a live bank independently, newest samples first. There is no lock.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.bank.reader import BankReader, BankSample

_ATTEMPTS = 100  # retired samples a live draw meets in a row before it gives up
_PASS = 30


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


class WorkerTurns:
    """Consecutive turns of this process.

    Args:
        worker_group: workers that share the turns in order.
        folder: where workers record the number of turns they took, for the teams after them.
        name: file name part for the training's rank.
    """

    def __init__(self, worker_group: WorkerGroup, folder: Path | None, name: str) -> None:
        self._team, self._next, self._file = worker_group, worker_group.number, None
        if folder is not None and worker_group.started is not None:
            self._file = folder / f"turns-{name}-{worker_group.started}-{worker_group.number}"
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                for entry in os.scandir(folder):  # turns of the teams that have ended
                    earlier = entry.name.startswith(f"turns-{name}-")
                    if earlier and int(entry.name.split("-")[-2]) < worker_group.started:
                        self._next += entry.stat().st_size

    def take(self) -> int:
        """Return the next turn."""
        turn = self._next
        self._next += self._team.size
        if self._file is not None:
            # If writing fails, the next team begins a little earlier.
            with contextlib.suppress(OSError), open(self._file, "ab", buffering=0) as file:
                file.write(b".")
        return turn


class BankPasses:
    """Draw each sample of a bank once before any is drawn again.

    Args:
        key: seed of the order of a frozen bank's passes; the same in all processes of a team.
        turns: turns of this process, for draws without a given turn.
        rng: random generator of this process, for the order of a live bank's samples.
    """

    def __init__(
        self,
        reader: BankReader,
        key: Sequence[int],
        worker_group: WorkerGroup,
        turns: WorkerTurns,
        rng: np.random.Generator,
    ) -> None:
        self.reader, self._key = reader, tuple(key)
        self._team, self._turns, self._rng = worker_group, turns, rng
        self._ids: list[str] = []
        self._known: set[str] = set()
        self._waiting: list[str] = []
        self._pass, self._looked = 0, -np.inf

    def draw(self, turn: int | None = None) -> BankSample | None:
        """Return the next sample, or a frozen bank's one at ``turn``; None if there is none."""
        for _ in range(_ATTEMPTS):
            if time.monotonic() - self._looked >= self.reader.rescan_seconds:
                self._look()
            if not self._ids:
                return None
            try:
                return self.reader.read(self._next(turn))
            except KeyError:  # the sample was retired in between
                if not self._waiting:
                    self._looked = -np.inf
        return None

    def _next(self, turn: int | None) -> str:
        if self.reader.spec.frozen:
            key = self._key if turn is not None else (*self._key, *self._team.alone)
            lap, place = divmod(self._turns.take() if turn is None else turn, len(self._ids))
            return self._ids[int(_order(key, lap, len(self._ids))[place])]
        if not self._waiting:
            self._pass += 1
            self._waiting = self._shuffled(self._own(self._ids) or self._ids)
        return self._waiting.pop()

    def _look(self) -> None:
        self._ids = self.reader.ids()
        self._looked = time.monotonic()
        if not self.reader.spec.frozen:
            visible = set(self._ids)
            new = self._own([i for i in self._ids if i not in self._known])
            self._waiting = [i for i in self._waiting if i in visible] + self._shuffled(new)
            self._known = visible

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
