"""Phantoms of the liver: simulated abdominal CT in HU, with focal lesions darker than the liver."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.core.schema import Mask
from gansynth.testing.phantoms.brains import Array, Phantom, PhantomOptions, smooth_field, streams

LIVER_LABELS = {"background": 0, "tumour": 1}
FIELD_MM = (192.0, 272.0, 352.0)
"""Extent of a volume in mm, along D, H, W."""
SLICE_MM = 4.0  # distance of slices
AIR, FAT, MUSCLE, BONE, MARROW, SPLEEN = -1000.0, -100.0, 50.0, 450.0, 180.0, 105.0
"""Values in HU; those of liver and lesions are random."""
GAP_MM = 4.0
"""Minimum distance between the surfaces of two lesions."""
ATTEMPTS = 200
"""Attempts to place a lesion; a full liver has fewer lesions."""
TUMOURS = (1, 4)  # number of lesions; this and the next are drawn uniformly
RADIUS_MM = (9.0, 24.0)  # mean radius of a lesion
LIVER_HU = (75.0, 95.0)  # mean of the liver
DARKER_HU = (25.0, 50.0)  # a lesion's mean below the liver's
TEXTURE_HU, NOISE_HU = 5.0, 10.0  # standard deviations of the liver's grain and of the noise

Spacing = tuple[float, float, float]


def make_liver(index: int, seed: int = 0, options: PhantomOptions | None = None) -> Phantom:
    """Simulate the abdominal CT of one subject with lesions of the liver. Not a patient.

    The result depends on the arguments alone; of the options only the size of pixels counts. Image:
    HU, -1000 in the air; labels: `LIVER_LABELS` in all slices, exact.
    """
    pixel_mm = (options or PhantomOptions()).spacing_mm
    spacing_mm = (SLICE_MM, pixel_mm, pixel_mm)
    person, disease, scan = streams((seed, index, 3), 3)
    spacing = np.array(spacing_mm)
    shape = tuple(map(int, np.ceil(np.array(FIELD_MM) / spacing)))
    middle = (np.array(shape) - 1) / 2
    grid = np.indices(shape, np.float32) - middle.reshape(3, 1, 1, 1).astype(np.float32)
    at = grid * spacing.reshape(3, 1, 1, 1).astype(np.float32)  # mm from the centre
    body, hu = _body(person, at, spacing_mm)
    liver = _liver(person, at, spacing_mm) & body
    base = person.uniform(*LIVER_HU)
    hu[liver] = base
    labels = _lesions(disease, at, liver, spacing_mm)
    for number in range(1, int(labels.max()) + 1):
        hu[labels == number] = base - disease.uniform(*DARKER_HU)
    image = _measured(scan, hu, liver, spacing_mm)[None]
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = -(middle * spacing)[::-1]
    return Phantom(image, (labels > 0).astype(np.int16), spacing_mm, affine)


def _ball(at: Array, centre: tuple[float, ...], radii: tuple[float, ...]) -> Array:
    """Return the normalised distance from an ellipsoid's centre `(D, H, W)`: 1 on its surface."""
    distance = np.zeros_like(at[0])
    for axis, c, r in zip(at, centre, radii, strict=True):
        distance += ((axis - np.float32(c)) / np.float32(r)) ** 2
    return np.asarray(np.sqrt(distance), np.float32)


def _field(
    rng: np.random.Generator, shape: tuple[int, ...], mm: float, spacing_mm: Spacing
) -> Array:
    """Return smooth noise `(D, H, W)` of a width in mm, standard deviation 1."""
    return smooth_field(rng, shape, tuple(max(0.7, mm / edge) for edge in spacing_mm))


def _body(rng: np.random.Generator, at: Array, spacing_mm: Spacing) -> tuple[Mask, Array]:
    """Return the inside of the fat `(D, H, W)`, and HU `(D, H, W)` without the liver."""
    deep, wide = rng.uniform(98, 114), rng.uniform(136, 154)  # mm, half axes with the fat
    rim = rng.uniform(12, 22)  # mm of fat
    flat = np.stack([np.zeros_like(at[1]), at[1], at[2]])
    outer = _ball(flat, (0, 0, 0), (1, deep, wide))
    outer += 0.02 * _field(rng, at.shape[1:], 60.0, spacing_mm)
    inside = outer * (deep / (deep - rim)) < 1
    hu = np.full(at.shape[1:], AIR, np.float32)
    hu[outer < 1] = FAT
    hu[inside] = MUSCLE
    spleen = _ball(at, (20, -35, -0.62 * wide), (45, 38, 26)) < 1
    hu[spleen & inside] = SPLEEN
    spine = _ball(flat, (0, 0.28 * rim - 0.62 * deep, 0), (1, 19, 22))
    hu[spine < 1] = BONE
    hu[spine < 0.82] = MARROW
    return inside & (spine >= 1) & ~spleen, hu


