"""Metrics by name, the two sides of an evaluation, and metrics calibrated on real subjects.

Any function of samples and real cases is a metric, called for every half. ``SplitHalfMetric`` reads
each image once and is faster.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.core.metric import Metric
from gansynth.core.schema import Case, FloatArray, Sample, Schema
from gansynth.metrics.estimate import Better, Estimate, Indices, halves, summarised
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.progress import NullReporter, Reporter

Image = Sample | Case
T = TypeVar("T")
PERCENTILES = (0.5, 99.5)
"""Of real intensities. Images are clipped to them, so that no single voxel sets the scale."""
Window = npt.NDArray[np.float32]  # (C, 2): lowest and highest intensity of each channel


@dataclass(frozen=True)
class Effort:
    """Splits of the real subjects; training steps of networks; the segmenters' width and batch."""

    splits: int = 40
    features: int = 300
    classifier: int = 200
    judge: int = 400
    width: int = 12
    batch: int = 2


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(20, 80, 60, 100, 8, 1),
    "standard": Effort(),
    "thorough": Effort(100, 1000, 600, 1500),
}


@dataclass
class Comparison:
    """Samples, image (C, D, H, W) or (C, H, W), and real crops of the same space and size.

    ``drawn_of``: the subject whose case a sample is based on, or a unique name. ``beside``: that
    case at the sample's place, if a lesion was put into it; empty if unknown.
    """

    samples: Sequence[Sample]
    real: Sequence[Case]
    schema: Schema
    drawn_of: Sequence[str] = ()
    beside: Sequence[Case | None] = ()
    people: Sequence[str] = ()
    seed: int = 0
    effort: Effort = EFFORTS["standard"]
    device: str = "auto"
    reporter: Reporter = field(default_factory=NullReporter)
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.drawn_of:
            self.drawn_of = [f"sample {n}" for n in range(len(self.samples))]
        if not self.people:
            self.people = [case.subject for case in self.real]

    @cached_property
    def window(self) -> Window:
        """The 0.5 and 99.5 percentiles of each channel of the real crops: (C, 2)."""
        return window_of([case.image for case in self.real])

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Compute a value of both sides once and cache it by key."""
        if key not in self._kept:
            self._kept[key] = make()
        value: T = self._kept[key]
        return value

    def rng(self, of: str) -> np.random.Generator:
        """Random generator of one purpose, the same at every call."""
        return np.random.default_rng([self.seed, *of.encode()])


def window_of(images: Sequence[FloatArray]) -> Window:
    """The 0.5 and 99.5 percentiles of each channel of real images (C, D, H, W) or (C, H, W)."""
    channels = zip(*images, strict=True)
    bounds = [np.percentile(np.concatenate([i.ravel() for i in c]), PERCENTILES) for c in channels]
    return np.array(bounds, np.float32)


class IntervalMetric(ABC):
    """A metric whose figures have intervals and a scale."""

    title: ClassVar[str]
    least: ClassVar[int] = 8

    @abstractmethod
    def __call__(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Return named numbers, as any metric does."""

    @abstractmethod
    def figures(self, comparison: Comparison) -> list[Estimate]:
        """Return its figures; the caller sets ``metric``. DataFault: images are missing."""

    def check(self, comparison: Comparison) -> None:
        """Refuse too few images. Raises DataFault: naming both sides."""
        if min(len(comparison.samples), len(comparison.real)) < self.least:
            raise DataFault(
                f"{self.title.lower()}: {len(comparison.samples)} sample(s) and "
                f"{len(comparison.real)} real "
                f"image(s), expected at least {self.least} of each; generate more with -n"
            )


