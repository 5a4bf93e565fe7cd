"""Checks of a generator of raw scans before an nnU-Net training; everything here fails closed.

Content hashes of two spaces cannot be compared. So ids must be equal: every case that the generator
has seen must be a training case of the fold. Equal ids alone prove nothing. So one of these cases
is converted like a sample, and must equal nnU-Net's own preprocessed case.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.core.lineage import CaseRecord, Lineage, guard, same_host
from gansynth.core.resample import resample
from gansynth.core.schema import Case, Sample
from gansynth.core.source import CaseSource, case_records
from gansynth.core.space import Space
from gansynth.data.views import SourceView
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth_nnunet.converter import BY, SpaceConverter, check_schema

if TYPE_CHECKING:
    from gansynth.core.mix_config import MixConfig
    from gansynth.core.run_folder import RunFolder
    from gansynth_nnunet.source import NnunetSource

log = logging.getLogger("gansynth")

LABELS_OFF = 1e-3  # largest share of voxels whose labels may differ
ALIKE = 0.99  # least correlation of each channel
ROUGHLY = 0.7  # least correlation of the best channel if the generator's source has interpolated
SHORTER = 0.05  # largest difference of lengths in that case, unless it is at most two voxels


def needs_conversion(manifest: Mapping[str, Any], host: Mapping[str, Any]) -> bool:
    """Whether a run's samples must be converted: it was not trained on nnU-Net's cases."""
    host_record = Lineage.from_json(manifest["lineage"]).host
    return not same_host(host_record, host) and "plans" not in host_record


def refuse_conditions(
    mix_config: MixConfig, manifest: Mapping[str, Any], host: Mapping[str, Any]
) -> None:
    """Refuse another source's conditions for samples that are pasted into their own scans."""
    conditions = mix_config.samples.conditions
    if conditions is not None and needs_conversion(manifest, host):
        raise UsageFault(
            f"--condition-source {conditions['kind']}:{conditions['where']}: samples of "
            f"{mix_config.run} "
            f"are converted by {BY} within their own training scans, expected a generator "
            "fitted on nnunet: data, and conditions of such; or leave --condition-source out"
        )


def check_converter(
    run: RunFolder, host: NnunetSource, held_out: Sequence[CaseRecord], *, content: bool = True
) -> dict[str, Any]:
    """Check a generator of raw scans against an nnU-Net training.

    Args:
        content: read the held-out scans and compare them with what the generator has seen.

    Returns:
        The converter's name, and seconds per sample.
    """
    from gansynth.sampling.open_run import check_weights
    from gansynth.sampling.run_source import open_matching_real

    folder, lineage, space = run.folder, run.lineage, run.space
    check_schema(space.generator_schema(run.schema), host.schema, f"{folder}: {lineage.dataset}")
    check_seen(folder, lineage, host, held_out)
    check_weights(run)
    source = open_matching_real(run, host)
    source = source.base if isinstance(source, SourceView) else source
    SpaceConverter(source, space, host)  # checks that it is possible at all
    if content:
        check_content(lineage, source, held_out)
    seconds = rehearse(folder, source, space, host, lineage.cases[0].id)
    log.info("%s: samples are converted by %s, in about %.2f s each", folder, BY, seconds)
    return {"by": BY, "seconds": round(seconds, 3)}


def check_seen(
    folder: Path, lineage: Lineage, host: CaseSource, held_out: Sequence[CaseRecord]
) -> None:
    """Refuse a generator that has seen other cases than training cases of the fold, by id.

    Ancestors may have seen other data sets. But they must not have seen held-out cases of the
    generator's own data set or of nnU-Net's.
    """
    guard(lineage, held_out)
    guard(lineage, held_out, dataset=host.name)
    barred = {record.id for record in held_out}
    training = set(host.train_ids) - barred
    for parent_run in lineage.everyone():
        unknown = sorted({case.id for case in parent_run.cases} - training)
        if unknown and parent_run.dataset == lineage.dataset:
            raise IntegrityFault(
                f"leakage: {folder}: the generator has seen {len(unknown)} case(s) of "
                f"{parent_run.dataset} that are no training cases of {host.name} fold "
                f"{host.request.fold}, "
                f"{unknown[0]!r} first; expected training cases only, under the same ids. Give "
                "both data sets the same ids and split, or fit the generator on "
                f"{host.request.kind}:{host.request.where}"
            )


