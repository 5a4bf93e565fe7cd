"""Where lesions lie in training cases, as a density over another body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.conditions.frames import Frame, looked_at, whole, whole_frame
from gansynth.conditions.geometry import Mask, Matrix
from gansynth.conditions.parts import parts
from gansynth.conditions.room import Room

KERNEL = 0.04
"""Standard deviation of the kernel around each centre, as a share of the body's length."""
FLOOR = 0.05
"""Share of the density that is even over the body: nowhere in it is impossible."""
DRAWS = 64
"""Draws around learnt centres for one that lies in the body."""


@dataclass(frozen=True)
class PlacementPrior:
    """Centres of lesions, relative to the box around the body.

    Attributes:
        centres: float64 (N, n) with n the axes of whole cases, (N, 3) for slices too; 0 to 1
            within the body's box. Without any (N = 0), every place is alike.
    """

    centres: Matrix

    @classmethod
    def learn(cls, room: Room, classes: Sequence[int] | None = None) -> PlacementPrior:
        """Learn from (at most ``frames.LOOKED_AT``) training cases, once for each room.

        A lesion is a connected part of the chosen classes together; parts of less than a tenth of
        the case's largest are left out, so that crumbs do not outvote what they fell off.

        Args:
            room: the training cases; nothing else is opened.
            classes: label values of lesions; None takes the whole foreground.
        """
        chosen = tuple(sorted(classes or room.schema.foreground))
        return room.learnt(f"placement prior of {chosen}", lambda r: cls(_centres(r, chosen)))

    def density(
        self, body: Mask, *, frame: Frame | None = None, depth: float | None = None
    ) -> npt.NDArray[np.float64]:
        """How likely a lesion's centre is at each voxel of a body.

        Args:
            body: bool (D, H, W) or (H, W), where centres may lie.
            frame: box around the whole body in the array's voxels (``frames.frame_of(scene)``);
                that around ``body`` if None.
            depth: of a slice, ``frames.depth_of(scene)``: lesions at about that depth count. None
                counts those of all slices alike.

        Returns:
            float64 of the body's shape, 0 beyond it, with a sum of 1 (0 if the body is empty).
        """
        points, weights = self._at(body.ndim, depth)
        counts = np.zeros(body.shape)
        frame = frame or Frame.of(body)
        voxels = np.rint(frame.voxels(points)).astype(int)
        inside = ((voxels >= 0) & (voxels < body.shape)).all(axis=1)
        np.add.at(counts, tuple(voxels[inside].T), weights[inside])
        learnt = np.where(body, _smooth(counts, KERNEL * frame.size), 0.0)
        even = body / max(int(body.sum()), 1)
        total = learnt.sum()
        return np.asarray(even if not total else FLOOR * even + (1 - FLOOR) / total * learnt)

    def draw(
        self,
        body: Mask,
        rng: np.random.Generator,
        *,
        frame: Frame | None = None,
        depth: float | None = None,
    ) -> tuple[int, ...]:
        """Draw a voxel of a body by its ``density``.

        Args:
            body: bool (D, H, W) or (H, W), not empty.
            rng: the only source of randomness.
            frame: see ``density``.
            depth: see ``density``.
        """
        frame = frame or Frame.of(body)
        points, weights = self._at(body.ndim, depth)
        if len(points) and rng.random() >= FLOOR:
            picked = points[rng.choice(len(points), DRAWS, p=weights / weights.sum())]
            spread = picked + KERNEL * rng.standard_normal(picked.shape)
            voxels = np.rint(frame.voxels(spread)).astype(int)
            inside = ((voxels >= 0) & (voxels < body.shape)).all(axis=1)
            for voxel in voxels[inside].tolist():
                if body[tuple(voxel)]:
                    return tuple(voxel)
        return anywhere(body, rng)

    def _at(self, ndim: int, depth: float | None) -> tuple[Matrix, Matrix]:
        """Centres (N, ndim) and their weights (N,)."""
        if self.centres.shape[1] == ndim:
            return self.centres, np.ones(len(self.centres))
        weights = np.ones(len(self.centres))
        if depth is not None and len(weights):
            away = np.square((self.centres[:, 0] - depth) / KERNEL) / 2
            weights = np.exp(away.min() - away)
        return self.centres[:, 1:], weights


def anywhere(body: Mask, rng: np.random.Generator) -> tuple[int, ...]:
    """A voxel of a mask that is not empty, each alike."""
    found = np.flatnonzero(body)
    return tuple(int(i) for i in np.unravel_index(found[rng.integers(found.size)], body.shape))


def _smooth(counts: Matrix, sigma: Matrix) -> Matrix:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(counts, sigma, mode="constant")) if counts.any() else counts


def _centres(room: Room, classes: Sequence[int]) -> Matrix:
    rows = [np.empty((0, room.source.schema.ndim))]
    for case_id in looked_at(room):
        labels = whole(room, case_id).labels
        if labels is None:
            continue
        found = parts(labels, room.source.schema, classes)
        centres = [one.centroid for one in found if one.voxels * 10 >= found[0].voxels]
        if centres:
            rows.append(whole_frame(room, case_id).relative(np.array(centres)))
    return np.concatenate(rows)
