"""Comparison of generated label maps with those of the training cases, in a fit and after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import LabelArray
from gansynth.data.label_statistics import LabelPriors
from gansynth.fitting.setup import FitJob
from gansynth.metrics.segmentation.measures import dice, mean_dice
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.manifest import Run
from gansynth.sampling.quality_gate import reject_reason_of
from gansynth.sampling.run_source import LabelMapSampler

FOUND = "label_maps.json"
"""File in the run's folder with the result of ``report_label_maps``."""
SAMPLES = 64
"""Samples that a fit compares with its training label maps."""
CROPS = 512
"""Most training crops to compare with."""
INNER = 8
"""Training cases whose label maps a generator of label maps is judged by; no held-out one."""
NOTHING = 0.1
"""Dice below which a label counts as not found."""
LONGER = "train longer, or inspect: gansynth sample RUN --sheet"
MANY_FLAWED = 0.25
"""Share of rejected samples above which a fit warns; above one half no bank is filled."""


def report_label_maps(job: FitJob, run: Run, reporter: Reporter) -> dict[str, Any]:
    """Compare generated label maps with those of training crops, and warn of differences.

    Returns:
        ``label_maps``: ``LabelPriors.compare``'s JSON, with ``rejected``, the share of rejected
        samples, and ``reject_reasons``, their number by reason. For a generator of label maps of
        images ``inner_dice``'s JSON. Empty for a generator that generates no label maps.
    """
    draws = job.generator.capabilities.draws
    if draws == "labels":
        document = inner_dice(job, run)
        write_json_atomic(run.folder / FOUND, document)
        warn_of_label_maps(run.folder, reporter)
        return {"label_maps": document}
    if draws != "both":
        return {}
    samples = job.sampler(run, 1).draw_raw(0, SAMPLES)
    priors = LabelPriors.fit(_training(job), job.generator.schema)
    compared = priors.compare(s.labels for s in samples if s.labels is not None)
    compared["warnings"] = [f"{text}; {LONGER}" for text in compared["warnings"]]
    for name, shares in compared["labels"].items():
        reporter.say(f"label maps, {name}: {_description(shares['samples'], shares['training'])}")
    reject_reasons = Counter[str]()
    for sample in samples:
        reason = sample.provenance.get("reject_reason")
        if reason:
            reject_reasons[
                reject_reason_of(DataFault("fitting.generated-label-map-rejected", reason))
            ] += 1
    document = dict(compared)
    document["rejected"] = round(reject_reasons.total() / SAMPLES, 4)
    document["reject_reasons"] = dict(reject_reasons)
    write_json_atomic(run.folder / FOUND, document)
    warn_of_label_maps(run.folder, reporter)
    return {"label_maps": document}


def inner_dice(job: FitJob, run: Run) -> dict[str, Any]:
    """Compare the label maps that a generator draws of whole training cases with the true ones.

    Returns:
        ``cases``: their number, ``INNER`` with foreground at most; ``dice``: mean by name of the
        label, None where no case has it; ``warnings``.
    """
    source, labels = job.source, job.source.schema.labels
    regions = tuple([(name, (value,)) for name, value in labels.items() if value > 0])
    labeller, scores = LabelMapSampler(run, source.schema), []
    for case_id in np.random.default_rng(job.options.seed + 2).permutation(source.train_ids):
        case = job.cache(str(case_id))
        if case.labels is not None and (case.labels > 0).any():
            drawn = labeller.draw(case, source.schema)
            scores.append(dice(drawn, case.labels, regions, source.schema.ignore))
        if len(scores) == INNER:
            break
    means = {n: None if v is None else round(v, 4) for n, v in mean_dice(scores).items()}
    missed = [f"{name} {v:.2f}" for name, v in means.items() if v is not None and v < NOTHING]
    remedy = job.generator.capabilities.remedy("labels missed")
    warnings = []
    if missed:
        warnings.append(
            f"Dice of {', '.join(missed)} on {len(scores)} training case(s), expected {NOTHING} "
            f"or more: the run finds next to nothing of it; {remedy}"
        )
    return {"cases": len(scores), "dice": means, "warnings": warnings, "rejected": 0}


def dice_text(found: Mapping[str, Any]) -> str:
    """Return what ``inner_dice`` found as words."""
    means = [f"{n} {'-' if v is None else f'{v:.2f}'}" for n, v in found["dice"].items()]
    return f"Dice on {found['cases']} training case(s): {', '.join(means)}"


def warn_of_label_maps(folder: Path, reporter: Reporter) -> None:
    """Warn of label maps that were bad in the fit of a run, or of its parts."""
    for file in sorted(folder.rglob(FOUND)):
        report = read_json(file, hint="remove it, or fit again")
        for warning in report["warnings"]:
            reporter.warn(f"label maps: {warning}")
        if report["rejected"] > MANY_FLAWED:
            most = Counter(report["reject_reasons"]).most_common(3)
            reasons = "; ".join([f"{n} times {reason}" for reason, n in most])
            reporter.warn(
                f"label maps: {report['rejected']:.0%} of {report['samples']} samples would be "
                f"rejected ({reasons}), expected at most {MANY_FLAWED:.0%}; train longer"
            )


def _training(job: FitJob) -> Iterator[LabelArray]:
    rng = np.random.default_rng(job.options.seed + 2)
    ids = [str(i) for i in rng.permutation(np.array(job.source.train_ids))[:CROPS]]
    for case in job.shown(ids, rng, SAMPLES):
        if case.labels is not None:
            yield case.labels


def _description(samples: Mapping[str, float | None], training: Mapping[str, float | None]) -> str:
    rows = [
        f"in {row['share']:.0%}"
        + ("" if row["area"] is None else f", {row['area']:.0f} voxels in {row['parts']:g} part(s)")
        for row in (samples, training)
    ]
    return f"samples {rows[0]}; training cases {rows[1]} (medians where it is shown)"
