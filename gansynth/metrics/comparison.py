"""The two sides of an evaluation, metrics of them, and estimates, calibrated on real subjects."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, Sample, Schema
from gansynth.metrics.statistics import ANY, within
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.progress import NullReporter, Reporter

Better = Literal["lower", "higher", "real", "half"]
"""The target: low, high, the value of real subjects, or chance (0.5)."""
Finding = Literal["like real", "unlike real", "unclear"]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

LEVEL = 0.05  # share of intervals that may miss the true value
FEW_IMAGES = 16  # images a side; with fewer, a figure that finds no difference cannot tell


@dataclass(frozen=True)
class Estimate:
    """The value of a metric for samples, with other real subjects as the scale.

    Attributes: ``low``, ``high``: 95 % interval of ``value``, None if unknown. ``real``: the same
    for other real subjects; 95 % of such comparisons lie from ``real_low`` to ``real_high``.
    ``difference``: ``value - real``, or None for a test with ``p``. ``splits``: number of splits of
    the real subjects that are averaged.
    """

    metric: str
    name: str
    title: str
    what: str
    better: Better
    value: float | None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    real_low: float | None = None
    real_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    images: int = 0
    splits: int = 0
    note: str = ""

    @property
    def finding(self) -> Finding:
        """Whether the figure distinguishes samples from real subjects.

        ``unlike real``: the value is beyond those of real subjects, and the interval of the
        difference excludes zero. A test is so if p is below 0.05. ``unclear``: the value alone is
        beyond, there are fewer than ``FEW_IMAGES`` images, or that interval is wider than twice the
        range of real subjects.
        """
        few = self.images < FEW_IMAGES
        if self.p is not None:
            return "unlike real" if self.p < LEVEL else "unclear" if few else "like real"
        if self.value is None or self.real_low is None or self.real_high is None:
            return "unclear"
        low, high = self.real_low, self.real_high
        beyond = {
            "lower": self.value > high,
            "higher": self.value < low,
            "real": not low <= self.value <= high,
            "half": abs(self.value - 0.5) > max(abs(low - 0.5), abs(high - 0.5)),
        }[self.better]
        start, end = self.difference_low, self.difference_high
        if start is None or end is None:
            return "unclear"
        if not beyond:
            return "unclear" if few or end - start > 2 * (high - low) else "like real"
        return "unclear" if start <= 0 <= end else "unlike real"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document; non-finite numbers are null."""
        document = {k: _finite(v) if isinstance(v, float) else v for k, v in asdict(self).items()}
        document["finding"] = self.finding
        return document


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def numbered(owners: Sequence[str]) -> Indices:
    """Number of each image's owner: int64 (N,)."""
    return np.unique(np.array(owners), return_inverse=True)[1]


def drawn_anew(owner: Indices, rng: np.random.Generator) -> Indices:
    """Weight of each image (N,) when subjects are resampled with replacement."""
    people = int(owner.max()) + 1
    return np.bincount(rng.integers(people, size=people), minlength=people)[owner]


