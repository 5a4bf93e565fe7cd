"""Which place of each round of a training holds a real case or a synthetic sample.

A detector goes through all places of its training set once an epoch. DeepMedic loads some cases for
every subepoch. Both have rounds ("epoch" below), and each round has a table that is fixed in
advance. A fraction of a sample is carried over to the next round. All rounds together therefore
deviate from the ratio by less than one case. Needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gansynth.core.schedule import ScheduledMix
from gansynth.hosts.mixing.mixer import MixerConfig

IntArray = npt.NDArray[np.int64]
PARTNERS = "partners"
"""Folder in a plan's log for draws beside those of its places, such as of mosaics."""
_ORDER, _SYNTHETIC, _STAND_IN, _CHOSEN = range(4)


@dataclass(frozen=True)
class EpochTable:
    """The places of one epoch."""

    mix: ScheduledMix
    synthetic: npt.NDArray[np.bool_]  # bool (places,), True for a synthetic sample
    # int64 (places,), the real case of each place, or the replacement of its missing sample
    real: IntArray
    drawn: int  # synthetic samples of all earlier epochs

    def turn(self, place: int) -> int:
        """Return the number of a place's synthetic sample in the whole training, from 0."""
        return self.drawn + int(np.count_nonzero(self.synthetic[:place]))


@dataclass(frozen=True)
class EpochPlan:
    """The tables of a training; the same in every process.

    At a constant ratio the first ``real`` places hold every real case once, and the rest are
    synthetic. If R:S is not even, one of these is real in some epochs. A schedule, or another
    number of places, distributes synthetic samples over all places and uses real cases evenly.
    """

    plan: MixerConfig[int]  # what is mixed; its clock's `total` counts epochs, and it never ticks
    real: int  # number of real cases
    # places of an epoch; None for every real case once and its synthetic share
    count: int | None = None

    @classmethod
    def of(
        cls, plan: MixerConfig[str], cases: Sequence[str], count: int | None = None
    ) -> EpochPlan:
        """Return the tables of a plan that names cases by id, by their place in ``cases``."""
        chosen = tuple(map(cases.index, plan.chosen))
        # Not another type of plan: the mixer names cases by id, a table of places by number.
        numbered = cast(MixerConfig[int], replace(cast(Any, plan), chosen=chosen))
        return cls(numbered, len(cases), count)

    def __len__(self) -> int:
        return self.plan.ratio.places(self.real) if self.count is None else self.count

    @property
    def _whole(self) -> bool:
        """Whether every epoch holds every real case once, in its first places."""
        return self.count is None and self.plan.schedule.kind == "constant"

    def table(self, epoch: int) -> EpochTable:
        """Return the table of an epoch, counted from 0."""
        mix, drawn = self._mix(epoch), self._drawn(epoch)
        if mix.real == "chosen":
            first = epoch * len(self) - drawn  # all places before were synthetic
            chosen = self._cycle(self.plan.chosen, first, len(self), _CHOSEN)
            return EpochTable(mix, np.zeros(len(self), np.bool_), chosen, drawn)
        synthetic = self._synthetic(epoch)
        if self._whole:
            first, count = epoch * (len(self) - self.real), len(self) - self.real
            others = self._cycle(range(self.real), first, count, _STAND_IN)
            return EpochTable(mix, synthetic, np.concatenate([np.arange(self.real), others]), drawn)
        real = np.empty(len(self), np.int64)
        for places, first, stream in (
            (~synthetic, epoch * len(self) - drawn, _ORDER),
            (synthetic, drawn, _STAND_IN),
        ):
            real[places] = self._cycle(range(self.real), first, int(places.sum()), stream)
        return EpochTable(mix, synthetic, real, drawn)

    def rng(self, *key: int) -> np.random.Generator:
        """Return a random generator for this key, the same in every process."""
        seed = (self.plan.seed, *self.plan.stream)
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    def _mix(self, epoch: int) -> ScheduledMix:
        """Return the mix of an epoch: the schedule's mean over it, or its phase halfway."""
        plan = self.plan
        if plan.batch_counter is None:
            return plan.schedule.at(0.0, plan.ratio)
        total = plan.batch_counter.total
        if plan.schedule.kind == "finetune":
            return plan.schedule.at(min(1.0, (epoch + 0.5) / total), plan.ratio)
        begin, end = min(1.0, epoch / total), min(1.0, (epoch + 1) / total)
        share = plan.schedule.share_of(plan.ratio, begin, end)
        return ScheduledMix(share, "none" if share >= 1 else "all")

    def _synthetic(self, epoch: int) -> npt.NDArray[np.bool_]:
        """Return which places of an epoch are synthetic."""
        count = self._drawn(epoch + 1) - self._drawn(epoch)
        places = np.zeros(len(self), np.bool_)
        if self._whole:
            first = 0 if self.plan.ratio.real == 0 else self.real
            places[first : first + count] = True
        else:
            places[self.rng(_SYNTHETIC, epoch).permutation(len(self))[:count]] = True
        return places

    def _drawn(self, epoch: int) -> int:
        """Count the synthetic samples of all earlier epochs."""
        plan = self.plan
        if plan.batch_counter is None:
            requested = epoch * plan.ratio.p
        elif plan.schedule.kind == "finetune":
            requested = min(epoch, plan.schedule.turn(plan.batch_counter.total))
        else:
            total = plan.batch_counter.total
            share = plan.schedule.share_of(plan.ratio, 0.0, min(1.0, epoch / total))
            last = plan.schedule.at(1.0, plan.ratio).p
            requested = min(epoch, total) * share + max(0, epoch - total) * last
        return math.floor(requested * len(self) + 0.5)

    def _cycle(self, pool: Sequence[int], first: int, count: int, stream: int) -> IntArray:
        """Return a part of an endless sequence that repeats a pool in ever new orders."""
        if not count:
            return np.zeros(0, np.int64)
        laps = range(first // len(pool), (first + count - 1) // len(pool) + 1)
        orders = [self.rng(stream, lap).permutation(np.asarray(pool, np.int64)) for lap in laps]
        return np.concatenate(orders)[first % len(pool) :][:count]
