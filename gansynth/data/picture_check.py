"""Check ``pictures:FOLDER`` by decoding every file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.fingerprint import Prints, prints_of
from gansynth.core.lineage import neighbours
from gansynth.core.schema import content_hash
from gansynth.core.source import SourceRequest
from gansynth.data.classes import without_cases
from gansynth.data.listing import LIKE_LABELS
from gansynth.data.picture_files import read_picture
from gansynth.data.picture_list import PictureFiles
from gansynth.data.pictures import Kind, PictureSource, kind_of, unlike
from gansynth.runtime.errors import GansynthError


def check_pictures(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``pictures:FOLDER`` for all faults; every file is decoded."""
    source = PictureSource(request)
    listing = source.found
    findings = [Finding("error", case, file, str(fault)) for case, file, fault in listing.faults]
    content: dict[str, list[str]] = defaultdict(list)
    kinds: dict[Kind, list[str]] = defaultdict(list)
    prints: dict[str, Prints] = {}
    for done, picture in enumerate(listing.pictures.values()):
        progress(done, len(listing.pictures))
        findings += _check_picture(source, picture, content, kinds, prints)
    progress(len(listing.pictures), len(listing.pictures))
    findings += _check_set(source, content, kinds)
    if request.subjects is None and not any(f.level == "error" for f in findings):
        sides = (source.train_ids, source.held_out_ids)
        if warning := neighbours(*({case: prints[case] for case in side} for side in sides)):
            findings.append(
                Finding("warning", None, listing.folder, f"{listing.folder}: {warning}")
            )
    findings.sort(key=lambda finding: finding.level)  # errors before warnings
    return CheckReport(source.name, len(listing.pictures), findings)


def _check_picture(
    source: PictureSource,
    picture: PictureFiles,
    content: dict[str, list[str]],
    kinds: dict[Kind, list[str]],
    prints: dict[str, Prints],
) -> Iterator[Finding]:
    shape = None
    try:
        array = read_picture(picture.image)
        shape = array.shape[:2]
        kinds[kind_of(array)].append(picture.case)
        content[content_hash(array)].append(picture.case)
        if source.request.subjects is None:  # see ``neighbours``
            prints[picture.case] = prints_of(np.moveaxis(np.atleast_3d(array), -1, 0), (1.0, 1.0))
        if array.min() == array.max():
            message = f"{picture.image}: every pixel is {array.flat[0]}; is it meant to be there?"
            yield Finding("warning", picture.case, picture.image, message)
    except GansynthError as fault:
        yield Finding("error", picture.case, picture.image, str(fault))
    if picture.mask is None:
        return
    try:
        mask = read_picture(picture.mask, "mask")
        source.read_mask(picture.mask, shape or mask.shape)
    except GansynthError as fault:
        yield Finding("error", picture.case, picture.mask, str(fault))


def _check_set(
    source: PictureSource, content: dict[str, list[str]], kinds: dict[Kind, list[str]]
) -> Iterator[Finding]:
    """Report faults of the data set as a whole."""
    folder, pictures = source.found.folder, source.found.pictures
    usual = max(kinds, key=lambda kind: len(kinds[kind]), default=None)
    for kind, cases in kinds.items():
        for case in cases if usual is not None and kind != usual else ():
            path = pictures[case].image
            yield Finding("error", case, path, str(unlike(path, kind, usual or kind)))
    for cases in content.values():
        for case in cases[1:]:
            path = pictures[case].image
            message = f"{path}: same pixels as {cases[0]}; remove one, or give both one subject"
            yield Finding(
                "error" if len(_sides(source, cases)) > 1 else "warning", case, path, message
            )
    for path in source.found.spare:
        message = f"{path}: a mask without an image; it is not used"
        yield Finding("warning", None, path, message)
    if not source.found.masked:
        yield from _check_unread(folder, pictures)
    try:
        yield from without_cases(source, source.classes, folder)
    except GansynthError as fault:
        yield Finding("error", None, folder, str(fault))


def _check_unread(folder: Path, pictures: Collection[str]) -> Iterator[Finding]:
    """Report files of a folder without masks that may be masks or boxes."""
    alike = [case for case in pictures if LIKE_LABELS.search(case)]
    if alike:
        message = (
            f"{folder}: {len(alike)} of {len(pictures)} names are like those of masks and are read "
            f"as images, {alike[0]!r} first. If they are masks, put them in masks/ by the names of "
            "their images in images/, or name their suffix: --read mask_suffix=_mask"
        )
        yield Finding("warning", alike[0], folder, message)
    texts = {path.stem for path in folder.rglob("*.txt")}
    boxed = sum(Path(case).name in texts for case in pictures)
    if pictures and 2 * boxed >= len(pictures):
        message = (
            f"{folder}: {boxed} of {len(pictures)} images have a text file of their name, as a "
            "detector's boxes have, which are not read here: open it as a data set of boxes"
        )
        yield Finding("warning", None, folder, message)


def _sides(source: PictureSource, cases: list[str]) -> set[bool]:
    """Return the sides of the split (held out or not) that pictures are on."""
    try:
        return {case in source.held_out_ids for case in cases}
    except GansynthError:  # told elsewhere
        return set()
