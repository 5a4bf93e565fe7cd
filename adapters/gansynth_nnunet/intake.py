"""Which samples fit nnU-Net's preprocessed cases, and how they are converted and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from gansynth import (
    CaseSource,
    HostArrays,
    ImportRequest,
    Intake,
    RunFolder,
    Sample,
    SampleRequest,
    Space,
    UsageFault,
)
from gansynth_nnunet.converter import BY, SpaceConverter, converts, drawn_size, sample_bytes
from gansynth_nnunet.mixed import encode
from gansynth_nnunet.source import NnunetSource


class NnunetIntake(Intake):
    """Samples at least as large as the patch, with the locations of their classes."""

    must_match = ("channels",)
    source: NnunetSource

    def __init__(self, source: CaseSource, target: str, space: Space | None = None) -> None:
        if not isinstance(source, NnunetSource):
            asked = source.request
            way_out = ImportRequest.command_for(asked, "nnunet:500")
            raise UsageFault(
                "nnunet.data-of-other-kind",
                f"--data {asked.kind}:{asked.where}: nnU-Net trains on its own data sets, expected "
                f"nnunet:ID; make one: {way_out}; and name it here: --data nnunet:ID",
            )
        super().__init__(source, target, space)

    @property
    def sample_size(self) -> tuple[int, ...]:
        return self.source.patch

    @property
    def dtype(self) -> Literal["float16", "float32"]:
        """Raw intensities may exceed the range of float16; normalised ones do not."""
        raw = "NoNormalization" in self.source.config["normalization_schemes"]
        return "float32" if raw else "float16"

    def sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        width = np.dtype(self.dtype).itemsize
        return sample_bytes(self.source, drawn_size(self.source, manifest), width)

    def finalise(self, sample: Sample) -> HostArrays:
        super().finalise(sample)
        assert sample.labels is not None
        return encode(sample.labels, self.source.keys)

    def converts(self, run: RunFolder) -> bool:
        return converts(run.lineage.host, self.source)

    def converter(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        if "plans" in source.space.host:
            return super().converter(source, space)
        return SpaceConverter(source, space, self.source)

    def check_run(self, run: RunFolder, asked: SampleRequest) -> None:
        if self.converts(run):
            for option, other in asked.others:
                raise UsageFault(
                    "nnunet.other-cases-with-converted-samples",
                    f"{option} {other['kind']}:{other['where']}: samples of {run.folder} are "
                    f"converted by {BY} within their own training scans, expected a generator "
                    f"fitted on nnunet: data, and other cases of such; or leave {option} out",
                )
            return
        space, need = run.space, self.source.patch
        if space.grid != "native":  # networks would learn nnU-Net's padding of smaller samples
            size = (1, *space.size)[-3:]
            if space.grid == "resample" or any(s < n for s, n in zip(size, need, strict=True)):
                raise UsageFault(
                    "nnunet.samples-unfit-for-patch",
                    f"{run.folder}: samples have {size} voxels (grid {space.grid}), the patch "
                    f"{need}; expected grid 'crop' or 'slice', and at least the patch on each axis "
                    "(best 4/3 of it). Fit the generator on nnunet: data, at a larger size",
                )
