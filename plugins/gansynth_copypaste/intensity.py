"""Random changes of intensities, of a lesion or of a whole image, as TumorCP (Yang et al. 2021).

Flips are left out: they would be no sample of the label map asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray

Mask = npt.NDArray[np.bool_]

GAIN, GAMMA, BLUR, NOISE = 0.3, 0.5, 1.0, 0.1
"""Widest changes: contrast by ±30 %, exponents e^±0.5, blur of 1 voxel, noise of 0.1 deviations."""
DONE = 0.5
"""Share of samples to which each change is made."""


def change_lesion(
    image: FloatArray, where: Mask, strength: float, rng: np.random.Generator
) -> FloatArray:
    """An image (C, ...) whose contrast, gamma and sharpness are changed by what a lesion shows."""
    from scipy.ndimage import gaussian_filter

    out = image.copy()
    blur = strength * BLUR * rng.random() if rng.random() < DONE else 0.0
    for channel in range(len(image)):
        if blur:
            out[channel] = gaussian_filter(out[channel], blur, truncate=3.0)
        out[channel] = _recoloured(out[channel], out[channel][where], strength, rng)
    return out


def change_image(
    image: FloatArray, body: Mask, strength: float, rng: np.random.Generator
) -> FloatArray:
    """An image (C, ...) whose gain, gamma and noise are changed in the body, bool."""
    out = image.copy()
    noise = strength * NOISE * rng.random() if rng.random() < DONE else 0.0
    for channel in range(len(image)):
        changed = _recoloured(image[channel], image[channel][body], strength, rng)
        spread = float(image[channel][body].std())
        changed += np.float32(noise * spread) * rng.standard_normal(changed.shape, np.float32)
        out[channel] = np.where(body, changed, image[channel])
    return out


def _recoloured(
    image: FloatArray, held: FloatArray, strength: float, rng: np.random.Generator
) -> FloatArray:
    """Gamma over the range of some voxels, and gain about their mean."""
    gamma = np.exp(strength * GAMMA * rng.uniform(-1, 1)) if rng.random() < DONE else 1.0
    gain = 1 + strength * GAIN * rng.uniform(-1, 1) if rng.random() < DONE else 1.0
    low, high = float(held.min()), float(held.max())
    if not high > low:
        return image.copy()
    share = np.clip((image - low) / (high - low), 0, 1, dtype=np.float64)
    # Beyond the range nothing is bent: what lies there is moved as its end is.
    bent = image + (high - low) * (share**gamma - share)
    mean = float(held.mean(dtype=np.float64))
    return np.asarray(mean + gain * (bent - mean), np.float32)
