"""The Filter contract: learn from training cases what samples should be, then check samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gansynth.core.case_pool import CasePool, CropSource, TrainingCases
from gansynth.core.schema import Case, Condition, Sample, Schema
from gansynth.runtime.options import OptionModel
from gansynth.runtime.progress import Reporter


class FilterOptions(OptionModel):
    """Base of every filter's options; unknown keys are refused."""


@dataclass(frozen=True)
class FilterRequest:
    """The request of a sample; ``base`` reads the real case at its place, if there is one."""

    condition: Condition
    base: Callable[[], Case] | None
    case_pool: CasePool


@dataclass(frozen=True)
class FilterResult:
    """A filter's result: the reason of rejection or nothing, and the measured number, if any."""

    reject_reason: str = ""
    found: float | None = None


@dataclass(frozen=True)
class FilterTrainingData:
    """The training data of a filter.

    ``cases(case_id)`` reads a whole training case, and ``crops.cut(case_id, rng)`` cuts it in the
    generator's space of ``size`` voxels. Those that are read are the filter's lineage.
    ``calibration_ids``: training cases of other subjects, which set the threshold; equal to
    ``train_ids`` if there is only one subject.
    """

    cases: TrainingCases
    crops: CropSource
    train_ids: Sequence[str]
    calibration_ids: Sequence[str]
    schema: Schema
    size: Sequence[int]
    device: str
    reporter: Reporter


class Filter(ABC):
    """Rejects samples before they enter a sample bank, with a reason.

    ``learn`` is called once for a run. Another process needs only what it returns and writes to
    ``load`` the filter and check samples. This state holds no patient's image.
    """

    name: ClassVar[str]
    Options: ClassVar[type[FilterOptions]] = FilterOptions

    def __init__(self, options: FilterOptions | None = None) -> None:
        self.options = options if options is not None else self.Options()

    @abstractmethod
    def learn(self, learning: FilterTrainingData, folder: Path) -> Mapping[str, Any]:
        """Learn from training cases; return JSON of thresholds and measurements."""

    @abstractmethod
    def load(self, state: Mapping[str, Any], folder: Path, schema: Schema, device: str) -> None:
        """Restore what ``learn`` returned and wrote."""

    @abstractmethod
    def judge(self, sample: Sample, request: FilterRequest) -> FilterResult:
        """Check a sample, given in the generator's space.

        A reason begins with the observation and continues with ``, expected ...``: equal beginnings
        count as one reason, whatever numbers they hold.
        """
