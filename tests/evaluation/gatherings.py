"""Toy cases, and things made of them in the place of samples, as an evaluation gathers them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from gansynth.core.schema import Case, Sample
from gansynth.core.source import CaseSource
from gansynth.data.cache import CaseCache
from gansynth.evaluation.evaluate import EvaluationOptions, assess, chosen_metrics
from gansynth.evaluation.gathering import Gathered, Known, own_names
from gansynth.metrics.comparison import Effort, Sides
from gansynth.runtime.progress import NullReporter
from gansynth.testing import ToySource

LITTLE = Effort(splits=16, features=10, classifier=10, judge=100)


def gathered(samples: Sequence[Sample], source: CaseSource | None = None) -> Gathered:
    """Samples of a run that was fitted on the source's training cases."""
    source = source or ToySource(2)
    cache, lineage = CaseCache(source), source.lineage()
    return Gathered(
        "run",
        "toy-run",
        "toy",
        samples,
        own_names(samples, lineage),
        source,
        source.space,
        source.schema,
        Known.of(source, lineage, cache),
        lineage,
        cache,
    )


def compared(found: Gathered, number: int = 16) -> Sides:
    return found.sides(number, 0, LITTLE, "cpu", NullReporter())


def assessed(samples: Sequence[Sample], *parts: str, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """The document of an evaluation."""
    found = gathered(samples)
    options = EvaluationOptions(parts, metrics, effort=LITTLE, pictures=False)
    return assess(found, compared(found), chosen_metrics(metrics), options).document


def as_samples(cases: Iterable[Case]) -> list[Sample]:
    return [Sample(case.image, case.labels) for case in cases]


def strangers(seed: int = 9) -> list[Sample]:
    """Sixteen people nobody has seen."""
    source = ToySource(2, seed=seed)
    return as_samples(source.cases((*source.train_ids, *source.held_out_ids)))


def copies(noise: float = 0.02) -> list[Sample]:
    """The training cases themselves, with hardly any noise."""
    rng = np.random.default_rng(0)
    return [
        Sample(c.image + (noise * rng.standard_normal(c.image.shape)).astype(np.float32), c.labels)
        for c in ToySource(2).cases()
    ]


def blurred() -> list[Sample]:
    return [
        Sample(gaussian_filter(s.image, (0, 1, 1)).astype(np.float32), s.labels)
        for s in strangers()
    ]


def noise() -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(rng.standard_normal(s.image.shape).astype(np.float32), s.labels) for s in strangers()
    ]


def shuffled() -> list[Sample]:
    """Everybody has another one's labels."""
    drawn = strangers()
    return [Sample(a.image, b.labels) for a, b in zip(drawn, [*drawn[5:], *drawn[:5]], strict=True)]
