"""Mode collapse of a generator from noise, by the similarity of its samples to each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from gansynth.core.schema import Case, Sample
from gansynth.fitting.setup import FitJob
from gansynth.metrics.comparison import Window, window_of
from gansynth.metrics.diversity import PAIRS, MeanSimilarity, owners_of, pairwise, windowed
from gansynth.runtime.progress import Reporter
from gansynth.sampling.manifest import Run

AT_ONCE = 8
"""Samples generated at once."""
ERRORS = 2.0
"""Standard errors by which samples must be more similar than real cases ..."""
LOST = 0.3
"""... and least share of the diversity of real cases that samples must have lost. A generator of m
equally frequent images has lost 1/m. Generators without collapse had lost 0.19 at most."""


def report_diversity(job: FitJob, run: Run, reporter: Reporter) -> dict[str, float | None] | None:
    """Return the mean MS-SSIM of pairs of samples and of real cases, and warn of a mode collapse.

    None if the generator does not draw from noise, or by option ``diversity=0``. A value is None
    where there are no pairs.
    """
    if not (job.generator.capabilities.from_noise and job.trains and job.options.diversity):
        return None
    window, real = _real(job)
    drawn = _samples(job, run)
    by = _condition(job)
    kinds = [sample.provenance.get(by, sample.notes.get(by)) for sample in drawn]
    rng = np.random.default_rng(job.options.seed + 2)
    samples = pairwise(windowed([s.image for s in drawn], window), PAIRS, rng, kinds=kinds)
    excess = samples.mean - real.mean
    lost = excess / max(1 - real.mean, 1e-6)
    if excess > ERRORS * np.hypot(samples.error, real.error) and lost > LOST:
        reporter.warn(
            f"diversity: mean MS-SSIM of pairs of samples {samples.mean:.2f} +- "
            f"{samples.error:.2f}, of real cases {real.mean:.2f} +- {real.error:.2f}: as similar "
            f"as {max(1, round(1 / lost))} different image(s) (mode collapse, or too few steps), "
            "expected samples as diverse as real cases; fit again with "
            f"{job.generator.capabilities.remedy('collapse')}"
        )
    means = {"samples": samples.mean, "real": real.mean}
    return {key: round(mean, 4) if np.isfinite(mean) else None for key, mean in means.items()}


def _samples(job: FitJob, run: Run) -> list[Sample]:
    sampler, number = job.sampler(run, 2), job.options.diversity
    drawn: list[Sample] = []
    for start in range(0, number, AT_ONCE):
        drawn += sampler.draw_raw(start, min(AT_ONCE, number - start))
    return drawn


def _real(job: FitJob) -> tuple[Window, MeanSimilarity]:
    """Return window and similarity of real crops, of as many subjects as possible."""
    rng, source = np.random.default_rng(job.options.seed + 2), job.source
    turns: dict[str, list[str]] = {}
    for case_id in rng.permutation(source.train_ids):
        turns.setdefault(source.header(str(case_id)).subject, []).append(str(case_id))
    by_turn = [case for turn in zip_longest(*turns.values()) for case in turn if case]
    cases = [job.crops.cut(case_id, rng) for case_id in by_turn[: job.options.diversity]]
    window = window_of([case.image for case in cases])
    images = windowed([case.image for case in cases], window)
    return window, pairwise(images, PAIRS, rng, owners=owners_of(cases), kinds=_kinds(job, cases))


def _condition(job: FitJob) -> str:
    """Return the condition of a generator, as named in the provenance of samples."""
    takes = job.generator.capabilities.takes
    for kind in ("class", "foreground"):
        if kind in takes:
            return kind
    return "none"


def _kinds(job: FitJob, cases: Sequence[Case]) -> list[str | None]:
    by, kinds = _condition(job), list[str | None]()
    for case in cases:
        kind = None
        if by == "class" and case.label_class is not None:
            kind = job.generator.schema.classes[case.label_class]
        elif by == "foreground" and case.labels is not None:
            kind = "with" if (case.labels > 0).any() else "without"
        kinds.append(kind)
    return kinds
