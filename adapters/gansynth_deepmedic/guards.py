"""Checks between a generator or sample bank and a DeepMedic training. All fail closed."""

from __future__ import annotations

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.mix_config import MixConfig
from gansynth.core.run_folder import RunFolder
from gansynth.core.schema import Sample
from gansynth.hosts.sample_source import check_samples
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.insertion import RIM, misfit, position_of
from gansynth_deepmedic.source import DeepMedicSource

SMALLEST = (2 * RIM,) * 3
"""Least voxels (D, H, W) of a sample: a smaller one is mostly faded border, although half of each
axis does not fade.
"""


def check_run(run: RunFolder, mix_config: MixConfig, source: DeepMedicSource) -> None:
    """Reject a generator whose samples have no place in a volume, and conditions of other cases."""
    request = mix_config.samples
    if request.boxes is not None:
        raise UsageFault(
            f"--boxes {request.boxes}: DeepMedic learns from labels, expected a generator "
            "conditioned on labels; leave --boxes out"
        )
    if request.conditions is not None:
        raise UsageFault(
            "--condition-source {kind}:{where}: samples are inserted into DeepMedic's training "
            "cases, expected conditions of these cases. Leave --condition-source out, or add those "
            "cases to the lists of training cases".format(**request.conditions)
        )
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
