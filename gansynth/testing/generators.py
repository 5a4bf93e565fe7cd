"""``check_generator``: conformance checks of a generator on toy cases in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.core.conformance import ConformanceReport
from gansynth.core.schema import Case

if TYPE_CHECKING:
    from gansynth.core.generator import Batch, Generator, Stage
    from gansynth.testing._generator_checks import Fit, GeneratorBench


def check_generator(
    cls: type[Generator],
    *,
    options: Mapping[str, Any] | None = None,
    ndim: Sequence[int] = (3, 2),
    steps: int = 60,
    fit: Fit | None = None,
) -> ConformanceReport:
    """Fit a generator briefly on toy cases and check its samples of held-out label maps.

    A generator that refuses a number of axes by ``UsageFault`` is not checked there.

    Args:
        options: the generator's options, small ones for speed; its defaults if None.
        ndim: numbers of spatial axes to check: cases of 16 x 16 x 16 (3) and 32 x 32 voxels (2).
        steps: optimiser steps.
        fit: trains the generator; the real training loop if None.

    Returns:
        Named checks, e.g. ``3d: faithful``; checks that need a failed one are left out.
    """
    from gansynth.testing._generator_checks import GeneratorBench

    report = ConformanceReport(getattr(cls, "name", cls.__name__))
    for axes in ndim:
        bench = GeneratorBench(report, cls, dict(options or {}), axes)
        if bench.check("builds", bench.build) and bench.check(
            "trains", partial(bench.train, fit or fit_briefly, steps)
        ):
            _check_samples(bench)
    return report


def fit_briefly(generator: Generator, cases: Sequence[Case], steps: int) -> object:
    """Train on cases in memory with the real training loop, on the CPU, in fp32."""
    from gansynth.core.generator import context_of
    from gansynth.data.batches import batch_of
    from gansynth.training.loop import FitOptions, train

    def batches(step: int, stage: Stage, which: range) -> Batch:
        chosen = [int(np.random.default_rng((7, step, i)).integers(len(cases))) for i in which]
        batch = batch_of([cases[i] for i in chosen], partial(context_of, generator))
        if generator.capabilities.scans:  # the other site looks as this one
            batch.scans = batch.image.roll(1, 0)
        return batch

    loop = dict(generator.capabilities.loop, steps=steps, precision="fp32")
    return train(generator, batches, FitOptions.model_validate(loop))


def _check_samples(bench: GeneratorBench) -> None:
    from gansynth.core.generator import Generator as base
    from gansynth.testing._generator_checks import (
        BoxSampleChecks,
        LesionSampleChecks,
        SampleChecks,
        check_realness,
    )

    draws = SampleChecks(bench)
    # The other checks need these three.
    for name, check in (("draws", draws.draw), ("shape", draws.shape), ("finite", draws.finite)):
        if not bench.check(name, check):
            return
    lesions = None if bench.lesions is None else LesionSampleChecks(draws, bench.lesions)

    def check_each(of: object, *names: str) -> None:
        for name in names:
            bench.check(name, getattr(of, re.sub("[ -]", "_", name)))

    check_each(draws, "not constant", "labels kept")
    if not bench.generator.capabilities.from_labels:
        check_each(draws, "labels drawn")
    check_each(draws, "outside", "repeatable", "batch-independent")
    check_each(draws if lesions is None else lesions, "seeds matter")
    check_each(draws, "labels matter", "faithful", "contrast")
    if bench.heeds_boxes:
        check_each(BoxSampleChecks(draws), "boxes kept", "boxes matter", "boxes act in place")
    if lesions is not None:
        names = ("background kept", "lesion shown", "lesion contrast", "lesion missing")
        check_each(lesions, *names, "lesion not labelled")
        if bench.generator.lesion_margin() is not None:
            check_each(lesions, "margin suffices")
    check_each(draws, "inputs untouched")
    bench.check("core's provenance kept", draws.provenance_kept)
    bench.check("reads training cases only", bench.source.check_unread)
    check_each(draws, "random state untouched", "state reloads", "state does not grow")
    check_each(draws, "takes what it says", "copies nothing")
    if type(bench.generator).realness is not base.realness:
        bench.check("realness", partial(check_realness, bench.generator, bench.train_cases))
