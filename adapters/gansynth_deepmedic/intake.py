"""Which samples can be inserted into DeepMedic's training cases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from gansynth import (
    CaseSource,
    DataFault,
    Intake,
    RunFolder,
    Sample,
    SampleRequest,
    Space,
    UsageFault,
)
from gansynth_deepmedic.insertion import RIM, HostCase, misfit
from gansynth_deepmedic.source import DeepMedicSource

SMALLEST = (2 * RIM,) * 3
"""Least voxels (D, H, W) of a sample: a smaller one is mostly faded border, although half of each
axis does not fade.
"""


class DeepMedicIntake(Intake):
    """Samples that are inserted into DeepMedic's training cases, in the units of their files."""

    must_match = ("channels",)
    sample_size = SMALLEST
    source: DeepMedicSource

    def __init__(self, source: CaseSource, target: str, space: Space | None = None) -> None:
        if not isinstance(source, DeepMedicSource):
            raise UsageFault(
                "deepmedic.data-of-other-kind",
                f"--data {source.request.kind}:{source.request.where}: DeepMedic trains by its own "
                "configuration, expected deepmedic:trainConfig.cfg",
            )
        super().__init__(source, target, space)

    def check_run(self, run: RunFolder, asked: SampleRequest) -> None:
        for option, value in (("--boxes", asked.boxes), *asked.others):
            if value is not None:
                raise UsageFault(
                    "deepmedic.conditions-of-other-cases",
                    f"{option}: samples are inserted into DeepMedic's training cases, expected "
                    f"conditions of these cases alone. Leave {option} out",
                )
        generator, space, why, data = run.manifest["generator"], run.space, "", self.source.request
        again = run.fit_again(data, generator="cgan3d")
        if space.grid == "slice" or (space.size and len(space.size) != 3):
            why = f"{generator} generates slices, expected a generator of volumes: {again}"
        elif space.grid == "crop" and "labels" not in run.capabilities.takes:
            why = (
                f"{generator} generates crops from noise, which have no real case to be inserted "
                f"into. Expected a generator conditioned on labels ({again}), or one of whole "
                "volumes"
            )
        elif space.grid == "crop" and any(n < m for n, m in zip(space.size, SMALLEST, strict=True)):
            why = (
                f"samples have {space.size} voxels, expected at least {SMALLEST}: a smaller one is "
                "mostly faded border. Fit the generator at a larger size: "
                f"{run.fit_again(data, SMALLEST)}"
            )
        if why:
            raise UsageFault("deepmedic.run-samples-not-insertable", f"{run.folder}: {why}")

    @cached_property
    def _cases(self) -> Mapping[str, HostCase]:
        return {case: self.source.host_case(case) for case in self.source.train_ids}

    def check_sample(self, sample: Sample) -> None:
        super().check_sample(sample)
        why = misfit(self._cases, sample)
        if why:
            raise DataFault("deepmedic.sample-does-not-fit-case", why)
