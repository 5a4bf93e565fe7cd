"""Which samples fit the training cases of a host: all that a producer of samples knows of a host.

An ``Intake`` is opened on the training cases of a framework, e.g. nnU-Net.
``gansynth.hosts.contract.host`` says how a framework trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import guard_host
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault

HostArrays = Mapping[str, npt.NDArray[np.generic]]
METADATA_BYTES = 4096  # of a sample in a bank, with its boxes


class Intake:
    """What a host asks of samples, opened on one data set and fold; a host names its subclass.

    Attributes:
        source: the real cases.
        target: name of the host, for messages.
        space: of the host's training items; by default, the source's.

    Raises:
        UsageFault: (of a subclass) cases that the host cannot read.
    """

    needs: ClassVar[Literal["labels", "boxes"]] = "labels"
    """The training target that the host reads from a sample, beside its image."""
    any_size: ClassVar[bool] = False
    """Whether samples may be generated in a size other than that of the source's cases. Then the
    host's record holds no size, and ``converter`` receives such samples."""
    must_match: ClassVar[tuple[str, ...]] = ("channels", "labels")
    """Attributes of the schema that samples share with the training cases."""

    def __init__(self, source: CaseSource, target: str, space: Space | None = None) -> None:
        self.source, self.target = source, target
        self.space = source.space if space is None else space

    @property
    def schema(self) -> Schema:
        """Meaning of the host's arrays."""
        return self.source.schema

    @property
    def sample_size(self) -> tuple[int, ...]:
        """Smallest spatial size in voxels (host axes) a sample may have."""
        return (1,) * self.schema.ndim

    @property
    def dtype(self) -> Literal["float16", "float32"]:
        """Type of images in a bank."""
        return "float16"

    def sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        """Return the most bytes of a run's sample in a bank: image, and labels or boxes."""
        space = Space.from_json(manifest["space"])
        if space.cuts or space.frame:
            voxels = prod(space.host_shape(()))
        else:
            voxels = max(prod(self.source.header(case).shape) for case in self.source.train_ids)
        values = len(manifest["schema"]["channels"]) + (self.needs == "labels")
        return 2 * voxels * values + METADATA_BYTES

    def check_run(self, run: RunFolder, asked: SampleRequest) -> None:
        """Refuse a generator's run of which such samples do not fit (UsageFault); optional."""

    def check_sample(self, sample: Sample) -> None:
        """Refuse a sample of a bank that the host cannot learn from; a subclass may refuse more.

        Args:
            sample: in the host's space.

        Raises:
            DataFault: it has no labels or boxes of the schema, whichever the host needs.
        """
        if self.needs == "labels" and sample.labels is None:
            raise DataFault(
                "intake.sample-without-labels",
                f"sample: no labels, expected them, because {self.target} learns from labels",
            )
        if self.needs == "boxes":
            if sample.boxes is None:
                raise DataFault(
                    "intake.sample-without-boxes",
                    "sample: no boxes, expected a list of them, which may be empty",
                )
            classes = range(len(self.schema.box_classes))
            unknown = {int(n) for n in sample.boxes.labels} - {*classes}
            if unknown:
                raise DataFault(
                    "intake.box-class-unknown",
                    f"sample: box class {min(unknown)}, expected 0 to {len(classes) - 1}",
                )

    def finalise(self, sample: Sample) -> HostArrays:
        """Check a sample, and compute the host's extra arrays of it, once, for a sample bank.

        Args:
            sample: in the host's space.

        Returns:
            Named arrays, stored with the sample as the bank's extras; by default none.

        Raises:
            DataFault: it has no labels or boxes of the schema, whichever the host needs.
        """
        Intake.check_sample(self, sample)
        return {}

    def converts(self, run: RunFolder) -> bool:
        """Whether ``converter`` takes samples of a run that was fitted in another space."""
        return False

    def converter(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        """Return the map that brings samples of another source's space into the host's space.

        Called once, in the producer. The map is applied to each sample before admission. It may
        raise ``DataFault``, which rejects the sample, for example one that is too small. The base
        class supports no other space.

        Args:
            source: the generator's training cases.
            space: the generator's.

        Raises:
            IntegrityFault: the host takes samples of its own space only.
        """
        guard_host(source.space.host, self.source.space.host)
        return lambda sample: sample


def intake_of(host: str, source: CaseSource) -> Intake:
    """Return what a registered host (``nnunet``) asks of samples on the given cases."""
    made: Intake = installed().host(host).Intake(source, host)
    return made
