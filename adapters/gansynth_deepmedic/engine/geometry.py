"""How large a segment is, what is predicted of it, and how far its subsampled contexts reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from gansynth_deepmedic.configs import ModelConfig

T = TypeVar("T")
S = TypeVar("S", bound=np.generic)
Triple = tuple[int, int, int]
Which = Literal["train", "validation", "inference"]
_KEYS = {
    "train": "segmentsDimTrain",
    "validation": "segmentsDimVal",
    "inference": "segmentsDimInference",
}
Image = npt.NDArray[np.float32]
_NONE = slice(0, 0)


def _three(values: Iterable[T]) -> tuple[T, T, T]:
    x, y, z = values
    return x, y, z


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
        x, y, z = (n + 1 - field for n, field in zip(lost, receptive, strict=True))
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
        return _three(n - lost for n, lost in zip(self._joined, self.head, strict=True))

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
        return _three((n, n) for n in lost)

    def start(self, centre: Sequence[int]) -> Triple:
        """First voxel of the segment around a centre; an even size is one longer behind it."""
        return _three(int(c) - (n - 1) // 2 for c, n in zip(centre, self.segment, strict=True))

    def box(self, start: Sequence[int]) -> tuple[slice, slice, slice]:
        """The segment that begins there."""
        return _three(slice(first, first + n) for first, n in zip(start, self.segment, strict=True))

    def predicted(self, start: Sequence[int]) -> tuple[slice, slice, slice]:
        """What is predicted of the segment that begins there: where its labels are."""
        first = (n + before for n, (before, _) in zip(start, self.margin, strict=True))
        return _three(slice(n, n + size) for n, size in zip(first, self.output, strict=True))

    def centres(self, shape: Sequence[int]) -> tuple[slice, slice, slice]:
        """Where centres may be, so that segments lie in a volume; empty if it is too small."""
        return _three(
            slice((size - 1) // 2, max((size - 1) // 2, length - size // 2))
            for size, length in zip(self.segment, shape, strict=True)
        )

    @property
    def _joined(self) -> Triple:
        """Shape of what the paths are joined at, before the fully connected layers."""
        return _three(n - r + 1 for n, r in zip(self.segment, self.receptive, strict=True))

    def _low(self, factor: Triple) -> Triple:
        sizes = zip(self.receptive, self._joined, factor, strict=True)
        return _three(field + -(-size // times) - 1 for field, size, times in sizes)


def corner_mean(image: Image) -> Image:
    """Mean (C,) of the eight corners of each channel (C, X, Y, Z): what lies outside of a volume.

    Worth keeping where many contexts are cut of one volume.
    """
    ends = [image[:, x, y, z].astype(np.float64) for z in (0, -1) for y in (0, -1) for x in (0, -1)]
    mean: Image = np.mean(np.stack(ends, axis=-1), axis=-1).astype(np.float32)
    return mean


def high_segment(image: Image, start: Sequence[int], geometry: Geometry) -> Image:
    """The segment (C, *segment) of an image (C, X, Y, Z) that begins there: a view."""
    return image[(slice(None), *geometry.box(start))]


def low_start(start: Sequence[int], factor: Sequence[int], receptive: Sequence[int]) -> Triple:
    """First voxel of the context of a segment, maybe outside of the volume.

    Args:
        start: first voxel of the segment.
        factor: how many voxels apart the context's are.
        receptive: voxels that a prediction is made from, before subsampling.
    """
    first = []
    for begin, times, field in zip(start, factor, receptive, strict=True):
        if times % 2:
            first.append(begin + times // 2 - (times - 1) // 2 * field)
        else:
            first.append(begin + times // 2 - 1 - (times - 2) // 2 * field - field // 2)
    return first[0], first[1], first[2]


def low_context(
    image: Image,
    start: Sequence[int],
    factor: Sequence[int],
    geometry: Geometry,
    outside: Image | None = None,
) -> Image:
    """Every factor-th voxel around a segment (C, *low); nearest voxels, nothing is averaged.

    Args:
        image: (C, X, Y, Z).
        start: first voxel of the segment.
        outside: (C,), value outside of the volume; None for ``corner_mean``.
    """
    shape = geometry.low[geometry.factors.index((factor[0], factor[1], factor[2]))]
    fill = corner_mean(image) if outside is None else outside
    context = np.empty((len(image), *shape), np.float32)
    context[:] = fill[:, None, None, None]
    first = low_start(start, factor, geometry.receptive)
    into: list[slice] = [slice(None)]
    of: list[slice] = [slice(None)]
    for begin, count, times, length in zip(first, shape, factor, image.shape[1:], strict=True):
        low = max(0, -(begin // times))  # the first one that lies in the volume
        high = max(low, min(count, -((begin - length) // times)))
        into.append(slice(low, high))
        of.append(slice(begin + low * times, begin + high * times, times) if high > low else _NONE)
    context[tuple(into)] = image[tuple(of)]
    return context


def tiles(
    shape: Sequence[int], geometry: Geometry, roi: npt.NDArray[np.generic] | None = None
) -> list[Triple]:
    """First voxels of segments whose predictions together cover a volume but for its margin.

    The last one along each axis ends with the volume. x runs fastest, z slowest.

    Args:
        shape: of the (padded) volume, at least a segment's: see ``padded``.
        roi: (X, Y, Z); segments without any of it are left out.
    """
    along = [
        _starts(length, size, step)
        for length, size, step in zip(shape, geometry.segment, geometry.output, strict=True)
    ]
    starts = [(x, y, z) for z in along[2] for y in along[1] for x in along[0]]
    if roi is None:
        return starts
    return [start for start in starts if roi[geometry.box(start)].any()]


def padding(shape: Sequence[int], geometry: Geometry, pad: bool = True) -> list[tuple[int, int]]:
    """Voxels before and after along each axis that a volume is padded by."""
    widths = []
    for length, size, (before, after) in zip(shape, geometry.segment, geometry.margin, strict=True):
        low, high = (before, after) if pad else (0, 0)
        widths.append((low, high + max(0, size - low - length - high)))
    return widths


def padded(array: npt.NDArray[S], widths: Sequence[tuple[int, int]]) -> npt.NDArray[S]:
    """An array (..., X, Y, Z) mirrored at its border, its outermost voxels once (``reflect``)."""
    whole = [(0, 0)] * (array.ndim - 3) + list(widths)
    return np.pad(array, whole, mode="reflect")


def _starts(length: int, size: int, step: int) -> list[int]:
    """Where segments begin along one axis."""
    return [*range(0, length - size, step), length - size]
