"""Simulated brain MR: a healthy anatomy, a glioma in it, and a scanner's images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.runtime.errors import EnvironmentFault, UsageFault, extra_hint

Array = NDArray[np.float32]
CHANNELS = ("T1", "T1c", "T2", "FLAIR")
LABELS = {"background": 0, "oedema": 1, "core": 2, "enhancing": 3}
TISSUES = {"background": 0, "CSF": 1, "GM": 2, "WM": 3}

MARGIN_MM = 16.0  # empty space kept around the average brain on each side
DEFORMATION_MM = 3.0  # RMS of each component of the displacement, less where it would fold
STEEPEST = 0.7
"""Largest norm of the displacement's gradient. Below 1 the map x -> x + u(x) cannot fold."""
SCALE, SHEAR, SHIFT_MM = 0.06, 0.03, 3.0
"""Largest change of size, off-diagonal entry (small rotations included) and translation."""

# Ranges are drawn from uniformly.
RADIUS_MM = (13.0, 23.0)  # of a core with its rim
RIM_MM = (3.0, 5.5)  # thickness of the enhancing rim
OEDEMA_MM = (10.0, 24.0)  # reach of the oedema in pure white matter
MASS_EFFECT = (0.2, 0.5)  # outward push at the centre, as a fraction; 1 would fold the tissue
GAIN = (300.0, 900.0)  # scanner units per unit of relative signal
NOISE, BIAS = 0.025, 0.12
"""Deviation of the Rician noise, over the gain, and of the logarithm of the bias field."""

# Signal relative to the channel's gain, of CSF, GM, WM, oedema, core, rim. The values differ enough
# that the jitter of one subject cannot change their order.
CONTRASTS = {
    "T1": (0.22, 0.60, 0.90, 0.55, 0.34, 0.52),
    "T1c": (0.24, 0.62, 0.88, 0.54, 0.33, 1.40),
    "T2": (1.00, 0.58, 0.42, 0.82, 0.80, 0.62),
    "FLAIR": (0.15, 0.62, 0.46, 1.00, 0.58, 0.80),
}
JITTER = 0.06  # largest relative change of one tissue's signal in one subject
GRAIN = (0.03, 0.04, 0.03, 0.07, 0.16, 0.10)  # standard deviation / signal, same order of tissues


@dataclass(frozen=True)
class PhantomOptions:
    """Voxels and sequences; UsageFault: an unknown sequence, or one that is named twice."""

    spacing_mm: float = 2.5  # edge of the isotropic voxels
    channels: tuple[str, ...] = CHANNELS  # any of CHANNELS, in the order wanted

    def __post_init__(self) -> None:
        known = set(CHANNELS).intersection(self.channels)
        if not self.channels or len(known) < len(self.channels):
            raise UsageFault(
                "testing.phantom-channels-not-distinct",
                f"channels: {self.channels}; expected distinct names of {CHANNELS}",
            )


@dataclass(frozen=True, eq=False)
class Phantom:
    """One simulated subject. Axes are D (upward), H (frontward), W (rightward)."""

    image: Array  # (C, D, H, W); MR: whole scanner units from 1 in the brain, 0 outside; CT: HU
    labels: NDArray[np.int16]  # (D, H, W), values of LABELS, TISSUES or LIVER_LABELS
    spacing: tuple[float, float, float]  # mm, along D, H, W
    affine: NDArray[np.float64]  # (4, 4), voxel (w, h, d) -> mm (x right, y front, z up)


