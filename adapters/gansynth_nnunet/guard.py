"""Checks of a generator or bank before an nnU-Net training; all of them fail closed.

A generator of raw scans is allowed, too. Content hashes of two spaces cannot be compared. So ids
must be equal: every case that the generator has seen must be a training case of the fold. Equal ids
alone prove nothing. So one of these cases is converted like a sample, and must equal nnU-Net's own
preprocessed case.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.lineage import CaseRecord, Lineage, guard, same_host
from gansynth.core.mix_config import MixConfig
from gansynth.core.resample import resample
from gansynth.core.schema import OUTSIDE, Case, Sample
from gansynth.core.source import CaseSource, case_records
from gansynth.core.space import Space
from gansynth.data.views import SourceView
from gansynth.hosts import sample_source as checks
from gansynth.hosts.sample_source import SampleSource, check_samples, find_sample_source
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth_nnunet.converter import BY, SpaceConverter, kept_size
from gansynth_nnunet.source import NnunetSource

if TYPE_CHECKING:
    from gansynth.core.run_folder import RunFolder

log = logging.getLogger("gansynth")

LABELS_OFF = 1e-3  # largest share of voxels whose labels may differ
ALIKE = 0.99  # least correlation of each channel
ROUGHLY = 0.7  # least correlation of the best channel if the generator's source has interpolated
SHORTER = 0.05  # largest difference of lengths in that case, unless it is at most two voxels


def check_origin(
    mix_config: MixConfig, source: NnunetSource, held_out: Sequence[CaseRecord]
) -> SampleSource:
    """Check the generator or bank that a ``MixConfig`` names, and every sample of a bank."""

    def check_bank(reader: BankReader) -> None:
        allowed = {OUTSIDE, *source.schema.labels.values()}
        unknown = sorted(set(reader.spec.schema.label_values) - allowed)
        if unknown:
            raise DataFault(
                f"{reader.folder}: samples may hold the label(s) {unknown}, unknown to the data "
                f"set; expected among {sorted(allowed)}"
            )
        check_samples(reader, lambda sample: _check_sample(sample, reader, source))

    sample_source = find_sample_source(mix_config)
    run = sample_source.run
    if run is None or not needs_conversion(run.manifest, source.space.host):
        return checks.check_origin(
            *(mix_config, "nnU-Net", source, held_out),
            same=("channels",),
            check_run=lambda run: check_size(run.folder, run.space, source.patch_size),
            check_bank=check_bank,
        )
    checks.check_learnable(run, "nnU-Net")
    refuse_conditions(mix_config)
    conversion = check_converter(run, source, held_out)
    described = {**sample_source.described, "conversion": conversion}
    origin = replace(sample_source, described=described)
    return checks.check_asked(mix_config, origin, source, held_out)


def _check_sample(sample: BankSample, reader: BankReader, source: NnunetSource) -> None:
    """Refuse a stored sample by a producer's rules."""
    from gansynth.sampling.quality_gate import validate_sample

    if sample.labels is None:
        raise UsageFault(
            "no labels, expected them: nnU-Net learns from nothing else. Fit a generator that "
            "draws labels with its images"
        )
    size = host_size(source.patch_size)
    validate_sample(Sample(sample.image, sample.labels), source.schema, size, reader.spec.dtype)


# -- sizes -----------------------------------------------------------------------------------------


def check_size(folder: Path, space: Space, patch: Sequence[int]) -> None:
    """Refuse samples that nnU-Net would pad to its patch: networks would learn the padding."""
    if space.grid == "native":
        return
    size, need = host_size(space.size), host_size(patch)
    if space.grid == "resample" or any(s < n for s, n in zip(size, need, strict=True)):
        raise UsageFault(
            f"{folder}: samples have {size} voxels (grid {space.grid}), the patch {need}; expected "
            "grid 'crop' or 'slice', and at least the patch on each axis (best 4/3 of it). Fit the "
            "generator on nnunet: data, at a larger size"
        )


def host_size(patch: Sequence[int]) -> tuple[int, ...]:
    """Return nnU-Net's patch as (D, H, W); a 2D patch is one slice, (1, H, W)."""
    size = tuple(int(n) for n in patch)
    return (1, *size) if len(size) == 2 else size


def drawn_size(
    manifest: Mapping[str, Any], source: NnunetSource, patch: Sequence[int]
) -> tuple[int, ...]:
    """Return the largest size (D, H, W) of a run's samples in nnU-Net's voxels, or the patch."""
    foreign = needs_conversion(manifest, source.space.host)
    return host_size((kept_size(source) if foreign else manifest["space"]["size"]) or patch)


