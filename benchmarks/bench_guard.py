"""How near prints of one image are to each other, disguised, and how near those of two people.

Each case of a data set is compared with every other person's, and with itself in disguise: what a
copy may have gone through before it is called something else. ``gansynth.core.fingerprint.ALIKE``
lies between both; the table says which disguises are recognised at that threshold. Of slices, those
of one person beside each other are counted apart: by them no threshold could be set.

    python benchmarks/bench_guard.py [--data ../shared/data] [--disguised 24]
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from common import print_table, write
from PIL import Image
from scipy.ndimage import gaussian_filter, rotate, zoom

from gansynth.core.fingerprint import ALIKE, closeness, prints_of, unpacked

DATA = Path(__file__).parents[1] / "../shared/data"
Array = npt.NDArray[Any]
Disguise = Callable[[Array, np.random.Generator], Array]
SETS = {
    "hippocampus": ("msd_task04_hippocampus/imagesTr/*.nii.gz", r"(.*)"),
    "lgg volumes": ("lgg_flair3d128/images/*.nii.gz", r"(.*)"),
    "brats FLAIR": ("brats2015_deepmedic/**/Flair_*.nii.gz", r"(.*)"),
    "brats T1c": ("brats2015_deepmedic/**/T1c_*.nii.gz", r"(.*)"),
    "lgg slices": ("lgg_flair256/images/*.png", r"(.*)_\d+$"),
}
"""Files, and what of a file's name is the person."""
LARGE = 1 << 22
"""Voxels."""


def _ramp(image: Array) -> Array:
    return np.linspace(-1, 1, image.shape[0]).reshape(-1, *[1] * (image.ndim - 1))


def _cut(image: Array, voxels: int) -> Array:
    return image[(slice(voxels, -voxels),) * image.ndim]


def _span(image: Array) -> float:
    return float(np.ptp(image))


DISGUISES: dict[str, Disguise] = {
    "int16, rounded": lambda x, _: np.rint(x).astype(np.int16),
    "int16, over its whole range": lambda x, _: np.rint(
        (x - x.min()) / _span(x) * 65535 - 32768
    ).astype(np.int16),
    "x 0.37 + 12": lambda x, _: x * 0.37 + 12,
    "8 bits": lambda x, _: np.rint((x - x.min()) / _span(x) * 255).astype(np.uint8),
    "one slice off each side": lambda x, _: _cut(x, 1),
    "one slice off one side": lambda x, _: x[1:],
    "two slices off each side": lambda x, _: _cut(x, 2),
    "padded by 4": lambda x, _: np.pad(x, 4, constant_values=x.min()),
    "one axis flipped": lambda x, _: x[::-1],
    "turned by 90 degrees": lambda x, _: np.rot90(x),
    "axes in another order": lambda x, _: x.T,
    "resampled to 95 %": lambda x, _: zoom(x, 0.95, order=1),
    "resampled to 104 %": lambda x, _: zoom(x, 1.04, order=1),
    "resampled to 80 %": lambda x, _: zoom(x, 0.8, order=1),
    "noise of 1 % of its range": lambda x, rng: x + rng.normal(0, 0.01 * _span(x), x.shape),
    "noise of 5 % of its range": lambda x, rng: x + rng.normal(0, 0.05 * _span(x), x.shape),
    "bias field of 20 %": lambda x, _: x * (1 + 0.2 * _ramp(x)),
    "cut at percentiles 1 and 99": lambda x, _: np.clip(x, *np.percentile(x, (1, 99))),
    "gamma of 0.8": lambda x, _: ((x - x.min()) / _span(x)) ** 0.8,
    "smoothed by 0.7 voxels": lambda x, _: gaussian_filter(x, 0.7),
    "turned by 3 degrees": lambda x, _: rotate(x, 3, reshape=False, order=1, mode="nearest"),
    "inverted": lambda x, _: -x,
}
"""What is done to an image (D, H, W) or (H, W), float32."""


