"""What a fit finds of drawn label maps beside those of the training cases, and who is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import LabelArray
from gansynth.data.label_statistics import LabelPriors
from gansynth.fitting.setup import Job
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.admission import reason_of
from gansynth.sampling.run import Run

FOUND = "label_maps.json"
"""In the run's folder: what ``report_label_maps`` found."""
SAMPLES = 64
"""Samples that a fit compares with its training label maps."""
CROPS = 512
"""Most training crops that they are compared with."""
MANY_FLAWED = 0.25
"""Share of samples with a flaw from which on a fit warns; above one half no bank is filled."""


def report_label_maps(job: Job, run: Run, reporter: Reporter) -> dict[str, Any]:
    """Compare drawn label maps with those of training crops, say it, and warn where they are off.

    Returns:
        ``label_maps``: ``LabelPriors.compare``'s JSON, with ``flawed``, the share of samples that
        have a flaw, and ``flaws``, how many by reason. Nothing for a generator that is asked for
        its label maps or has none.
    """
    if job.generator.labelling != "drawn":
        return {}
    samples = job.drawer(run, 1).draw_raw(0, SAMPLES)
    priors = LabelPriors.fit(_training(job), job.generator.schema)
    compared = priors.compare(s.labels for s in samples if s.labels is not None)
    for name, found in compared["labels"].items():
        reporter.say(f"label maps, {name}: {_told(found['samples'], found['training'])}")
    found = (s.provenance.get("flaw") for s in samples)
    flaws = Counter(reason_of(DataFault(flaw)) for flaw in found if flaw)
    document = {**compared, "flawed": round(flaws.total() / SAMPLES, 4), "flaws": dict(flaws)}
    write_json_atomic(run.folder / FOUND, document)
    warn_of_label_maps(run.folder, reporter)
    return {"label_maps": document}


def warn_of_label_maps(folder: Path, reporter: Reporter) -> None:
    """Warn of what the fit of a run, or of its parts, has found wrong with its label maps."""
    for file in sorted(folder.rglob(FOUND)):
        found = read_json(file, way_out="take it away, or fit again")
        for warning in found["warnings"]:
            reporter.warn(
                f"label maps: {warning}; train longer, or look: gansynth sample RUN --sheet"
            )
        if found["flawed"] > MANY_FLAWED:
            most = Counter(found["flaws"]).most_common(3)
            reasons = "; ".join(f"{n} times {reason}" for reason, n in most)
            reporter.warn(
                f"label maps: {found['flawed']:.0%} of {found['samples']} samples have a flaw and "
                f"would enter no bank ({reasons}), expected at most {MANY_FLAWED:.0%}; train longer"
            )


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
