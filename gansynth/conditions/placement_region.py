"""Find places for a lesion in a real case, and put it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gansynth.conditions.lesion_donors import LesionDonor
from gansynth.conditions.lesion_surroundings import BARE, LesionSurroundings
from gansynth.conditions.location_prior import frame_of, place_drawer, whole_frame
from gansynth.core.case_pool import CaseContext
from gansynth.core.geometry import Mask, centroid, mask_of, nearest_voxels
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.data.connected_components import LabelComponents

Where = Literal["prior", "anywhere", "same", "own"]
HALF = 0.5  # share of mixed regions that are smaller than the lesion
MOST = 0.1  # share of the array to which the size of larger lesions is limited


ROOM = 0.25  # share of the array where lesions may lie that is enough


@dataclass(frozen=True)
class PlacementRegion:
    """The places in a scene where lesions may lie."""

    case_context: CaseContext  # the background
    classes: tuple[int, ...]  # label values of lesions
    # label values on which a lesion may lie, besides 0; None for all but `classes`
    into: tuple[int, ...] | None
    apart_mm: float  # distance kept from the scene's own lesions
    where: Where = "anywhere"  # how places are chosen; `prior` learns of real lesions' surroundings
    replaces: bool = False  # whether a lesion lies where the largest one was taken out

    @cached_property
    def allowed(self) -> Mask:
        """The body, or its requested parts."""
        labels = self.case_context.labels
        if self.into is None:
            return self.case_context.body
        return self.case_context.body & mask_of(labels, self.into)

    @cached_property
    def taken(self) -> Mask:
        """The scene's own lesions, and what is near them."""
        import torch

        from gansynth.data.blending import hole, rim_voxels

        lesions = mask_of(self.case_context.labels, self.classes)
        rim = rim_voxels(self.apart_mm, self.case_context.case_pool.schema.spacing)
        near: Mask = hole(torch.from_numpy(lesions)[None, None], rim)[0, 0].numpy()
        return near

    @cached_property
    def free(self) -> Mask:
        """Mask of voxels for a lesion's centre."""
        return np.asarray(self.allowed & ~self.taken)

    @cached_property
    def surroundings(self) -> LesionSurroundings | None:
        """Tissue and depth at real lesions, if places are learnt and images show it."""
        if self.where != "prior" or not len(self.case_context.case.image):
            return None
        return LesionSurroundings.learn(self.case_context.case_pool, self.classes)

    @cached_property
    def likely(self) -> Mask:
        """Mask of voxels like those at real lesions; all if nothing is known of these."""
        if self.surroundings is None:
            return np.ones(self.free.shape, bool)
        return self.surroundings.likely(self.case_context, self.classes)

    @cached_property
    def bare(self) -> bool:
        """Whether the background never had a lesion, so that it need not be tissue at all."""
        none_out = self.case_context.emptied is None
        return none_out and not mask_of(self.case_context.labels, self.classes).any()

    @property
    def least_likely(self) -> float:
        """Least share of a lesion on likely ground; 0 if nothing is known of real ones."""
        known = self.surroundings
        if known is None:
            return 0.0
        return BARE if self.bare else known.share

    @property
    def room(self) -> float:
        """Room for lesions, as a share of what is enough: 0 to 1."""
        enough, known = min(1.0, float(self.free.mean()) / ROOM), self.surroundings
        bare = self.case_context.body & ~mask_of(self.case_context.labels, self.classes)
        if known is None or not known.room or not bare.any():
            return enough
        return enough * min(1.0, float(self.likely[bare].mean()) / known.room)

    def share(
        self,
        held: npt.NDArray[np.intp],
        least: float,
        least_in_array: float,
        *,
        tight: bool = False,
    ) -> tuple[float, float] | None:
        """Return the shares of a lesion's voxels on allowed and on likely ground; None: no room.

        Args:
            held: int (N, n), its voxels; some may lie beyond the array.
            least: required share, of the voxels in the array.
            least_in_array: share of all voxels that must lie in the array.
            tight: it may overlap the scene's own lesions, and is clipped there.
        """
        shape = np.array(self.free.shape)
        in_array = held[((held >= 0) & (held < shape)).all(axis=1)]
        if not len(in_array) or len(in_array) < least_in_array * min(
            len(held), MOST * self.free.size
        ):
            return None
        at = tuple(in_array.T)
        inside = float((self.free if tight else self.allowed)[at].mean())
        if inside < least or (not tight and self.taken[at].any()):
            return None
        return inside, float(self.likely[at].mean())


