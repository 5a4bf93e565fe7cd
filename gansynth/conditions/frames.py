"""Where something lies in a body: coordinates relative to the body's bounding box.

A relative coordinate of 0 is the box's lower face and 1 its upper one, on each axis by itself, so
that places in bodies of different size, and in a crop and the whole case, can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gansynth.core.geometry import Mask, Matrix, bounding_box
from gansynth.core.scene import CasePool, Scene, body_of
from gansynth.core.schema import Case, replace_ignored

LOOKED_AT = 64
"""Training cases that are looked at to learn something of all of them."""


@dataclass(frozen=True)
class Frame:
    """A box in an array's voxels; it may reach beyond the array, as a whole case does of its crop.

    Attributes:
        low: where it begins, one number per axis.
        high: where it ends, exclusive.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, mask: Mask) -> Frame:
        """The bounding box of a mask; the whole array's if the mask is empty."""
        box = bounding_box(mask if mask.any() else np.ones_like(mask))
        return cls(tuple(float(s.start) for s in box), tuple(float(s.stop) for s in box))

    @property
    def size(self) -> Matrix:
        """Voxels per axis: float64 (n,)."""
        return np.subtract(self.high, self.low, dtype=np.float64)

    def relative(self, voxels: Matrix) -> Matrix:
        """Relative coordinates (N, n) of positions (N, n) in voxels."""
        return np.asarray((voxels + 0.5 - np.asarray(self.low)) / self.size)

    def voxels(self, relative: Matrix) -> Matrix:
        """Positions (N, n) in voxels of relative coordinates (N, n)."""
        return np.asarray(relative * self.size + np.asarray(self.low) - 0.5)

    def moved(self, by: Sequence[float]) -> Frame:
        """The same box in an array that begins at ``by``."""
        return Frame(
            tuple(a - b for a, b in zip(self.low, by, strict=True)),
            tuple(a - b for a, b in zip(self.high, by, strict=True)),
        )


def looked_at(room: CasePool) -> tuple[str, ...]:
    """The training cases to learn from: all, or ``LOOKED_AT`` of them spread over the sorted ids.

    Args:
        room: the training cases.
    """
    count = len(room.ids)
    if count <= LOOKED_AT:
        return room.ids
    return tuple(room.ids[i * count // LOOKED_AT] for i in range(LOOKED_AT))


def whole(room: CasePool, case_id: str) -> Case:
    """A training case before a slice or a crop is cut: labels without the ignore value.

    Args:
        room: the training cases.
        case_id: one of them.
    """
    if room.space.grid == "resample":
        return room.uncut(case_id)
    case = room.cache(case_id).own
    if case.labels is None:
        return case
    return replace(case, labels=replace_ignored(case.labels, room.schema))


def whole_frame(room: CasePool, case_id: str) -> Frame:
    """The box around the body of what ``whole`` gives; looked for once."""
    return room.learnt(f"frame of {case_id}", lambda r: Frame.of(body_of(whole(r, case_id))))


def frame_of(scene: Scene) -> Frame:
    """The box around the body of a scene's whole case, in the scene's own voxels.

    Of a cut case that is not in the room, and of which only a part is seen, nothing but the shape
    is known: the box is then that of the array.
    """
    corner, cut = scene.placement.corner, scene.case.image.shape[1:]
    n = len(cut)
    if not scene.room.space.cuts or not corner:
        return Frame.of(scene.body)
    if at_hand(scene):
        known = whole_frame(scene.room, scene.case.id)
        return Frame(known.low[-n:], known.high[-n:]).moved(corner)
    shape = scene.shape[-n:]
    seen = zip(corner, cut, shape, strict=True)
    if all(first <= 0 and first + size >= length for first, size, length in seen):
        return Frame.of(scene.body)
    return Frame((0.0,) * n, tuple(map(float, shape))).moved(corner)


def depth_of(scene: Scene) -> float | None:
    """Of a slice, its relative coordinate along the axis it was cut from; None of other scenes."""
    plane = scene.placement.slice_index
    if plane is None:
        return None
    low, high = 0.0, float(scene.shape[0])
    if at_hand(scene):
        known = whole_frame(scene.room, scene.case.id)
        low, high = known.low[0], known.high[0]
    return (plane + 0.5 - low) / (high - low)


def at_hand(scene: Scene) -> bool:
    """Whether the whole case of a scene is one of its room's; not asked of a resampled one."""
    room, case_id = scene.room, scene.case.id
    if case_id not in room.ids or room.space.grid == "resample":
        return False
    return tuple(room.cache(case_id).image.shape[1:]) == tuple(scene.shape)
