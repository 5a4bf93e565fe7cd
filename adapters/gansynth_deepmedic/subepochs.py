"""Which cases every subepoch of a training loads, and what they look like. numpy and h5py only.

DeepMedic loads a number of cases for each subepoch and takes as many segments from each. So R:S is
settled case by case: subepoch k has its table (``gansynth.places``), the same in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.mixing import Mixer, MixPlan, Slot
from gansynth.places import Places, Table
from gansynth_deepmedic.files import MISSING, HostCase
from gansynth_deepmedic.insertion import RIM, Loaded, insert, seat_of

Read = Callable[[str], npt.NDArray[Any]]
"""Reads a NIfTI file: its array (X, Y, Z) as stored, scaled as its header says."""
_DRAW = 20


@dataclass(frozen=True)
class Place:
    """One case of a subepoch.

    Attributes:
        subepoch: counted from 0 over the whole training.
        number: of the place, from 0.
        real: index of the real case; of a synthetic place, of its stand-in.
        synthetic: whether a sample belongs here.
    """

    subepoch: int
    number: int
    real: int
    synthetic: bool


class Subepochs:
    """The cases of every subepoch; may be inherited through fork or pickled.

    Args:
        plan: what is mixed; its clock, which schedules need, counts subepochs and never ticks.
        cases: the real training cases, in the order that the plan's ``chosen`` and the list files
            count them in.
        count: cases that a subepoch loads.
        rim: see ``insertion.insert``.
    """

    def __init__(
        self, plan: MixPlan[int], cases: Sequence[HostCase], count: int, rim: int = RIM
    ) -> None:
        self.plan, self.cases, self.rim = plan, tuple(cases), rim
        self.places = Places(plan, len(self.cases), count)
        self._mixer = Mixer(plan, self._refuse)
        self._index = {case.id: case for case in self.cases}

    def __len__(self) -> int:
        return len(self.places)

    def table(self, subepoch: int) -> Table:
        """Which places of a subepoch are synthetic, and the real case of each."""
        return self.places.table(subepoch)

    def order(self, subepoch: int) -> list[Place]:
        """The places of a subepoch, real and synthetic ones in turn at random."""
        table = self.table(subepoch)
        return [
            Place(subepoch, number, int(table.real[number]), bool(table.synthetic[number]))
            for number in range(len(self))
        ]

    def rng(self, *key: int) -> np.random.Generator:
        """Randomness of this key, the same in every process; for what a host draws of a case."""
        return self.places.rng(*key)

    def load(self, place: Place, read: Read) -> Loaded:
        """What fills a place, counted in the plan's log.

        Args:
            place: of a subepoch.
            read: reads a file; the host's own way where there is one.

        Raises:
            TrainingFault: there is no sample where no real case may take its place.
        """
        slot = self._slot(place)
        if slot.sample is None:
            return self.read(self.cases[slot.real], read)
        seat = seat_of(slot.sample.provenance)
        assert seat is not None, "refused by the mixer"
        around = self._index[seat.case]
        return insert(around, self.read(around, read), slot.sample, self.rim)

    def read(self, case: HostCase, read: Read) -> Loaded:
        """A real case as its files have it; labels and region rounded as DeepMedic does."""
        labels = _whole(read(case.labels))
        channels = [
            np.zeros(labels.shape, np.float32) if file == MISSING else read(file)
            for file in case.channels
        ]
        roi = None if case.roi is None else _whole(read(case.roi))
        image = np.stack([np.asarray(channel, np.float32) for channel in channels])
        return Loaded(image, labels, roi, None, case.id)

    def _slot(self, place: Place) -> Slot[int]:
        rng = self.rng(_DRAW, place.subepoch, place.number)
        mix = self.table(place.subepoch).mix
        return self._mixer.fill(place.real, mix, synthetic=place.synthetic, rng=rng)

    def _refuse(self, sample: Any) -> str:
        seat = seat_of(sample.provenance)
        if seat is None or seat.case not in self._index:
            return f"sample {sample.id} is of no training case"
        return ""


def _whole(array: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """Whole numbers as int16; DeepMedic rounds likewise."""
    return (array if array.dtype.kind in "iu" else np.rint(array)).astype(np.int16)
