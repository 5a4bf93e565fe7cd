"""Phantoms as a YOLO data set: axial slices, each with a text file of boxes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.core.schema import Boxes
from gansynth.data.case_writer import yolo_lines
from gansynth.report.png import png_bytes
from gansynth.testing.phantoms._atlas import Array
from gansynth.testing.phantoms._folders import (
    DESCRIPTION,
    LICENCE,
    Progress,
    counted,
    new_folder,
    write_json,
)
from gansynth.testing.phantoms._options import LABELS, PhantomOptions
from gansynth.testing.phantoms._phantom import make_phantom

LONGEST_MM = 192.0
"""Edge of the square slices: the length of the longest brain."""
SLICE_MM = 3.0
"""Distance between slices."""
FEWEST_PIXELS = 4
"""Minimum area of a lesion in a slice; slices with a smaller one are ambiguous and left out."""
LEAST_BRAIN = 0.15
"""Minimum brain area of a slice, as a share of the largest slice's."""
BRIGHTEST = 99.9
"""Percentile of the brain that becomes white; black is 0."""


def write_yolo(
    folder: Path,
    n: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the slices of `n` gliomas as a YOLO data set and return its `data.yaml`.

    Pictures are 8-bit grey PNG files named `sub-003_z014.png`, of the first channel. A box is
    around the core and its rim. Subjects are split 70 : 10 : 20 into train, val and test, at least
    one each. Slices without a lesion have an empty text file. The same arguments give the same
    bytes.

    Raises:
        UsageFault: `n` is below 3, or the folder exists and is not empty.
    """
    options = options or PhantomOptions(spacing_mm=1.5, channels=("T1c",))

    def glioma(index: int) -> tuple[Array, NDArray[np.int16]]:
        phantom = make_phantom(index, seed, options)
        return phantom.image[0], (phantom.labels >= LABELS["core"]).astype(np.int16)

    looks = {"seed": seed, **asdict(options)}
    about = {"description": DESCRIPTION, "licence": LICENCE, "phantoms": looks}
    return write_slices(folder, n, glioma, "glioma", options.spacing_mm, about, progress)


def write_slices(
    folder: Path,
    n: int,
    make: Callable[[int], tuple[Array, NDArray[np.int16]]],
    name: str,
    spacing_mm: float,
    about: dict[str, Any],
    progress: Progress | None = None,
) -> Path:
    """Write a YOLO data set of one class; ``make``: image and lesions by number, (D, H, W)."""
    needed = "subjects: one each for train, val and test"
    val, test = max(1, round(0.1 * n)), max(1, round(0.2 * n))
    with new_folder(folder, n, 3, needed) as building:
        for index in counted(n, progress):
            split = "train" if index < n - val - test else "val" if index < n - test else "test"
            for part in ("images", "labels"):
                (building / part / split).mkdir(parents=True, exist_ok=True)
            for z, pixels, boxes in _slices(*make(index), spacing_mm):
                file = f"sub-{index:03d}_z{z:03d}"
                (building / "images" / split / f"{file}.png").write_bytes(png_bytes(pixels))
                text = yolo_lines(boxes, pixels.shape)
                (building / "labels" / split / f"{file}.txt").write_text(text, "utf-8")
        write_json(building / "phantoms.json", about)
        content = {split: f"images/{split}" for split in ("train", "val", "test")}
        head = "".join(f"# {line}\n" for line in textwrap.wrap(about["description"], 96))
        document = {**content, "nc": 1, "names": {0: name}, "channels": 1}
        text = head + yaml.safe_dump(document, sort_keys=False)
        (building / "data.yaml").write_text(text, "utf-8")
    return folder / "data.yaml"


def _slices(
    image: Array, lesions: NDArray[np.int16], mm: float
) -> Iterator[tuple[int, NDArray[np.uint8], Boxes]]:
    """Yield slices with enough brain, front up, in which each lesion is large enough or absent."""
    edge = 8 * int(np.ceil(LONGEST_MM / mm / 8))
    brain = image > 0
    white = np.percentile(image[brain], BRIGHTEST)
    grey = np.rint(np.clip(image / white, 0, 1) * 255).astype(np.uint8)
    h, w = ((int(i.min()) + int(i.max()) + 1) // 2 for i in np.nonzero(brain)[1:])
    area = brain.sum(axis=(1, 2))
    chosen = np.flatnonzero(area >= LEAST_BRAIN * area.max())[:: max(1, round(SLICE_MM / mm))]
    for number, z in enumerate(chosen):
        padded = (np.pad(volume[z], edge // 2) for volume in (grey, lesions))
        pixels, seen = (plane[h : h + edge, w : w + edge][::-1] for plane in padded)
        sizes = np.bincount(seen.ravel())[1:]
        if (sizes[sizes > 0] >= FEWEST_PIXELS).all():
            places = [place for place in ndimage.find_objects(seen) if place is not None]
            coords = [[y.start, x.start, y.stop, x.stop] for y, x in places]
            shaped = np.array(coords, np.float32).reshape(-1, 4)
            yield number, pixels, Boxes(shaped, np.zeros(len(coords), np.int16))