def make_phantom(index: int, seed: int = 0, options: PhantomOptions | None = None) -> Phantom:
    """Simulate the brain MR of one subject with a glioma. A phantom, not a patient.

    The result depends on `(seed, index, options)` alone. The choice of channels changes neither the
    anatomy nor the other channels.
    """
    options = options or PhantomOptions()
    atlas = load_atlas(options.spacing_mm)
    body, lesion, *scans = streams((seed, index), 2 + len(CHANNELS))
    warp = random_warp(body, atlas)
    maps = resample(atlas.tissue, warp)
    brain = brain_of(maps)  # before the mass effect: the skull is rigid
    site = choose_site(lesion, atlas, warp, maps)
    maps = resample(atlas.tissue, push_aside(lesion, site, warp, atlas.spacing_mm))
    tissue = personal_tissue(body, maps, brain, atlas.spacing_mm)
    labels = _grow(lesion, site, tissue, atlas.spacing_mm)
    return _scanned(tissue, labels, labels, brain, body, scans, atlas, options)


def make_tissues(index: int, seed: int = 0, options: PhantomOptions | None = None) -> Phantom:
    """Simulate the brain MR of one healthy subject, with the tissues as labels. Not a patient.

    Labels are those of `TISSUES`: within the brain the tissue of the largest fraction. Grid,
    contrasts, texture and noise are those of `make_phantom`; the subjects are different ones.
    """
    options = options or PhantomOptions(channels=("T1",))
    atlas = load_atlas(options.spacing_mm)
    # 2: different subjects than those with gliomas or metastases.
    body, *scans = streams((seed, index, 2), 1 + len(CHANNELS))
    maps = resample(atlas.tissue, random_warp(body, atlas))
    brain = brain_of(maps)
    tissue = personal_tissue(body, maps, brain, atlas.spacing_mm)
    labels = ((1 + tissue.argmax(axis=0)) * brain).astype(np.int16)
    return _scanned(tissue, np.zeros_like(labels), labels, brain, body, scans, atlas, options)


def streams(entropy: tuple[int, ...], count: int) -> list[np.random.Generator]:
    """Return independent random generators of one subject."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(entropy).spawn(count)]


def brain_of(maps: Array) -> Array:
    """Return 1 in the brain and 0 outside `(D, H, W)`, of fractions `(3, D, H, W)`."""
    return np.asarray(maps.sum(axis=0) > 0.5, dtype=np.float32)


# -- anatomy -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Atlas:
    """Average healthy brain on the working grid; arrays are read-only."""

    tissue: Array  # (3, D, H, W), fractions of CSF, GM, WM; their sum is the brain
    spacing_mm: float  # mm, isotropic
    affine: NDArray[np.float64]  # (4, 4), voxel (w, h, d) -> mm (x right, y front, z up)


def _map_file(kind: str) -> Path:
    """Return a map in nilearn's folder. To import nilearn costs four seconds, for these alone."""
    nilearn = find_spec("nilearn")
    if nilearn is None:
        raise EnvironmentFault(
            "phantoms.maps-not-installed",
            "phantoms are made from the maps of nilearn, which is not installed: pip install "
            f"nilearn, or {extra_hint('demo')}",
        )
    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    return Path(str(nilearn.origin)).parent / "datasets" / "data" / name


