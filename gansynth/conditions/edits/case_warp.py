"""Move whole cases: image and label map go through one map of space, looked up in the whole case.

The same seed gives the same shapes for every generator. Voxels beyond a crop's border come from
the case. Beyond a face of the case lies the constant that fills most of it, if there is one (a
skull-stripped brain, cut to its box). Else crops are padded. Whole cases are mirrored instead,
because padding would reveal what is synthetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gansynth.conditions.edits.warp import WarpEdit, maps_space
from gansynth.core.edit import Edit
from gansynth.core.geometry import Mask, nearest_index, pull_labels
from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Schema
from gansynth.core.space import Placement, Space
from gansynth.runtime.errors import UsageFault

AROUND = 8  # margin in voxels for cubic splines; voxels beyond weigh below 0.0001

MOST = 0.5  # share of a face that a constant must fill to lie beyond it, too


@dataclass(frozen=True)
class WarpedPlacement:
    """A place in a case, moved.

    Attributes:
        labels: int16 (D, H, W) or (H, W), ``OUTSIDE`` and an ignore value moved like any other.
        image: float32 (C, ...).
        told: root mean square displacement over the body: ``mm``, and ``voxels``.
    """

    labels: LabelArray
    image: FloatArray
    told: dict[str, float] = field(default_factory=lambda: {"mm": 0.0, "voxels": 0.0})


def check_warp(generator: str, edits: Sequence[Edit]) -> None:
    """Refuse edits that change labels without moving the whole image."""
    for edit in edits:
        chosen = getattr(edit.options, "classes", None) is not None
        if chosen or not maps_space(edit):
            option = f"{edit.name}:classes=..." if chosen else edit.name
            raise UsageFault(
                f"--edit {option}: {generator} moves real images whole, expected edits that do so: "
                "elastic, flip, rotate, scale or shift, of all classes"
            )


@dataclass(frozen=True)
class CaseWarp:
    """Moves whole cases in the generator's space; ``schema`` is that of the space."""

    space: Space
    schema: Schema

    def all_to_move(self, labels: LabelArray) -> LabelArray:
        """Return the labels that edits are drawn on; without foreground, the body is labelled."""
        if (labels > 0).any() or not self.schema.foreground:
            return labels
        return np.where(labels == OUTSIDE, labels, np.int16(self.schema.foreground[0]))

    def __call__(
        self,
        case: Case,
        placement: Placement,
        edits: Mapping[str, Edit],
        steps: Sequence[Mapping[str, Any]],
    ) -> WarpedPlacement:
        """Apply recorded edits, each a map of space; the same steps give the same bits.

        The case is whole and labelled, in its source's voxels; the placement says where it is cut.
        """
        placed = self.space.to_generator(case, placement)
        assert placed.labels is not None, "conditions are drawn of labelled cases"
        shape = placed.labels.shape
        beyond = self.space.padding(case.image.shape[1:], placement)
        pull = self._pull(shape, edits, steps)
        if pull is None:
            return WarpedPlacement(placed.labels, placed.image)
        whole, corner = self._whole(case, placement)
        assert whole.labels is not None
        at = pull + _column(corner, len(shape))
        labels, image = self._looked_up(whole, at)
        if beyond is not None:
            labels = np.where(beyond, placed.labels, labels)
            image = np.where(beyond, placed.image, image)
        body = np.asarray((labels != OUTSIDE) & (True if beyond is None else ~beyond))
        return WarpedPlacement(labels, self._filled(image, labels), self._told(pull, body))

    def _looked_up(self, case: Case, at: FloatArray) -> tuple[LabelArray, FloatArray]:
        """Labels and image at places (n, ...) in a case or beyond it, in voxels."""
        assert case.labels is not None
        ndim = case.labels.ndim
        mirrored = _within(at, case.labels.shape)
        labels, image = _labels_at(case.labels, mirrored), _image_at(case.image, mirrored)
        beyond, (even, value) = _beyond(at, case.labels.shape), _constant(case)
        if self.space.cuts:
            away = np.logical_or.reduce(list(beyond.values()))
            labels = np.where(away, np.int16(self.space.pad_label), labels)
            image = np.where(away, self.space.fill(len(image), ndim), image)
        for face, there in even.items():
            values, counts = np.unique(_face(case.labels, *face)[there], return_counts=True)
            labels = np.where(beyond[face], values[counts.argmax()], labels)
            image = np.where(beyond[face], _column(value.tolist(), ndim), image)
        return labels, image

    def _pull(
        self, shape: Sequence[int], edits: Mapping[str, Edit], steps: Sequence[Mapping[str, Any]]
    ) -> FloatArray | None:
        """Compose all steps to one map of source voxels; None if nothing moves."""
        from scipy.ndimage import map_coordinates

        grid = np.indices(shape, np.float32)
        pull: FloatArray | None = None
        for step in steps:
            edit, params = edits[step["edit"]], step["params"]
            if params["strength"] == 0:
                continue
            assert isinstance(edit, WarpEdit)
            then = edit.coordinates(shape, self.schema, params)
            if pull is None:
                pull = then
                continue
            earlier = [map_coordinates(axis, then, order=1, mode="nearest") for axis in pull - grid]
            pull = then + np.stack(earlier)
        return pull

    def _whole(self, case: Case, placement: Placement) -> tuple[Case, tuple[int, ...]]:
        """Return the whole case, or slice, in the generator's units, and where it is cut."""
        if not self.space.cuts:
            placed = self.space.to_generator(case, placement)
            return placed, (0,) * (placed.image.ndim - 1)
        plane = placement.slice_index
        if plane is not None:
            assert case.labels is not None
            case = replace(
                case, image=case.image[:, plane], labels=case.labels[plane], boxes=None, under=None
            )
        native = replace(self.space, grid="native", size=())
        return native.to_generator(case), placement.corner

    def _filled(self, image: FloatArray, labels: LabelArray) -> FloatArray:
        """Fill the outside of the body with its constant, if there is one."""
        if self.schema.outside_fill is None:
            return image
        fill = _column(self.schema.outside_fill, labels.ndim)
        return np.where(labels == OUTSIDE, fill, image)

    def _told(self, pull: FloatArray, body: Mask) -> dict[str, float]:
        if not body.any():
            return {"mm": 0.0, "voxels": 0.0}
        moved = (pull - np.indices(body.shape, np.float32))[:, body].astype(np.float64)
        far = [moved * np.array(self.schema.spacing)[:, None], moved]
        mm, voxels = (float(np.sqrt(np.square(lengths).sum(axis=0).mean())) for lengths in far)
        return {"mm": round(mm, 4), "voxels": round(voxels, 4)}


