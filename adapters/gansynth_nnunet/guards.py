"""Every check between a generator or bank and one nnU-Net training; all of them fail closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.core.adapter import Injection
from gansynth.core.lineage import CaseRecord, Lineage, guard, guard_host
from gansynth.core.schema import OUTSIDE, Sample, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.hosts.checks import check_injection, check_labelled, refuse_with_bank
from gansynth.hosts.record import Origin, describe_bank, describe_generator
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_nnunet import foreign_guard
from gansynth_nnunet.config import MixConfig, Training
from gansynth_nnunet.foreign_guard import refuse_conditions
from gansynth_nnunet.source import NnunetSource, open_nnunet

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSpec


# -- what samples are drawn from -------------------------------------------------------------------


def open_origin(config: MixConfig, training: Training, source: NnunetSource) -> Origin:
    """Open what samples of a training are to be drawn from.

    Args:
        source: see ``open_host``.

    Raises:
        IntegrityFault, UsageFault, DataFault: see ``check_origin``.
    """
    held_out = _held_out(config, training, source)
    # The adapter, if there was one, has just compared the content of held-out cases.
    content = not config.held_out
    origin = check_origin(config.injection, source, held_out, training.patch, content=content)
    if origin.manifest is not None and "conversion" in origin.manifest:
        how = origin.manifest["conversion"]
        training.say(
            f"gansynth: samples are converted by {how['by']}, in about {how['seconds']} s each"
        )
    return origin


def check_origin(
    injection: Injection,
    source: NnunetSource,
    held_out: Sequence[CaseRecord],
    patch: Sequence[int],
    *,
    content: bool = True,
    edits: Sequence[str] = (),
) -> Origin:
    """Check the generator or bank that an injection names; arguments as of ``check_run``.

    Raises:
        IntegrityFault: leakage, or a generator or bank made for something else.
        UsageFault, DataFault: see ``check_run``, ``check_bank`` and ``check_injection``.
    """
    from gansynth.bank.reader import BankReader

    if injection.bank is not None:
        refuse_with_bank(injection)
        reader = BankReader(injection.bank)
        check_bank(injection.bank, reader.spec, source.host, held_out)
        return Origin(reader.spec.lineage, describe_bank(reader))
    assert injection.run is not None  # see Injection
    manifest = check_run(
        *(injection.run, source.host, held_out, patch),
        source=source,
        content=content,
        edits=edits,
    )
    lineage = Lineage.from_json(manifest["lineage"])
    refuse_conditions(injection, manifest, source.host)
    origin = Origin(lineage, describe_generator(injection.run, manifest), manifest)
    return origin.with_conditions(check_injection(injection, source, held_out))


def open_host(config: MixConfig, training: Training) -> NnunetSource:
    """Open a training's own cases."""
    from gansynth.sampling.run import read_manifest

    subjects = config.subjects
    if subjects is None and config.generator is not None:
        subjects = read_manifest(config.generator)["request"]["subjects"]
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


def _held_out(config: MixConfig, training: Training, source: CaseSource) -> tuple[CaseRecord, ...]:
    """Records of the cases nnU-Net itself holds out, read now unless the adapter just did."""
    known = {record.id: record for record in config.held_out}
    ids = set(training.held_out_ids) | set(known)
    if training.fold != "all":
        ids |= set(source.held_out_ids)
    missing = sorted(ids - set(known))
    return (*known.values(), *source.records(missing))


# -- checks ----------------------------------------------------------------------------------------


def check_run(
    folder: Path,
    host: Mapping[str, Any],
    held_out: Sequence[CaseRecord],
    patch: Sequence[int],
    *,
    source: NnunetSource | None = None,
    content: bool = True,
    edits: Sequence[str] = (),
) -> dict[str, Any]:
    """Check a generator's run against the training it is to enter.

    Args:
        folder: the run.
        host: the record of the training's own space.
        held_out: its validation and test cases.
        patch: its patch size in voxels, (D, H, W) or (H, W).
        source: its own cases; None refuses a generator of raw scans.
        content: of a generator of raw scans: read the held-out ones too (see ``foreign_guard``).
        edits: of the label maps it is to be asked for.

    Returns:
        The run's manifest; with ``conversion`` if its samples have to be converted.

    Raises:
        IntegrityFault: leakage, a generator made for another data set, plans, configuration, or
            damaged weights.
        UsageFault: no run there, one without weights, or its samples are smaller than a patch.
    """
    from gansynth.sampling.open_run import check_weights
    from gansynth.sampling.run import read_manifest

    manifest = read_manifest(folder)
    check_labelled(folder, manifest, "nnU-Net", edits)
    if source is not None and foreign_guard.is_foreign(manifest, host):
        return foreign_guard.check_foreign(folder, manifest, source, held_out, content=content)
    lineage = Lineage.from_json(manifest["lineage"])
    guard_host(lineage.host, host)
    guard(lineage, held_out)
    check_size(folder, Space.from_json(manifest["space"]), patch)
    check_weights(folder, manifest)
    return manifest


