"""Images that are trained on and held out, too: by path, by file, or by content."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from gansynth.runtime.files import reading, sha256_file
from gansynth_yolo.cases import YoloImage
from gansynth_yolo.dataset_file import DatasetFile
from gansynth_yolo.headers import read_pixels
from gansynth_yolo.images import Fault, Listing, shared_fault

PIECE = 4096
"""Bytes from the middle of a file that tell most files of one size apart."""


def same_files(file: DatasetFile, listing: Listing) -> list[Fault]:
    """Images of two splits that are one file, or two of the same bytes.

    Files are compared by what they are, then those of one size by their content. Images of one
    constant value are all alike and do not count.
    """
    files: dict[tuple[int, int], YoloImage] = {}
    sizes: dict[int, list[YoloImage]] = defaultdict(list)
    shared = []
    for image in listing.images.values():
        with reading(image.image):
            status = os.stat(image.image)
        first = files.setdefault((status.st_dev, status.st_ino), image)
        if first.split != image.split:
            shared.append(_pair(first, image, "one file"))
        elif first is image:
            sizes[status.st_size].append(image)
    for alike in sizes.values():
        shared += _same_bytes(alike)
    return [(None, file.path, shared_fault(file, shared))] if shared else []


def _same_bytes(images: Sequence[YoloImage]) -> list[str]:
    if len({image.split for image in images}) < 2:
        return []
    pieces: dict[str, list[YoloImage]] = defaultdict(list)
    for image in images:
        pieces[_piece(image.image)].append(image)
    shared = []
    for group in pieces.values():
        if len({image.split for image in group}) < 2:
            continue
        known: dict[str, YoloImage] = {}
        for image in group:
            first = known.setdefault(sha256_file(image.image), image)
            if first.split != image.split and not _constant(image.image):
                shared.append(_pair(first, image, "the same bytes"))
    return shared


def _piece(path: Path) -> str:
    with reading(path), open(path, "rb") as stream:
        stream.seek(path.stat().st_size // 2)
        return hashlib.sha256(stream.read(PIECE)).hexdigest()


def _constant(path: Path) -> bool:
    pixels = read_pixels(path)
    return bool(pixels.min() == pixels.max())


def _pair(one: YoloImage, other: YoloImage, how: str) -> str:
    return f"{one.case} ({one.split}) and {other.case} ({other.split}), {how}"
