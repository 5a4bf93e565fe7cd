"""Every check between a generator or bank and a detector's training; all of them fail closed.

The size that images are read in is no part of the host's record, and their hashes are of the files'
pixels: so a generator of any size is compared with held-out images as they are.
``sample_bytes`` is the room that a sample takes in a bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from gansynth.core.adapter import Injection
from gansynth.core.lineage import CaseRecord, Lineage, guard, guard_host
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource
from gansynth.hosts.checks import (
    check_injection,
    check_labelled,
    refuse_boxes_with_bank,
    refuse_with_bank,
)
from gansynth.hosts.record import Origin, describe_bank, describe_generator
from gansynth.runtime.errors import DataFault, UsageFault

WAY_OUT = "Fit a generator on the training images of this data.yaml: gansynth fit cpggan --data"
BOXES = 4096
"""Bytes for the boxes of a sample and what it says of itself."""


def open_origin(
    injection: Injection, source: CaseSource, held_out: Sequence[CaseRecord]
) -> Origin | None:
    """Check what samples are to be drawn from; None if nothing synthetic is drawn.

    Args:
        injection: names the run or bank.
        source: the detector's own data set.
        held_out: its validation and test images.

    Raises:
        IntegrityFault: leakage, another data set, or damaged weights or samples.
        DataFault: other channels or classes.
        UsageFault: no run or bank there, one without weights, or one that knows no boxes.
    """
    if injection.ratio.p == 0:
        return None
    if injection.bank is not None:
        refuse_with_bank(injection)
        refuse_boxes_with_bank(injection)
        return _open_bank(injection.bank, source, held_out)
    assert injection.run is not None  # see Injection
    origin = _open_run(injection.run, injection.edits, source, held_out)
    return origin.with_conditions(check_injection(injection, source, held_out))


def _open_run(
    folder: Path, edits: Sequence[str], source: CaseSource, held_out: Sequence[CaseRecord]
) -> Origin:
    from gansynth.sampling.open_run import check_weights
    from gansynth.sampling.run import read_manifest

    manifest = read_manifest(folder)
    check_labelled(folder, manifest, "yolo", edits, needs="boxes")
    if edits and manifest.get("labelling") != "asked":
        raise UsageFault(
            f"--edit {edits[0]}: {manifest['generator']} is asked for boxes, not for label maps "
            "that could be edited; leave --edit out, or see --boxes"
        )
    lineage = Lineage.from_json(manifest["lineage"])
    _guard(lineage, source, held_out, "generator")
    check_schema(folder, Schema.from_json(manifest["schema"]), source.schema)
    check_weights(folder, manifest)
    return Origin(lineage, describe_generator(folder, manifest), manifest)


def _open_bank(folder: Path, source: CaseSource, held_out: Sequence[CaseRecord]) -> Origin:
    from gansynth.bank.reader import BankReader, verify_bank

    reader = BankReader(folder)
    _guard(reader.spec.lineage, source, held_out, "bank")
    check_schema(folder, reader.spec.schema, source.schema)
    verify_bank(folder)
    return Origin(reader.spec.lineage, describe_bank(reader))


def _guard(lineage: Lineage, source: CaseSource, held_out: Sequence[CaseRecord], what: str) -> None:
    way_out = f"{WAY_OUT} {source.request.kind}:{source.request.where}"
    guard(lineage, held_out, what=what, dataset=source.name, way_out=way_out)
    guard_host(lineage.host, source.host, what=what)


def check_schema(what: Path, found: Schema, wanted: Schema) -> None:
    """Refuse samples whose channels or boxes mean something else.

    Args:
        what: the run or bank.
        found: of its samples.
        wanted: of the training images.

    Raises:
        DataFault: naming both.
    """
    for key in ("channels", "box_classes"):
        one, other = (tuple(getattr(schema, key)) for schema in (found, wanted))
        if one != other:
            raise DataFault(
                f"{what}: {key} are {', '.join(one) or 'none'}, those of the training images "
                f"{', '.join(other)}; expected the same in the same order. {WAY_OUT}"
            )


# -- room in a bank --------------------------------------------------------------------------------


def sample_bytes(manifest: Mapping[str, Any]) -> int:
    """Bytes one sample of a run takes: its image in two bytes a value, and its boxes."""
    values = prod(map(int, manifest["space"]["size"])) * len(manifest["schema"]["channels"])
    return 2 * values + BOXES