def check_content(lineage: Lineage, source: CaseSource, held_out: Sequence[CaseRecord]) -> None:
    """Refuse a generator that has seen a held-out scan under another id, as far as scans exist."""
    there = {*source.train_ids, *source.held_out_ids}
    ids = [record.id for record in held_out if record.id in there]
    guard(lineage, case_records(source, ids))
    if len(ids) < len(held_out):
        log.warning(
            "%s: %d of %d held-out cases are not in %s; whether the generator has seen one of them "
            "under another id cannot be checked",
            *(lineage.dataset, len(held_out) - len(ids), len(held_out), source.name),
        )


# -- conversion of one real case -------------------------------------------------------------------


def rehearse(
    folder: Path, source: CaseSource, space: Space, host: NnunetSource, case_id: str
) -> float:
    """Convert a real case like a sample, and compare it with nnU-Net's own.

    Returns the seconds it took, including reading the scan.

    Raises:
        DataFault: it is another case, or has another orientation or intensities.
        UsageFault: samples are smaller than a patch.
    """
    case = source.load(case_id)
    convert = SpaceConverter(source, Space(), host)
    began = time.perf_counter()
    image, labels = convert.whole(Sample(case.image, case.labels, provenance={"case": case_id}))
    seconds = time.perf_counter() - began
    converted = Case(case_id, "", image, labels)
    problem = _difference(converted, host.load(case_id), convert.scan(case_id).exact)
    if problem:
        raise DataFault(
            f"{folder}: case {case_id!r} of {source.name}, converted by {BY}, is not the one in "
            f"{host.folder}: {problem}; expected the same scan. Fit the generator on the files "
            "that nnU-Net was given, or preprocess them again"
        )
    if space.grid == "crop" or space.frame:
        _rehearse_crop(folder, SpaceConverter(source, space, host), case)
    return seconds


def _rehearse_crop(folder: Path, convert: SpaceConverter, case: Case) -> None:
    """Refuse crops that nnU-Net would have to pad."""
    placement = convert.space.centre(case)
    plain = replace(convert.space, window=None)
    cut = plain.to_generator(case, placement)
    provenance = {"case": case.id, "placement": placement.to_json()}
    try:
        convert.whole(plain.to_host(Sample(cut.image, cut.labels, provenance=provenance)))
    except DataFault as fault:
        raise UsageFault(f"{folder}: {fault}") from fault


def _difference(converted: Case, expected: Case, exact: bool) -> str:
    """Describe the difference of two preprocessed cases; empty if there is none."""
    assert converted.labels is not None
    assert expected.labels is not None
    shapes = converted.labels.shape, expected.labels.shape
    slack = [0 if exact else max(2, round(SHORTER * n)) for n in shapes[1]]
    if any(abs(a - b) > s for a, b, s in zip(*shapes, slack, strict=True)):
        return f"its shape is {shapes[0]}, not {shapes[1]}"
    image = converted.image if exact else resample(converted.image, None, shapes[1])[0]
    alike = [
        _correlation(first, second) for first, second in zip(image, expected.image, strict=True)
    ]
    if not exact:
        return "" if max(alike) >= ROUGHLY else f"images correlate with {max(alike):.2f} only"
    off = float(np.mean(converted.labels != expected.labels))
    if off > LABELS_OFF:
        return f"labels differ in {off:.1%} of the voxels"
    return "" if min(alike) >= ALIKE else f"images correlate with {min(alike):.2f} only"


def _correlation(first: Any, second: Any) -> float:
    first, second = (
        np.asarray(a, np.float64) - np.mean(a, dtype=np.float64) for a in (first, second)
    )
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    if size == 0:  # constant: equal if both are
        return float(not first.any() and not second.any())
    return float((first * second).sum() / size)
