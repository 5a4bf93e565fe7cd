"""How large a segment is, what is predicted of it, and how far its subsampled contexts reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from gansynth_deepmedic.configs import ModelConfig

Triple = tuple[int, int, int]
Which = Literal["train", "validation", "inference"]
_KEYS = {
    "train": "segmentsDimTrain",
    "validation": "segmentsDimVal",
    "inference": "segmentsDimInference",
}


@dataclass(frozen=True)
class Geometry:
    """Segments of one size; everything in voxels along the axes of the array that is cut."""

    segment: Triple  # what the path of full resolution sees
    receptive: Triple  # voxels that one output of that path is made from; odd
    factors: tuple[Triple, ...] = ()  # how much coarser each subsampled path sees
    # voxels by which the fully connected layers' output is smaller than that; even
    head: Triple = (0, 0, 0)

    def __post_init__(self) -> None:
        if any(n < 1 or n % 2 == 0 for n in self.receptive):
            raise ValueError(f"receptive is {self.receptive}, expected odd numbers")
        if any(n < 0 or n % 2 for n in self.head):
            raise ValueError(f"head is {self.head}, expected even numbers")
        if min(self.output) < 1:
            raise ValueError(
                f"segment is {self.segment}, expected more than {self.receptive} and {self.head}"
            )
        if any(n < 1 for factor in self.factors for n in factor):
            raise ValueError(f"factors are {self.factors}, expected numbers from 1")

    @classmethod
    def cubes(cls, segment: int, receptive: int, factors: Sequence[int] = ()) -> Geometry:
        """Segments that are the same along every axis."""
        return cls((segment,) * 3, (receptive,) * 3, tuple((n, n, n) for n in factors))

    @classmethod
    def from_model(cls, model: ModelConfig, which: Which = "train") -> Geometry:
        """Segments that a network is trained, validated or applied with.

        Raises:
            DataFault: layers before the fully connected ones are padded, or kernels are even.
        """
        sizes = (model.segment, model.segment_validation, model.segment_inference)
        size = dict(zip(_KEYS, sizes, strict=True))[which]
        receptive, lost = model.receptive, model.unpredicted
        x, y, z = (n + 1 - seen for n, seen in zip(lost, receptive, strict=True))
        if any(model.padded) or any(n % 2 == 0 for n in receptive) or any(n % 2 for n in (x, y, z)):
            raise DataFault(
                f"{model.path}: {_KEYS[which]} {list(size)} is predicted without {list(lost)} "
                f"voxels, the receptive field is {list(receptive)}; expected kernels of odd size "
                "and no padding in padTypePerLayerNormal where torch trains. Change them, or train "
                "with DeepMedic itself"
            )
        return cls(size, receptive, model.factors, (x, y, z))

    @property
    def output(self) -> Triple:
        """Shape of what is predicted of a segment: its centre."""
        x, y, z = (n - lost for n, lost in zip(self._joined, self.head, strict=True))
        return x, y, z

    @property
    def low(self) -> tuple[Triple, ...]:
        """Shape of each subsampled path's input (``pathways.py``)."""
        return tuple(self._low(factor) for factor in self.factors)

    @property
    def margin(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Voxels before and after along each axis that a segment is larger than its output.

        Volumes are padded by as much (padInputImagesBool), so that all of them is predicted.
        """
        lost = ((n - 1 + m) // 2 for n, m in zip(self.receptive, self.head, strict=True))
        x, y, z = ((n, n) for n in lost)
        return x, y, z

    def start(self, centre: Sequence[int]) -> Triple:
        """First voxel of the segment around a centre; an even size is one longer behind it."""
        x, y, z = (int(c) - (n - 1) // 2 for c, n in zip(centre, self.segment, strict=True))
        return x, y, z

    def box(self, start: Sequence[int]) -> tuple[slice, slice, slice]:
        """The segment that begins there."""
        x, y, z = (slice(first, first + n) for first, n in zip(start, self.segment, strict=True))
        return x, y, z

    def predicted(self, start: Sequence[int]) -> tuple[slice, slice, slice]:
        """What is predicted of the segment that begins there: where its labels are."""
        first = (n + before for n, (before, _) in zip(start, self.margin, strict=True))
        x, y, z = (slice(n, n + size) for n, size in zip(first, self.output, strict=True))
        return x, y, z

    def centres(self, shape: Sequence[int]) -> tuple[slice, slice, slice]:
        """Where centres may be, so that segments lie in a volume; empty if it is too small."""
        x, y, z = (
            slice((size - 1) // 2, max((size - 1) // 2, length - size // 2))
            for size, length in zip(self.segment, shape, strict=True)
        )
        return x, y, z

    @property
    def _joined(self) -> Triple:
        """Shape of what the paths are joined at, before the fully connected layers."""
        x, y, z = (n - r + 1 for n, r in zip(self.segment, self.receptive, strict=True))
        return x, y, z

    def _low(self, factor: Triple) -> Triple:
        sizes = zip(self.receptive, self._joined, factor, strict=True)
        x, y, z = (seen + -(-size // times) - 1 for seen, size, times in sizes)
        return x, y, z