@lru_cache(maxsize=2)
def load_atlas(spacing_mm: float = 2.5) -> Atlas:
    """Smooth and resample the maps to an isotropic grid, `MARGIN_MM` around the brain."""
    images: list[Any] = [nib.load(_map_file(kind)) for kind in ("t1", "gm", "wm")]
    t1, grey, white = [image.get_fdata(dtype=np.float32) for image in images]
    for each in (t1, grey, white):
        each /= each.max()
    affine = np.asarray(images[0].affine, dtype=np.float64)
    brain = (t1 > 0).astype(np.float32)  # the T1 map is skull-stripped
    # No CSF map is shipped: it is the brain minus the two others.
    maps = np.stack([np.clip(brain - grey - white, 0, 1), grey * brain, white * brain])
    maps = np.ascontiguousarray(maps.transpose(0, 3, 2, 1))  # (3, Z, Y, X): D, H, W
    inside = np.argwhere(maps.sum(axis=0) > 0)
    low, high = inside.min(axis=0) - MARGIN_MM, inside.max(axis=0) + MARGIN_MM
    shape = tuple(map(int, np.ceil((high - low) / spacing_mm) + 1))
    # Full width at half maximum of one voxel, as a scanner of this resolution averages.
    sigma = spacing_mm / 2.355 if spacing_mm > 1 else 0.0
    tissue = np.empty((3, *shape), dtype=np.float32)
    for source, target in zip(maps, tissue, strict=True):
        ndimage.affine_transform(
            ndimage.gaussian_filter(source, sigma),
            np.full(3, spacing_mm),
            offset=low,
            output=target,
            output_shape=shape,
            order=1,
        )
    grid = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    grid[:3, 3] = low[::-1]  # in voxels of the 1 mm map, (x, y, z)
    tissue.setflags(write=False)
    return Atlas(tissue, spacing_mm, affine @ grid)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float | tuple[float, ...]
) -> Array:
    """Return Gaussian-smooth noise `(D, H, W)`, mean 0, standard deviation 1.

    `scale` is in voxels, one for all axes or one for each.

    A coarse lattice of noise is upsampled axis by axis, so wide fields cost no more than narrow
    ones. `einsum` without BLAS makes the bits independent of the number of threads.
    """
    axes = []
    scales = scale if isinstance(scale, tuple) else (scale,) * len(shape)
    for length, reach in zip(shape, scales, strict=True):
        nodes = np.arange(-2 * reach, length + 2 * reach, reach, dtype=np.float32)
        offset = np.arange(length, dtype=np.float32)[:, None] - nodes
        axes.append(np.exp(-0.5 * (offset / reach) ** 2))
    field = rng.standard_normal([axis.shape[1] for axis in axes], dtype=np.float32)
    field = np.einsum("ia,abc->ibc", axes[0], field)
    field = np.einsum("jb,ibc->ijc", axes[1], field)
    field = np.einsum("kc,ijc->ijk", axes[2], field)
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def resample(maps: Array, coordinates: Array) -> Array:
    """Interpolate `maps (N, D, H, W)` linearly at `coordinates (3, D, H, W)`, in voxels; else 0."""
    return np.stack([ndimage.map_coordinates(m, coordinates, order=1) for m in maps])


def _displacement(rng: np.random.Generator, shape: tuple[int, ...], mm: float) -> Array:
    """Return a displacement `(3, D, H, W)` in voxels whose gradient stays below STEEPEST."""
    wide, narrow = 26.0 / mm, 10.0 / mm
    u = np.stack(
        [smooth_field(rng, shape, wide) + 0.35 * smooth_field(rng, shape, narrow) for _ in "DHW"]
    )
    u *= np.float32(DEFORMATION_MM / mm / np.hypot(1.0, 0.35))
    squares = 0
    for component in u:
        for gradient in np.gradient(component):
            squares = squares + gradient * gradient
    steepest = float(np.sqrt(np.max(squares)))
    return u * np.float32(min(1.0, STEEPEST / max(steepest, 1e-6)))


def random_warp(rng: np.random.Generator, atlas: Atlas) -> Array:
    """Return the atlas coordinates of each voxel of a new anatomy: `(3, D, H, W)`, in voxels.

    The warp is a smooth displacement, then a small affine map about the centre. It preserves
    orientation everywhere, and breaks the atlas's symmetry.
    """
    shape = atlas.tissue.shape[1:]
    matrix = rng.uniform(-SHEAR, SHEAR, (3, 3))
    np.fill_diagonal(matrix, 1 + rng.uniform(-SCALE, SCALE, 3))
    limit = SHIFT_MM / atlas.spacing_mm
    centre = (np.array(shape, dtype=np.float64) - 1) / 2
    offset = centre - matrix @ centre + rng.uniform(-limit, limit, 3)
    points = np.indices(shape, np.float32) + _displacement(rng, shape, atlas.spacing_mm)
    warped = np.einsum("ij,jdhw->idhw", matrix.astype(np.float32), points)
    return np.asarray(warped + offset.astype(np.float32)[:, None, None, None], dtype=np.float32)


