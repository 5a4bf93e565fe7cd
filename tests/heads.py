"""An axial T1 slice of a head with a bright scalp, dark bone, a brain with ventricles, a lesion."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Head:
    """A slice in [0, 1], and where brain, lesion and the box around it (half-open) are."""

    image: npt.NDArray[np.float64]
    brain: npt.NDArray[np.bool_]
    lesion: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int]


def head(seed: int = 0, size: int = 256, *, scalp: float = 0.1) -> Head:
    """A head that fills most of the slice; ``seed`` places it, and draws the noise.

    ``scalp``: its thickness, a share of the head's radius.
    """
    rng = np.random.default_rng(seed)
    grid = (np.indices((size, size)) + 0.5) / size
    centre = 0.5 + rng.uniform(-0.04, 0.04, 2)
    y, x = (grid[axis] - centre[axis] for axis in (0, 1))
    out = np.hypot(y / 0.42, x / 0.34)  # 1 at the skin
    surface = 1 - scalp - 0.07
    brain, noise = out < surface, rng.normal(0, 0.02, (size, size))
    image = np.where(out < 1, 0.85, 0.0)
    image[out < 1 - scalp] = 0.06
    image[brain] = 0.4
    image[np.hypot(y / 0.08, x / 0.05) < 1] = 0.12  # ventricles
    angle = rng.uniform(0, 2 * np.pi)
    at = 0.55 * surface * np.array([0.42 * np.sin(angle), 0.34 * np.cos(angle)])
    lesion = (np.hypot(y - at[0], x - at[1]) < 0.05) & brain
    image[lesion] = 0.8
    rows, columns = (np.flatnonzero(lesion.any(axis)) for axis in (1, 0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Head((image + noise).clip(0, 1), brain, lesion, box)
