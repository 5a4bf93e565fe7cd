"""The real and synthetic cases of every subepoch of a training. Needs numpy only.

DeepMedic loads a number of cases for each subepoch and takes equal numbers of segments from them.
So R:S is set by cases. Subepoch k has its table (``gansynth.hosts.epoch_plan``), the same in every
process.

A sample that cannot be inserted is not used, e.g. one without training case or labels, or outside
the region of interest. Another is drawn, up to ``gansynth.hosts.mixer.WISHES`` times. Then the real
stand-in is taken and counted, as with an empty bank. An invalid real case is an error, because no
other case may replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.mix_config import MixerConfig
from gansynth.hosts.epoch_plan import EpochPlan, EpochTable
from gansynth.hosts.mixer import BatchItem, Mixer
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.insertion import (
    MISSING,
    RIM,
    HostCase,
    LoadedCase,
    insert,
    misfit,
    position_of,
)

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSample

Read = Callable[[str], npt.NDArray[Any]]
"""Reads a NIfTI file: its array (X, Y, Z) as stored, scaled by its header."""
_DRAW, _HOST = 20, 21


@dataclass(frozen=True)
class SubepochCase:
    """One slot of a subepoch."""

    subepoch: int  # counted from 0 over the whole training
    number: int  # number of the slot, from 0
    real: int  # index of the real case; for a synthetic slot, of its stand-in
    synthetic: bool  # whether a sample belongs here


@dataclass(frozen=True)
class SegmentJob:
    """A case with its segments."""

    subepoch: int  # counted from 0
    place: int  # number of the slot
    kind: str  # ``real``, ``synthetic``, or ``fallback``: a real case for a missing sample
    case: str  # id of the real case, or of the one around a sample
    sample: str  # id of the sample; empty for a real case
    segments: int  # number of segments
    spread: bool = False  # segments are also centred outside the sample

    @classmethod
    def of(
        cls, place: SubepochCase, loaded: LoadedCase, segments: int, *, spread: bool
    ) -> SegmentJob:
        """Describe how a slot was filled."""
        kind = "synthetic" if loaded.sample else "fallback" if place.synthetic else "real"
        where = place.subepoch, place.number
        return cls(*where, kind, loaded.case, loaded.sample, segments, spread)

    def to_json(self) -> dict[str, Any]:
        """Return the document for ``order.Progress``."""
        return {key: value for key, value in vars(self).items() if key != "spread" or value}


class Subepochs:
    """The cases of every subepoch; can be inherited through fork or pickled."""

    def __init__(
        self, plan: MixerConfig[int], cases: Sequence[HostCase], count: int, rim: int = RIM
    ) -> None:
        self.plan, self.cases, self.rim = plan, tuple(cases), rim
        self.places = EpochPlan(plan, len(self.cases), count)
        self._mixer = Mixer(plan, self._refuse)
        self._index = {case.id: case for case in self.cases}

    def __len__(self) -> int:
        return len(self.places)

    def table(self, subepoch: int) -> EpochTable:
        """Return which slots of a subepoch are synthetic, and the real case of each."""
        return self.places.table(subepoch)

    def order(self, subepoch: int) -> list[SubepochCase]:
        """Return the slots of a subepoch, real and synthetic ones in random order."""
        table = self.table(subepoch)
        return [
            SubepochCase(subepoch, number, int(table.real[number]), bool(table.synthetic[number]))
            for number in range(len(self))
        ]

    def rng(self, *key: int) -> np.random.Generator:
        """Return the random generator of a key, the same in every process."""
        return self.places.rng(_HOST, *key)

    def load(self, place: SubepochCase, read: Read) -> LoadedCase:
        """Return the case of a slot, counted in the plan's log.

        If a synthetic slot has no sample (``sample`` is empty), a real case replaces it.

        Raises:
            TrainingFault: there is no sample where no real case may take its place.
            DataFault: a real case's files are inconsistent, or have changed.
        """
        slot = self._slot(place)
        if slot.sample is None:
            return self.read(self.cases[slot.real], read)
        seat = position_of(slot.sample.provenance)
        assert seat is not None, "refused by the mixer"
        around = self._index[seat.case]
        return insert(around, self.read(around, read), slot.sample, self.rim)

    def read(self, case: HostCase, read: Read) -> LoadedCase:
        """Read a real case; see ``read_case``."""
        return read_case(case, read)

    def _slot(self, place: SubepochCase) -> BatchItem[int]:
        rng = self.places.rng(_DRAW, place.subepoch, place.number)
        table = self.table(place.subepoch)
        fits = (lambda sample: not self._refuse(sample)) if place.synthetic else None
        return self._mixer.fill(
            place.real,
            table.mix,
            synthetic=place.synthetic,
            rng=rng,
            turn=table.turn(place.number),
            wish=fits,
        )

    def _refuse(self, sample: BankSample) -> str:
        """Return why a sample is not used, or "", from the sample alone."""
        seat = position_of(sample.provenance)
        if seat is not None and seat.case not in self._index:
            return "a sample is of none of the training cases"
        # Of a sample without a place that is all there is to say, whichever case is asked about.
        case = self.cases[0] if seat is None else self._index[seat.case]
        why = misfit(case, sample, self.rim)
        return why and f"a sample cannot be inserted: {why}"


def read_case(case: HostCase, read: Read) -> LoadedCase:
    """Read a real case in the form of its files; labels and region are rounded as in DeepMedic."""
    labels = _whole(read(case.labels))
    image = np.zeros((len(case.channels), *labels.shape), np.float32)
    for channel, file in zip(image, case.channels, strict=True):
        if file != MISSING:
            channel[:] = _like(labels, read(file), file, case)
    roi = None
    if case.roi is not None:
        roi = _whole(_like(labels, read(case.roi), case.roi, case))
    return LoadedCase(image, labels, roi, None, case.id)


def _like(
    labels: npt.NDArray[Any], array: npt.NDArray[Any], file: str, case: HostCase
) -> npt.NDArray[Any]:
    """Return an array unchanged if it has the shape of the labels."""
    if array.shape != labels.shape:
        raise DataFault(
            f"{file}: shape {array.shape}, expected {labels.shape} as {case.labels} has; bring the "
            f"files of case {case.id!r} to one shape"
        )
    return array


def _whole(array: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """Round to whole numbers in int16, as DeepMedic does."""
    return (array if array.dtype.kind in "iu" else np.rint(array)).astype(np.int16)
