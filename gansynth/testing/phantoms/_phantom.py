"""Images from anatomy and tumour: contrasts, texture, coil shading and noise of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.runtime.errors import UsageFault
from gansynth.testing.phantoms._anatomy import personal_tissue, random_warp, resample, smooth_field
from gansynth.testing.phantoms._atlas import Array, Atlas, load_atlas
from gansynth.testing.phantoms._options import CHANNELS, PhantomOptions
from gansynth.testing.phantoms._tumour import choose_site, grow, push_aside

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


TISSUES = {"background": 0, "CSF": 1, "GM": 2, "WM": 3}


@dataclass(frozen=True, eq=False)
class Phantom:
    """One simulated subject. Axes are D (upward), H (frontward), W (rightward)."""

    image: Array  # (C, D, H, W); MR: whole scanner units from 1 in the brain, 0 outside; CT: HU
    labels: NDArray[np.int16]  # (D, H, W), values of LABELS, TISSUES or LIVER_LABELS
    spacing: tuple[float, float, float]  # mm, along D, H, W
    affine: NDArray[np.float64]  # (4, 4), voxel (w, h, d) -> mm (x right, y front, z up)


def _fractions(tissue: Array, labels: NDArray[np.int16]) -> Array:
    """Return fractions of CSF, GM, WM, oedema, core, rim in each voxel: `(6, D, H, W)`."""
    # Half a voxel of blur on the outlines gives partial volumes at borders.
    lesion = [ndimage.gaussian_filter((labels == k).astype(np.float32), 0.5) for k in (1, 2, 3)]
    healthy = tissue * np.clip(1 - sum(lesion), 0, 1)
    return np.concatenate([healthy, np.stack(lesion)])


def _grain(rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: float) -> Array:
    """Return correlated grain `(D, H, W)`, standard deviation about 1: blotches of 2.5 and 7 mm."""
    sigma = max(0.6, 1.1 / spacing_mm)
    fine = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    coarse = smooth_field(rng, shape, max(1.0, 3.0 / spacing_mm))
    return np.asarray(0.8 * fine / fine.std() + 0.6 * coarse, dtype=np.float32)


def _scan(
    rng: np.random.Generator, channel: str, fractions: Array, grain: Array, options: PhantomOptions
) -> Array:
    """Return one channel `(D, H, W)` in scanner units, not yet masked."""
    shape = grain.shape
    contrast = np.array(CONTRASTS[channel]) * (1 + rng.uniform(-JITTER, JITTER, 6))
    gain = rng.uniform(*options.gain)
    # Half of the texture is anatomy, shared by all channels; half is specific to the channel.
    grain = np.sqrt(0.5) * (grain + _grain(rng, shape, options.spacing_mm))
    signal = np.einsum("k,kdhw->dhw", contrast, fractions)
    spread = np.einsum("k,kdhw->dhw", contrast * np.array(GRAIN) * options.texture, fractions)
    shading = np.exp(options.bias * smooth_field(rng, shape, 70.0 / options.spacing_mm))
    clean = np.maximum(signal + spread * grain, 0) * shading
    real, imaginary = options.noise * rng.standard_normal((2, *shape), dtype=np.float32)
    measured = gain * np.hypot(clean + real, imaginary)  # magnitude of a complex signal: Rician
    return np.asarray(np.maximum(np.round(measured), 1), dtype=np.float32)


def make_phantom(index: int, seed: int = 0, options: PhantomOptions | None = None) -> Phantom:
    """Simulate the brain MR of one subject with a glioma. A phantom, not a patient.

    The result depends on `(seed, index, options)` alone. The choice of channels changes neither the
    anatomy nor the other channels. `options=None` takes the defaults. The matching
    atlas is loaded and cached.

    Raises:
        UsageFault: `index` or `seed` is negative.
    """
    options = options or PhantomOptions()
    atlas = fitting_atlas(index, seed, options)
    body, lesion, *scans = streams((seed, index), 2 + len(CHANNELS))
    warp = random_warp(body, atlas, options)
    maps = resample(atlas.tissue, warp)
    brain = (maps.sum(axis=0) > 0.5).astype(
        np.float32
    )  # before the mass effect: the skull is rigid
    seat = choose_site(lesion, atlas, warp, maps, options)
    maps = resample(atlas.tissue, push_aside(lesion, seat, warp, options))
    tissue = personal_tissue(body, maps, brain, options)
    labels = grow(lesion, seat, tissue, options)
    image = _images(_fractions(tissue, labels), body, scans, options)
    return Phantom(image * brain, labels, (options.spacing_mm,) * 3, atlas.affine.copy())


def make_tissues(index: int, seed: int = 0, options: PhantomOptions | None = None) -> Phantom:
    """Simulate the brain MR of one healthy subject, with the tissues as labels. Not a patient.

    Labels are those of `TISSUES`: within the brain the tissue of the largest fraction. Grid,
    contrasts, texture and noise are those of `make_phantom`; the subjects are different ones. The
    result depends on `(seed, index, options)` alone. `options=None` takes the defaults with T1 as
    the only channel; options of tumours are ignored. Raises as `make_phantom`.
    """
    options = options or PhantomOptions(channels=("T1",))
    atlas = fitting_atlas(index, seed, options)
    # 2: different subjects than those with gliomas or metastases.
    body, *scans = streams((seed, index, 2), 1 + len(CHANNELS))
    maps = resample(atlas.tissue, random_warp(body, atlas, options))
    brain = (maps.sum(axis=0) > 0.5).astype(np.float32)
    tissue = personal_tissue(body, maps, brain, options)
    labels = ((1 + tissue.argmax(axis=0)) * brain).astype(np.int16)
    image = _images(_fractions(tissue, np.zeros_like(labels)), body, scans, options)
    return Phantom(image * brain, labels, (options.spacing_mm,) * 3, atlas.affine.copy())


def fitting_atlas(index: int, seed: int, options: PhantomOptions) -> Atlas:
    """Return the atlas on the options' grid; refuse a negative index or seed."""
    if index < 0 or seed < 0:
        raise UsageFault(f"index {index}, seed {seed}; expected 0 or more")
    return load_atlas(options.spacing_mm, options.margin_mm)


def streams(entropy: tuple[int, ...], count: int) -> list[np.random.Generator]:
    """Return independent random generators of one subject."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(entropy).spawn(count)]


def _images(
    fractions: Array,
    body: np.random.Generator,
    scans: list[np.random.Generator],
    options: PhantomOptions,
) -> Array:
    """Return the requested channels `(C, D, H, W)`; one generator for each of `CHANNELS`."""
    grain = _grain(body, fractions.shape[1:], options.spacing_mm)
    rngs = dict(zip(CHANNELS, scans, strict=True))
    return np.stack([_scan(rngs[c], c, fractions, grain, options) for c in options.channels])