def check_size(folder: Path, space: Space, patch: Sequence[int]) -> None:
    """Refuse samples that nnU-Net would pad to its patch: the padding would be learnt.

    Raises:
        UsageFault: naming both sizes and the option that sets one.
    """
    if space.grid == "native":
        return
    if space.grid == "resample":
        raise UsageFault(
            f"{folder}: the generator draws whole cases resampled to {space.size}, which has no "
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


def check_bank(
    folder: Path,
    spec: BankSpec,
    host: Mapping[str, Any],
    held_out: Sequence[CaseRecord],
) -> None:
    """Check a bank against the training it is to enter.

    Raises:
        DataFault: other channels or labels.
        IntegrityFault: leakage, or made for another data set, plans, configuration.
    """
    guard_host(spec.lineage.host, host, what="bank")
    guard(spec.lineage, held_out, what="bank")
    found, wanted = list(spec.schema.channels), list(host["channel_names"])
    if found != wanted:
        raise DataFault(
            f"{folder}: samples have the channels {found}, the training cases {wanted}; expected "
            "the same in the same order"
        )
    known = {OUTSIDE, *host["labels"].values()}
    unknown = sorted(set(spec.schema.label_values) - known)
    if unknown:
        raise DataFault(
            f"{folder}: samples may hold the label(s) {unknown}, unknown to the data set; expected "
            f"among {sorted(known)}"
        )


def check_samples(folder: Path, schema: Schema, patch: Sequence[int]) -> None:
    """Check every sample of a bank that somebody brings along, as a producer checks its own.

    Raises:
        DataFault: unknown labels, NaN, another shape: naming the sample.
        UsageFault: a sample without labels.
        IntegrityFault: a damaged segment.
    """
    from gansynth.bank.reader import BankReader, verify_bank
    from gansynth.sampling.admission import admit

    verify_bank(folder)
    reader = BankReader(folder)
    for sample_id in reader.ids():
        try:
            found = reader.read(sample_id)
        except KeyError:  # retired meanwhile
            continue
        try:
            if found.labels is None:
                raise UsageFault(
                    f"{folder}: {sample_id}: no labels, expected them: nnU-Net learns from nothing "
                    "else. Fit the generator again with --with-mask, which draws both together, "
                    "and fill a bank from that"
                )
            admit(Sample(found.image, found.labels), schema, host_size(patch), reader.spec.dtype)
        except DataFault as fault:
            raise DataFault(f"{folder}: {sample_id}: {fault}. Make the bank again") from fault


# -- sizes -----------------------------------------------------------------------------------------


def host_size(patch: Sequence[int]) -> tuple[int, ...]:
    """nnU-Net's patch as (D, H, W); a 2D patch is one slice, (1, H, W)."""
    size = tuple(int(n) for n in patch)
    return (1, *size) if len(size) == 2 else size


def sample_bytes(
    size: tuple[int, ...],
    patch: tuple[int, ...],
    channels: int,
    width: int,
    keys: int,
    *,
    cascaded: bool = False,
) -> int:
    """Bytes one sample takes at most.

    Args:
        size: voxels of what the generator draws, (D, H, W).
        patch: voxels of nnU-Net's patch, (D, H, W) or (H, W); a sample is no smaller.
        channels: of the images.
        width: bytes of a value.
        keys: labels or regions, some of whose voxels are listed.
        cascaded: it brings the labels of a cascade's previous stage along.
    """
    voxels = int(np.prod(np.maximum(size, host_size(patch))))
    return voxels * (channels * width + 2 + cascaded) + 8000 * keys
