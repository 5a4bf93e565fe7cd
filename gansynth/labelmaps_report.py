"""What a fit says of drawn label maps: how they compare with those of the training cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gansynth.admission import reason_of
from gansynth.errors import DataFault
from gansynth.job import Job
from gansynth.labelmaps import LabelPriors
from gansynth.reporting import Reporter
from gansynth.run import Run
from gansynth.sampling import SampleDrawer
from gansynth.schema import LabelArray

SAMPLES = 64
"""Samples that a fit compares with its training label maps."""
CROPS = 512
"""Most training crops that they are compared with."""
MANY_FLAWED = 0.25
"""Share of samples with a flaw from which on a fit warns; above one half no bank is filled."""


def report_label_maps(job: Job, run: Run, reporter: Reporter) -> dict[str, Any]:
    """Compare drawn label maps with those of training crops, say it, and warn where they are off.

    Args:
        job: of the fit.
        run: what it has fitted.
        reporter: shows it.

    Returns:
        ``label_maps``: ``LabelPriors.compare``'s JSON, with ``flawed``, the share of samples that
        have a flaw, and ``flaws``, how many by reason. Nothing for a generator that is asked for
        its label maps or has none.
    """
    if job.generator.labelling != "drawn":
        return {}
    samples = SampleDrawer(run, job.source, seed=job.options.seed + 1).draw_raw(0, SAMPLES)
    priors = LabelPriors.fit(_training(job), job.generator.schema)
    compared = priors.compare(s.labels for s in samples if s.labels is not None)
    for name, found in compared["labels"].items():
        reporter.say(f"label maps, {name}: {_told(found['samples'], found['training'])}")
    for warning in compared["warnings"]:
        reporter.warn(f"label maps: {warning}; train longer, or look: gansynth sample RUN --sheet")
    found = (s.provenance.get("flaw") for s in samples)
    flaws = Counter(reason_of(DataFault(flaw)) for flaw in found if flaw)
    share = flaws.total() / SAMPLES
    if share > MANY_FLAWED:
        reasons = "; ".join(f"{n} times {reason}" for reason, n in flaws.most_common(3))
        reporter.warn(
            f"label maps: {share:.0%} of {SAMPLES} samples have a flaw and would enter no bank "
            f"({reasons}), expected at most {MANY_FLAWED:.0%}; train longer"
        )
    return {"label_maps": {**compared, "flawed": round(share, 4), "flaws": dict(flaws)}}


def _training(job: Job) -> Iterator[LabelArray]:
    """Label maps of training crops."""
    rng = np.random.default_rng(job.options.seed + 2)
    ids = [str(i) for i in rng.permutation(np.array(job.source.train_ids))[:CROPS]]
    for case in job.shown(ids, rng, SAMPLES):
        if case.labels is not None:
            yield case.labels


def _told(samples: Mapping[str, float | None], training: Mapping[str, float | None]) -> str:
    rows = [
        f"in {row['share']:.0%}"
        + ("" if row["area"] is None else f", {row['area']:.0f} voxels in {row['parts']:g} part(s)")
        for row in (samples, training)
    ]
    return f"samples {rows[0]}; training cases {rows[1]} (medians where it is shown)"
