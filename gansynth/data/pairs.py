"""Which files of a folder are label maps, and of which images: by what they hold, not by a word.

A label map holds few whole numbers and lies beside an image, which does not, under a name that has
the same case in it. Names like those of label maps count only where contents leave it open.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import read_volume
from gansynth.data.name_patterns import LIKE_LABELS, NamePattern, files_below
from gansynth.data.picture_files import SUFFIXES, read_picture
from gansynth.runtime.errors import GansynthError

FEW_VALUES = 16
"""Most values of what is a label map by its content."""
SOFT, MOSTLY = 32, 0.9
"""A soft mask, as of JPEG: this share of its pixels is so near to 0 or to 255."""
_ROUNDED = 1e-4  # how far from a whole number a label may be, of files that scale
_SOME_VOXELS = 10**5  # are looked at before all are
_ASKED, _OPENED = 3, 12  # files of one kind that must agree, and that are opened at most
_KINDS = 40  # kinds of names that are compared with each other
_ENDING = re.compile(r"(?P<stem>.+?)(?P<ending>\.nii\.gz|\.[^.]+)", re.DOTALL)
_BORDER = re.compile(r"(?<=[^\W_])(?=[\W_])|(?<=[\W_])(?=[^\W_])|(?<=\d)(?=\D)|(?<=\D)(?=\d)")

# -- contents ------------------------------------------------------------------------------------


def are_label_maps(files: Iterable[Path]) -> bool:
    """Return whether files hold few whole numbers each; some of them are read."""
    agreed = 0
    for file in islice(files, _OPENED):
        drawn = _holds_labels(file)
        if drawn is False:
            return False
        agreed += drawn is True
        if agreed == _ASKED:
            break
    return agreed > 0


def _holds_labels(file: Path) -> bool | None:
    """Return None where a file says nothing: it is of one value, or cannot be read."""
    try:
        stamp = file.stat().st_mtime_ns
    except OSError:
        return None
    return _holds_labels_now(file, stamp)


@lru_cache(maxsize=4096)
def _holds_labels_now(file: Path, stamp: int) -> bool | None:
    picture = file.suffix.lower() in SUFFIXES
    try:  # whoever reads all files says what is wrong with one
        array = (read_picture(file, "mask") if picture else read_volume(file).array).ravel()
    except GansynthError as fault:
        return False if fault.id == "picture-files.mode-unsupported" else None
    for some in (array[:: 1 + array.size // _SOME_VOXELS], array):
        values = np.unique(some)
        if values.size > FEW_VALUES or np.any(np.abs(values - np.rint(values)) > _ROUNDED):
            return picture and _is_soft(array)
    return None if values.size == 1 else True


def _is_soft(array: npt.NDArray[Any]) -> bool:
    ends = np.array([np.mean(array <= SOFT), np.mean(array >= 255 - SOFT)])
    return array.dtype == np.uint8 and ends.sum() > MOSTLY and ends.min() > 0


# -- kinds of files ------------------------------------------------------------------------------

Kinds = Mapping[str, Mapping[str, Path]]
"""What the names of a kind of files add to a case -> case -> its file."""


def label_maps_among(kinds: Kinds) -> list[str]:
    """Return the kinds of files that are label maps of images, those of most cases first.

    All that hold few whole numbers; where none do, the one of most cases that is called so, if any.
    """
    least = max([len(files) for files in kinds.values()], default=0) / 4
    beside = {kind: _beside(kinds, kind) for kind, files in kinds.items() if len(files) >= least}

    def rank(kind: str) -> tuple[int, int, int]:
        return len(_paired(kinds, kind, beside[kind])), len(beside[kind]), -len(kind)

    likely = sorted([kind for kind in beside if beside[kind]], key=rank, reverse=True)
    found: list[str] = []
    for kind in likely[:_KINDS]:
        files = set(kinds[kind].values())
        known = [other for other in found if files <= set(kinds[other].values())]
        if not known and _are_drawn(kinds, kind, beside[kind]):
            found.append(kind)
    named = [kind for kind in likely if LIKE_LABELS.search(kind)]
    return found or named[:1]


def _beside(kinds: Kinds, kind: str) -> list[str]:
    """Return the other kinds that have other files of the same cases."""
    return [other for other in kinds if other != kind and _others(kinds, kind, other)]


def _paired(kinds: Kinds, kind: str, beside: Iterable[str]) -> set[str]:
    return kinds[kind].keys() & set[str]().union(*[kinds[other].keys() for other in beside])


def _are_drawn(kinds: Kinds, kind: str, beside: Iterable[str]) -> bool:
    """Return whether a kind of files are label maps, and some files beside them are not."""
    if not are_label_maps(kinds[kind].values()):
        return False
    return not all([are_label_maps(_others(kinds, kind, other)) for other in beside])


def _others(kinds: Kinds, kind: str, other: str) -> list[Path]:
    own, files = kinds[kind], kinds[other]
    return [files[case] for case in files if case in own and own[case] is not files[case]]


# -- any layout ----------------------------------------------------------------------------------


def paired_patterns(
    folder: Path, endings: tuple[str, ...], *, channels: bool = True
) -> dict[str, str]:
    """Return ``--read`` keys ``image`` and ``label`` that fit a folder's files; empty for none.

    A case is named by a part of its files' names, or by its folder. What is returned reads at least
    three quarters of the files, each as what it is. ``channels``: whether each may have a file.
    """
    files = {text: path for text, path in files_below(folder) if text.lower().endswith(endings)}
    kinds: dict[str, dict[str, Path]] = defaultdict(dict)
    for text, path in files.items():
        for case, pattern in _patterns_of(text):
            kinds[pattern][case] = path
    usual = sorted([kind for kind in kinds if len(kinds[kind]) > 1], key=lambda k: -len(kinds[k]))
    kinds = {kind: kinds[kind] for kind in usual[:_KINDS]}
    found = label_maps_among(kinds)
    labels = [kind for kind in found if "brain" not in kind] or found
    if len(labels) != 1 or not are_label_maps(kinds[labels[0]].values()):
        return {}
    [label] = labels
    images = _images_of(kinds, label)
    if not images or (len(images) > 1 and not channels):
        return {}
    image = _joined(images)
    if _reads(files, NamePattern(image), NamePattern(label), kinds[label], len(images)):
        return {"image": image, "label": label}
    return {}


def _patterns_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each case that a path may be of, and the pattern that then fits it."""
    *folders, name = text.split("/")
    match = _ENDING.fullmatch(name)
    if match is None or re.search(r"[*?{}]", text):
        return
    stem, ending = match["stem"], match["ending"]
    home = "".join([f"{folder}/" for folder in folders])
    borders = [border.start() for border in _BORDER.finditer(stem)]
    for at in (len(stem), *borders):
        if stem[at - 1].isalnum():
            yield stem[:at], f"{home}{{case}}{stem[at:]}{ending}"
    for at in borders:
        if stem[at].isalnum():
            yield stem[at:], f"{home}{stem[:at]}{{case}}{ending}"
    for place, case in enumerate(folders):
        parts = [*folders[:place], "{case}", *folders[place + 1 :]]
        yield case, "/".join([*parts, name.replace(case, "{case}", 1)])