def personal_tissue(rng: np.random.Generator, maps: Array, brain: Array, mm: float) -> Array:
    """Return fractions of CSF, GM, WM `(3, D, H, W)` that sum to `brain (D, H, W)`, 0 or 1.

    The maps are averages over many subjects, so their borders are blurred. A power sharpens them,
    and noise on the logarithm varies folds and sulci between subjects.
    """
    logits = 2.5 * np.log(np.maximum(maps, 1e-3))
    for logit in logits:
        logit += 0.8 * smooth_field(rng, maps.shape[1:], max(1.0, 5.0 / mm))
    shares = np.exp(logits - logits.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0) * brain, dtype=np.float32)


# -- the tumour ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TumourSite:
    """Centre and size of a tumour."""

    centre: tuple[int, ...]  # voxels, (d, h, w)
    radius_mm: float  # mm, core with its rim


def choose_site(rng: np.random.Generator, atlas: Atlas, warp: Array, maps: Array) -> TumourSite:
    """Sample a place in the white matter of the upper hemispheres, deep enough for the tumour.

    `warp` `(3, D, H, W)` and `maps` `(3, D, H, W)` describe the healthy anatomy.
    """
    radius = float(rng.uniform(*RADIUS_MM))
    depth = ndimage.distance_transform_edt(maps.sum(axis=0) > 0.5) * atlas.spacing_mm
    x = atlas.affine[0, 3] + atlas.spacing_mm * warp[2]  # mm, right of the midline
    z = atlas.affine[2, 3] + atlas.spacing_mm * warp[0]  # mm, above the commissures
    allowed = (np.abs(x) > 14) & (z > 2) & (z < 55) & (maps[2] > 0.5) & (depth > 0.85 * radius)
    places = np.flatnonzero(allowed)
    # Tumours too large to fit are placed at the deepest voxel.
    place = int(rng.choice(places)) if places.size else int(np.argmax(depth))
    return TumourSite(tuple(map(int, np.unravel_index(place, depth.shape))), radius)


def push_aside(rng: np.random.Generator, site: TumourSite, warp: Array, mm: float) -> Array:
    """Return `warp (3, D, H, W)`, in voxels, with the tissue around the site moved outward.

    Tissue now at distance r was at r (1 - a exp(-(r/s)^2)) before, which increases with r for every
    a below 1: nothing folds, and the displacement fades within about two radii.
    """
    strength = rng.uniform(*MASS_EFFECT)
    centre = np.array(site.centre, dtype=np.float32)[:, None, None, None]
    offset = np.indices(warp.shape[1:], np.float32) - centre
    reach = 1.3 * site.radius_mm / mm
    pull = strength * np.exp(-(offset**2).sum(axis=0) / reach**2)
    return resample(warp, centre + offset * (1 - pull).astype(np.float32))


def _distance(
    rng: np.random.Generator, site: TumourSite, shape: tuple[int, ...], mm: float
) -> Array:
    """Return the distance from the tumour's bumpy surface `(D, H, W)` in mm, negative inside."""
    offset = np.indices(shape, np.float32)
    offset -= np.array(site.centre, dtype=np.float32)[:, None, None, None]
    axis = rng.standard_normal(3)
    axis /= np.sqrt((axis**2).sum())
    along = np.einsum("i,idhw->dhw", axis, offset)
    stretch = rng.uniform(-0.35, 0.6)
    radius = mm * np.sqrt((offset**2).sum(axis=0) + stretch * along**2)
    bumps = 0.20 * smooth_field(rng, shape, 0.6 * site.radius_mm / mm)
    bumps += 0.08 * smooth_field(rng, shape, max(1.0, 4.0 / mm))
    surface = site.radius_mm * (1 + np.clip(bumps, -0.35, 0.45))
    return np.asarray(radius - surface, dtype=np.float32)