def centres(
    ground: PlacementRegion, donor: LesionDonor, voxels: int, tries: int, rng: np.random.Generator
) -> Iterator[tuple[int, ...]]:
    """Yield places for the middle of a donor's lesion of ``voxels``, in the order to try.

    By ``ground.where``: ``prior``, ``anywhere`` (``tries`` places each) or ``same`` (one place).
    """
    case_context = ground.case_context
    likely = ground.free & ground.likely
    free = likely if likely.any() or ground.bare else ground.free
    if ground.replaces and case_context.emptied is not None:
        largest = LabelComponents.of(case_context.emptied)
        yield tuple(map(round, centroid(largest.numbered == largest.numbers[0])))
        return
    if ground.where == "same":
        donor_frame = whole_frame(case_context.case_pool, donor.case.id).last(free.ndim)
        there = frame_of(case_context).voxels(donor_frame.relative(np.array([donor.centre])))[0]
        yield tuple(int(i) for i in np.rint(there))
        return
    if not free.any():
        return
    draw = place_drawer(case_context, ground.classes, ground.where, free, rng, voxels)
    yield from (draw() for _ in range(tries))


def corner_at(held: npt.NDArray[np.intp], centre: Sequence[int]) -> tuple[int, ...]:
    """Return the start of an array that brings the middle of its voxels (N, n) to a centre."""
    middle = held.mean(axis=0).tolist()
    return tuple(int(c) - round(m) for c, m in zip(centre, middle, strict=True))


def put(
    ground: PlacementRegion,
    labels: LabelArray,
    image: FloatArray,
    usable: Mask,
    corner: Sequence[int],
) -> tuple[LabelArray, FloatArray]:
    """Put a lesion and its image into the background's arrays, starting at ``corner``.

    The lesion is clipped to free ground. The image is the background's own where the donor's is not
    ``usable``, and outside the body.
    """
    case_context = ground.case_context
    back, shape = tuple(-c for c in corner), case_context.labels.shape
    lesion = crop_pad(labels, back, shape, 0)
    lesion[~ground.free | (case_context.labels == OUTSIDE)] = 0
    useful = crop_pad(usable, back, shape, False) & case_context.body
    donor_image = crop_pad(image, back, shape, 0.0)
    return lesion, np.where(useful, donor_image, case_context.case.image)


def put_mask(ground: PlacementRegion, mask: Mask, corner: Sequence[int]) -> Mask:
    """Put a mask into the background's array, clipped to free ground."""
    back = tuple(-c for c in corner)
    return np.asarray(crop_pad(mask, back, ground.free.shape, False) & ground.free)


def signed_distance(mask: Mask, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Distance from a mask's surface in mm, negative in the mask."""
    from scipy.ndimage import distance_transform_edt

    within = distance_transform_edt(mask, sampling=spacing)
    return np.asarray(distance_transform_edt(~mask, sampling=spacing) - within)


def draw_distance(labels: LabelArray, schema: Schema, rng: np.random.Generator) -> float:
    """Draw the distance of the cut from a lesion's surface, mm (Zhang et al. 2021, CarveMix).

    Half of the draws cut within the lesion, down to half its depth. The others cut around it, as
    far out as it is deep. No cut reaches a face of the array.
    """
    distance = signed_distance(labels > 0, schema.spacing)
    deepest = -float(distance.min())
    drawn = rng.uniform(-deepest / 2, 0) if rng.random() < HALF else rng.uniform(0, deepest)
    faces = [np.take(distance, end, axis) for axis in range(labels.ndim) for end in (0, -1)]
    return float(min(drawn, min(float(face.min()) for face in faces) - min(schema.spacing)))


def fill_emptied(
    image: FloatArray, usable: Mask, emptied: Mask, case_context: CaseContext
) -> FloatArray:
    """Fill an image with the nearest background where it still shows removed foreground."""
    gaps, bare = emptied & ~usable, usable & (case_context.labels == 0) & ~emptied
    if not gaps.any() or not bare.any():
        return image
    nearest: Any = nearest_voxels(bare, case_context.case_pool.schema.spacing)
    out = image.copy()
    out[:, gaps] = case_context.case.image[:, *(index[gaps] for index in nearest)]
    return out