def _liver(rng: np.random.Generator, at: Array, spacing_mm: Spacing) -> Mask:
    """Return the liver `(D, H, W)`: a large lobe on the right, a small one across the middle."""
    size = rng.uniform(0.92, 1.08)
    large = _ball(at, (8, 8, 62), (80 * size, 68 * size, 66 * size))
    small = _ball(at, (30, 42, 0), (32 * size, 28 * size, 58 * size))
    bumps = 0.07 * _field(rng, at.shape[1:], 22.0, spacing_mm)
    surface = np.minimum(large, small) + bumps
    parts, count = ndimage.label(surface < 1)
    sizes = np.bincount(parts.ravel())
    return np.asarray(parts == 1 + int(np.argmax(sizes[1:])) if count else parts > 0)


def _lesions(
    rng: np.random.Generator, at: Array, liver: Mask, spacing_mm: Spacing
) -> NDArray[np.int16]:
    """Return lesions by number `(D, H, W)`, each roughly an ellipsoid within the liver."""
    depth = ndimage.distance_transform_edt(liver, sampling=spacing_mm)
    numbers = np.zeros(liver.shape, np.int16)
    taken: list[tuple[Array, float]] = []
    places = np.flatnonzero(liver)
    for _ in range(int(rng.integers(TUMOURS[0], TUMOURS[1] + 1))):
        radius = float(rng.uniform(*RADIUS_MM))
        allowed = places[depth.ravel()[places] > 0.8 * radius]
        if not allowed.size:  # a lesion too large for the liver is placed at the deepest voxel
            allowed = np.array([int(np.argmax(depth))])
        for _ in range(ATTEMPTS):
            d, h, w = np.unravel_index(int(rng.choice(allowed)), liver.shape)
            centre = at[:, d, h, w]
            if all(np.linalg.norm(centre - c) > radius + r + GAP_MM for c, r in taken):
                taken.append((centre, radius))
                shape = _lesion(rng, at, centre, radius, spacing_mm)
                numbers[shape & liver & (numbers == 0)] = len(taken)
                break
    return numbers


def _lesion(
    rng: np.random.Generator, at: Array, centre: Array, radius: float, spacing_mm: Spacing
) -> Mask:
    """Return one lesion `(D, H, W)`: an ellipsoid turned at random, with bumps."""
    turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    stretch = rng.uniform(0.8, 1.25, 3)
    offset = at - centre.reshape(3, 1, 1, 1)
    along = np.einsum("ij,jdhw->idhw", turned.astype(np.float32), offset)
    distance = _ball(along, (0, 0, 0), tuple(map(float, radius * stretch)))
    bumps = 0.10 * _field(rng, at.shape[1:], 0.8 * radius, spacing_mm)
    return np.asarray(distance + np.clip(bumps, -0.2, 0.2) < 1)


def _measured(rng: np.random.Generator, hu: Array, liver: Mask, spacing_mm: Spacing) -> Array:
    """Return the image in HU `(D, H, W)`: texture, partial volume at borders, noise."""
    fine = 0.6 * _field(rng, hu.shape, 2.5, spacing_mm)
    fine += 0.8 * _field(rng, hu.shape, 8.0, spacing_mm)
    grain = TEXTURE_HU * fine * np.where(liver, 1.0, 0.6)
    clean = hu + np.where(hu > AIR, grain, 0)
    blurred = ndimage.gaussian_filter(clean, (0.0, 0.5, 0.5))
    noise = NOISE_HU * rng.standard_normal(hu.shape, dtype=np.float32)
    measured = np.where(ndimage.uniform_filter(hu, 3) > AIR, blurred + noise, AIR)
    return np.asarray(np.rint(np.maximum(measured, AIR)), np.float32)