def _grow(
    rng: np.random.Generator, site: TumourSite, tissue: Array, mm: float
) -> NDArray[np.int16]:
    """Return labels `(D, H, W)`: one connected tumour of core, enhancing rim and oedema.

    The oedema spreads along white matter, hence its fingers, and spares CSF. `tissue (3, D, H, W)`
    sums to 1 in the brain and to 0 outside.
    """
    shape = tissue.shape[1:]
    csf, white = tissue[0], ndimage.gaussian_filter(tissue[2], 1.5 / mm)
    brain = tissue.sum(axis=0) > 0.5
    distance = _distance(rng, site, shape, mm)
    thickness = rng.uniform(*RIM_MM) * (1 + 0.35 * smooth_field(rng, shape, 8.0 / mm))
    thickness = np.minimum(thickness, 0.35 * site.radius_mm)  # a small tumour keeps a core, too
    reach = rng.uniform(*OEDEMA_MM) * (0.12 + white)
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


# -- the scanner ---------------------------------------------------------------------------------


def grain(rng: np.random.Generator, shape: tuple[int, ...], mm: float) -> Array:
    """Return correlated grain `(D, H, W)`, standard deviation about 1: blotches of 2.5 and 7 mm."""
    sigma = max(0.6, 1.1 / mm)
    fine = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    coarse = smooth_field(rng, shape, max(1.0, 3.0 / mm))
    return np.asarray(0.8 * fine / fine.std() + 0.6 * coarse, dtype=np.float32)


def scan(
    rng: np.random.Generator, channel: str, fractions: Array, shared: Array, mm: float
) -> Array:
    """Return one channel `(D, H, W)` in scanner units, not yet masked."""
    shape = shared.shape
    contrast = np.array(CONTRASTS[channel]) * (1 + rng.uniform(-JITTER, JITTER, 6))
    gain = rng.uniform(*GAIN)
    # Half of the texture is anatomy, shared by all channels; half is specific to the channel.
    texture = np.sqrt(0.5) * (shared + grain(rng, shape, mm))
    signal = np.einsum("k,kdhw->dhw", contrast, fractions)
    spread = np.einsum("k,kdhw->dhw", contrast * np.array(GRAIN), fractions)
    shading = np.exp(BIAS * smooth_field(rng, shape, 70.0 / mm))
    clean = np.maximum(signal + spread * texture, 0) * shading
    real, imaginary = NOISE * rng.standard_normal((2, *shape), dtype=np.float32)
    measured = gain * np.hypot(clean + real, imaginary)  # magnitude of a complex signal: Rician
    return np.asarray(np.maximum(np.round(measured), 1), dtype=np.float32)


def _scanned(
    tissue: Array,
    tumour: NDArray[np.int16],
    labels: NDArray[np.int16],
    brain: Array,
    body: np.random.Generator,
    scans: list[np.random.Generator],
    atlas: Atlas,
    options: PhantomOptions,
) -> Phantom:
    """Return the requested channels; `scans`: a generator for each of `CHANNELS`."""
    # Half a voxel of blur on the outlines gives partial volumes at borders.
    lesion = [ndimage.gaussian_filter((tumour == k).astype(np.float32), 0.5) for k in (1, 2, 3)]
    fractions = np.concatenate([tissue * np.clip(1 - sum(lesion), 0, 1), np.stack(lesion)])
    shared, rngs = (
        grain(body, brain.shape, atlas.spacing_mm),
        dict(zip(CHANNELS, scans, strict=True)),
    )
    image = [scan(rngs[c], c, fractions, shared, atlas.spacing_mm) for c in options.channels]
    return Phantom(np.stack(image) * brain, labels, (atlas.spacing_mm,) * 3, atlas.affine.copy())