def _images_of(kinds: Kinds, label: str) -> list[str]:
    """Return the kinds of images of some label maps: one, or one for each channel."""
    images: dict[frozenset[Path], str] = {}
    for kind in _beside(kinds, label):
        others = _others(kinds, label, kind)
        if 2 * len(others) >= len(kinds[label]) and not are_label_maps(others):
            images.setdefault(frozenset(others), kind)
    return list(images.values())


def _joined(patterns: Sequence[str]) -> str:
    """Return the pattern that all have in common, with ``{channel}`` where they differ."""
    if len(patterns) == 1:
        return patterns[0]
    begin = _shared_start(patterns)
    end = _shared_start([pattern[len(begin) :][::-1] for pattern in patterns])[::-1]
    begin, end = re.sub(r"[^\W_]+$", "", begin), re.sub(r"^[^\W_]+", "", end)  # whole words
    return f"{begin}{{channel}}{end}"


def _shared_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    same = [one == other for one, other in zip(first, last, strict=False)]
    return first[: [*same, False].index(False)]


def _reads(
    files: Mapping[str, Path],
    image: NamePattern,
    label: NamePattern,
    drawn: Mapping[str, Path],
    channels: int,
) -> bool:
    """Return whether two patterns read most files, and as label maps those of the cases drawn."""
    images: dict[str, set[str]] = defaultdict(set)  # case -> channels
    labels: dict[str, Path] = {}
    for text, path in files.items():
        of_label, of_image = label.fits(text), image.fits(text)
        if of_label is not None:
            labels[of_label.case] = path
        elif of_image is not None:
            images[of_image.case].add(of_image.channel)
    known = set[str]().union(*images.values())
    enough = 4 * (sum(map(len, images.values())) + len(labels)) >= 3 * len(files)
    right = labels == drawn and labels.keys() <= images.keys()
    return enough and right and len(known) == channels
