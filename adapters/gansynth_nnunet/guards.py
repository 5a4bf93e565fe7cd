"""Checks of a generator or bank before an nnU-Net training; all of them fail closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.core.schema import OUTSIDE, Sample, Schema
from gansynth.core.source import CaseSource, SourceRequest, case_records
from gansynth.core.space import Space
from gansynth.hosts import checks
from gansynth.hosts.checks import HostLimits
from gansynth.hosts.sample_source import SampleSource, check_samples, find_sample_source
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_nnunet import converter_guard
from gansynth_nnunet.config import TrainerMix, TrainingInfo
from gansynth_nnunet.converter import kept_size
from gansynth_nnunet.source import NnunetSource, open_nnunet

# -- the origin of samples -------------------------------------------------------------------------


def open_sample_source(
    config: TrainerMix, training: TrainingInfo, source: NnunetSource
) -> SampleSource:
    """Open the generator or bank of a training's samples; see ``check_origin``."""
    held_out = _held_out(config, training, source)
    # The adapter, if there is one, has just compared the content of held-out cases.
    content = not config.held_out
    takes = takes_of(source, held_out, training.patch)
    sample_source = check_origin(config.mix_config, source, takes, content=content)
    if how := sample_source.described.get("conversion"):
        training.say(
            f"gansynth: samples are converted by {how['by']}, in about {how['seconds']} s each"
        )
    return sample_source


def takes_of(
    source: NnunetSource,
    held_out: Sequence[CaseRecord],
    patch: Sequence[int],
    *,
    read: bool = False,
) -> HostLimits:
    """Return what a training requires of samples; ``read`` checks every sample of a bank."""

    def check_bank(reader: BankReader) -> None:
        _check_labels(reader, source)
        if read:
            check_samples(reader, lambda sample: _look(sample, reader, source.schema, patch))

    return HostLimits(
        *("nnU-Net", source, held_out),
        same=("channels",),
        check_run=lambda run: check_size(run.folder, run.space, patch),
        check_bank=check_bank,
    )


def check_origin(
    mix_config: MixConfig, source: NnunetSource, takes: HostLimits, *, content: bool = True
) -> SampleSource:
    """Check the generator or bank that a ``MixConfig`` names; a run of raw scans is allowed, too.

    Args:
        content: for a generator of raw scans: also read held-out scans (see ``converter_guard``).
    """
    if mix_config.bank is not None:
        return checks.check_origin(mix_config, takes)
    sample_source = find_sample_source(mix_config)
    run = sample_source.run
    assert run is not None  # for it is no bank
    if not converter_guard.needs_conversion(run.manifest, source.space.host):
        return checks.check_origin(mix_config, takes, sample_source)
    checks.check_learnable(run, takes.name)
    conversion = converter_guard.check_converter(run, source, takes.held_out, content=content)
    converter_guard.refuse_conditions(mix_config, run.manifest, source.space.host)
    sample_source = replace(
        sample_source, described={**sample_source.described, "conversion": conversion}
    )
    return checks.check_asked(mix_config, sample_source, takes)


def open_host(config: TrainerMix, training: TrainingInfo) -> NnunetSource:
    """Open the source of a training's own cases."""
    subjects = config.subjects
    if subjects is None and config.generator is not None:
        subjects = config.generator.manifest["request"]["subjects"]
    return open_nnunet(
        SourceRequest(
            kind="nnunet",
            where=training.dataset,
            fold=training.fold,
            configuration=training.configuration,
            plans=training.plans,
            subjects=subjects,
        )
    )


def _held_out(
    config: TrainerMix, training: TrainingInfo, source: CaseSource
) -> tuple[CaseRecord, ...]:
    """Return records of nnU-Net's held-out cases, read now unless the adapter just did."""
    records = {record.id: record for record in config.held_out}
    ids = set(training.held_out_ids) | set(records)
    if training.fold != "all":
        ids |= set(source.held_out_ids)
    missing = sorted(ids - set(records))
    return (*records.values(), *case_records(source, missing))


# -- checks ----------------------------------------------------------------------------------------


def check_size(folder: Path, space: Space, patch: Sequence[int]) -> None:
    """Refuse samples that nnU-Net would pad to its patch: networks would learn the padding."""
    if space.grid == "native":
        return
    if space.grid == "resample":
        raise UsageFault(
            f"{folder}: the generator makes whole cases resampled to {space.size}, which has no "
            "way back to nnU-Net's voxels; expected grid 'crop' or 'slice'. Fit it on nnunet: data"
        )
    size, need = host_size(space.size), host_size(patch)
    if space.grid == "slice":
        size = (1, *space.size)
    if len(size) != len(need) or any(s < n for s, n in zip(size, need, strict=True)):
        raise UsageFault(
            f"{folder}: samples have {size} voxels, the patch {need}; expected at least the patch "
            "on each axis (best 4/3 of it). Fit the generator at a larger size"
        )


def _check_labels(reader: BankReader, source: NnunetSource) -> None:
    allowed = {OUTSIDE, *source.space.host["labels"].values()}
    unknown = sorted(set(reader.spec.schema.label_values) - allowed)
    if unknown:
        raise DataFault(
            f"{reader.folder}: samples may hold the label(s) {unknown}, unknown to the data set; "
            f"expected among {sorted(allowed)}"
        )


def _look(sample: BankSample, reader: BankReader, schema: Schema, patch: Sequence[int]) -> None:
    """Refuse a stored sample by a producer's rules."""
    from gansynth.sampling.quality_gate import validate_sample

    if sample.labels is None:
        raise UsageFault(
            "no labels, expected them: nnU-Net learns from nothing else. Fit a generator that "
            "draws labels with its images"
        )
    validate_sample(
        Sample(sample.image, sample.labels), schema, host_size(patch), reader.spec.dtype
    )


# -- sizes -----------------------------------------------------------------------------------------


def host_size(patch: Sequence[int]) -> tuple[int, ...]:
    """Return nnU-Net's patch as (D, H, W); a 2D patch is one slice, (1, H, W)."""
    size = tuple(int(n) for n in patch)
    return (1, *size) if len(size) == 2 else size


def drawn_size(
    manifest: Mapping[str, Any], source: NnunetSource, patch: Sequence[int]
) -> tuple[int, ...]:
    """Return the largest size (D, H, W) of a run's samples in nnU-Net's voxels, or the patch."""
    foreign = converter_guard.needs_conversion(manifest, source.space.host)
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
