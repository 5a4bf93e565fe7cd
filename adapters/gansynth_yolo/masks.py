"""Label maps beside the images of a YOLO data set, for generators that need more than boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansynth.core.schema import LabelArray
from gansynth.data.picture_files import read_picture
from gansynth.runtime.errors import DataFault
from gansynth_yolo.cases import YoloImage
from gansynth_yolo.images import Fault, ImageListing, beside


def mask_path(image: YoloImage) -> Path:
    """Return the label map of an image: ``/masks/`` for the last ``/images/``, a PNG."""
    return beside(image.image, "masks", ".png")


def missing_masks(listing: ImageListing) -> list[Fault]:
    """Return images without a label map."""
    return [
        (
            image.case,
            path,
            DataFault(
                f"{path}: no such file, expected the label map of {image.image}; add it (all "
                "zeros without a lesion), or leave --read masks out"
            ),
        )
        for image in listing.images.values()
        if not (path := mask_path(image)).is_file()
    ]


def read_mask(image: YoloImage, classes: int) -> LabelArray:
    """Read a label map, int16 (H, W), 0 to ``classes``, cropped like its image."""
    path = mask_path(image)
    mask = read_picture(path, "mask")
    if mask.shape != image.header.shape:
        raise DataFault(
            f"{path}: shape is {mask.shape}, expected {image.header.shape} as of {image.image}; "
            "resample one to the other"
        )
    if mask.max() > classes:
        raise DataFault(
            f"{path}: holds the number {int(mask.max())}, expected 0 (background) to {classes}, "
            "in the order of names in data.yaml; correct the mask"
        )
    labels: LabelArray = mask.astype(np.int16)
    return labels