def _beyond(at: FloatArray, shape: Sequence[int]) -> dict[tuple[int, int], Mask]:
    """Mark places beyond each face (axis, end) of an array, ``end`` 0 or -1."""
    low = {(axis, 0): at[axis] < -0.5 for axis in range(len(shape))}
    return low | {(axis, -1): at[axis] > n - 0.5 for axis, n in enumerate(shape)}


def _constant(case: Case) -> tuple[dict[tuple[int, int], Mask], FloatArray]:
    """Return faces filled by a constant to more than ``MOST``, its voxels there, and the value."""
    image = np.moveaxis(case.image, 0, -1)
    faces = [(axis, end) for axis in range(image.ndim - 1) for end in (0, -1)]
    held = np.concatenate([_face(image, *f).reshape(-1, len(case.image)) for f in faces])
    value = np.median(held, axis=0).astype(np.float32)
    same = {face: np.asarray((_face(image, *face) == value).all(axis=-1)) for face in faces}
    return {face: there for face, there in same.items() if there.mean() > MOST}, value


def _face(array: np.ndarray[Any, Any], axis: int, end: int) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = array.take(end, axis=axis)
    return values


def _column(values: Sequence[float], ndim: int) -> FloatArray:
    return np.array(values, np.float32).reshape(-1, *[1] * ndim)


def _within(at: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Mirror coordinates at the middles of an array's outermost voxels until they lie in it."""
    out = np.empty_like(at)
    for axis, length in enumerate(shape):
        last = np.float32(length - 1)
        if last == 0:
            out[axis] = 0
            continue
        turned = np.mod(at[axis], 2 * last)
        out[axis] = np.minimum(turned, 2 * last - turned)
    return out


def _labels_at(labels: LabelArray, at: FloatArray) -> LabelArray:
    """Look labels up at coordinates within the array; see ``pull_labels``."""
    index, _ = nearest_index(at, labels.shape)
    drawn = pull_labels(np.maximum(labels, np.int16(0)), at)
    outside = (drawn == 0) & (labels.ravel()[index] == OUTSIDE)
    return np.where(outside, np.int16(OUTSIDE), drawn)


def _image_at(image: FloatArray, at: FloatArray) -> FloatArray:
    """Look channels up by cubic splines; linear interpolation would lose half of the noise."""
    from scipy.ndimage import map_coordinates

    spatial = tuple(range(1, at.ndim))
    lows = np.maximum(np.floor(at.min(axis=spatial)).astype(int) - AROUND, 0)
    highs = np.ceil(at.max(axis=spatial)).astype(int) + AROUND + 1
    box = image[:, *(slice(low, high) for low, high in zip(lows, highs, strict=True))]
    there = at - _column(lows.tolist(), at.ndim - 1)
    out = np.empty((len(image), *at.shape[1:]), np.float32)
    for number, channel in enumerate(box):
        values = map_coordinates(channel, there, order=3, mode="mirror")
        # Splines overshoot at sharp edges.
        out[number] = np.clip(values, channel.min(), channel.max())
    return out
