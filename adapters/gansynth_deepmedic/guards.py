"""Every check between a generator or bank and a DeepMedic training; all of them fail closed.

``sample_bytes`` is the room that a sample takes in a bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Literal

from gansynth.core.adapter import Injection
from gansynth.core.lineage import CaseRecord, Lineage, guard, guard_host
from gansynth.core.schema import Sample
from gansynth.core.space import Space
from gansynth.hosts.checks import check_injection, check_labelled
from gansynth.hosts.record import Origin, describe_bank, describe_generator
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.insertion import RIM, misfit, seat_of
from gansynth_deepmedic.source import DeepMedicSource

SMALLEST = (2 * RIM,) * 3
"""Voxels (D, H, W) of a sample at least: of a smaller one next to nothing is left beside its seam,
as half of each axis does not fade."""
SAYS = 4096
"""Bytes for what a sample says of itself."""


def open_origin(
    injection: Injection, source: DeepMedicSource, held_out: Sequence[CaseRecord]
) -> Origin | None:
    """Check what samples are to be drawn from; None if nothing is asked of a generator.

    Args:
        injection: names the run or bank.
        source: the training's own cases.
        held_out: its validation cases.

    Raises:
        IntegrityFault: leakage, another data set or space, or damaged weights or samples.
        DataFault: other channels or labels.
        UsageFault: no run or bank there, one without weights, or one whose samples have no place
            in a volume.
    """
    asked = injection.ratio.p > 0
    if injection.real_in_generator_space and injection.run is None:
        raise UsageFault(
            "--real-in-generator-space: no run of a generator is named, expected one, whose space "
            "it is; name it by --generator"
        )
    if not asked and not injection.real_in_generator_space:
        return None
    if injection.boxes is not None:
        raise UsageFault(
            f"--boxes {injection.boxes}: DeepMedic learns from labels, expected a generator that "
            "is asked for them; leave --boxes out"
        )
    if asked:
        _check_asking(injection, source, held_out)
    drawn = None
    if injection.run is not None and (injection.bank is None or not asked):
        drawn = _open_run(injection.run, injection.edits, source, held_out)
    elif injection.run is not None:
        # Its space counts: real cases are brought through it.
        _open_run(injection.run, (), source, held_out)
    if injection.bank is not None and asked:
        return _open_bank(injection.bank, source, held_out)
    return drawn


def _check_asking(
    injection: Injection, source: DeepMedicSource, held_out: Sequence[CaseRecord]
) -> None:
    """Refuse what cannot be asked of samples that are put into the cases they were drawn of."""
    conditions = injection.asking.conditions
    if conditions is not None:
        raise UsageFault(
            f"--conditions {conditions['kind']}:{conditions['where']}: DeepMedic is given samples "
            "within the training cases they were drawn of, expected conditions of its own cases; "
            "leave --conditions out, or put those cases into its lists of training cases"
        )
    check_injection(injection, source, held_out)


def _open_run(
    folder: Path,
    edits: Sequence[str],
    source: DeepMedicSource,
    held_out: Sequence[CaseRecord],
) -> Origin:
    from gansynth.sampling.open_run import check_weights
    from gansynth.sampling.run import read_manifest

    manifest = read_manifest(folder)
    check_labelled(folder, manifest, "DeepMedic", edits)
    lineage = Lineage.from_json(manifest["lineage"])
    _guard(lineage, source, held_out, "generator")
    check_space(folder, manifest, source)
    check_weights(folder, manifest)
    return Origin(lineage, describe_generator(folder, manifest), manifest)


def check_space(folder: Path, manifest: Mapping[str, Any], source: DeepMedicSource) -> None:
    """Refuse a generator whose samples have no place in a volume.

    Raises:
        UsageFault: slices, crops that are of no case, or crops that are too small; with the way
            out.
    """
    space = Space.from_json(manifest["space"])
    again = f"gansynth fit cgan3d --data deepmedic:{source.request.where}"
    if space.grid == "slice" or (space.size and len(space.size) != 3):
        raise UsageFault(
            f"{folder}: {manifest['generator']} draws slices, and DeepMedic trains on volumes; "
            f"expected a generator of volumes: {again}"
        )
    if space.grid != "crop":
        return
    if "labels" not in manifest.get("heeds", ()):
        raise UsageFault(
            f"{folder}: {manifest['generator']} draws crops from noise, which are of no case and "
            "so have no real surroundings to be put into; expected a generator that is asked for "
            f"labels ({again}), or one of whole volumes"
        )
    if any(n < least for n, least in zip(space.size, SMALLEST, strict=True)):
        raise UsageFault(
            f"{folder}: samples have {space.size} voxels, expected at least {SMALLEST}: in a "
            "smaller one next to nothing is left beside its seam. Fit the generator at a larger "
            "size: --read size="
        )


def _open_bank(folder: Path, source: DeepMedicSource, held_out: Sequence[CaseRecord]) -> Origin:
    from gansynth.bank.reader import BankReader, verify_bank

    reader = BankReader(folder)
    _guard(reader.spec.lineage, source, held_out, "bank")
    found, wanted = (list(schema.channels) for schema in (reader.spec.schema, source.schema))
    if found != wanted:
        raise DataFault(
            f"{folder}: samples have the channels {found}, the training cases {wanted}; expected "
            "the same in the same order. Make the bank again"
        )
    verify_bank(folder)
    check_samples(folder, source)
    return Origin(reader.spec.lineage, describe_bank(reader))


def check_samples(folder: Path, source: DeepMedicSource) -> None:
    """Check every sample of a bank that somebody brings along, as a producer checks its own.

    Raises:
        DataFault: unknown labels, NaN, or no place in a training case: naming the sample.
        IntegrityFault: a damaged segment.
    """
    from gansynth.bank.reader import BankReader
    from gansynth.sampling.admission import admit

    reader = BankReader(folder)
    cases = {case: source.host_case(case) for case in source.train_ids}
    for sample_id in reader.ids():
        try:
            found = reader.read(sample_id)
        except KeyError:  # retired meanwhile
            continue
        seat = seat_of(found.provenance)
        try:
            if seat is None or seat.case not in cases:
                case = "no case" if seat is None else f"the case {seat.case!r}"
                raise DataFault(f"is of {case}, expected one of the training cases")
            if why := misfit(cases[seat.case], found):
                raise DataFault(why)
            admit(Sample(found.image, found.labels), source.schema, SMALLEST, reader.spec.dtype)
        except DataFault as fault:
            raise DataFault(f"{folder}: {sample_id}: {fault}. Make the bank again") from fault


def _guard(
    lineage: Lineage, source: DeepMedicSource, held_out: Sequence[CaseRecord], what: str
) -> None:
    way_out = (
        "Fit a generator on the training cases of this configuration: gansynth fit cgan3d --data "
        f"deepmedic:{source.request.where}"
    )
    guard_host(lineage.host, source.host, what=what)
    guard(lineage, held_out, what=what, dataset=source.name, way_out=way_out)


# -- room in a bank --------------------------------------------------------------------------------


def sample_bytes(manifest: Mapping[str, Any], source: DeepMedicSource) -> int:
    """Bytes one sample of a run takes: image and labels (int16), of a crop or of a whole case.

    Args:
        manifest: of the run.
        source: the training cases; a whole volume is of the shape of one of them.
    """
    space = Space.from_json(manifest["space"])
    voxels = max(prod(space.host_shape(source.shape(case))) for case in source.train_ids)
    each = 4 if stored(source) == "float32" else 2
    return voxels * (each * len(manifest["schema"]["channels"]) + 2) + SAYS


def stored(source: DeepMedicSource) -> Literal["float16", "float32"]:
    """How images are stored: in half precision, unless DeepMedic itself normalises raw values."""
    return "float32" if source.config.normalise else "float16"
