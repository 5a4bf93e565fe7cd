"""What belongs in every place of every round of a host's training: settled beforehand.

A detector goes through all places of its training set once an epoch; DeepMedic loads some cases for
every subepoch. So a ratio need not be met in expectation only: every such round ("epoch" below) has
its table, and what does not come out even is carried on to the next, so that all rounds together
are off by less than one case. Needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio, whole_parts
from gansynth.core.schedule import Mix

IntArray = npt.NDArray[np.int64]
_ORDER, _SYNTHETIC, _STAND_IN, _CHOSEN = range(4)


@dataclass(frozen=True)
class Table:
    """One epoch.

    Attributes:
        synthetic: bool (places,), where a synthetic sample belongs.
        real: int64 (places,), the real case of each place; of a synthetic one its stand-in.
        drawn: synthetic samples of all epochs before this one.
    """

    mix: Mix
    synthetic: npt.NDArray[np.bool_]
    real: IntArray
    drawn: int

    def turn(self, place: int) -> int:
        """Number of a place's synthetic sample among all of the training, from 0."""
        return self.drawn + int(np.count_nonzero(self.synthetic[:place]))


def count_places(ratio: Ratio, real: int) -> int:
    """Places of an epoch: every real case and its share of synthetic ones, rounded up.

    Without real cases, R = 0, there are as many synthetic ones as there are real cases.
    """
    of, synthetic = whole_parts(ratio)
    return real if of == 0 else real - (-real * synthetic // of)


@dataclass(frozen=True)
class Places:
    """The tables of a training; the same in every process.

    At a constant ratio the first ``real`` places hold every real case once and the rest are
    synthetic, but for one that is real in some epochs where R:S does not come out even. A schedule
    deals the synthetic ones out among all places, and uses the real cases evenly; so does a number
    of places that is not the ratio's own.

    Attributes:
        plan: what is mixed; its clock's ``total`` counts epochs, and it never ticks.
        real: number of real cases.
        count: places of an epoch; None for as many as every real case once asks for.
    """

    plan: MixPlan[int]
    real: int
    count: int | None = None

    def __post_init__(self) -> None:
        if self.real < 1:
            raise ValueError(f"{self.real} real cases, expected at least 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"{self.count} places, expected at least 1")

    def __len__(self) -> int:
        return count_places(self.plan.ratio, self.real) if self.count is None else self.count

    @property
    def _whole(self) -> bool:
        """Whether every epoch holds every real case once, in its first places."""
        return self.count is None and self.plan.schedule.kind == "constant"

    def table(self, epoch: int) -> Table:
        """The table of an epoch, counted from 0."""
        mix, drawn = self._mix(epoch), self._drawn(epoch)
        if mix.real == "chosen":
            return Table(mix, np.zeros(len(self), np.bool_), self._chosen(epoch), drawn)
        synthetic = self._synthetic(epoch)
        if self._whole and self.plan.ratio.real == 0 and synthetic.all():
            return Table(mix, synthetic, np.arange(self.real), drawn)
        if self._whole:
            first, count = epoch * (len(self) - self.real), len(self) - self.real
            others = self._cycle(range(self.real), first, count, _STAND_IN)
            return Table(mix, synthetic, np.concatenate([np.arange(self.real), others]), drawn)
        real = np.empty(len(self), np.int64)
        for places, first, stream in (
            (~synthetic, epoch * len(self) - drawn, _ORDER),
            (synthetic, drawn, _STAND_IN),
        ):
            real[places] = self._cycle(range(self.real), first, int(places.sum()), stream)
        return Table(mix, synthetic, real, drawn)

    def rng(self, *key: int) -> np.random.Generator:
        """Randomness of this key, the same in every process."""
        seed = (self.plan.seed, *self.plan.stream)
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    def _mix(self, epoch: int) -> Mix:
        """What may be drawn in an epoch: the schedule's mean over it, or its phase halfway."""
        plan = self.plan
        if plan.clock is None:
            return plan.schedule.at(0.0, plan.ratio)
        total = plan.clock.total
        if plan.schedule.kind == "finetune":
            return plan.schedule.at(min(1.0, (epoch + 0.5) / total), plan.ratio)
        begin, end = (min(1.0, e / total) for e in (epoch, epoch + 1))
        share = plan.schedule.share_of(plan.ratio, begin, end)
        return Mix(share, "none" if share >= 1 else "all")

    def _synthetic(self, epoch: int) -> npt.NDArray[np.bool_]:
        """Which places of an epoch are synthetic."""
        count = self._drawn(epoch + 1) - self._drawn(epoch)
        places = np.zeros(len(self), np.bool_)
        if self._whole:
            first = 0 if self.plan.ratio.real == 0 else self.real
            places[first : first + count] = True
        else:
            places[self.rng(_SYNTHETIC, epoch).permutation(len(self))[:count]] = True
        return places

    def _drawn(self, epoch: int) -> int:
        """Synthetic samples of all epochs before this one."""
        plan = self.plan
        if plan.clock is None:
            requested = epoch * plan.ratio.p
        elif plan.schedule.kind == "finetune":
            requested = min(epoch, self._turn)
        else:
            total = plan.clock.total
            share = plan.schedule.share_of(plan.ratio, 0.0, min(1.0, epoch / total))
            last = plan.schedule.at(1.0, plan.ratio).p
            requested = min(epoch, total) * share + max(0, epoch - total) * last
        return math.floor(requested * len(self) + 0.5)

    @property
    def _turn(self) -> int:
        """First epoch of fine-tuning."""
        return self.plan.schedule.turn(1 if self.plan.clock is None else self.plan.clock.total)

    def _chosen(self, epoch: int) -> IntArray:
        return self._cycle(self.plan.chosen, (epoch - self._turn) * len(self), len(self), _CHOSEN)

    def _cycle(self, pool: Sequence[int], first: int, count: int, stream: int) -> IntArray:
        """Some of an endless sequence that goes through a pool in ever new orders."""
        if not count:
            return np.zeros(0, np.int64)
        laps = range(first // len(pool), (first + count - 1) // len(pool) + 1)
        orders = [self.rng(stream, lap).permutation(np.asarray(pool, np.int64)) for lap in laps]
        return np.concatenate(orders)[first % len(pool) :][:count]
