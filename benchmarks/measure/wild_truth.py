"""What the makers of ``bench_wild.py`` draw, by their ``base.py``, and how sets are corrected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import binary_dilation, binary_erosion

from gansynth.core.source import CaseSource

Array = Any
Mask = Callable[[Array, Array], Array]
"""Of the map and the first image that were drawn."""
Hand = Callable[[Path], object]
SQUARE = (1.0, 1.0, 1.0)


class Truth(NamedTuple):
    """A case: channels (C, ...) as stored, masks by names of labels, boxes, voxel size."""

    image: Array
    masks: Mapping[str, Array]
    boxes: Array = None
    spacing: tuple[float, ...] | None = None


@dataclass
class Input:
    """A set that a maker makes.

    Attributes:
        truth: of the case with a number; None where nothing is read back.
        cases: how many there are.
        where: what is typed after the folder; ``kind``: before it.
        meant: a text of the offer that is meant, where there are several.
        hand: does to the folder what is told in words.
        near: how far an image's mean may be off: JPEG's is.
    """

    truth: Callable[[int], Truth] | None
    cases: int = 6
    where: str = ""
    kind: str = ""
    meant: str = ""
    hand: Hand | None = None
    near: float = 1e-3
    note: str = ""


def compared(source: CaseSource, truths: Sequence[Truth], near: float) -> str:
    """Return how the cases of a source differ from what was drawn; empty if they do not."""
    ids, left = [*source.train_ids, *source.held_out_ids], list(truths)
    if len(ids) != len(left):
        return f"{len(ids)} cases instead of {len(left)}"
    for case_id in ids:
        case = source.decode(case_id)
        fitting = [truth for truth in left if truth.image.shape == case.image.shape]
        off = [float(np.abs(truth.image - case.image).mean()) for truth in fitting]
        if min(off, default=np.inf) > near:
            return f"{case_id}: an image {case.image.shape} of no case, {min(off, default=-1)} off"
        truth = fitting[int(np.argmin(off))]
        left = [other for other in left if other is not truth]
        named = {name: number for name, number in source.schema.labels.items() if number}
        if set(named) != set(truth.masks):
            return f"{case_id}: labels {sorted(named)}, not {sorted(truth.masks)}"
        for name, mask in truth.masks.items():
            if not np.array_equal(case.labels == named[name], mask):
                return f"{case_id}: label {name!r} has {(case.labels == named[name]).sum()} voxels"
        if truth.spacing and not np.allclose(case.spacing, truth.spacing, atol=1e-4):
            return f"{case_id}: voxels of {case.spacing} mm, not {truth.spacing}"
        if truth.boxes is not None:
            coords = np.zeros((0, 4)) if case.boxes is None else case.boxes.coords
            if coords.shape != truth.boxes.shape or np.abs(coords - truth.boxes).max() > 0.51:
                return f"{case_id}: boxes {coords.tolist()}, not {truth.boxes.tolist()}"
    return ""


# -- what is drawn ------------------------------------------------------------------------


def value(number: int) -> Mask:
    """Return a mask of a number."""
    return lambda label, _: label == number


def everything(label: Array, _: Array) -> Array:
    """Return what is drawn at all."""
    return label > 0


def core(mask: Array, _: Array) -> Array:
    """Return the inside of a mask of a picture."""
    return binary_erosion(mask, iterations=4)


def ring(mask: Array, _: Array) -> Array:
    """Return the pixels around a mask."""
    return binary_dilation(mask) & (mask == 0)


def right(mask: Array, _: Array) -> Array:
    """Return the right half of a mask."""
    x = np.flatnonzero(mask.any(0))
    return (mask > 0) & (np.arange(mask.shape[1]) > (x[0] + x[-1] + 1) // 2)


def top(mask: Array, _: Array) -> Array:
    """Return the four uppermost rows."""
    return np.broadcast_to((np.arange(len(mask)) < 4)[:, None], mask.shape)


def without(one: Mask, *others: Mask) -> Mask:
    """Return what is in the first mask, and in no other."""
    return lambda label, image: (
        one(label, image) & ~np.any([other(label, image) for other in others], 0)
    )


def upright(array: Array) -> Array:
    """Return (x, y, z) as (z, y, x)."""
    return array.T


def of_itk(array: Array) -> Array:
    """Return what is written without a direction: x points to the left and y to the back."""
    return array.T[..., ::-1, ::-1]


TWO: Mapping[str, Mask] = {"label 1": value(1), "label 2": value(2)}
THREE, FOUR = {**TWO, "label 3": value(3)}, {**TWO, "label 4": value(4)}
NAMED = {"rim": value(1), "core": value(2)}
BRATS = ((1, 1), (0, 1), (3, 1), (2, 1))  # as its names are sorted
PLAIN = ((0, 1),)


def volumes(
    names: Mapping[str, Mask] = TWO,
    channels: Sequence[tuple[int, float]] = PLAIN,
    *,
    change: Callable[[Array], Array] = np.asarray,
    seed: Callable[[int], int] = int,
    upper: Sequence[tuple[int, int]] = (),
    stored: Callable[[Array], Array] = upright,
    spacing: tuple[float, ...] = (2.0, 1.0, 1.0),
) -> Callable[[int], Truth]:
    """Return truths of ``base.volume``.

    ``channels``: number and factor; ``upper``: numbers that are others in the upper slices.
    """
    from base import volume

    def truth(number: int) -> Truth:
        images, label = volume(seed(number), channels=1 + max([c for c, _ in channels]))
        for old, new in upper:
            label[(label == old) & (np.arange(label.shape[2]) > 15)] = new
        image = [stored(change(images[channel] * factor)) for channel, factor in channels]
        masks = {name: stored(mask(label, images[0])) for name, mask in names.items()}
        return Truth(np.stack(image), masks, spacing=spacing)

    return truth


def ignored(number: int) -> Truth:
    """Return a case of ``s03_paths``, whose lowest slices are not annotated."""
    truth = volumes({"label_1": value(1), "core": value(2), "ignore": value(9)})(number)
    low = np.arange(len(truth.image[0]))[:, None, None] < 3
    masks = {name: mask & ~low for name, mask in truth.masks.items()}
    return truth._replace(masks={**masks, "ignore": masks["ignore"] | low})


def nodules(number: int) -> Truth:
    """Return a case of nnDetection: two objects of one class."""
    truth = volumes({"label 1": everything})(number)
    first = truth.masks["label 1"].T
    second = np.roll(np.flip(first, 0), -2, 1) & ((number % 3) > 0) & ~first
    image = truth.image + 150 * second.T
    return truth._replace(image=image, masks={"label 1": (first | second).T})


def angio(number: int) -> Truth:
    """Return a case of TopCoW: each patient's CT, then the MR."""
    names = {**TWO, "label 15": value(15)}
    return volumes(names, [(number % 2, 1)], upper=[(1, 15)], seed=lambda n: 1 + n // 2)(number)


def colour(image: Array) -> Array:
    """Return a grey picture as one in colour."""
    return np.stack([image] * 3)


def pictures(
    names: Mapping[str, Mask] | None = None,
    change: Callable[[Array], Array] = lambda image: image[None],
    *,
    boxes: bool = False,
    first: int = 0,
) -> Callable[[int], Truth]:
    """Return truths of ``base.picture``; boxes are (y, x, y, x)."""
    from base import picture

    drawn = names or ({} if boxes else {"foreground": everything})

    def truth(number: int) -> Truth:
        image, mask, (x0, y0, x1, y1) = picture(number + first)
        masks = {name: of(mask, image) for name, of in drawn.items()}
        found = np.array([[y0, x0, y1, x1]]) if boxes else None
        return Truth(change(image).astype(np.float32), masks, found)

    return truth


def slices(extra: int = 0) -> Callable[[int], Truth]:
    """Return truths of colour pictures that nnU-Net reads as volumes of a slice."""

    def painted(image: Array) -> Array:
        opaque = [np.full_like(image, 255)] * extra
        return np.stack([image, image // 2, 255 - image, *opaque])[:, None]

    return pictures({"lesion": lambda mask, _: mask[None] > 0}, painted)


def cells(number: int) -> Truth:
    """Return a picture of cells, each of a number of its own."""
    rng, drawn = np.random.default_rng(number), np.zeros((96, 128), bool)
    yy, xx = np.mgrid[:96, :128]
    for _ in range(5 + number):
        y, x = rng.integers(8, 88), rng.integers(8, 120)
        drawn |= (yy - y) ** 2 + (xx - x) ** 2 < 25
    image = np.clip(60 + 90 * drawn + rng.normal(0, 6, drawn.shape), 0, 255).astype(np.uint8)
    return Truth(image[None], {"foreground": drawn})


# -- what is done by hand ------------------------------------------------------------------


def each(pattern: str, change: Hand) -> Hand:
    """Return what changes some files of a folder."""
    return lambda folder: [change(file) for file in sorted(folder.rglob(pattern))]


def voxels(change: Callable[[Array], Array]) -> Hand:
    """Return what writes a NIfTI file again with other voxels than are stored."""

    def rewrite(file: Path) -> None:
        scan = nib.load(file)
        nib.save(nib.Nifti1Image(change(np.array(scan.dataobj.get_unscaled())), scan.affine), file)

    return rewrite


def pixels(change: Callable[[Array], Array]) -> Hand:
    """Return what writes a picture again as PNG, with other pixels."""

    def rewrite(file: Path) -> None:
        array = np.asarray(Image.open(file))
        file.unlink()
        Image.fromarray(change(array).astype(np.uint8)).save(file.with_suffix(".png"))

    return rewrite


def described(**entries: Any) -> Hand:
    """Return what corrects entries of ``dataset.json``."""

    def correct(file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))

    return each("dataset.json", correct)


def yaml(old: str, new: str) -> Hand:
    """Return what corrects a line of ``data.yaml``."""
    return each("data.yaml", lambda file: file.write_text(file.read_text().replace(old, new)))


def masks_as_png(folder: Path) -> None:
    """Write what the tool that drew annotations exports: masks beside the images."""
    from base import picture

    (folder / "masks").mkdir()
    for number, file in enumerate(sorted((folder / "images").iterdir())):
        Image.fromarray(picture(number)[1] * 255).save(folder / "masks" / f"{file.stem}.png")


def stored_as_shown(file: Path) -> None:
    """Store a JPEG as its orientation shows it."""
    with Image.open(file) as picture:
        picture.load()
    ImageOps.exif_transpose(picture).save(file, quality=95, exif=b"")


def one_class(file: Path) -> None:
    """Write a map of nnDetection's objects as one of their class, without the list of classes."""
    voxels(lambda array: (array > 0).astype(np.uint8))(file)
    file.with_name(file.name.replace(".nii.gz", ".json")).unlink()


def rows_in_order(folder: Path) -> None:
    """Correct the CSV of which one column was sorted alone."""
    names = [f"1.2.840.{(number * 7919) % 97:02d}" for number in range(8)]
    rows = [f"c{n},img/{name}.nii.gz,lab/L{n:02d}.nii.gz" for n, name in enumerate(names)]
    (folder / "cases.csv").write_text("\n".join(["case,T1,label", *rows]) + "\n")


# -- what is tried ------------------------------------------------------------------------

WORDS = "infarct WMH stroke_path gt_path ann contour Segmentierung y seg_file target_path organ"
JPEG: Any = {"near": 6.0}


def inputs() -> dict[str, Input]:
    """Return all sets that are tried, by their folders."""
    plain, raw = volumes(), volumes(NAMED)
    found: dict[str, Input] = {}

    def add(maker: str, sets: str, truth: Any, *cases: int, **about: Any) -> None:
        for name in sets.split():
            found[f"{maker}/{name}".rstrip("/.")] = Input(truth, *cases, **about)

    shown = pictures(change=colour, boxes=True)
    add("s02_exif", "j5 j7 j8 p6", pictures(change=colour), **JPEG)
    add("s02_exif", "coco", shown, 8, hand=each("*.jpg", stored_as_shown), **JPEG)
    add("s03_paths", "a", ignored)
    add("s03_paths", "b", volumes(NAMED, [(c, 1) for c in range(3)]))
    add("s05_pixdim", "a c", volumes(spacing=(10.0, 1.5, 1.5)))
    add("s05_pixdim", "b", volumes(spacing=SQUARE))
    drawn = "via geojson mat npy bmp xlsx labelme_apart roi_zip"
    add("s06_annotations", drawn, pictures(), hand=masks_as_png)
    add("s07_order", "channel roi", None, kind="deepmedic:", where="/trainConfig.cfg")
    add("s07_order", "uid", plain, 8, where="/cases.csv", hand=rows_in_order)
    add("s08_csv_words", f"{WORDS} vessel", plain, where=".csv")
    yolo = {"kind": "yolo:", "where": "/data.yaml"}
    boxes = pictures(boxes=True)
    add("s09_yolo", "list", boxes, 12, **yolo, **JPEG)
    for name, old, new in (
        ("dotdot", "../../s09/", ""),
        ("ultra", "../datasets/x", "."),
        ("noval", "train: train/images", "train: train/images\nval: valid/images"),
        ("nc", "nc: 2", "nc: 1"),
        ("test_missing", "test: test/images", ""),
    ):
        add("s09_yolo", name, boxes, 8, hand=yaml(old, new), **yolo, **JPEG)
    add("s10_formats", "mha mhd", volumes(stored=of_itk, spacing=SQUARE))
    add("s10_formats", "mgz", plain)
    as_is = volumes(stored=np.asarray, spacing=SQUARE)
    add("s10_formats", "npy", as_is, note="arrays are (z, y, x)")
    add("s10_formats", "dicom_plain nii_zip", None)
    add("s11_layouts", "prefix gt flat slicer itksnap", plain)
    add("s11_layouts", "raters", plain, meant="rater1")
    add("s12_label5d", "lab5", plain)
    add("s12_label5d", "vec", volumes(channels=[(0, 1), (0, 0.5)]))
    half = {"label 127": without(everything, right), "label 255": right}
    soft = each("masks/*.tif", pixels(lambda array: array > 0.5))
    add("s13_soft_kind", "prob", pictures(), hand=soft)
    add("s13_soft_kind", "three", pictures(half))
    add("s13_soft_kind", "g254", pictures({"label 254": everything}))
    add("s13_soft_kind", "u16", pictures())
    parts = {"label 1": without(everything, right, top), "label 2": without(right, top)}
    add("s13_soft_kind", "void", pictures({**parts, "ignore": top}))
    add("s14_nnunet_v1", "noend", raw, hand=described(file_ending=".nii.gz"))
    add("s14_nnunet_v1", "list", raw, hand=described(channel_names={"0": "T1"}))
    add("s14_nnunet_v1", "upper", raw, hand=described(file_ending=".NII.GZ"))
    add("s14_nnunet_v1", "task numstr", raw)
    add("s14_nnunet_v1", "bmp rgb_tif2d", slices())
    add("s14_nnunet_v1", "rgba", slices(extra=1))
    add("s15_mac", ".", raw)
    add("s16_common_pairs", "seg mixed case gt ann parts", plain)
    add("s16_common_pairs", "t1seg", volumes(channels=[(0, 1), (1, 1)]))
    add("s16_common_pairs", "csv", plain, where="/cases.csv")
    add("s16_common_pairs", "nanlab", plain, hand=each("labels/*.gz", voxels(np.nan_to_num)))
    add("s16_common_pairs", "flat", volumes({"lesion": everything}))
    organs = {"body": lambda label, image: (image > 50) & (label == 0), "spleen": value(9)}
    organs |= {"liver": value(1), "liver_lesion": value(2)}
    hu = volumes(organs, change=lambda image: (image - 200).astype(np.int16))
    add("t01_totalseg", ".", hu, meant="{label}")
    add("t02_brats_ped", ".", volumes(FOUR, BRATS, upper=[(1, 4)]))
    add("t02b_brats_gli2024", ".", volumes(THREE | FOUR, BRATS, upper=[(1, 4), (2, 3)]))
    add("t02d_brats_met", ".", volumes(THREE, BRATS, upper=[(1, 3)]))
    numbered = each("SegmentationClass/*", pixels(lambda array: array.any(-1)))
    add("t03_cvat_mask", ".", pictures(change=colour), hand=numbered, **JPEG)
    voc = {"label 1": without(everything, core), "label 2": core, "ignore": ring}
    add("t04_voc_palette", ".", pictures(voc, colour), **JPEG)
    eye = {"label 0": core, "label 128": without(everything, core)}
    tinted = pictures(eye, lambda image: np.stack([image, image // 2, image // 3]))
    add("t05_refuge", ".", tinted, near=9.0)
    add("t06_cvc", ".", pictures(change=colour, first=1), 8)
    add("t08_slicer_layers", ".", volumes({"label 1": value(1), "label 1001": value(2)}))
    add("t12_not_gz", ".", plain)
    add("t12b_gz_as_nii", ".", plain)
    add("t13_amos", ".", volumes({"spleen": value(1), "right kidney": value(2)}), where="/amos22")
    restored = volumes(channels=[(0, 0.9), (0, 1), (0, 0.95)])
    add("t14_dhcp", ".", restored, meant="drawem9_")
    add("t15_feta", ".", volumes(seed=lambda number: number + 1), 8)
    add("t18_topcow", ".", angio, 10)
    shifted = each("labels/*.gz", voxels(lambda array: (array != 0).astype(np.uint8)))
    add("t19_int8_255", ".", volumes({"label 1": everything}), hand=shifted)
    add("t20_scaled_labels", ".", plain, hand=each("labels/*.gz", voxels(np.asarray)))
    deep = volumes(change=lambda image: image.astype(np.uint16), spacing=SQUARE)
    add("t21_tiff_stack", ".", deep)
    add("t23_nnunet_tif", ".", raw)
    add("t26_coco_roboflow", ".", shown, 15, **JPEG)
    add("t31_nndetection", ".", nodules, meant="no", hand=each("labelsTr/*.nii.gz", one_class))
    add("t32_instances", ".", cells)
    frames = volumes(seed=lambda number: 10 * (1 + number // 2) + (1, 12)[number % 2])
    add("t39_acdc_4d", ".", frames, 12)
    add("t43_label_in_cm", ".", volumes(channels=[(0, 1 + 0.05 * t) for t in range(10)]))
    add("t44_oblique", ".", plain)
    add("t46_img_mask_names", ".", pictures(), 8, **JPEG)
    add("t47_labels_gap_nnunet", ".", volumes({**NAMED, "vessel": value(3)}))
    add("t49_regions_order", ".", volumes({"label_1": value(1), "core": value(2)}))
    return found
