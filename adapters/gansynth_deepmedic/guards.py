"""Checks between a generator or sample bank and a DeepMedic training. All fail closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

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
_METADATA_BYTES = 4096


def open_sample_source(
    mix_config: MixConfig, source: DeepMedicSource, held_out: Sequence[CaseRecord]
) -> SampleSource | None:
    """Check the generator or bank of a training; None without a generator."""
    generates, request = mix_config.ratio.p > 0, mix_config.samples
    if mix_config.real_in_generator_space and mix_config.run is None:
        raise UsageFault(
            "--real-in-generator-space: no run of a generator is named, expected the run of that "
            "space; name it by --generator"
        )
    if not generates and not mix_config.real_in_generator_space:
        return None
    if request.boxes is not None:
        raise UsageFault(
            f"--boxes {request.boxes}: DeepMedic learns from labels, expected a generator "
            "conditioned on labels; leave --boxes out"
        )
    if generates and request.conditions is not None:
        raise UsageFault(
            "--condition-source {kind}:{where}: samples are inserted into DeepMedic's training "
            "cases, expected conditions of these cases. Leave --condition-source out, or add those "
            "cases to the lists of training cases".format(**request.conditions)
        )
    limits = HostLimits(
        "DeepMedic",
        source,
        held_out,
        same=("channels",),
        check_run=lambda run: check_space(run, source),
        check_bank=lambda reader: check_bank(reader, source),
    )
    if mix_config.run is not None and (mix_config.bank is not None or not generates):
        # Its space counts: real cases are brought through it.
        edits = None if generates else request.edits
        run = replace(mix_config, bank=None, samples=SampleRequest(edits=edits))
        sample_source = check_origin(run, limits)
        if not generates:
            return sample_source
    return check_origin(mix_config, limits)


def check_space(run: RunFolder, source: DeepMedicSource) -> None:
    """Reject a generator whose samples have no place in a volume."""
    generator, space = run.manifest["generator"], run.space
    again = f"gansynth fit cgan3d --data deepmedic:{source.request.where}"
    why = ""
    if space.grid == "slice" or (space.size and len(space.size) != 3):
        why = f"{generator} generates slices, expected a generator of volumes: {again}"
    elif space.grid == "crop" and "labels" not in run.capabilities.takes:
        why = (
            f"{generator} generates crops from noise, which have no real case to be inserted into. "
            f"Expected a generator conditioned on labels ({again}), or one of whole volumes"
        )
    elif space.grid == "crop" and any(
        n < least for n, least in zip(space.size, SMALLEST, strict=True)
    ):
        why = (
            f"samples have {space.size} voxels, expected at least {SMALLEST}: a smaller one is "
            "mostly faded border. Fit the generator at a larger size: --read size="
        )
    if why:
        raise UsageFault(f"{run.folder}: {why}")


def check_bank(reader: BankReader, source: DeepMedicSource) -> None:
    """Check every sample of a user's bank as a producer checks its own."""
    from gansynth.sampling.quality_gate import validate_sample

    cases = {case: source.host_case(case) for case in source.train_ids}

    def look(sample: BankSample) -> None:
        position = position_of(sample.provenance)
        if position is None or position.case not in cases:
            case = "no case" if position is None else f"the case {position.case!r}"
            raise DataFault(f"is of {case}, expected one of the training cases")
        if why := misfit(cases[position.case], sample):
            raise DataFault(why)
        drawn = Sample(sample.image, sample.labels)
        validate_sample(drawn, source.schema, SMALLEST, reader.spec.dtype)

    check_samples(reader, look)


def sample_bytes(manifest: Mapping[str, Any], source: DeepMedicSource) -> int:
    """Return the bytes in a bank of one sample of a run: image (float16) and labels (int16)."""
    space = Space.from_json(manifest["space"])
    voxels = max(prod(space.host_shape(source.header(case).shape)) for case in source.train_ids)
    return 2 * voxels * (len(manifest["schema"]["channels"]) + 1) + _METADATA_BYTES