def median_estimate(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Range of the middle 95 % of values."""
    low, high = np.percentile(values, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return float(low), float(high)


@dataclass(frozen=True)
class HalfComparison:
    """Samples, real subjects in their place, and the subjects both are compared with."""

    samples: Indices
    control: Indices
    real: Indices


def halves(
    drawn_of: Sequence[str], people: Sequence[str], count: int, rng: np.random.Generator
) -> Iterator[HalfComparison]:
    """Split real subjects in two halves repeatedly, each with half of the samples.

    ``drawn_of``: the subject of each sample. Raises DataFault: fewer than two subjects, or fewer
    than four samples.
    """
    if len(set(people)) < 2 or len(drawn_of) < 4:
        raise DataFault(
            "metrics.few-subjects-or-samples",
            f"{len(set(people))} real subjects and {len(drawn_of)} samples, expected at least 2 "
            "and 4: intervals and the real scale need halves of each; generate more with -n, or "
            "use more cases",
        )
    for _ in range(count):
        first, second = _dealt(people, rng)
        chosen, _ = _dealt(drawn_of, rng)
        size = min(len(first), len(second), len(chosen))
        yield HalfComparison(np.sort(chosen[:size]), np.sort(first[:size]), np.sort(second[:size]))


def _dealt(owners: Sequence[str], rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Indices of two halves that share no owner, each in random order."""
    names = np.array(owners)
    distinct, owner = np.unique(names, return_inverse=True)
    order = rng.permutation(len(distinct))
    rank = np.empty(len(distinct), np.int64)
    rank[order] = np.arange(len(distinct))
    counts = np.bincount(owner)[order]
    ends = np.cumsum(counts)
    first = int(np.searchsorted(ends, ends[-1] / 2)) + 1
    first = min(max(1, first), max(1, len(distinct) - 1))
    inside = rank[owner] < first
    if inside.all():  # one owner alone
        inside = rng.permutation(len(owners)) < len(owners) // 2
    numbers = np.arange(len(owners))
    return rng.permutation(numbers[inside]), rng.permutation(numbers[~inside])


def summarised(
    values: Sequence[Mapping[str, float]],
    reals: Sequence[Mapping[str, float]],
    people: int,
    bounds: Mapping[str, tuple[float, float]],
) -> dict[str, dict[str, float | None]]:
    """Means over splits, with intervals: name -> numbers of ``Estimate``.

    Intervals are by the delete-half jackknife (Shao & Wu 1989, Ann. Stat. 17:1176): values of
    splits vary about their mean as the mean about the truth. Student's t is for few subjects.
    """
    from scipy.stats import t

    reach = float(t.ppf(1 - LEVEL / 2, max(1, people - 1)))
    summary: dict[str, dict[str, float | None]] = {}
    for name in values[0]:
        mine = np.array([v.get(name, np.nan) for v in values], np.float64)
        real = np.array([r.get(name, np.nan) for r in reals], np.float64)
        difference = mine - real
        numbers = _about(mine, reach, "value", "low", "high", bounds[name])
        numbers |= _about(difference, reach, "difference", "difference_low", "difference_high", ANY)
        finite = real[np.isfinite(real)]
        if finite.size:
            low, high = median_estimate(finite)
            numbers |= {"real": float(finite.mean()), "real_low": low, "real_high": high}
        summary[name] = numbers
    return summary


def _about(
    values: Floats, reach: float, mean: str, low: str, high: str, bounds: tuple[float, float]
) -> dict[str, float | None]:
    """Mean and interval of the finite values, by their names; None where there are none."""
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return dict.fromkeys((mean, low, high), None)
    value, away = float(finite.mean()), reach * float(finite.std(ddof=1))
    ends = within(value, value - away, value + away, bounds)
    return {mean: value, low: ends[0], high: ends[1]}


# -- metrics ---------------------------------------------------------------------------------------


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


NEEDED = {"labels": "label maps", "boxes": "boxes"}


class Quantity(NamedTuple):
    """What a number of a metric says, which direction is better, and the values it can have.

    ``headline``: whether it appears in the report's table.
    """

    what: str
    better: Better = "real"
    low: float = -math.inf
    high: float = math.inf
    headline: bool = True


class Metric(ABC):
    """Named numbers of samples beside real cases, in the generator's space.

    ``title``: heading of its figures; ``name`` if empty. ``least``: fewest samples, and fewest real
    images, of an evaluation.

    ``needs``: ``labels`` or ``boxes``, if images must have them; ``pairs``, if the i-th sample's
    condition must be of the i-th real case. Other subjects cannot take that case's place, so an
    evaluation computes such a metric only by request.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    least: ClassVar[int] = 4

    @abstractmethod
    def compute(self, samples: Any, real: Any, schema: Schema) -> Mapping[str, float]:
        """Return named numbers of samples and real cases, or of what ``prepare`` made of them."""

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Any:
        """Return what is computed once of each image, and then passed to ``compute``.

        An array of numbers can index it; a dict of such things is one, too.
        """
        return list(images)

    def quantity(self, name: str) -> Quantity:
        """Return what a number says; by default, that it should be as in real subjects."""
        return Quantity(f"{name}, as the plugin defines it")

    def measure(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Return the numbers of all samples beside all real cases."""
        return self.compute(*self.prepared(Comparison(samples, real, schema)), schema)

    def figures(self, comparison: Comparison) -> list[Estimate]:
        """Return numbers with intervals and a scale. DataFault, UsageFault: see ``check``."""
        images = min(len(comparison.samples), len(comparison.real)) // 2
        figures = []
        for name, numbers in self.numbers(comparison).items():
            quantity = self.quantity(name)
            if quantity.headline:
                of = (self.name, name, self.title or self.name, quantity.what, quantity.better)
                figure = Estimate(*of, None, images=images, splits=comparison.effort.splits)
                figures.append(replace(figure, **numbers))  # type: ignore[arg-type]
        return figures

    def check(self, comparison: Comparison) -> None:
        """Refuse images that lack what it needs (UsageFault), or too few of them (DataFault)."""
        self.check_needs(comparison.samples, comparison.real)
        if min(len(comparison.samples), len(comparison.real)) < self.least:
            raise DataFault(
                "metrics.few-samples-or-real-images",
                f"{(self.title or self.name).lower()}: {len(comparison.samples)} sample(s) and "
                f"{len(comparison.real)} real "
                f"image(s), expected at least {self.least} of each; generate more with -n",
            )

    def check_needs(self, samples: Sequence[Sample], real: Sequence[Case]) -> None:
        """Refuse images of which none has what the metric needs. Raises UsageFault."""
        for part, words in NEEDED.items():
            for side, images in (("samples", samples), ("real cases", real)):
                if part in self.needs and all(getattr(image, part) is None for image in images):
                    raise UsageFault(
                        "metrics.metric-lacks-conditions",
                        f"--metric {self.name}: {side} have no {words}, expected a generator "
                        f"conditioned on {part}; leave it out",
                    )

    def prepared(self, comparison: Comparison) -> tuple[Any, Any]:
        """Return the prepared samples and real images, each read once."""
        return comparison.once(
            ("prepared", type(self)),
            lambda: (
                self.prepare(comparison.samples, comparison),
                self.prepare(comparison.real, comparison),
            ),
        )

    def numbers(self, comparison: Comparison) -> dict[str, dict[str, float | None]]:
        """Name -> value, interval, scale, difference: see ``summarised``."""
        return comparison.once(("numbers", type(self)), lambda: self._numbers(comparison))

    def _numbers(self, comparison: Comparison) -> dict[str, dict[str, float | None]]:
        self.check(comparison)
        mine, real = self.prepared(comparison)
        values, reals = [], []
        for split in halves(
            comparison.drawn_of,
            comparison.people,
            comparison.effort.splits,
            comparison.rng("halves"),
        ):
            beside, schema = _picked(real, split.real), comparison.schema
            control = _in_place(_picked(real, split.control), schema)
            values.append(self.compute(_picked(mine, split.samples), beside, schema))
            reals.append(self.compute(control, beside, schema))
        quantities = {name: self.quantity(name) for name in values[0]}
        bounds = {name: (quantity.low, quantity.high) for name, quantity in quantities.items()}
        return summarised(values, reals, len(set(comparison.people)), bounds)


def _picked(prepared: Any, numbers: Indices) -> Any:
    """Select prepared values of some images."""
    if isinstance(prepared, dict):
        return {name: _picked(part, numbers) for name, part in prepared.items()}
    return [prepared[n] for n in numbers] if isinstance(prepared, list) else prepared[numbers]


def _in_place(prepared: Any, schema: Schema) -> Any:
    """Turn real cases into samples, unless something else was made of them."""
    if not isinstance(prepared, list):
        return prepared
    return [_as_sample(x, schema) if isinstance(x, Case) else x for x in prepared]


def _as_sample(case: Case, schema: Schema) -> Sample:
    provenance = {"case": case.id}
    if case.label_class is not None:
        provenance["class"] = schema.classes[case.label_class]
    return Sample(case.image, case.labels, case.boxes, provenance)


def check_images(
    images: Sequence[FloatArray], names: Sequence[str], schema: Schema, size: Sequence[int]
) -> None:
    """Refuse images (C, D, H, W) or (C, H, W) that cannot be compared."""
    shape = (len(schema.channels), *size)
    for image, name in zip(images, names, strict=True):
        if image.shape[:1] != shape[:1]:
            raise DataFault(
                "metrics.image-channels-differ",
                f"{name}: has {len(image)} channel(s), expected {shape[0]} "
                f"({', '.join(schema.channels)}); choose them with --real-read channels=...",
            )
        if image.shape != shape:
            raise DataFault(
                "metrics.image-size-differs",
                f"{name}: has {_size(image.shape[1:])} voxels, expected {_size(size)}, the same "
                "size for all images. Evaluate the run instead of a sample bank, or resize them "
                "first",
            )
        if not np.isfinite(image).all():
            bad = int(image.size - np.isfinite(image).sum())
            raise DataFault(
                "metrics.image-not-finite",
                f"{name}: holds {bad} NaN or infinite voxel(s), expected finite numbers; "
                "generate it again, or leave it out",
            )
        if image.size and float(image.max()) == float(image.min()):
            raise DataFault(
                "metrics.image-constant",
                f"{name}: is constant ({float(image.min()):g} everywhere), expected an image. It "
                "is an empty crop, or the generator has collapsed: fit it again, or leave it out",
            )


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


Measured = dict[str, dict[str, float | None]]
"""Metric -> its named numbers; None where a number is not finite, which JSON cannot hold."""


def load_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Return registered metrics by name. Raises UsageFault: one is unknown or does not load."""
    from gansynth.core.registry import installed

    return {name: installed().load("metrics", name)() for name in names}


def measure(
    metrics: Mapping[str, Metric], samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Measured:
    """Apply metrics to samples and real cases. UsageFault: one fails or is no named numbers."""
    measured: Measured = {}
    for name, metric in metrics.items():
        metric.check_needs(samples, real)
        with guard_metric(name, len(samples)):
            numbers = {str(k): float(v) for k, v in metric.measure(samples, real, schema).items()}
        measured[name] = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
    return measured


@contextmanager
def guard_metric(name: str, samples: int) -> Iterator[None]:
    """Make a failure of a metric's code one line. Raises UsageFault."""
    try:
        yield
    except GansynthError:
        raise
    except Exception as error:  # third-party code
        text = " ".join(str(error).split())
        raise UsageFault(
            "metrics.metric-fails",
            f"metric {name!r} fails on {samples} sample(s): {type(error).__name__}: {text}; "
            "expected named numbers. Leave it out, or fix its plugin",
        ) from error
