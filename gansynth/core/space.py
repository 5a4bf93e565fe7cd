"""The map between a source's arrays and a generator's: a grid and an intensity map, invertible.

Random choices are drawn first as a ``Placement``, then applied, so that any draw can be replayed.
Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.foreground import ForegroundIndex
from gansynth.core.resample import T, crop_edge, crop_pad, draw_corner, resample
from gansynth.core.schema import (
    OUTSIDE,
    Boxes,
    Case,
    FloatArray,
    LabelArray,
    Sample,
    Schema,
    validate_arrays,
)
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

Grid = Literal["native", "crop", "slice", "resample"]
ORIENTATION = "RAS, read as (z, y, x)"
"""D runs from feet to head, H from back to front, W from left to right."""
FOREGROUND_SHARE = 2 / 3
"""Share of crops centred on a random foreground voxel; the rest fall anywhere."""


@dataclass(frozen=True)
class Placement(Document, strict=True):
    """One drawn position: the slice (2D grids), and the crop's first voxel (may be negative)."""

    corner: tuple[int, ...] = ()
    slice_index: int | None = None

    def cut(self, array: npt.NDArray[T], size: Sequence[int], fill: float) -> npt.NDArray[T]:
        """Return the crop of an array (D, H, W); ``fill`` lies beyond it."""
        return crop_pad(array, self.corner, size, fill)


