"""The cases of one subepoch after another as a sequence, for those who build their own training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gansynth.core.injection import MixPlan
from gansynth.hosts.epoch_plan import count_places
from gansynth_deepmedic.files import HostCase
from gansynth_deepmedic.insertion import RIM, Loaded
from gansynth_deepmedic.layout import volume
from gansynth_deepmedic.subepochs import Read, Subepochs


class DrawnCases(Sequence[Loaded]):
    """Real and synthetic cases; ``cases[i]`` is place i of the subepoch it has come to.

    A subepoch has every real case once and its share of synthetic ones. Each time a place is asked
    for it goes on to the next subepoch, so that going through all places again and again goes
    through one subepoch after another.
    """

    def __init__(
        self, plan: MixPlan[int], cases: Sequence[HostCase], first: int = 0, read: Read = volume
    ) -> None:
        self.subepochs = Subepochs(plan, cases, count_places(plan.ratio, len(cases)), RIM)
        self._read, self._first = read, first
        self._asked: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.subepochs)

    def __getitem__(self, index: int) -> Loaded:  # type: ignore[override]
        """What fills a place: arrays of its own, in the files' axes and units.

        Raises:
            IndexError: there is no such place.
            TrainingFault: there is no sample where no real case may take its place.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        subepoch = self._first + self._asked[index]
        self._asked[index] += 1
        return self.subepochs.load(self.subepochs.order(subepoch)[index], self._read)
