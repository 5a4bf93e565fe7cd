"""Checks between a generator or sample bank and a DeepMedic training. All fail closed.

``sample_bytes`` is the size of a sample in a bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Literal

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample
from gansynth.core.space import Space
from gansynth.hosts.checks import HostLimits, check_origin
from gansynth.hosts.sample_source import SampleSource, check_samples
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.insertion import RIM, misfit, position_of
from gansynth_deepmedic.source import DeepMedicSource

SMALLEST = (2 * RIM,) * 3
"""Least voxels (D, H, W) of a sample: a smaller one is mostly faded border, although half of each
axis does not fade.
"""
SAYS = 4096  # bytes for a sample's metadata


def open_sample_source(
    mix_config: MixConfig, source: DeepMedicSource, held_out: Sequence[CaseRecord]
) -> SampleSource | None:
    """Check the generator or bank of a training; None without a generator."""
    generates = mix_config.ratio.p > 0
    if mix_config.real_in_generator_space and mix_config.run is None:
        raise UsageFault(
            "--real-in-generator-space: no run of a generator is named, expected the run of that "
            "space; name it by --generator"
        )
    if not generates and not mix_config.real_in_generator_space:
        return None
    if mix_config.samples.boxes is not None:
        raise UsageFault(
            f"--boxes {mix_config.samples.boxes}: DeepMedic learns from labels, expected a "
            "generator conditioned on labels; leave --boxes out"
        )
    conditions = mix_config.samples.conditions
    if generates and conditions is not None:
        raise UsageFault(
            f"--condition-source {conditions['kind']}:{conditions['where']}: samples are inserted "
            "into "
            "DeepMedic's training cases, expected conditions of these cases. Leave "
            "--condition-source "
            "out, or add those cases to the lists of training cases"
        )
    takes = HostLimits(
        "DeepMedic",
        source,
        held_out,
        same=("channels",),
        check_run=lambda run: check_space(run, source),
        check_bank=lambda reader: check_bank(reader, source),
    )
    if mix_config.run is not None and (mix_config.bank is not None or not generates):
        # Its space counts: real cases are brought through it.
        request = SampleRequest(edits=None if generates else mix_config.samples.edits)
        run = replace(mix_config, bank=None, samples=request)
        sample_source = check_origin(run, takes)
        if not generates:
            return sample_source
    return check_origin(mix_config, takes)


def check_space(run: RunFolder, source: DeepMedicSource) -> None:
    """Reject a generator whose samples have no place in a volume."""
    folder, manifest, space = run.folder, run.manifest, run.space
    again = f"gansynth fit cgan3d --data deepmedic:{source.request.where}"
    if space.grid == "slice" or (space.size and len(space.size) != 3):
        raise UsageFault(
            f"{folder}: {manifest['generator']} generates slices, expected a generator of "
            f"volumes: {again}"
        )
    if space.grid != "crop":
        return
    if "labels" not in run.capabilities.takes:
        raise UsageFault(
            f"{folder}: {manifest['generator']} generates crops from noise, which have no real "
            f"case to be inserted into. Expected a generator conditioned on labels ({again}), or "
            "one of whole volumes"
        )
    if any(n < least for n, least in zip(space.size, SMALLEST, strict=True)):
        raise UsageFault(
            f"{folder}: samples have {space.size} voxels, expected at least {SMALLEST}: a "
            "smaller one is mostly faded border. Fit the generator at a larger size: --read size="
        )


def check_bank(reader: BankReader, source: DeepMedicSource) -> None:
    """Check every sample of a user's bank as a producer checks its own."""
    from gansynth.sampling.quality_gate import validate_sample

    cases = {case: source.host_case(case) for case in source.train_ids}

    def look(sample: BankSample) -> None:
        seat = position_of(sample.provenance)
        if seat is None or seat.case not in cases:
            case = "no case" if seat is None else f"the case {seat.case!r}"
            raise DataFault(f"is of {case}, expected one of the training cases")
        if why := misfit(cases[seat.case], sample):
            raise DataFault(why)
        validate_sample(
            Sample(sample.image, sample.labels), source.schema, SMALLEST, reader.spec.dtype
        )

    check_samples(reader, look)


# -- room in a bank --------------------------------------------------------------------------------


def sample_bytes(manifest: Mapping[str, Any], source: DeepMedicSource) -> int:
    """Return the bytes of one sample of a run: image and labels (int16), crop or whole case."""
    space = Space.from_json(manifest["space"])
    voxels = max(prod(space.host_shape(source.header(case).shape)) for case in source.train_ids)
    each = 4 if stored(source) == "float32" else 2
    return voxels * (each * len(manifest["schema"]["channels"]) + 2) + SAYS


def stored(source: DeepMedicSource) -> Literal["float16", "float32"]:
    """Return the stored type of images: half precision, unless DeepMedic normalises raw values."""
    return "float32" if any(source.config.normalised) else "float16"
