"""The real and synthetic cases of every subepoch of a training. Needs numpy only.

DeepMedic loads a number of cases for each subepoch and takes equal numbers of segments from them.
So R:S is set by cases. Subepoch k has its table (``gansynth.hosts.epoch_plan``), the same in every
process.

A sample that cannot be inserted is not used, e.g. one without training case or labels, or outside
the region of interest. Others are drawn. Then the real stand-in is taken and counted, as with an
empty bank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gansynth.core.mix_config import MixerConfig
from gansynth.hosts.epoch_plan import EpochPlan
from gansynth.hosts.mixer import Mixer
from gansynth.runtime.serialise import Document
from gansynth_deepmedic.insertion import HostCase, LoadedCase, insert, misfit, position_of

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSample

_DRAW = 20


@dataclass(frozen=True)
class TrainingOrder(Document, whole=True):
    """One training, or its remaining epochs, for ``hook``."""

    checkout: Path  # folder of the user's DeepMedic
    arguments: tuple[str, ...]  # of ``deepMedicRun``
    plan: MixerConfig[int]  # the mix of real and synthetic cases
    cases: tuple[HostCase, ...]  # real training cases, in the order of the lists
    count: int  # cases of a subepoch
    first: int  # subepochs of earlier sessions
    total: int  # subepochs of the whole training
    seed: int  # of the centres of segments and their augmentation
    augment_synthetic: bool  # whether synthetic cases are augmented as real ones are


class SubepochCase(NamedTuple):
    """One place of a subepoch."""

    subepoch: int  # counted from 0 over the whole training
    number: int  # of the place, from 0
    real: int  # index of the real case; for a synthetic place, of its stand-in
    synthetic: bool  # whether a sample belongs here


class Subepochs:
    """The cases of every subepoch; can be inherited through fork or pickled."""

    def __init__(self, plan: MixerConfig[int], cases: Sequence[HostCase], count: int) -> None:
        self.cases = tuple(cases)
        self._table = EpochPlan(plan, len(self.cases), count)
        self._mixer = Mixer(plan, self._refuse)
        self._index = {case.id: case for case in self.cases}

    def order(self, subepoch: int) -> list[SubepochCase]:
        """Return the places of a subepoch, real and synthetic ones in random order."""
        table = self._table.table(subepoch)
        pairs = zip(table.real, table.synthetic, strict=True)
        return [
            SubepochCase(subepoch, number, int(real), bool(synthetic))
            for number, (real, synthetic) in enumerate(pairs)
        ]

    def load(self, place: SubepochCase, read: Callable[[HostCase], LoadedCase]) -> LoadedCase:
        """Return the case of a place, counted in the plan's log; without a sample a real one."""
        table = self._table.table(place.subepoch)
        item = self._mixer.fill(
            place.real,
            table.mix,
            synthetic=place.synthetic,
            rng=self._table.rng(_DRAW, place.subepoch, place.number),
            turn=table.turn(place.number),
            wish=lambda sample: not self._refuse(sample),
        )
        if item.sample is None:
            return read(self.cases[item.real])
        position = position_of(item.sample.provenance)
        assert position is not None, "refused by the mixer"
        around = self._index[position.case]
        return insert(around, read(around), item.sample)

    def _refuse(self, sample: BankSample) -> str:
        """Return why a sample is not used, or "", from the sample alone."""
        position = position_of(sample.provenance)
        case = self.cases[0] if position is None else self._index.get(position.case)
        if case is None:
            return "a sample is of none of the training cases"
        why = misfit(case, sample)
        return why and f"a sample cannot be inserted: {why}"
