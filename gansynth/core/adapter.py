"""The contract of an adapter, as what makes samples knows it.

An adapter is opened on the training cases of a framework, e.g. nnU-Net. A sample bank asks it what
a sample must be like there. ``gansynth.hosts.host`` says how a framework trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import CaseRecord, guard_host
from gansynth.core.schema import Sample, Schema
from gansynth.core.source import CaseSource, case_records
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault
from gansynth.runtime.options import SetOptions

HostArrays = Mapping[str, npt.NDArray[np.generic]]


class HostOptions(SetOptions):
    """Base of a host's options, which a user gives as ``--KEY VALUE`` or ``--set KEY=VALUE``."""

    place: ClassVar[str] = ""
    """Key of the folder of a training's results, which ``-o`` sets; none if there is no such."""


class Adapter:
    """What a host framework asks of samples, opened on one data set and fold."""

    name: ClassVar[str]
    needs: ClassVar[Literal["labels", "boxes"]] = "labels"
    """The training target that the host reads from a sample, beside its image."""
    any_size: ClassVar[bool] = False
    """Whether samples may be generated in a size other than that of the source's cases. Then the
    host's record holds no size, and ``bring`` receives such samples."""

    def __init__(self, source: CaseSource) -> None:
        self.source = source

    @property
    def schema(self) -> Schema:
        """Meaning of the host's arrays."""
        return self.source.schema

    @cached_property
    def held_out(self) -> tuple[CaseRecord, ...]:
        """Lineage records of the held-out cases, which are read once for it."""
        return case_records(self.source, self.source.held_out_ids)

    @property
    def sample_size(self) -> tuple[int, ...]:
        """Smallest spatial size in voxels (host axes) a sample may have."""
        return (1,) * self.schema.ndim

    def finalise(self, sample: Sample) -> HostArrays:
        """Check a sample, and compute the host's extra arrays of it, once, for a sample bank.

        Args:
            sample: in the host's space.

        Returns:
            Named arrays, stored with the sample as the bank's extras; by default none.

        Raises:
            DataFault: it has no labels or boxes of the schema, whichever the host needs.
        """
        if self.needs == "labels" and sample.labels is None:
            raise DataFault(
                f"sample: no labels, expected them, because {self.name} learns from labels"
            )
        if self.needs == "boxes":
            if sample.boxes is None:
                raise DataFault("sample: no boxes, expected a list of them, which may be empty")
            classes = range(len(self.schema.box_classes))
            if unknown := {int(n) for n in sample.boxes.labels} - {*classes}:
                raise DataFault(
                    f"sample: box class {min(unknown)}, expected 0 to {len(classes) - 1}"
                )
        return {}

    def bring(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        """Return the map that brings samples of another source's space into the host's space.

        Called once, in the producer. The map is applied to each sample before admission. It may
        raise ``DataFault``, which rejects the sample, for example one that is too small. The base
        class supports no other space. A host that does accepts such generators in ``check``.

        Args:
            source: the generator's training cases.
            space: the generator's.

        Raises:
            IntegrityFault: the host takes samples of its own space only.
        """
        guard_host(source.space.host, self.source.space.host)
        return lambda sample: sample