@dataclass(frozen=True)
class Space(Document, optional=("frame", "nearest", "typical"), strict=True):
    """A generator's space.

    Attributes:
        grid: ``native`` (unchanged), ``crop`` (fixed size, padded if the case is smaller),
            ``slice`` (one plane along the first axis, cropped), ``resample`` (fixed shape).
        size: spatial size in voxels of the generator's arrays; empty for ``native``.
        window: per channel (low, high) in source units mapped to [-1, 1] and clipped; None keeps
            the source's intensities (z-scores, say).
        host: the source's own space (for nnU-Net: data set, plans, configuration, spacing,
            normalisation ...). Compared before a sample may enter a host.
        pad_label: label of voxels beyond a case's border; ``OUTSIDE`` (-1) as nnU-Net pads, 0 for
            sources whose labels know no outside.
        frame: of grid ``resample``: source voxels around the middle of a case that are resampled to
            ``size``, and back. Empty for the whole case, whatever its shape. Beyond a smaller case
            the image continues its border.
        nearest: of grid ``resample``: whether images, like labels, take the nearest voxel. This
            gives no new values, but jagged edges.
        typical: of grid ``resample`` without a frame: median shape of the training cases, which
            tells how large the voxels of this space are. Empty in older runs.
    """

    grid: Grid = "native"
    size: tuple[int, ...] = ()
    window: tuple[tuple[float, float], ...] | None = None
    host: Mapping[str, Any] = field(default_factory=dict)
    pad_label: int = OUTSIDE
    frame: tuple[int, ...] = ()
    nearest: bool = False
    typical: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.grid != "native" and (not self.size or min(self.size) < 1):
            raise UsageFault(
                "space.size-below-one",
                f"space: grid {self.grid!r} needs a size of at least 1, got {self.size}",
            )
        if self.frame and (self.grid != "resample" or len(self.frame) != len(self.size)):
            raise UsageFault(
                "space.frame-not-fitting-grid",
                f"space: frame {self.frame} with grid {self.grid!r} and size {self.size}, expected "
                "grid 'resample' and as many axes",
            )
        for low, high in self.window or ():
            if not low < high:
                raise UsageFault(
                    "space.window-empty",
                    f"space: window ({low}, {high}) is empty, expected low < high",
                )

    def generator_schema(self, source: Schema) -> Schema:
        """The schema of arrays in this space: 2D for ``slice``, else the source's own."""
        return self.schema_of(source, self.typical)

    def schema_of(self, source: Schema, shape: Sequence[int]) -> Schema:
        """The schema of a whole case of this shape, whose voxels may be its own."""
        schema = source
        if self.grid == "slice":
            schema = replace(source, axes="HW", spacing=source.spacing[1:])
        shown = self.frame or (shape if self.typical else ())
        if shown:
            edges = zip(source.spacing, shown, self.size, strict=True)
            spacing = [mm * old / new for mm, old, new in edges]
            schema = replace(source, spacing=tuple(spacing))
        if self.window is not None and source.outside_fill is not None:
            fill = np.array(source.outside_fill, np.float32).reshape(-1, *[1] * schema.ndim)
            schema = replace(schema, outside_fill=tuple(map(float, self._squash(fill).ravel())))
        return schema

    @property
    def oriented(self) -> bool:
        """Whether arrays are known to run as ``ORIENTATION``; of slices, the axes they keep."""
        return self.host.get("orientation") == ORIENTATION

    @property
    def cuts(self) -> bool:
        """Whether places in a case are drawn; else a case has only one placement."""
        return self.grid in ("crop", "slice")

    def host_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial shape in source voxels of ``to_host`` for a case of this shape."""
        if self.grid == "crop":
            return self.size
        if self.grid == "slice":
            return (1, *self.size)
        return self.frame or tuple(shape)

    def frame_corner(self, shape: Sequence[int]) -> tuple[int, ...]:
        """First voxel of the frame in a case, negative where it is larger; () without a frame."""
        if not self.frame:
            return ()
        return tuple((n - f) // 2 for n, f in zip(shape, self.frame, strict=True))

    # -- drawing a place -------------------------------------------------------------------------

    def place(self, case: Case | ForegroundIndex, rng: np.random.Generator) -> Placement:
        """Draw where to cut: foreground-centred for two thirds of the draws, else anywhere."""
        shape: Sequence[int] = case.image.shape[1:] if isinstance(case, Case) else case.shape
        if not self.cuts:
            return Placement(self.frame_corner(shape))
        centre, outline = None, ForegroundIndex.of(case) if isinstance(case, Case) else case
        if outline.planes is not None and rng.random() < FOREGROUND_SHARE:
            centre = outline.foreground_voxel(rng)
        slice_index = None
        if self.grid == "slice":
            slice_index = int(centre[0]) if centre is not None else int(rng.integers(shape[0]))
            shape, centre = shape[1:], None if centre is None else centre[1:]
        return Placement(draw_corner(shape, self.size, centre, rng), slice_index)

    def part(
        self, shape: Sequence[int], placement: Placement
    ) -> tuple[tuple[slice, ...], Placement]:
        """Return the voxels of a case that a placement needs, and the placement within them."""
        inner = shape[1:] if placement.slice_index is not None else shape
        starts = [min(max(c, 0), n - 1) for c, n in zip(placement.corner, inner, strict=True)]
        ends = [
            max(min(c + s, n), first + 1)
            for c, s, n, first in zip(placement.corner, self.size, inner, starts, strict=True)
        ]
        box = tuple(map(slice, starts, ends))
        corner = tuple(c - first for c, first in zip(placement.corner, starts, strict=True))
        if placement.slice_index is None:
            return box, Placement(corner)
        plane = slice(placement.slice_index, placement.slice_index + 1)
        return (plane, *box), Placement(corner, 0)

    def centre(self, case: Case) -> Placement:
        """Return the placement in the middle of a case (no randomness)."""
        shape = case.image.shape[1:]
        if not self.cuts:
            return Placement(self.frame_corner(shape))
        slice_index = shape[0] // 2 if self.grid == "slice" else None
        inner = shape[1:] if self.grid == "slice" else shape
        corner = [(n - s) // 2 for n, s in zip(inner, self.size, strict=True)]
        return Placement(tuple(corner), slice_index)

    # -- conversion --------------------------------------------------------------------------

    def to_generator(self, case: Case, placement: Placement | None = None) -> Case:
        """Bring a source case, (C, D, H, W) with (D, H, W) or 2D, into this space.

        ``placement``: what ``place`` drew; the middle if None. Padding holds image 0 and
        ``pad_label``.
        """
        placement = placement or self.centre(case)
        under = None
        if case.under is not None:
            beneath = replace(case, image=case.image[:0], labels=case.under, boxes=None, under=None)
            under = replace(self, window=None).to_generator(beneath, placement).labels
        image, labels, boxes = case.image, case.labels, case.boxes
        if self.frame:
            corner = self.frame_corner(image.shape[1:])
            image = crop_edge(image, corner, self.frame)
            labels = (
                None if labels is None else crop_pad(labels, corner, self.frame, self.pad_label)
            )
            boxes = None if boxes is None else cut_boxes(boxes, corner, self.frame)
        if self.grid == "slice":
            assert placement.slice_index is not None
            boxes = None if boxes is None else boxes_of_slice(boxes, placement.slice_index)
            image = image[:, placement.slice_index]
            labels = None if labels is None else labels[placement.slice_index]
        if self.grid in ("crop", "slice"):
            image = placement.cut(image, self.size, 0.0)
            labels = None if labels is None else placement.cut(labels, self.size, self.pad_label)
            boxes = None if boxes is None else cut_boxes(boxes, placement.corner, self.size)
        elif self.grid == "resample":
            boxes = None if boxes is None else scale_boxes(boxes, image.shape[1:], self.size)
            image, labels = resample(image, labels, self.size, nearest=self.nearest)
        image = self._squash(np.asarray(image, np.float32))
        return replace(case, image=image, labels=labels, boxes=boxes, under=under)

    def uncut(self, case: Case, slice_index: int | None = None) -> Case:
        """Bring a whole case, or slice, into this space's voxels and intensities."""
        if self.grid == "crop":
            return replace(self, grid="native", size=()).to_generator(case)
        if self.grid != "slice":
            return self.to_generator(case)
        assert slice_index is not None, "a slice must be named"
        plane = case.image.shape[2:]
        place = Placement((0,) * len(plane), slice_index)
        return replace(self, size=tuple(plane)).to_generator(case, place)

    def cut_mask(self, mask: npt.NDArray[np.bool_], placement: Placement) -> npt.NDArray[np.bool_]:
        """Cut a mask (D, H, W) or (H, W) of a whole case where crops or slices are cut."""
        plane = mask if placement.slice_index is None else mask[placement.slice_index]
        return placement.cut(plane, self.size, False)

    def padding(self, shape: Sequence[int], placement: Placement) -> npt.NDArray[np.bool_] | None:
        """Return crop voxels beyond the case, bool of shape ``size``; None if there are none."""
        if self.grid not in ("crop", "slice"):
            return None
        inner = shape[1:] if self.grid == "slice" else shape
        beyond = placement.cut(np.zeros(inner, np.bool_), self.size, True)
        return beyond if beyond.any() else None

    def clear_padding(self, sample: Sample, shape: Sequence[int], placement: Placement) -> Sample:
        """Set the padding of a sample of this space to exactly that of ``to_generator``."""
        if self.grid not in ("crop", "slice"):
            return sample
        inner, image = shape[-len(self.size) :], sample.image
        fill = self.fill(len(image), len(inner))
        for axis, (corner, length, size) in enumerate(
            zip(placement.corner, inner, self.size, strict=True), start=1
        ):
            for end in (slice(0, max(-corner, 0)), slice(max(length - corner, 0), size)):
                at = (slice(None),) * axis + (end,)
                wanted = np.broadcast_to(fill, image[at].shape)
                if image[at].tobytes() != wanted.tobytes():
                    image = image.copy() if image is sample.image else image
                    image[at] = wanted
        return sample if image is sample.image else replace(sample, image=image)

    def fill(self, channels: int, ndim: int) -> FloatArray:
        """Return the fill value of padded images: float32 (C, 1, 1, 1) or (C, 1, 1)."""
        return self._squash(np.zeros((channels, *[1] * ndim), np.float32))

    def to_host(self, sample: Sample, shape: Sequence[int] | None = None) -> Sample:
        """Bring a sample of this space back into the source's, to ``host_shape``.

        ``shape``: of the whole case, for grid ``resample`` without a frame; else UsageFault.
        """
        under = None
        if sample.under is not None:
            beneath = Sample(sample.image[:0], sample.under)
            under = replace(self, window=None).to_host(beneath, shape).labels
        image, labels, boxes = self._unsquash(sample.image), sample.labels, sample.boxes
        if self.grid == "slice":
            image = image[:, None]
            labels = None if labels is None else labels[None]
            boxes = None if boxes is None else one_slice_boxes(boxes)
        elif self.grid == "resample":
            if shape is None and not self.frame:
                raise UsageFault(
                    "space.host-shape-missing",
                    "space: grid 'resample' needs the host's shape to go back to",
                )
            back = self.host_shape(shape or ())
            boxes = None if boxes is None else scale_boxes(boxes, image.shape[1:], back)
            image, labels = resample(image, labels, back, nearest=self.nearest)
        return replace(sample, image=image, labels=labels, boxes=boxes, under=under)

    def _squash(self, image: FloatArray) -> FloatArray:
        if self.window is None:
            return image
        low, high = self._bounds(image.ndim)
        squashed = np.clip((image - low) / (high - low) * 2 - 1, -1, 1)
        return np.asarray(squashed, np.float32)

    def _unsquash(self, image: FloatArray) -> FloatArray:
        if self.window is None:
            return image
        low, high = self._bounds(image.ndim)
        return ((image + 1) / 2 * (high - low) + low).astype(np.float32)

    def _bounds(self, ndim: int) -> tuple[FloatArray, FloatArray]:
        assert self.window is not None
        bounds = np.array(self.window, np.float32).reshape(-1, 2, *[1] * (ndim - 1))
        return bounds[:, 0], bounds[:, 1]

    # -- recording -------------------------------------------------------------------------------

    def with_window(self, cases: Iterable[Case], low: float = 0.1, high: float = 99.9) -> Space:
        """Return a space windowed to the training cases' intensities (percentiles per channel)."""
        edges = [
            np.percentile(c.image.reshape(c.image.shape[0], -1), (low, high), axis=1) for c in cases
        ]
        if not edges:
            raise UsageFault(
                "space.window-without-cases", "space: a window needs at least one training case"
            )
        lows, highs = np.min([e[0] for e in edges], axis=0), np.max([e[1] for e in edges], axis=0)
        each = zip(lows, highs, strict=True)
        window = [(float(least), float(max(most, least + 1e-6))) for least, most in each]
        return replace(self, window=tuple(window))

    # -- whole cases, as a training has them -----------------------------------------------------

    def padding_values(self, channels: int) -> tuple[float, ...]:
        """Return the value of each channel beyond the border, in the units of this space."""
        nothing = np.zeros((channels, *[1] * len(self.size)), np.float32)
        return tuple(self._in_units(Case("", "", nothing)).ravel().tolist())

    def on_own_grid(
        self,
        schema: Schema,
        image: FloatArray,
        predict: Callable[[FloatArray], Sequence[LabelArray]],
    ) -> list[LabelArray]:
        """Predict a whole case as a training has it, and return its maps on the case's own grid.

        Args:
            image: float32 (C, D, H, W), in the units and spacing of the source's cases.
            predict: image (C, ...) in the units of this space, resampled if it resamples -> maps
                (...) of that shape.

        Returns:
            The maps, by the nearest voxel if the case was resampled, and background beyond its
            frame.
        """
        validate_arrays("image", image, None, schema)
        case, shape = Case("image", "image", np.asarray(image, np.float32)), image.shape[1:]
        if self.grid != "resample":
            return list(predict(np.array(self._in_units(case))))
        maps, back = predict(np.array(self.to_generator(case).image)), replace(self, window=None)
        nothing = np.zeros((1, *self.size), np.float32)
        found = []
        for labels in maps:
            whole = back.to_host(Sample(nothing, labels), shape).labels
            assert whole is not None, "labels were given"
            if self.frame:
                whole = crop_pad(whole, [-c for c in self.frame_corner(shape)], shape, 0)
            found.append(whole)
        return found

    def _in_units(self, case: Case) -> FloatArray:
        """Return the image of a whole case on its own grid, in the units of this space."""
        uncut = replace(self, grid="native", size=(), frame=(), nearest=False)
        return uncut.to_generator(case).image