def sample_bytes(
    size: tuple[int, ...], patch: tuple[int, ...], channels: int, width: int, keys: int
) -> int:
    """Return an upper bound of one sample's bytes.

    Args:
        size: voxels of a generated sample, (D, H, W).
        patch: voxels of nnU-Net's patch, (D, H, W) or (H, W), the smallest size of a sample.
        width: bytes of a value.
        keys: labels or regions, some of whose voxels are listed.
    """
    voxels = int(np.prod(np.maximum(size, host_size(patch))))
    return voxels * (channels * width + 2) + 8000 * keys


# -- generators of raw scans -----------------------------------------------------------------------


def needs_conversion(manifest: Mapping[str, Any], host: Mapping[str, Any]) -> bool:
    """Whether a run's samples must be converted: it was not trained on nnU-Net's cases."""
    host_record = Lineage.from_json(manifest["lineage"]).host
    return not same_host(host_record, host) and "plans" not in host_record


def refuse_conditions(mix_config: MixConfig) -> None:
    """Refuse another source's conditions for samples that are pasted into their own scans."""
    if (conditions := mix_config.samples.conditions) is not None:
        raise UsageFault(
            f"--condition-source {conditions['kind']}:{conditions['where']}: samples of "
            f"{mix_config.run} are converted by {BY} within their own training scans, expected a "
            "generator fitted on nnunet: data, and conditions of such; or leave "
            "--condition-source out"
        )


def check_converter(
    run: RunFolder, host: NnunetSource, held_out: Sequence[CaseRecord]
) -> dict[str, Any]:
    """Check a generator of raw scans; return the converter's name, and seconds per sample."""
    from gansynth.sampling.open_run import check_weights
    from gansynth.sampling.run_source import open_matching_real

    folder, lineage, space = run.folder, run.lineage, run.space
    check_seen(folder, lineage, host, held_out)
    check_weights(run)
    source = open_matching_real(run, host)
    source = source.base if isinstance(source, SourceView) else source
    SpaceConverter(source, space, host)  # checks that it is possible at all
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
    training = set(host.train_ids) - {record.id for record in held_out}
    for parent_run in lineage.everyone():
        unknown = sorted({case.id for case in parent_run.cases} - training)
        if unknown and parent_run.dataset == lineage.dataset:
            raise IntegrityFault(
                f"leakage: {folder}: the generator has seen {len(unknown)} case(s) of "
                f"{parent_run.dataset} that are no training cases of {host.name} fold "
                f"{host.request.fold}, {unknown[0]!r} first; expected training cases only, under "
                "the same ids. Give both data sets the same ids and split, or fit the generator on "
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
    if space.grid == "crop" or space.frame:  # crops that nnU-Net would have to pad are refused
        placement = space.centre(case)
        plain = replace(space, window=None)
        cut = plain.to_generator(case, placement)
        provenance = {"case": case.id, "placement": placement.to_json()}
        sample = plain.to_host(Sample(cut.image, cut.labels, provenance=provenance))
        try:
            SpaceConverter(source, space, host).whole(sample)
        except DataFault as fault:
            raise UsageFault(f"{folder}: {fault}") from fault
    return seconds


def _difference(converted: Case, expected: Case, exact: bool) -> str:
    """Describe the difference of two preprocessed cases; empty if there is none."""
    assert converted.labels is not None
    assert expected.labels is not None
    shapes = converted.labels.shape, expected.labels.shape
    slack = [0 if exact else max(2, round(SHORTER * n)) for n in shapes[1]]
    if any(abs(a - b) > s for a, b, s in zip(*shapes, slack, strict=True)):
        return f"its shape is {shapes[0]}, not {shapes[1]}"
    image = converted.image if exact else resample(converted.image, None, shapes[1])[0]
    off = float(np.mean(converted.labels != expected.labels)) if exact else 0
    if off > LABELS_OFF:
        return f"labels differ in {off:.1%} of the voxels"
    alike = []
    for a, b in zip(image, expected.image, strict=True):
        varies = a.std() > 0 < b.std()  # constant channels are alike if both are
        alike.append(np.corrcoef(a.ravel(), b.ravel())[0, 1] if varies else a.std() == b.std())
    least, limit = (min(alike), ALIKE) if exact else (max(alike), ROUGHLY)
    return "" if least >= limit else f"images correlate with {least:.2f} only"
