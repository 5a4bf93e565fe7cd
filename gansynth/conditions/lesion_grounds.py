"""Where in a real case a lesion may be put, and putting it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from gansynth.conditions.lesion_donors import Donor
from gansynth.conditions.location_prior import frame_of, place_drawer, whole_frame
from gansynth.core.geometry import Mask, mask_of
from gansynth.core.resample import crop_pad
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema

Where = Literal["prior", "anywhere", "same", "own"]
HALF = 0.5
"""Share of regions that are smaller than the lesion."""
MOST = 0.1
"""Of a lesion larger than that share of the array, that share counts as the whole of it."""


@dataclass(frozen=True)
class Ground:
    """Where in a scene lesions may lie.

    Attributes:
        scene: the background.
        classes: label values of lesions.
        into: label values on which a lesion may lie, besides 0; None for all but ``classes``.
        apart_mm: distance kept from the lesions that are there.
    """

    scene: Scene
    classes: tuple[int, ...]
    into: tuple[int, ...] | None
    apart_mm: float

    @cached_property
    def allowed(self) -> Mask:
        """The body, or the parts of it that are asked for."""
        labels = self.scene.labels
        if self.into is None:
            return self.scene.body
        return self.scene.body & mask_of(labels, self.into)

    @cached_property
    def taken(self) -> Mask:
        """The lesions that are there, and what is near them."""
        import torch

        from gansynth.data.blending import hole, rim_voxels

        own = mask_of(self.scene.labels, self.classes)
        rim = rim_voxels(self.apart_mm, self.scene.room.schema.spacing)
        near: Mask = hole(torch.from_numpy(own)[None, None], rim)[0, 0].numpy()
        return near

    @cached_property
    def free(self) -> Mask:
        """Where a lesion's centre may be."""
        return np.asarray(self.allowed & ~self.taken)

    def share(
        self, held: npt.NDArray[np.intp], least: float, shown: float, *, tight: bool = False
    ) -> float | None:
        """Which share of a lesion's voxels lies where it may; None if this is no place for it.

        Args:
            held: int (N, n), its voxels; some may lie beyond the array.
            least: share that is needed, of the voxels in the array.
            shown: share of all voxels that must lie in the array.
            tight: it may reach the lesions that are there, and is clipped to what they leave.
        """
        shape = np.array(self.free.shape)
        seen = held[((held >= 0) & (held < shape)).all(axis=1)]
        if not len(seen) or len(seen) < shown * min(len(held), MOST * self.free.size):
            return None
        at = tuple(seen.T)
        inside = float((self.free if tight else self.allowed)[at].mean())
        return None if inside < least or (not tight and self.taken[at].any()) else inside


def centres(
    ground: Ground, donor: Donor, where: Where, tries: int, rng: np.random.Generator
) -> Iterator[tuple[int, ...]]:
    """Voxels at which the middle of a donor's lesion may come to lie, in the order to try.

    ``where`` is ``prior``, ``anywhere`` or ``same``: of that there is one, of the others ``tries``.
    """
    scene, free = ground.scene, ground.free
    if where == "same":
        own = whole_frame(scene.room, donor.case.id).last(free.ndim)
        there = frame_of(scene).voxels(own.relative(np.array([donor.centre])))[0]
        yield tuple(int(i) for i in np.rint(there))
        return
    if not free.any():
        return
    draw = place_drawer(scene, ground.classes, where, free, rng)
    yield from (draw() for _ in range(tries))


def corner_at(held: npt.NDArray[np.intp], centre: Sequence[int]) -> tuple[int, ...]:
    """Where an array must begin for the middle of some voxels (N, n) of it to lie at a voxel."""
    middle = held.mean(axis=0).tolist()
    return tuple(int(c) - round(m) for c, m in zip(centre, middle, strict=True))


def put(
    ground: Ground, labels: LabelArray, image: FloatArray, known: Mask, corner: Sequence[int]
) -> tuple[LabelArray, FloatArray]:
    """A lesion and its image in the background's arrays; ``corner`` is where its own begin there.

    The lesion is clipped to where it may lie. The image is the background's own where the other is
    not ``known``, and outside the body.
    """
    scene = ground.scene
    back, shape = tuple(-c for c in corner), scene.labels.shape
    lesion = crop_pad(labels, back, shape, 0)
    lesion[~ground.free | (scene.labels == OUTSIDE)] = 0
    useful = crop_pad(known, back, shape, False) & scene.body
    shown = crop_pad(image, back, shape, 0.0)
    return lesion, np.where(useful, shown, scene.case.image)


def put_mask(ground: Ground, mask: Mask, corner: Sequence[int]) -> Mask:
    """A mask in the background's array: where lesions may lie, and none is."""
    back = tuple(-c for c in corner)
    return np.asarray(crop_pad(mask, back, ground.free.shape, False) & ground.free)


def signed_distance(mask: Mask, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Distance from a mask's surface in mm, negative in the mask."""
    from scipy.ndimage import distance_transform_edt

    within = distance_transform_edt(mask, sampling=spacing)
    return np.asarray(distance_transform_edt(~mask, sampling=spacing) - within)


def draw_distance(labels: LabelArray, schema: Schema, rng: np.random.Generator) -> float:
    """How far from a lesion's surface a region mixing cuts, mm (Zhang et al. 2021, CarveMix).

    Half of the draws cut within the lesion, down to half its depth; half cut around it, as far out
    as it is deep. None reaches a face of the array.
    """
    distance = signed_distance(labels > 0, schema.spacing)
    deepest = -float(distance.min())
    drawn = rng.uniform(-deepest / 2, 0) if rng.random() < HALF else rng.uniform(0, deepest)
    faces = [np.take(distance, end, axis) for axis in range(labels.ndim) for end in (0, -1)]
    return float(min(drawn, min(float(face.min()) for face in faces) - min(schema.spacing)))
