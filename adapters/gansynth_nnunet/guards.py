"""Every check between a generator or bank and one nnU-Net training; all of them fail closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.lineage import CaseRecord, Lineage, guard, guard_host
from gansynth.core.schema import OUTSIDE, Sample, Schema
from gansynth.core.space import Space
from gansynth.hosts.checks import check_labelled
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_nnunet import foreign_guard

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSpec
    from gansynth_nnunet.source import NnunetSource


def host_size(patch: Sequence[int]) -> tuple[int, ...]:
    """nnU-Net's patch as (D, H, W); a 2D patch is one slice, (1, H, W)."""
    size = tuple(int(n) for n in patch)
    return (1, *size) if len(size) == 2 else size


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
