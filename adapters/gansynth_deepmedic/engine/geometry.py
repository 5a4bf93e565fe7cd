"""Geometry of a segment: size, predicted part, and extent of its subsampled contexts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from gansynth_deepmedic.engine.configs import ModelConfig, Triple

T = TypeVar("T")
S = TypeVar("S", bound=np.generic)
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
class SegmentGeometry:
    """Segments of one size, in voxels along the axes of the array."""

    segment: Triple  # input of the path at full resolution
    receptive: Triple  # receptive field of that path; odd
    factors: tuple[Triple, ...] = ()  # subsampling factor of each further path
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
    def cubes(cls, segment: int, receptive: int, factors: Sequence[int] = ()) -> SegmentGeometry:
        """Return the geometry of cubic segments."""
        return cls((segment,) * 3, (receptive,) * 3, tuple((n, n, n) for n in factors))

    @classmethod
    def from_model(cls, model: ModelConfig, which: Which = "train") -> SegmentGeometry:
        """Return the segments of a network in training, validation or inference."""
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
        """Shape of the predicted part of a segment: its centre."""
        return _three(n - lost for n, lost in zip(self._joined, self.head, strict=True))

    @property
    def low(self) -> tuple[Triple, ...]:
        """Shape of each subsampled path's input (``pathways.py``)."""
        return tuple(self._low(factor) for factor in self.factors)

    @property
    def margin(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Voxels before and after along each axis by which a segment exceeds its output.

        Volumes are padded by this margin (padInputImagesBool), so that they are predicted
        completely.
        """
        lost = ((n - 1 + m) // 2 for n, m in zip(self.receptive, self.head, strict=True))
        return _three((n, n) for n in lost)

    def start(self, centre: Sequence[int]) -> Triple:
        """Return the first voxel of the segment around a centre; an even size extends behind."""
        return _three(int(c) - (n - 1) // 2 for c, n in zip(centre, self.segment, strict=True))

    def box(self, start: Sequence[int]) -> tuple[slice, slice, slice]:
        """Return the slices of the segment that begins at ``start``."""
        return _three(slice(first, first + n) for first, n in zip(start, self.segment, strict=True))

    def predicted(self, start: Sequence[int]) -> tuple[slice, slice, slice]:
        """Return the slices of the predicted part of the segment that begins at ``start``."""
        first = (n + before for n, (before, _) in zip(start, self.margin, strict=True))
        return _three(slice(n, n + size) for n, size in zip(first, self.output, strict=True))

    def centres(self, shape: Sequence[int]) -> tuple[slice, slice, slice]:
        """Return the slices of centres whose segments lie in a volume; empty if it is too small."""
        return _three(
            slice((size - 1) // 2, max((size - 1) // 2, length - size // 2))
            for size, length in zip(self.segment, shape, strict=True)
        )

    @property
    def _joined(self) -> Triple:
        """Shape at which the paths are joined, before the fully connected layers."""
        return _three(n - r + 1 for n, r in zip(self.segment, self.receptive, strict=True))

    def _low(self, factor: Triple) -> Triple:
        sizes = zip(self.receptive, self._joined, factor, strict=True)
        return _three(field + -(-size // times) - 1 for field, size, times in sizes)


def corner_mean(image: Image) -> Image:
    """Return the mean (C,) of the eight corners of each channel (C, X, Y, Z).

    It is the value outside a volume. Compute it once for many contexts of one volume.
    """
    ends = [image[:, x, y, z].astype(np.float64) for z in (0, -1) for y in (0, -1) for x in (0, -1)]
    mean: Image = np.mean(np.stack(ends, axis=-1), axis=-1).astype(np.float32)
    return mean


def high_segment(image: Image, start: Sequence[int], geometry: SegmentGeometry) -> Image:
    """Return the segment (C, *segment) of an image (C, X, Y, Z) at ``start``: a view."""
    return image[(slice(None), *geometry.box(start))]


def low_start(start: Sequence[int], factor: Sequence[int], receptive: Sequence[int]) -> Triple:
    """Return the first voxel of a segment's context, which may lie outside the volume.

    Args:
        start: first voxel of the segment.
        factor: the distance of the context's voxels.
        receptive: the receptive field, in voxels before subsampling.
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
    geometry: SegmentGeometry,
    outside: Image | None = None,
) -> Image:
    """Return every factor-th voxel around a segment (C, *low), without averaging.

    Args:
        image: (C, X, Y, Z).
        start: first voxel of the segment.
        outside: (C,), value outside the volume; None for ``corner_mean``.
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
    shape: Sequence[int], geometry: SegmentGeometry, roi: npt.NDArray[np.generic] | None = None
) -> list[Triple]:
    """Return the first voxels of segments whose predictions cover a volume without its margin.

    The last one along each axis ends with the volume. x runs fastest, z slowest.

    Args:
        shape: of the (padded) volume, at least a segment's: see ``padded``.
        roi: (X, Y, Z); segments outside it are left out.
    """
    along = [
        _starts(length, size, step)
        for length, size, step in zip(shape, geometry.segment, geometry.output, strict=True)
    ]
    starts = [(x, y, z) for z in along[2] for y in along[1] for x in along[0]]
    if roi is None:
        return starts
    return [start for start in starts if roi[geometry.box(start)].any()]


def padding(
    shape: Sequence[int], geometry: SegmentGeometry, pad: bool = True
) -> list[tuple[int, int]]:
    """Return the padding of a volume: voxels before and after along each axis."""
    widths = []
    for length, size, (before, after) in zip(shape, geometry.segment, geometry.margin, strict=True):
        low, high = (before, after) if pad else (0, 0)
        widths.append((low, high + max(0, size - low - length - high)))
    return widths


def padded(array: npt.NDArray[S], widths: Sequence[tuple[int, int]]) -> npt.NDArray[S]:
    """Pad an array (..., X, Y, Z) by mirroring without its outermost voxels (``reflect``)."""
    whole = [(0, 0)] * (array.ndim - 3) + list(widths)
    return np.pad(array, whole, mode="reflect")


def _starts(length: int, size: int, step: int) -> list[int]:
    """Return the starts of segments along one axis."""
    return [*range(0, length - size, step), length - size]