def read(file: Path) -> npt.NDArray[np.float32]:
    """A volume (x, y, z), of large ones every other voxel along each axis, or a picture (H, W)."""
    if file.suffix == ".png":
        return np.asarray(Image.open(file).convert("L"), np.float32)
    volume = np.asarray(nib.load(file).dataobj, np.float32)
    return volume[::2, ::2, ::2] if volume.size > LARGE else volume


def measure(files: Sequence[Path], pattern: str, disguised: int) -> dict[str, Any]:
    """Closeness of different people's images, and of disguised ones to themselves."""
    texts, kept, seconds = [], [], 0.0
    for file in files:
        image = read(file)
        began = time.process_time()
        text = prints_of(image[None])[0]
        seconds += time.process_time() - began
        if text:
            texts.append(text)
            kept.append(file)
    vectors = np.stack([unpacked(text) for text in texts])
    ndim = image.ndim
    began = time.process_time()
    close = closeness(vectors, vectors, ndim)
    comparing = time.process_time() - began
    stems = [str(file.parent / file.name.split(".")[0]) for file in kept]
    people = np.array([re.fullmatch(pattern, stem)[1] for stem in stems])
    upper = np.triu(np.ones(close.shape, bool), 1)
    same = people[:, None] == people[None]
    others, own = close[upper & ~same], close[upper & same]
    row: dict[str, Any] = {
        "cases": len(texts),
        "without_a_print": len(files) - len(texts),
        "people": len(set(people.tolist())),
        "pairs": len(others),
        "threshold": ALIKE[ndim],
        "different_people": _quantiles(others),
        "false_alarms": int((others >= ALIKE[ndim]).sum()),
        "cpu_seconds_of_prints": round(seconds, 2),
        "cpu_seconds_of_comparing": round(comparing, 2),
    }
    if len(own):
        row["one_person"] = _quantiles(own)
    row["disguises"] = _disguises(kept, vectors, ndim, disguised)
    return row


def _disguises(
    files: Sequence[Path], vectors: npt.NDArray[np.float32], ndim: int, most: int
) -> dict[str, Any]:
    chosen = np.unique(np.linspace(0, len(files) - 1, most).astype(int))
    rows = {}
    images = [read(files[index]) for index in chosen]
    for name, change in DISGUISES.items():
        rng, found = np.random.default_rng(0), []
        for index, image in zip(chosen, images, strict=True):
            text = prints_of(np.asarray(change(image, rng), np.float32)[None])[0]
            own = vectors[index : index + 1]
            found.append(float(closeness(own, unpacked(text)[None], ndim)[0, 0]) if text else 0.0)
        values = np.array(found)
        rows[name] = {
            "of": len(values),
            "recognised": int((values >= ALIKE[ndim]).sum()),
            "lowest": round(float(values.min()), 3),
            "median": round(float(np.median(values)), 3),
        }
    return rows


def _quantiles(values: npt.NDArray[np.float32]) -> dict[str, float]:
    shares = {"median": 0.5, "p99": 0.99, "p999": 0.999, "largest": 1.0}
    return {name: round(float(np.quantile(values, q)), 3) for name, q in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--disguised", type=int, default=24, help="cases of each data set")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    options = parser.parse_args()
    found = {}
    for name in options.sets:
        pattern, person = SETS[name]
        files = sorted(options.data.glob(pattern))
        if not files:
            print(f"{name}: no {pattern} in {options.data}")
            continue
        row = found[name] = measure(files, person, options.disguised)
        said = {k: v for k, v in row.items() if k != "disguises"}
        print(f"\n{name}: {said}")
        table = [("disguise", "of", "recognised", "lowest", "median")]
        print_table([*table, *((d, *r.values()) for d, r in row["disguises"].items())])
    if found:
        print(f"\n{write('guard', {'sets': found})}")


if __name__ == "__main__":
    main()
