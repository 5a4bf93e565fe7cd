"""The MNI152 tissue maps, resampled once to the working grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Atlas:
    """Average healthy brain on the working grid; arrays are read-only."""

    tissue: Array  # (3, D, H, W), fractions of CSF, GM, WM; their sum is the brain
    spacing_mm: float  # mm, isotropic
    affine: NDArray[np.float64]  # (4, 4), voxel (w, h, d) -> mm (x right, y front, z up)


def _read_maps() -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
    """Return T1, GM and WM as `(X, Y, Z)` at 1 mm, and their affine."""
    from nilearn import datasets

    images = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    ]
    maps = [np.asarray(image.get_fdata(dtype=np.float32)) for image in images]
    return maps, np.asarray(images[0].affine, dtype=np.float64)


@lru_cache(maxsize=2)
def load_atlas(spacing_mm: float = 2.5, margin_mm: float = 16.0) -> Atlas:
    """Smooth and resample the maps to an isotropic grid, `margin_mm` around the brain."""
    (t1, grey, white), affine = _read_maps()
    brain = (t1 > 0).astype(np.float32)  # the T1 map is skull-stripped
    # No CSF map is shipped: it is the brain minus the two others.
    maps = np.stack([np.clip(brain - grey - white, 0, 1), grey * brain, white * brain])
    maps = np.ascontiguousarray(maps.transpose(0, 3, 2, 1))  # (3, Z, Y, X): D, H, W
    inside = np.argwhere(maps.sum(axis=0) > 0)
    low, high = inside.min(axis=0) - margin_mm, inside.max(axis=0) + margin_mm
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
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