def cut_boxes(boxes: Boxes, corner: Sequence[int], size: Sequence[int]) -> Boxes:
    """Cut boxes to the ``size`` voxels from ``corner``, in voxels from there."""
    axes = len(size)
    start, extent = np.array(corner, np.float32), np.array(size, np.float32)
    low = np.clip(boxes.coords[:, :axes] - start, 0, extent)
    high = np.clip(boxes.coords[:, axes:] - start, 0, extent)
    inside = (low < high).all(axis=1)
    return Boxes(np.hstack([low, high])[inside].astype(np.float32), boxes.labels[inside])


def scale_boxes(boxes: Boxes, before: Sequence[int], after: Sequence[int]) -> Boxes:
    """Scale the boxes of an image that is resampled from one spatial shape to another."""
    factors = np.tile(np.array(after) / np.array(before), 2)
    return Boxes((boxes.coords * factors).astype(np.float32), boxes.labels)


def boxes_of_slice(boxes: Boxes, index: int, axis: int = 0) -> Boxes:
    """Return boxes (M, 4) of a volume's boxes (N, 6) that contain the middle of a slice."""
    middle = index + 0.5
    cut = (boxes.coords[:, axis] <= middle) & (boxes.coords[:, axis + 3] > middle)
    return Boxes(np.delete(boxes.coords[cut], (axis, axis + 3), axis=1), boxes.labels[cut])


def one_slice_boxes(boxes: Boxes) -> Boxes:
    """Return boxes (N, 4) of a slice as boxes (N, 6) of a one-slice volume."""
    zero = np.zeros((len(boxes.coords), 1), np.float32)
    first, last = boxes.coords[:, :2], boxes.coords[:, 2:]
    return Boxes(np.concatenate([zero, first, zero + 1, last], axis=1), boxes.labels)
