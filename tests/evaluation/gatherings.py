"""Toy cases, and things made of them in the place of samples, as an evaluation gathers them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from gansynth.core.schema import Case, Sample
from gansynth.core.source import CaseSource, lineage_of
from gansynth.data.batches import CaseCache
from gansynth.metrics.comparison import Comparison, Effort
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.evaluation_data import EvaluationData, KnownSubjects, own_names
from gansynth.testing import ToySource
from gansynth_evaluate.evaluate import EvaluationOptions, assess, chosen_metrics

LITTLE = Effort(splits=16, features=10, classifier=6, judge=60)


def gathered(samples: Sequence[Sample], source: CaseSource | None = None) -> EvaluationData:
    """Samples of a run that was fitted on the source's training cases."""
    source = source or ToySource(2)
    cache, lineage = CaseCache(source), lineage_of(source)
    names, known = own_names(samples, lineage), KnownSubjects.of(source, lineage, cache)
    return EvaluationData(
        *("run", "toy-run", "toy", samples, names, source, source.space, source.schema),
        *(known, lineage, cache),
    )


def compared(found: EvaluationData) -> Comparison:
    return found.comparison(16, 0, LITTLE, "cpu", NullReporter())


def assessed(
    samples: Sequence[Sample], *parts: str, metrics: Sequence[str] = (), source: Any = None
) -> dict[str, Any]:
    found = gathered(samples, source)
    options = EvaluationOptions(parts, metrics, effort=LITTLE, pictures=False)
    return assess(found, compared(found), chosen_metrics(metrics), options).document


def as_samples(cases: Iterable[Case], noise: float = 0) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(c.image + (noise * rng.standard_normal(c.image.shape)).astype(np.float32), c.labels)
        for c in cases
    ]


def strangers(seed: int = 9) -> list[Sample]:
    """Sixteen people nobody has seen."""
    source = ToySource(2, seed=seed)
    return as_samples(map(source.load, (*source.train_ids, *source.held_out_ids)))


def copies() -> list[Sample]:
    """The training cases themselves, with hardly any noise."""
    return as_samples(map(ToySource(2).load, ToySource(2).train_ids), noise=0.02)


def blurred() -> list[Sample]:
    blur = (gaussian_filter(s.image, (0, 1, 1)).astype(np.float32) for s in strangers())
    return [Sample(image, s.labels) for image, s in zip(blur, strangers(), strict=True)]


def noise() -> list[Sample]:
    rng, drawn = np.random.default_rng(0), strangers()
    return [Sample(rng.standard_normal(s.image.shape, np.float32), s.labels) for s in drawn]


def shuffled() -> list[Sample]:
    drawn = strangers()
    return [Sample(a.image, b.labels) for a, b in zip(drawn, [*drawn[5:], *drawn[:5]], strict=True)]
