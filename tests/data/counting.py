"""A toy source that tests of sources share."""

from gansynth.core.schema import Case
from gansynth.testing import ToySource


class Counting(ToySource):
    """Counts how often a case was read."""

    def __init__(self) -> None:
        super().__init__(2)
        self.reads: list[str] = []

    def load(self, case_id: str) -> Case:
        self.reads.append(case_id)
        return super().load(case_id)
