"""Individual brains from the average one: smooth random warps, sharpened tissue."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gansynth.testing.phantoms._atlas import Array, Atlas
from gansynth.testing.phantoms._options import PhantomOptions

# Largest norm of the displacement's gradient. Below 1 the map x -> x + u(x) cannot fold.
STEEPEST = 0.7


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


def voxel_grid(shape: tuple[int, ...]) -> Array:
    """Return the coordinates of each voxel, `(3, D, H, W)`, in voxels."""
    return np.indices(shape, dtype=np.float32)


def resample(maps: Array, coordinates: Array) -> Array:
    """Interpolate `maps (N, D, H, W)` linearly at `coordinates (3, D, H, W)`, in voxels; else 0."""
    return np.stack([ndimage.map_coordinates(m, coordinates, order=1) for m in maps])


def _displacement(rng: np.random.Generator, shape: tuple[int, ...], o: PhantomOptions) -> Array:
    """Return a displacement `(3, D, H, W)` in voxels whose gradient stays below STEEPEST."""
    wide, narrow = 26.0 / o.spacing_mm, 10.0 / o.spacing_mm
    u = np.stack(
        [smooth_field(rng, shape, wide) + 0.35 * smooth_field(rng, shape, narrow) for _ in "DHW"]
    )
    u *= np.float32(o.deformation_mm / o.spacing_mm / np.hypot(1.0, 0.35))
    gradients = (g for component in u for g in np.gradient(component))
    steepest = float(np.sqrt(np.max(sum(g * g for g in gradients))))
    return u * np.float32(min(1.0, STEEPEST / max(steepest, 1e-6)))


def random_warp(rng: np.random.Generator, atlas: Atlas, options: PhantomOptions) -> Array:
    """Return the atlas coordinates of each voxel of a new anatomy: `(3, D, H, W)`, in voxels.

    The warp is a smooth displacement, then a small affine map about the centre. It preserves
    orientation everywhere, and breaks the atlas's symmetry.
    """
    shape = atlas.tissue.shape[1:]
    matrix = rng.uniform(-options.affine_shear, options.affine_shear, (3, 3))
    np.fill_diagonal(matrix, 1 + rng.uniform(-options.affine_scale, options.affine_scale, 3))
    limit = options.affine_shift_mm / options.spacing_mm
    centre = (np.array(shape, dtype=np.float64) - 1) / 2
    offset = centre - matrix @ centre + rng.uniform(-limit, limit, 3)
    points = voxel_grid(shape) + _displacement(rng, shape, options)
    warped = np.einsum("ij,jdhw->idhw", matrix.astype(np.float32), points)
    return np.asarray(warped + offset.astype(np.float32)[:, None, None, None], dtype=np.float32)


def personal_tissue(
    rng: np.random.Generator, maps: Array, brain: Array, options: PhantomOptions
) -> Array:
    """Return fractions of CSF, GM, WM `(3, D, H, W)` that sum to `brain (D, H, W)`, 0 or 1.

    The maps are averages over many subjects, so their borders are blurred. A power sharpens them,
    and noise on the logarithm varies folds and sulci between subjects.
    """
    logits = 2.5 * np.log(np.maximum(maps, 1e-3))
    for logit in logits:
        logit += 0.8 * smooth_field(rng, maps.shape[1:], max(1.0, 5.0 / options.spacing_mm))
    shares = np.exp(logits - logits.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0) * brain, dtype=np.float32)
