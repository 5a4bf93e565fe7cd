"""One measure of one arm at one training size: a value for each run and test subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import UsageFault

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunValues:
    """Values of one measure, float64 (runs, subjects): means over a subject's volumes, NaN for
    none.

    A run is a draw (a training subset) and a seed nested in it. Raises UsageFault: inconsistent
    sizes, duplicate runs or subjects, infinite values.
    """

    values: Floats
    draws: tuple[int, ...]
    seeds: tuple[int, ...]
    subjects: tuple[str, ...]
    dropped: int = 0

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float64)
        object.__setattr__(self, "values", values)
        expected = (len(self.draws), len(self.subjects))
        if values.shape != expected or len(self.seeds) != len(self.draws):
            raise UsageFault(
                f"runs: values are {values.shape}, {len(self.draws)} draws, {len(self.seeds)} "
                f"seeds, {len(self.subjects)} subjects; expected values (runs, subjects) and a "
                "draw and a seed for each run"
            )
        for kind, each in (("run (draw, seed)", self.keys), ("subject", self.subjects)):
            twice = _twice(each)
            if twice is not None:
                raise UsageFault(f"runs: {kind} {twice!r} occurs twice, expected once; merge them")
        if np.isinf(values).any():
            run, subject = np.argwhere(np.isinf(values))[0]
            raise UsageFault(
                f"runs: value of run {self.keys[run]}, subject {self.subjects[subject]!r} is "
                "infinite, expected a number, or NaN for none"
            )

    @property
    def keys(self) -> tuple[tuple[int, int], ...]:
        """(draw, seed) of each run."""
        return tuple(zip(self.draws, self.seeds, strict=False))

    def chosen(
        self, keys: Sequence[tuple[int, int]], subjects: Sequence[str], dropped: int = 0
    ) -> RunValues:
        """Select runs and subjects in the given order; all must exist."""
        row = {key: index for index, key in enumerate(self.keys)}
        column = {name: index for index, name in enumerate(self.subjects)}
        rows, columns = [row[key] for key in keys], [column[name] for name in subjects]
        values = self.values[np.ix_(rows, columns)]
        draws, seeds = tuple(key[0] for key in keys), tuple(key[1] for key in keys)
        return RunValues(values, draws, seeds, tuple(subjects), dropped)

    def complete(self) -> RunValues:
        """Drop and count the subjects without a value in one of the runs."""
        lacking = np.isnan(self.values).sum(axis=0)
        names = [name for name, lacks in zip(self.subjects, lacking, strict=True) if not lacks]
        left = len(self.subjects) - len(names)
        return self.chosen(self.keys, names, self.dropped + left)

    def table(self) -> Floats:
        """Means over the seeds of each draw (draws, subjects); with one draw its runs."""
        draws = list(dict.fromkeys(self.draws))
        if len(draws) < 2:
            return self.values
        owner = np.array(self.draws)
        return np.stack([self.values[owner == draw].mean(axis=0) for draw in draws])


def paired(arm: RunValues, control: RunValues) -> RunValues:
    """Differences arm - control over shared complete runs and subjects; others are ``dropped``."""
    keys = [key for key in arm.keys if key in set(control.keys)]
    shared = [name for name in arm.subjects if name in set(control.subjects)]
    ours, theirs = arm.chosen(keys, shared), control.chosen(keys, shared)
    values = ours.values - theirs.values
    alone = len(set(arm.subjects) ^ set(control.subjects))
    return RunValues(values, ours.draws, ours.seeds, ours.subjects, alone).complete()


def _twice(each: Sequence[object]) -> object | None:
    earlier: set[object] = set()
    for item in each:
        if item in earlier:
            return item
        earlier.add(item)
    return None
