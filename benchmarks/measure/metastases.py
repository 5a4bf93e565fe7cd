"""Simulated brains with small enhancing lesions, and equally bright vessels, for detection."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.runtime.files import whole_folder
from gansynth.testing.phantoms.brains import (
    Array,
    PhantomOptions,
    brain_of,
    grain,
    load_atlas,
    personal_tissue,
    random_warp,
    resample,
    scan,
    smooth_field,
    streams,
)
from gansynth.testing.phantoms.data_sets import DESCRIPTION, write_slices

CHANNEL = "T1c"
APART_MM = 3.0
"""Least distance between the surfaces of two lesions."""
ATTEMPTS = 200
"""Places tried for a lesion before the brain counts as full."""
TURN = 0.25
"""Change of a vessel's direction per step of half a voxel."""


@dataclass(frozen=True)
class MetastasisOptions:
    """Ranges from which each phantom draws. Pairs are `(lowest, highest)`, drawn uniformly."""

    body: PhantomOptions = field(
        default_factory=lambda: PhantomOptions(spacing_mm=1.5, channels=(CHANNEL,))
    )  # anatomy and scanner; nothing of its glioma is used
    lesions: tuple[int, int] = (2, 7)  # lesions of one subject, both ends possible
    radius_mm: tuple[float, float] = (2.5, 8.0)  # mm, small ones more often: drawn on a log scale
    enhancement: tuple[float, float] = (0.85, 1.2)  # signal / that of a glioma's rim
    hollow_mm: float = 5.0  # mm, lesions of at least this radius have a dark core
    oedema_mm: tuple[float, float] = (1.0, 6.0)  # mm, reach of the dark oedema in white matter
    vessels: tuple[int, int] = (8, 16)  # bright vessels of one subject, both ends possible
    vessel_mm: tuple[float, float] = (0.9, 1.8)  # mm, their radius


@dataclass(frozen=True, eq=False)
class MetastasisPhantom:
    """One simulated subject. Axes are D (upward), H (frontward), W (rightward)."""

    image: Array  # (D, H, W), scanner units of T1 after contrast agent, 0 outside the brain
    lesions: NDArray[np.int16]  # (D, H, W), number of the lesion from 1, 0 where there is none
    spacing: tuple[float, float, float]  # mm, along D, H, W
    affine: NDArray[np.float64]  # (4, 4), voxel (w, h, d) -> mm (x right, y front, z up)


def write_metastases(folder: Path, n: int, seed: int, options: MetastasisOptions) -> Path:
    """Write the slices of `n` phantoms as a YOLO data set and return its `data.yaml`."""
    made = (make_metastases(index, seed, options) for index in range(n))
    pairs = ((phantom.image, phantom.lesions) for phantom in made)
    description = DESCRIPTION.replace("gliomas", "metastases")
    with whole_folder(folder) as building:
        write_slices(building, n, pairs, "metastasis", options.body.spacing_mm, description)
    return folder / "data.yaml"


def make_metastases(
    index: int, seed: int = 0, options: MetastasisOptions | None = None
) -> MetastasisPhantom:
    """Simulate T1 after contrast agent of one subject with brain metastases. Not a patient.

    The result depends on `(seed, index, options)` alone. `options=None` takes the defaults.
    The matching atlas is loaded and cached.
    """
    options = options or MetastasisOptions()
    body = options.body
    atlas = load_atlas(body.spacing_mm)
    # 1: different subjects than the gliomas'.
    person, disease, blood, scanner = streams((seed, index, 1), 4)
    maps = resample(atlas.tissue, random_warp(person, atlas))
    brain = brain_of(maps)
    tissue = personal_tissue(person, maps, brain, body.spacing_mm)
    lesions, shares = _grow(disease, tissue, options)
    bright = _vessels(blood, tissue, options) * (lesions == 0)
    healthy = tissue * np.clip(1 - shares.sum(axis=0) - np.minimum(bright, 1), 0, 1)
    # Enhancement is modelled as a fraction of a glioma's rim.
    enhancing = shares[2] * _enhancement(disease, lesions, options) + bright
    fractions = np.concatenate([healthy, shares[:2], enhancing[None]])
    image = scan(
        scanner, CHANNEL, fractions, grain(person, brain.shape, body.spacing_mm), body.spacing_mm
    )
    return MetastasisPhantom(image * brain, lesions, (body.spacing_mm,) * 3, atlas.affine.copy())


# -- lesions -------------------------------------------------------------------------------------


def _grow(
    rng: np.random.Generator, tissue: Array, options: MetastasisOptions
) -> tuple[NDArray[np.int16], Array]:
    """Return lesions by number `(D, H, W)`, and shares of oedema, core, rim `(3, D, H, W)`."""
    # Metastases lodge where vessels narrow: between grey and white matter.
    mm, shape = options.body.spacing_mm, tissue.shape[1:]
    depth = np.asarray(ndimage.distance_transform_edt(tissue.sum(axis=0) > 0.5) * mm, np.float32)
    border = np.flatnonzero((tissue[1] > 0.15) & (tissue[2] > 0.15))
    number, reach = np.zeros(shape, np.int16), np.zeros((3, *shape), np.float32)
    taken: list[tuple[NDArray[np.float64], float]] = []
    for _ in range(int(rng.integers(options.lesions[0], options.lesions[1] + 1))):
        radius = float(np.exp(rng.uniform(*np.log(options.radius_mm))))
        centre = _place(rng, border, depth, taken, radius, mm)
        if centre is None:
            break
        taken.append((centre, radius))
        _add_lesion(rng, (number, reach, tissue), len(taken), centre, radius, options)
    soft = [ndimage.gaussian_filter(part, 0.5) for part in reach]
    return number, np.stack(soft)


