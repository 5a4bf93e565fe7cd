"""Strip the skulls of single axial slices, and crop them to the brain, before anything is learnt.

    python strip_skulls.py DATA -o STRIPPED     # DATA/images/**, labels/**.txt, masks/**

Images become PNG files that are 0 outside of the brain; boxes of YOLO and masks are cropped along.
Then: ``gansynth fit cpggan --recipe han2019-cpggan --data yolo:STRIPPED/data.yaml``.

Han et al. 2019, sec. 3.1, strip and crop, and do not say how. This is for T1-weighted slices whose
scalp is brighter than the brain and whose bone is dark. Look at the slices: at the skull base it
keeps some non-brain and loses temporal poles; of two of three subjects it left face or skull base.
A lesion that has grown into the bone may be cut. Volumes are better stripped by a trained tool
(HD-BET, SynthStrip) before they become slices.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from gansynth.core.body_mask import otsu
from gansynth.core.schema import FloatArray, Mask
from gansynth.data.picture_files import SUFFIXES, read_picture
from gansynth_yolo.source import beside

Depth = npt.NDArray[np.floating[Any]]

WORKING_SIDE = 200  # pixels of the longer side, about, that the brain is looked for at
# Intensities are parts of the median of the head's inner half, lengths parts of twice its depth.
DARK = 0.5  # below it there is bone or air
BRIGHT = 1.5  # above it, and joined to the skin, there is scalp
SKIN = 0.035
OUTER = 0.07  # layer in which a scalp is bright somewhere; the skin itself is blurred with air
SCALP = 0.2  # how deep the scalp reaches at most
NECK = 0.025  # half the width of a bridge that does not join two parts
PART = 0.1  # least weight of a part, by depth and beside the heaviest: brain is in several fossae
CLOSE = 0.14  # half the width of a bay that belongs to the brain: the sella, a dark cyst at the rim
RING = 0.15  # share of the outer layer that is bright where there is a scalp at all
WHOLE = 0.9  # share of a box that has to be brain for its lesion to be kept whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with images/, and labels/ or masks/")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    images = [p for p in sorted(args.data.rglob("*")) if p.suffix.lower() in SUFFIXES]
    images = [p for p in images if "images" in p.relative_to(args.data).parts]
    lost = [str(path) for path in images if strip(path, args.data, args.out) < WHOLE]
    for file in args.data.glob("data.yaml"):
        shutil.copy(file, args.out)
    print(
        f"{len(images)} images; less than {WHOLE:.0%} of a lesion is brain in {len(lost)}:", *lost
    )


def strip(path: Path, data: Path, out: Path) -> float:
    """Write an image, and its boxes and mask if there are any; return the least share of brain."""
    pixels = read_picture(path)
    brain = find_brain(pixels)
    crop = tuple(slice(int(n.min()), int(n.max()) + 1) for n in np.nonzero(brain))
    inside = brain.reshape(*brain.shape, *[1] * (pixels.ndim - 2))
    target = (out / path.relative_to(data)).with_suffix(".png")
    _save(target, np.where(inside, pixels, pixels.dtype.type(0))[crop])
    shares = [1.0]
    mask, label = (beside(path, *names) for names in (("masks", ".png"), ("labels", ".txt")))
    if mask.is_file():
        labels = read_picture(mask, "mask")
        _save(beside(target, "masks", ".png"), labels[crop])
        shares += [float(brain[labels > 0].mean())] if labels.any() else []
    if label.is_file():
        rows, kept = np.loadtxt(label, ndmin=2).reshape(-1, 5), []
        low, size = [c.start for c in crop], [c.stop - c.start for c in crop]
        for kind, *box in rows:
            middle, half = (
                np.array(box[1::-1]) * brain.shape,
                np.array(box[:1:-1]) * brain.shape / 2,
            )
            ends = np.array([middle - half, middle + half])
            top, left, bottom, right = (
                *np.floor(ends[0]).astype(int),
                *np.ceil(ends[1]).astype(int),
            )
            shares.append(float(brain[max(0, top) : bottom, max(0, left) : right].mean()))
            (y1, x1), (y2, x2) = np.clip(ends - low, 0, size) / size
            if y1 < y2 and x1 < x2:
                kept.append((kind, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
        text = beside(target, "labels", ".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{int(kind)} {' '.join(f'{n:.6f}' for n in box)}\n" for kind, *box in kept)
        text.write_text("".join(lines), "utf-8")
    return min(shares)


def _save(path: Path, pixels: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def find_brain(image: npt.NDArray[Any]) -> Mask:
    """Find the brain in an axial slice (H, W) or (H, W, 3), dark is low: bool (H, W).

    What has no scalp is taken to be stripped already. Where nothing is found, all of the slice is.
    """
    grey = np.asarray(image.mean(axis=-1) if image.ndim == 3 else image, np.float32)
    step = max(1, max(grey.shape) // WORKING_SIDE)
    small = ndimage.gaussian_filter(grey, step / 2 + 0.25)[::step, ::step]
    mask = _mask(np.pad(small, 1))[1:-1, 1:-1]
    if not mask.any():
        return np.ones(grey.shape, np.bool_)
    rows, columns = grey.shape
    return mask.repeat(step, 0).repeat(step, 1)[:rows, :columns]


def _mask(small: FloatArray) -> Mask:
    head = ndimage.binary_fill_holes(_largest(small > 0.6 * otsu(small)))
    depth = ndimage.distance_transform_edt(head)
    across = 2 * float(depth.max())
    if across == 0:
        return np.zeros(small.shape, np.bool_)
    usual = float(np.median(small[depth > across / 4]))
    scalp = _scalp(head, depth / across, small > BRIGHT * usual)
    if scalp[head & (depth <= max(1, OUTER * across))].mean() < RING:
        return np.asarray(head, np.bool_)
    inner = head & ~scalp & (depth >= SKIN * across)
    tissue = inner & (small > DARK * usual)
    middle = _parts(_eroded(tissue, NECK * across), depth, PART)
    brain = _dilated(middle, 1.3 * NECK * across) & tissue
    around = int(CLOSE * across) + 2
    brain = _dilated(np.pad(brain, around), CLOSE * across)
    closed = ndimage.binary_fill_holes(_eroded(brain, CLOSE * across))
    closed = closed[around:-around, around:-around] & inner
    return _dilated(ndimage.binary_fill_holes(_largest(_eroded(closed, 1.5))), 1.5) & closed


def _scalp(head: Mask, depth: Depth, bright: Mask) -> Mask:
    """What is bright and joined to the skin."""
    parts, _ = ndimage.label(head & bright & (depth < SCALP))
    touching = np.unique(parts[(depth < OUTER) & (parts > 0)])
    return np.asarray(np.isin(parts, touching), np.bool_)


def _largest(mask: Mask) -> Mask:
    return _parts(mask, np.ones(mask.shape, np.float32), 1)


def _parts(mask: Mask, weights: Depth, least: float) -> Mask:
    """The connected parts that weigh so much at least, as a share of the heaviest one."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel(), weights.ravel())
    sizes[0] = 0
    return np.asarray(np.isin(parts, np.flatnonzero(sizes >= least * sizes.max())), np.bool_)


def _eroded(mask: Mask, radius: float) -> Mask:
    return np.asarray(ndimage.distance_transform_edt(mask) > radius, np.bool_)


def _dilated(mask: Mask, radius: float) -> Mask:
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius, np.bool_)


if __name__ == "__main__":
    main()
