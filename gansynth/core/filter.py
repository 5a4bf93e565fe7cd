"""The Filter contract: learn from training cases what a sample ought to be, then judge samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gansynth.core.scene import CasePool, CropSource
from gansynth.core.schema import Case, Condition, Sample, Schema
from gansynth.runtime.options import OptionModel
from gansynth.runtime.progress import Reporter


class FilterOptions(OptionModel):
    """Base of every filter's options; unknown keys are refused."""


@dataclass(frozen=True)
class Asked:
    """What a sample was asked to be; ``base`` reads the real case at its place, if it has one."""

    condition: Condition
    base: Callable[[], Case] | None
    room: CasePool


@dataclass(frozen=True)
class Verdict:
    """What a filter found: a flaw or nothing, and the number it judged by, if there is one."""

    flaw: str = ""
    found: float | None = None


@dataclass(frozen=True)
class Learning:
    """What a filter may learn from.

    ``crops.cut(case_id, rng)`` cuts training cases in the generator's space of ``size`` voxels.
    ``calibration_ids``: training cases of other subjects, that set the threshold; ``train_ids``
    where there is one subject only.
    """

    crops: CropSource
    train_ids: Sequence[str]
    calibration_ids: Sequence[str]
    schema: Schema
    size: Sequence[int]
    device: str
    reporter: Reporter


class Filter(ABC):
    """Keeps samples out of banks, for a reason.

    ``learn`` is called once for a run; what it returns and writes is all that another process needs
    to ``load`` and judge. No patient's image is among it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[FilterOptions]] = FilterOptions

    def __init__(self, options: FilterOptions | None = None) -> None:
        self.options = options if options is not None else self.Options()

    @abstractmethod
    def learn(self, learning: Learning, folder: Path) -> Mapping[str, Any]:
        """Learn what a sample ought to be: JSON of thresholds and of what was measured."""

    @abstractmethod
    def load(self, state: Mapping[str, Any], folder: Path, schema: Schema, device: str) -> None:
        """Take back what ``learn`` returned and wrote."""

    def judge(self, sample: Sample, request: Asked) -> Verdict:
        """Judge a sample by ``flaw``; override it to tell a number, or look at what was asked."""
        return Verdict(self.flaw(sample))

    def flaw(self, sample: Sample) -> str:
        """Why a sample, in the generator's space, should be kept out; nothing if it should not.

        Begin with what was found and go on with ``, expected ...``: equal beginnings are counted
        as one reason, whatever numbers are in them.
        """
        raise NotImplementedError(f"filter {self.name!r}: has neither flaw nor judge")