def _place(
    rng: np.random.Generator,
    border: NDArray[np.int64],
    depth: Array,
    taken: list[tuple[NDArray[np.float64], float]],
    radius: float,
    mm: float,
) -> NDArray[np.float64] | None:
    """Return a centre `(d, h, w)` in voxels clear of the brain's surface and of other lesions."""
    for _ in range(ATTEMPTS if border.size else 0):
        place = np.unravel_index(int(rng.choice(border)), depth.shape)
        centre = np.array(place, np.float64)
        away = (mm * np.linalg.norm(centre - c) > radius + r + APART_MM for c, r in taken)
        if depth[place] > 0.8 * radius and all(away):
            return centre
    return None


def _add_lesion(
    rng: np.random.Generator,
    into: tuple[NDArray[np.int16], Array, Array],
    number: int,
    centre: NDArray[np.float64],
    radius: float,
    options: MetastasisOptions,
) -> None:
    """Write one lesion into numbers `(D, H, W)` and shares of oedema, core, rim `(3, D, H, W)`."""
    numbers, shares, tissue = into
    mm = options.body.spacing_mm
    oedema = float(rng.uniform(*options.oedema_mm))
    reach = int(np.ceil((1.5 * radius + 2 * oedema) / mm)) + 1
    low = np.maximum(centre - reach, 0).astype(int)
    high = np.minimum(centre + reach + 1, numbers.shape).astype(int)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    sizes = tuple(int(b - a) for a, b in zip(low, high, strict=True))
    offset = np.indices(sizes, np.float32) - (centre - low).reshape(3, 1, 1, 1).astype(np.float32)
    bumps = 0.15 * smooth_field(rng, sizes, max(1.0, 0.8 * radius / mm))
    stretch = rng.uniform(0.85, 1.2, 3).reshape(3, 1, 1, 1)
    distance = mm * np.sqrt(((offset * stretch) ** 2).sum(axis=0))
    distance = distance - radius * (1 + np.clip(bumps, -0.3, 0.3))
    healthy, brain = (
        tissue[(slice(None), *window)],
        tissue[(slice(None), *window)].sum(axis=0) > 0.5,
    )
    solid = (distance < 0) & brain
    core = solid & (distance < -0.4 * radius) & (radius >= options.hollow_mm)
    wet = (distance < oedema * (0.2 + healthy[2])) & brain & ~solid & (healthy[0] < 0.5)
    numbers[window][solid] = number
    for share, where in zip(shares, (wet, core, solid & ~core), strict=True):
        share[window][solid | wet] = 0  # a lesion over a neighbour's oedema, not into it
        share[window][where] = 1


def _enhancement(
    rng: np.random.Generator, lesions: NDArray[np.int16], options: MetastasisOptions
) -> Array:
    """Return how much each voxel enhances `(D, H, W)`: the nearest lesion's own number."""
    count = int(lesions.max())
    strength = np.concatenate([[1.0], rng.uniform(*options.enhancement, count)])
    nearest = ndimage.maximum_filter(lesions, 3)  # the blur reaches one voxel beyond a lesion
    return np.asarray(strength[nearest], np.float32)


# -- vessels -------------------------------------------------------------------------------------


def _vessels(rng: np.random.Generator, tissue: Array, options: MetastasisOptions) -> Array:
    """Return signal of vessels `(D, H, W)`, in shares of a glioma's rim: tubes from the sulci."""
    # Cross-sections are small and bright like lesions: hard negatives for a detector.
    mm, brain = options.body.spacing_mm, tissue.sum(axis=0) > 0.5
    sulci = np.flatnonzero((tissue[0] > 0.35) & ndimage.binary_erosion(brain, iterations=2))
    signal = np.zeros(brain.shape, np.float32)
    for _ in range(int(rng.integers(options.vessels[0], options.vessels[1] + 1))):
        radius = float(rng.uniform(*options.vessel_mm)) / mm
        strength = float(rng.uniform(*options.enhancement))
        if not sulci.size:
            break
        start = np.unravel_index(int(rng.choice(sulci)), brain.shape)
        way = _way(rng, np.array(start, np.float64), brain, steps=int(rng.uniform(30, 120) / mm))
        _add_tube(signal, way, radius, strength)
    return signal


def _way(
    rng: np.random.Generator, point: NDArray[np.float64], brain: NDArray[np.bool_], steps: int
) -> NDArray[np.float64]:
    """Return a curved line `(N, 3)` in steps of half a voxel that ends at the brain's border."""
    direction = rng.standard_normal(3) * (1.5, 1.0, 1.0)  # more across axial slices than along
    points = [point]
    for _ in range(steps):
        direction = direction / np.linalg.norm(direction) + TURN * rng.standard_normal(3)
        point = point + 0.5 * direction / np.linalg.norm(direction)
        voxel = tuple(np.rint(point).astype(int))
        if any(not 0 <= v < n for v, n in zip(voxel, brain.shape, strict=True)) or not brain[voxel]:
            break
        points.append(point)
    return np.array(points)


def _add_tube(signal: Array, way: NDArray[np.float64], radius: float, strength: float) -> None:
    """Write a tube into the signal `(D, H, W)`; `radius` in voxels, soft over half a voxel."""
    margin = int(np.ceil(radius)) + 2
    low = np.maximum(np.floor(way.min(axis=0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(way.max(axis=0)).astype(int) + margin + 1, signal.shape)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    line = np.ones(signal[window].shape, bool)
    line[tuple((np.rint(way).astype(int) - low).T)] = False
    inside = np.clip(radius + 0.5 - ndimage.distance_transform_edt(line), 0, 1)
    np.maximum(signal[window], (strength * inside).astype(np.float32), out=signal[window])
