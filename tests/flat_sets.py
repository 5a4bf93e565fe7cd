"""Small data sets of 2D cases: pictures with masks, and slices of volumes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from gansynth.core.source import SourceRequest
from tests.conftest import save_nifti

PEOPLE = 6
EACH = 4
SHAPE = (20, 24)


def lesion(number: int) -> np.ndarray:
    """Labels (H, W) of one slice; the last of each person shows nothing."""
    labels = np.zeros(SHAPE, np.uint8)
    if number % EACH < EACH - 1:
        row = 4 + number % 5
        labels[row : row + 6, 6:14] = 1
    return labels


def seen(number: int) -> np.ndarray:
    """What a scanner sees of it, 8 bits."""
    rng = np.random.default_rng(number)
    body = np.full(SHAPE, 80.0)
    grey = np.clip(body + 120 * lesion(number) + rng.normal(0, 6, SHAPE), 0, 255)
    return np.asarray(grey, np.uint8)


def pictures(folder: Path, **read: str) -> SourceRequest:
    """Six people of four pictures each, ``p0_s0.png``; masks of 0 and 255."""
    for number in range(PEOPLE * EACH):
        name = f"p{number // EACH}_s{number % EACH}.png"
        for kind, array in (("images", seen(number)), ("masks", 255 * lesion(number))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / name)
    return SourceRequest("pictures", str(folder), subjects=r"(p\d)_", read=read)


def slices(folder: Path, **read: str) -> SourceRequest:
    """Axial slices of six volumes of four slices, of 3 x 2 x 1 mm."""
    for person in range(PEOPLE):
        numbers = range(EACH * person, EACH * (person + 1))
        for kind, of in (("images", seen), ("labels", lesion)):
            volume = np.stack([of(number) for number in numbers]).T.astype(np.int16)
            save_nifti(folder / kind / f"p{person}.nii.gz", volume, np.diag([1.0, 2.0, 3.0, 1.0]))
    asked = {"modality": "none", "spacing": "native", **read}
    return SourceRequest("slices", f"nifti:{folder}", read=asked)


FLAT: Mapping[str, Callable[..., SourceRequest]] = {"pictures": pictures, "slices": slices}
