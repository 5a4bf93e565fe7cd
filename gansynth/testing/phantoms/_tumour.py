"""A simulated glioma: its place, mass effect and compartments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.testing.phantoms._anatomy import resample, smooth_field, voxel_grid
from gansynth.testing.phantoms._atlas import Array, Atlas
from gansynth.testing.phantoms._options import LABELS, PhantomOptions


@dataclass(frozen=True)
class TumourSite:
    """Centre and size of a tumour."""

    centre: tuple[int, ...]  # voxels, (d, h, w)
    radius_mm: float  # mm, core with its rim


def choose_site(
    rng: np.random.Generator, atlas: Atlas, warp: Array, maps: Array, options: PhantomOptions
) -> TumourSite:
    """Sample a place in the white matter of the upper hemispheres, deep enough for the tumour.

    `warp` `(3, D, H, W)` and `maps` `(3, D, H, W)` describe the healthy anatomy.
    """
    radius = float(rng.uniform(*options.radius_mm))
    depth = ndimage.distance_transform_edt(maps.sum(axis=0) > 0.5) * options.spacing_mm
    x = atlas.affine[0, 3] + options.spacing_mm * warp[2]  # mm, right of the midline
    z = atlas.affine[2, 3] + options.spacing_mm * warp[0]  # mm, above the commissures
    allowed = (np.abs(x) > 14) & (z > 2) & (z < 55) & (maps[2] > 0.5) & (depth > 0.85 * radius)
    places = np.flatnonzero(allowed)
    # Tumours too large to fit are placed at the deepest voxel.
    place = int(rng.choice(places)) if places.size else int(np.argmax(depth))
    return TumourSite(tuple(int(i) for i in np.unravel_index(place, depth.shape)), radius)


def push_aside(
    rng: np.random.Generator, seat: TumourSite, warp: Array, options: PhantomOptions
) -> Array:
    """Return `warp (3, D, H, W)`, in voxels, with the tissue around the seat moved outward.

    Tissue now at distance r was at r (1 - a exp(-(r/s)^2)) before, which increases with r for every
    a below 1: nothing folds, and the displacement fades within about two radii.
    """
    strength = rng.uniform(*options.mass_effect)
    centre = np.array(seat.centre, dtype=np.float32)[:, None, None, None]
    offset = voxel_grid(warp.shape[1:]) - centre
    reach = 1.3 * seat.radius_mm / options.spacing_mm
    pull = strength * np.exp(-(offset**2).sum(axis=0) / reach**2)
    return resample(warp, centre + offset * (1 - pull).astype(np.float32))


def _distance(
    rng: np.random.Generator, seat: TumourSite, shape: tuple[int, ...], mm: float
) -> Array:
    """Return the distance from the tumour's bumpy surface `(D, H, W)` in mm, negative inside."""
    offset = voxel_grid(shape) - np.array(seat.centre, dtype=np.float32)[:, None, None, None]
    axis = rng.standard_normal(3)
    axis /= np.sqrt((axis**2).sum())
    along = np.einsum("i,idhw->dhw", axis, offset)
    stretch = rng.uniform(-0.35, 0.6)
    radius = mm * np.sqrt((offset**2).sum(axis=0) + stretch * along**2)
    bumps = 0.20 * smooth_field(rng, shape, 0.6 * seat.radius_mm / mm)
    bumps += 0.08 * smooth_field(rng, shape, max(1.0, 4.0 / mm))
    surface = seat.radius_mm * (1 + np.clip(bumps, -0.35, 0.45))
    return np.asarray(radius - surface, dtype=np.float32)


def grow(
    rng: np.random.Generator, seat: TumourSite, tissue: Array, options: PhantomOptions
) -> NDArray[np.int16]:
    """Return labels `(D, H, W)`: one connected tumour of core, enhancing rim and oedema.

    The oedema spreads along white matter, hence its fingers, and spares CSF. `tissue (3, D, H, W)`
    sums to 1 in the brain and to 0 outside.
    """
    mm, shape = options.spacing_mm, tissue.shape[1:]
    csf, white = tissue[0], ndimage.gaussian_filter(tissue[2], 1.5 / mm)
    brain = tissue.sum(axis=0) > 0.5
    distance = _distance(rng, seat, shape, mm)
    thickness = rng.uniform(*options.rim_mm) * (1 + 0.35 * smooth_field(rng, shape, 8.0 / mm))
    thickness = np.minimum(thickness, 0.35 * seat.radius_mm)  # a small tumour keeps a core, too
    reach = rng.uniform(*options.oedema_mm) * (0.12 + white)
    reach *= np.exp(0.25 * smooth_field(rng, shape, 12.0 / mm))
    labels = np.zeros(shape, dtype=np.int16)
    labels[(distance < reach) & (csf < 0.5)] = LABELS["oedema"]
    labels[~brain] = LABELS["background"]
    solid = (distance < 0) & brain
    labels[solid] = LABELS["enhancing"]
    # Bumps make the distance uneven: the erosion keeps the rim closed at its thinnest parts.
    labels[(distance < -thickness) & ndimage.binary_erosion(solid)] = LABELS["core"]
    parts, count = ndimage.label(labels > 0)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        labels[parts != 1 + int(np.argmax(sizes[1:]))] = LABELS["background"]
    return labels
