"""Samples of a run on toy cases whose generator draws what a test asks for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.case_pool import CasePool, TrainingCases
from gansynth.core.filter import FilterRequest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Condition, FloatArray, LabelArray, Sample
from gansynth.data.batches import CaseCache
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run import Run
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from gansynth.testing.toy import MEANS, TEXTURE, smooth_noise

TINY = "faithful:steps=60,width=4,levels=2,crops=12,batch_size=4"
Drawing = Callable[[Condition, np.random.Generator], FloatArray]


def real(labels: LabelArray, rng: np.random.Generator, means: Any = MEANS) -> FloatArray:
    """An image as toy cases have it, of a label map."""
    image = means[:, np.maximum(labels, 0)] + TEXTURE * smooth_noise((2, *labels.shape), rng)
    image[:, labels < 0] = 0
    return np.asarray(image, np.float32)


def as_asked(condition: Condition, rng: np.random.Generator) -> FloatArray:
    """What a faultless generator draws."""
    assert condition.labels is not None
    return real(condition.labels, rng)


def samples_of(
    conditions: Sequence[Condition], seeds: Sequence[int], drawing: Drawing
) -> list[Sample]:
    """What ``Generator.sample`` returns."""
    return [
        Sample(drawing(c, np.random.default_rng(seed)), c.labels)
        for c, seed in zip(conditions, seeds, strict=True)
    ]


def opened(folder: Path, drawing: Drawing = as_asked) -> Run:
    """The run, with another generator in it."""
    found = load_run(folder, "cpu")

    def sample(conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        return samples_of(conditions, seeds, drawing)

    found.generator.sample = sample  # type: ignore[method-assign]
    return found


def drawer(
    folder: Path, filters: Sequence[str], drawing: Drawing = as_asked, **told: Any
) -> Sampler:
    """Draws samples, and has them judged."""
    request = SampleRequest(edits=(), filters=tuple(filters))
    return Sampler(opened(folder, drawing), ToySource(2), request, **told)


def reject_reasons(samples: Sequence[Sample]) -> list[str]:
    """What was found wrong with samples."""
    return [str(sample.provenance.get("reject_reason", "")) for sample in samples]


def asked(case_pool: CasePool | None = None, **condition: Any) -> FilterRequest:
    """What a sample was asked to be, for a filter by itself."""
    source = ToySource(2)
    return FilterRequest(
        Condition(**condition),
        None,
        case_pool or CasePool(TrainingCases(CaseCache(source)), source.space),
    )