class SplitHalfMetric(IntervalMetric):
    """A metric that reads each image once and then compares subsets of them."""

    @abstractmethod
    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Any:
        """Return what is cached of images: indexable by an array of numbers, or a dict of such."""

    @abstractmethod
    def compare(self, prepared: Any, real: Any, comparison: Comparison) -> Mapping[str, float]:
        """Return named numbers of some prepared images compared with some real ones."""

    @abstractmethod
    def told(self, name: str) -> tuple[str, Better]:
        """Return the description of a number, and which direction is better."""

    def bounds(self, name: str) -> tuple[float, float]:
        """Return the least and largest possible value of a number."""
        return 0.0, math.inf

    def headline(self, name: str) -> bool:
        """Whether a number appears in the report's table; by default all do."""
        return True

    def __call__(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Compare all samples with all real cases."""
        comparison = Comparison(samples, real, schema)
        return self.compare(
            self.prepare(samples, comparison), self.prepare(real, comparison), comparison
        )

    def prepared(self, comparison: Comparison) -> tuple[Any, Any]:
        """Return the prepared samples and real images, each read once."""
        return comparison.once(
            ("prepared", self),
            lambda: (
                self.prepare(comparison.samples, comparison),
                self.prepare(comparison.real, comparison),
            ),
        )

    def numbers(self, comparison: Comparison) -> dict[str, dict[str, float | None]]:
        """Name -> value, interval, scale, difference: see ``summarised``."""
        return comparison.once(("numbers", self), lambda: self._numbers(comparison))

    def _numbers(self, comparison: Comparison) -> dict[str, dict[str, float | None]]:
        self.check(comparison)
        mine, real = self.prepared(comparison)
        rng, people = comparison.rng("halves"), len(set(comparison.people))
        pairs = [
            (
                self.compare(_picked(mine, split.samples), _picked(real, split.real), comparison),
                self.compare(_picked(real, split.control), _picked(real, split.real), comparison),
            )
            for split in halves(
                comparison.drawn_of, comparison.people, comparison.effort.splits, rng
            )
        ]
        values, reals = [numbers for numbers, _ in pairs], [numbers for _, numbers in pairs]
        return summarised(values, reals, people, {name: self.bounds(name) for name in values[0]})

    def figures(self, comparison: Comparison) -> list[Estimate]:
        """Return the figures of the report's table."""
        images = min(len(comparison.samples), len(comparison.real)) // 2
        figures = []
        for name, numbers in self.numbers(comparison).items():
            if self.headline(name):
                description, better = self.told(name)
                figure = Estimate("", name, self.title, description, better, None, images=images)
                figures.append(replace(figure, splits=comparison.effort.splits, **numbers))  # type: ignore[arg-type]
        return figures


class FunctionMetric(SplitHalfMetric):
    """Any function of samples and real cases, called for every half."""

    title = ""
    least = 4

    def __init__(self, metric: Metric, name: str) -> None:
        self.metric = metric
        self.title = name  # type: ignore[misc]

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> list[Image]:
        """Return the images themselves."""
        return list(images)

    def compare(self, prepared: Any, real: Any, comparison: Comparison) -> Mapping[str, float]:
        """Call the function."""
        samples = [as_sample(image, comparison.schema) for image in prepared]
        numbers = measure({self.title: self.metric}, samples, list(real), comparison.schema)
        return {k: np.nan if v is None else v for k, v in numbers[self.title].items()}

    def bounds(self, name: str) -> tuple[float, float]:
        """Any number."""
        return -math.inf, math.inf

    def told(self, name: str) -> tuple[str, Better]:
        """The target is the value of real subjects; nothing else is known of the metric."""
        return f"{name}, as the plugin defines it", "real"


def _picked(prepared: Any, numbers: Indices) -> Any:
    """Select prepared values of some images."""
    if isinstance(prepared, dict):
        return {name: _picked(part, numbers) for name, part in prepared.items()}
    return [prepared[n] for n in numbers] if isinstance(prepared, list) else prepared[numbers]


def as_sample(image: Image, schema: Schema) -> Sample:
    """Convert a real case to a sample."""
    if isinstance(image, Sample):
        return image
    provenance = {"case": image.id}
    if image.label_class is not None:
        provenance["class"] = schema.classes[image.label_class]
    return Sample(image.image, image.labels, image.boxes, provenance)


def check_images(
    images: Sequence[FloatArray], names: Sequence[str], schema: Schema, size: Sequence[int]
) -> None:
    """Refuse images (C, D, H, W) or (C, H, W) that cannot be compared.

    Raises DataFault: naming the first image with other channels, another size in voxels, non-finite
    values, or a constant value.
    """
    shape = (len(schema.channels), *size)
    for image, name in zip(images, names, strict=True):
        if image.shape[:1] != shape[:1]:
            raise DataFault(
                f"{name}: has {len(image)} channel(s), expected {shape[0]} "
                f"({', '.join(schema.channels)}); choose them with --real-read channels=..."
            )
        if image.shape != shape:
            raise DataFault(
                f"{name}: has {_size(image.shape[1:])} voxels, expected {_size(size)}, the same "
                "size for all images. Evaluate the run instead of a sample bank, or resize them "
                "first"
            )
        if not np.isfinite(image).all():
            bad = int(image.size - np.isfinite(image).sum())
            raise DataFault(
                f"{name}: holds {bad} NaN or infinite voxel(s), expected finite numbers; "
                "generate it again, or leave it out"
            )
        if image.size and float(image.max()) == float(image.min()):
            raise DataFault(
                f"{name}: is constant ({float(image.min()):g} everywhere), expected an image. It "
                "is an empty crop, or the generator has collapsed: fit it again, or leave it out"
            )


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


Measured = dict[str, dict[str, float | None]]
"""Metric -> its named numbers; None where a number is not finite, which JSON cannot hold."""


def load_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Return registered metrics by name. Raises UsageFault: one is unknown or does not load."""
    from gansynth.core.registry import installed

    return {name: installed().metric(name) for name in names}


def measure(
    metrics: Mapping[str, Metric], samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Measured:
    """Apply metrics to samples and real cases. UsageFault: one fails or is no named numbers."""
    measured: Measured = {}
    for name, metric in metrics.items():
        try:
            numbers = {
                str(key): float(value) for key, value in metric(samples, real, schema).items()
            }
        except GansynthError:
            raise
        except Exception as error:  # third-party code
            text = " ".join(str(error).split())
            raise UsageFault(
                f"metric {name!r} fails on {len(samples)} sample(s): {type(error).__name__}: "
                f"{text}; expected named numbers. Leave it out, or fix its plugin"
            ) from error
        measured[name] = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
    return measured
