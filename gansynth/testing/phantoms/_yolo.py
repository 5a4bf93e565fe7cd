"""Phantoms with metastases as a YOLO data set: axial slices, each with a text file of boxes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.report.png import png_bytes
from gansynth.testing.phantoms._metastases import (
    MetastasisOptions,
    MetastasisPhantom,
    make_metastases,
)
from gansynth.testing.phantoms._nnunet import LICENCE, Progress, counted, new_folder, write_json

DESCRIPTION = (
    "PHANTOMS, NOT PATIENTS: simulated axial brain MR (T1 after contrast agent) with simulated "
    "metastases, made by gansynth. For demonstrations and software tests only; nothing here has "
    "any clinical meaning. Anatomy derived from the MNI152 maps as shipped by nilearn; Copyright "
    "(C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, MNI, McGill University."
)
VOLUMES = r"(?P<volume>sub-\d+)_z(?P<slice>\d+)"
"""Regular expression for volume and slice in a file name."""
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

GLIOMA = ("radius_mm", "rim_mm", "oedema_mm", "mass_effect")


@dataclass(frozen=True, eq=False)
class SliceImage:
    """One picture and the boxes in it."""

    name: str
    pixels: NDArray[np.uint8]  # (H, W), front up
    boxes: list[tuple[int, int, int, int]]  # x1, y1, x2, y2 in pixels, half-open


def write_yolo(
    folder: Path,
    n: int,
    seed: int = 0,
    options: MetastasisOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the slices of `n` phantoms as a YOLO data set and return its `data.yaml`.

    Pictures are 8-bit grey PNG files named `sub-003_z014.png`. Subjects are split 70 : 10 : 20
    into train, val and test, at least one each. Slices without a lesion have an empty text file.
    The window of a volume is 0 to the 99.9th percentile of its brain. The same arguments give the
    same bytes.

    Raises:
        UsageFault: `n` is below 3, or the folder exists and is not empty.
    """
    options = options or MetastasisOptions()
    counts: dict[str, dict[str, int]] = {}
    needed = "subjects: one each for train, val and test"
    with new_folder(folder, n, 3, needed) as building:
        for index in counted(n, progress):
            phantom = make_metastases(index, seed, options)
            split = _split_of(index, n)
            slices = list(_slices(phantom, f"sub-{index:03d}"))
            _write_slices(building, split, slices)
            _count(counts.setdefault(split, {}), int(phantom.lesions.max()), slices)
        about = {
            "description": DESCRIPTION,
            "licence": LICENCE,
            "splits": counts,
            "phantoms": {"seed": seed, **_said(options)},
        }
        write_json(building / "phantoms.json", about)
        (building / "data.yaml").write_text(_data_yaml(), "utf-8")
    return folder / "data.yaml"


def _split_of(index: int, n: int) -> str:
    """Return the split of a subject: the first ones train, about 10 % validate and 20 % test."""
    val, test = max(1, round(0.1 * n)), max(1, round(0.2 * n))
    if index < n - val - test:
        return "train"
    return "val" if index < n - test else "test"


def _slices(phantom: MetastasisPhantom, subject: str) -> Iterator[SliceImage]:
    """Yield slices with enough brain, in which each lesion is large enough or absent."""
    edge, mm = edge_of(phantom.spacing[0]), phantom.spacing[0]
    brain = phantom.image > 0
    white = np.percentile(phantom.image[brain], BRIGHTEST)
    grey = np.rint(np.clip(phantom.image / white, 0, 1) * 255).astype(np.uint8)
    middle = [(int(i.min()) + int(i.max()) + 1) // 2 for i in np.nonzero(brain)[1:]]
    area = brain.sum(axis=(1, 2))
    chosen = np.flatnonzero(area >= LEAST_BRAIN * area.max())[:: max(1, round(SLICE_MM / mm))]
    for number, z in enumerate(chosen):
        pixels, lesions = (_square(v[z], middle, edge)[::-1] for v in (grey, phantom.lesions))
        sizes = np.bincount(lesions.ravel())[1:]
        if (sizes[sizes > 0] >= FEWEST_PIXELS).all():
            yield SliceImage(f"{subject}_z{number:03d}", pixels, _boxes(lesions))


def edge_of(spacing_mm: float) -> int:
    """Return the edge of the square slices in pixels, a multiple of 8."""
    return 8 * int(np.ceil(LONGEST_MM / spacing_mm / 8))


def _square(plane: NDArray[Any], middle: list[int], edge: int) -> NDArray[Any]:
    """Cut `(edge, edge)` around a pixel; 0 beyond the plane."""
    padded = np.pad(plane, edge // 2)
    h, w = middle
    return padded[h : h + edge, w : w + edge]


def _boxes(lesions: NDArray[np.int16]) -> list[tuple[int, int, int, int]]:
    """Return the box of each lesion in a slice: x1, y1, x2, y2 in pixels, half-open."""
    extents = ndimage.find_objects(lesions)
    return [(x.start, y.start, x.stop, y.stop) for y, x in (f for f in extents if f is not None)]


def _write_slices(base: Path, split: str, slices: list[SliceImage]) -> None:
    for part in ("images", "labels"):
        (base / part / split).mkdir(parents=True, exist_ok=True)
    for picture in slices:
        (base / "images" / split / f"{picture.name}.png").write_bytes(png_bytes(picture.pixels))
        lines = [_line(box, *picture.pixels.shape) for box in picture.boxes]
        (base / "labels" / split / f"{picture.name}.txt").write_text("".join(lines), "utf-8")


def _line(box: tuple[int, int, int, int], height: int, width: int) -> str:
    """Return class, centre and size of a box, in shares of the picture."""
    x1, y1, x2, y2 = box
    centre = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
    numbers = (*centre, (x2 - x1) / width, (y2 - y1) / height)
    return "0 " + " ".join(f"{number:.6f}" for number in numbers) + "\n"


def _count(counts: dict[str, int], lesions: int, slices: list[SliceImage]) -> None:
    """Add one subject to the counts of its split."""
    new = {
        "subjects": 1,
        "lesions": lesions,
        "images": len(slices),
        "images_without_lesion": sum(not picture.boxes for picture in slices),
        "boxes": sum(len(picture.boxes) for picture in slices),
    }
    for key, value in new.items():
        counts[key] = counts.get(key, 0) + value


def _said(options: MetastasisOptions) -> dict[str, Any]:
    """Return the options of the phantoms, without those of gliomas."""
    body = {k: v for k, v in asdict(options.body).items() if k not in GLIOMA}
    return {**asdict(options), "body": body}


def _data_yaml() -> str:
    """Return the data set's YAML for both detectors: grey images, one class."""
    content = {f"{split}": f"images/{split}" for split in ("train", "val", "test")}
    head = "".join(f"# {line}\n" for line in textwrap.wrap(DESCRIPTION, 96))
    tail = yaml.safe_dump({"nc": 1, "names": {0: "metastasis"}, "channels": 1}, sort_keys=False)
    return head + yaml.safe_dump(content, sort_keys=False) + tail
