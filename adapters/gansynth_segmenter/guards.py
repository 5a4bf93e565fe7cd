"""Every check between a generator or bank and a segmenter's training; all of them fail closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.core.adapter import Injection
from gansynth.core.lineage import CaseRecord, Lineage, guard, guard_host
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts.checks import (
    check_injection,
    check_learnable,
    refuse_boxes_with_bank,
    refuse_with_bank,
)
from gansynth.hosts.record import Origin, describe_bank, describe_generator
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_segmenter.mixed import misfit


def open_origin(
    injection: Injection, source: CaseSource, space: Space, held_out: Sequence[CaseRecord]
) -> Origin | None:
    """Check what samples are to be drawn from; None if nothing synthetic is drawn.

    Args:
        injection: names the run or bank.
        source: the real cases.
        space: that the segmenter works in.
        held_out: records of the cases it is judged on.

    Raises:
        IntegrityFault: leakage, another data set or space, or damaged weights or samples.
        DataFault: other channels or labels.
        UsageFault: no run or bank there, one without weights or label maps, or of samples that are
            too small.
    """
    if injection.ratio.p == 0:
        return None
    if injection.bank is not None:
        refuse_with_bank(injection)
        refuse_boxes_with_bank(injection)
        return _open_bank(injection.bank, source, space, held_out)
    check_learnable(injection, "segmenter")
    assert injection.run is not None  # see Injection
    origin = _open_run(injection.run, source, space, held_out)
    return origin.with_conditions(check_injection(injection, source, held_out))


def _open_run(
    folder: Path, source: CaseSource, space: Space, held_out: Sequence[CaseRecord]
) -> Origin:
    from gansynth.sampling.open_run import check_weights
    from gansynth.sampling.run import read_manifest

    manifest = read_manifest(folder)
    lineage = Lineage.from_json(manifest["lineage"])
    _guard(lineage, source, held_out, "generator")
    check_space(folder, manifest, space, source)
    check_weights(folder, manifest)
    return Origin(lineage, describe_generator(folder, manifest), dict(manifest))


def check_space(
    folder: Path, manifest: Mapping[str, Any], space: Space, source: CaseSource
) -> None:
    """Refuse a generator whose samples are no cases for a segmenter.

    Raises:
        UsageFault: slices for volumes, or crops that are too small; with the way out.
    """
    own = Space.from_json(manifest["space"])
    again = (
        f"fit one on what the segmenter sees: gansynth fit cgan3d --data {source.request.kind}:"
        f"{source.request.where} with the same --read"
    )
    if own.grid == "slice":
        raise UsageFault(
            f"{folder}: {manifest['generator']} draws slices, expected a generator of volumes; "
            f"{again}"
        )
    if own.grid == "native":
        return
    if space.grid == "resample" and own.grid != "resample":
        raise UsageFault(
            f"{folder}: draws crops of {own.size} voxels, and the segmenter sees whole cases "
            f"(--read whole=), expected a generator of whole cases; {again}"
        )
    if own.grid == "resample" and not own.frame:
        return
    if why := misfit(space, own.host_shape(())):
        raise UsageFault(f"{folder}: {why}; train on smaller crops (--set patch=), or {again}")


def _open_bank(
    folder: Path, source: CaseSource, space: Space, held_out: Sequence[CaseRecord]
) -> Origin:
    from gansynth.bank.reader import BankReader, verify_bank

    reader = BankReader(folder)
    _guard(reader.spec.lineage, source, held_out, "bank")
    _check_schema(folder, reader.spec.schema, source.schema)
    verify_bank(folder)
    for sample_id in reader.ids()[:1]:
        sample = reader.read(sample_id)
        why = "samples have no labels" if sample.labels is None else ""
        if why := why or misfit(space, sample.image.shape[1:]):
            raise UsageFault(f"{folder}: {why}; make the bank again, or see --set patch=")
    return Origin(reader.spec.lineage, describe_bank(reader))


def _check_schema(folder: Path, found: Schema, wanted: Schema) -> None:
    for what, one, other in (
        ("channels", found.channels, wanted.channels),
        ("labels", dict(found.labels), dict(wanted.labels)),
    ):
        if one != other:
            raise DataFault(
                f"{folder}: its samples have the {what} {one}, the training cases {other}; "
                "expected the same. Make the bank again"
            )


def _guard(lineage: Lineage, source: CaseSource, held_out: Sequence[CaseRecord], what: str) -> None:
    way_out = (
        "Fit a generator on the training cases of this fold: gansynth fit cgan3d --data "
        f"{source.request.kind}:{source.request.where} --fold {source.fold}"
    )
    guard_host(lineage.host, source.host, what=what)
    guard(lineage, held_out, what=what, dataset=source.name, way_out=way_out)
