"""Which files of a folder are label maps, and of which images: by what they hold, not by a word.

A label map holds few whole numbers and lies beside an image, which does not, under a name that has
the same case in it. Names like those of label maps count only where contents leave it open.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.volumes import read_volume, read_volume_header
from gansynth.data.label_judge import MOSTLY, SOFT
from gansynth.data.name_patterns import LIKE_LABELS, NamedFile, NamePattern, files_below
from gansynth.data.picture_files import SUFFIXES, read_picture
from gansynth.runtime.errors import GansynthError

FEW_VALUES = 16
"""Most values of what is a label map by its content."""
_GRAINY = 0.03  # least share of neighbours that differ in images of few values
_ROUNDED = 1e-4  # how far from a whole number a label may be, of files that scale
_SOME_VOXELS = 10**5  # are looked at before all are
_ASKED, _OPENED = 3, 12  # files of one kind that must agree, and that are opened at most
_KINDS = 40  # kinds of names that are compared with each other
_PATTERNS, _SIBLINGS = 160, 8  # patterns, and folders of the same cases, that are looked at
_OVERLAP = 0.3  # Dice's overlap of what two raters draw, at least
MOST_CHOICES = 3
"""Most kinds of label maps of which one may be chosen that are told."""
_ENDING = re.compile(r"(?P<stem>.+?)(?P<ending>\.nii\.gz|\.[^.]+)", re.DOTALL)
_NUMBER = re.compile(r"\d+|(?<![^\W_])[^\W_](?![^\W_])")  # or a letter that stands alone
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


def _are_empty(files: Iterable[Path]) -> bool:
    """Return whether the first files say nothing; see ``_holds_labels``."""
    return {_holds_labels(file) for file in islice(files, _ASKED)} == {None}


def _holds_labels(file: Path) -> bool | None:
    """Return None where a file says nothing: it is of one value, or cannot be read."""
    try:
        stamp = file.stat().st_mtime_ns
    except OSError:
        return None
    return _holds_labels_now(file, stamp)


@lru_cache(maxsize=4096)
def _holds_labels_now(file: Path, stamp: int) -> bool | None:
    try:  # whoever reads all files says what is wrong with one
        array = _pixels(file).ravel()
    except GansynthError as fault:
        return False if fault.id == "picture-files.mode-unsupported" else None
    for some in (array[:: 1 + array.size // _SOME_VOXELS], array):
        values = np.unique(some)
        if values.size > FEW_VALUES or np.any(np.abs(values - np.rint(values)) > _ROUNDED):
            return file.suffix.lower() in SUFFIXES and _is_soft(array)
    return None if values.size == 1 else True


def _pixels(file: Path) -> npt.NDArray[Any]:
    picture = file.suffix.lower() in SUFFIXES
    return read_picture(file, "mask") if picture else read_volume(file).array


def _is_soft(array: npt.NDArray[Any]) -> bool:
    ends = np.array([np.mean(array <= SOFT), np.mean(array >= 255 - SOFT)])
    return array.dtype == np.uint8 and ends.sum() > MOSTLY and ends.min() > 0


# -- kinds of files ------------------------------------------------------------------------------

Kinds = Mapping[str, Mapping[str, Path]]
"""What the names of a kind of files add to a case -> case -> its file."""


def label_maps_among(kinds: Kinds, least: float | None = None) -> list[str]:
    """Return the kinds of files that are label maps of images, those of most cases first.

    All that hold few whole numbers; where none do, the one of most cases that is called so, if any.
    ``least``: cases of a kind; by default a quarter of those of the largest.
    """
    if least is None:
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
    own = kinds[kind]
    return [
        other
        for other, files in kinds.items()
        if other != kind and any([own[case] is not files[case] for case in own if case in files])
    ]


def _paired(kinds: Kinds, kind: str, beside: Iterable[str]) -> set[str]:
    return kinds[kind].keys() & set[str]().union(*[kinds[other].keys() for other in beside])


def _are_drawn(kinds: Kinds, kind: str, beside: Iterable[str]) -> bool:
    """Return whether a kind of files are label maps, and some files beside them are not."""
    if not are_label_maps(kinds[kind].values()):
        return False
    return bool(_images_among(kinds, kind, beside))


def _images_among(kinds: Kinds, kind: str, beside: Iterable[str]) -> list[str]:
    """Return the kinds beside some label maps that are no label maps themselves.

    Where all hold few whole numbers, these are images of few grey values, if any: they hold more
    values than the label maps, which change from voxel to voxel.
    """
    beside = list(beside)
    images = [other for other in beside if not are_label_maps(_others(kinds, kind, other))]
    return images or [other for other in beside if _change_more(kinds[other], kinds[kind])]


def _change_more(files: Mapping[str, Path], drawn: Mapping[str, Path]) -> bool:
    """Return whether files change more often, and hold more values, than label maps of theirs."""
    cases = [case for case in drawn if files.get(case, drawn[case]) is not drawn[case]][:_ASKED]
    (values, changes), (least, seldom) = (
        np.sum([_variety(kind[case]) for case in cases], axis=0) if cases else (0, 0)
        for kind in (files, drawn)
    )
    return bool(values > least and changes > max(2 * seldom, _GRAINY * len(cases)))


def _variety(file: Path) -> tuple[int, float]:
    """Return how many values a file has, and the share of neighbours that differ."""
    with suppress(GansynthError):
        array = _pixels(file)
        return np.unique(array).size, float(np.mean(array[1:] != array[:-1]))
    return 0, 0.0


def _others(kinds: Kinds, kind: str, other: str) -> list[Path]:
    own, files = kinds[kind], kinds[other]
    return [files[case] for case in files if case in own and own[case] is not files[case]]


# -- any layout ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundLayout:
    """A layout that a folder's names and contents tell.

    ``keys``: of ``--read``. ``whole``: whether it reads at least three quarters of the files, each
    as what it is. ``subjects``: an expression of people who have several cases, else empty.
    ``count``: how many files it reads.
    """

    keys: Mapping[str, str]
    whole: bool
    subjects: str = ""
    count: int = 0

    @property
    def joins(self) -> bool:
        """Whether a case has several label maps."""
        return NamePattern(self.keys["label"]).several

    @property
    def typed(self) -> str:
        """The options as they are typed."""
        words = [f"--read {shlex.quote(f'{key}={text}')}" for key, text in self.keys.items()]
        words += [f"--subjects {shlex.quote(self.subjects)}"] if self.subjects else []
        return " ".join(words)


def found_layouts(
    folder: Path, endings: tuple[str, ...], *, channels: bool = True, label: str = ""
) -> list[FoundLayout]:
    """Return patterns that fit a folder's images and label maps, one for each kind of label maps.

    A case is named by a part of its files' names, or by its folder. Where there are several kinds,
    a last one joins them: a file for each label, or for each rater.

    Args:
        folder: is searched with all that is below it.
        endings: of files that are read.
        channels: whether each channel may have a file.
        label: what the names of label maps end in, if that is known.
    """
    files = {text: path for text, path in files_below(folder) if text.lower().endswith(endings)}
    kinds = _kinds_of(files)
    found = label_maps_among(kinds, least=2)
    ending = re.compile(rf"(^|.*[\W_]){re.escape(label)}\.[^/]*", re.DOTALL)
    labels = [kind for kind in found if "brain" not in kind.casefold()] or found
    labels = [kind for kind in labels if not label or ending.fullmatch(kind)]
    labels = [kind for kind in labels if are_label_maps(kinds[kind].values())]
    each = {kind: _layout(files, kinds, kind, [kind], channels) for kind in labels}
    layouts = {kind: layout for kind, layout in each.items() if layout is not None}
    joined = _all_joined(files, kinds, list(layouts)) if channels else []
    return joined + list(layouts.values())[:MOST_CHOICES]


def _all_joined(
    files: Mapping[str, Path], kinds: Kinds, labels: Sequence[str]
) -> list[FoundLayout]:
    """Return layouts that join kinds of label maps: by the likeliest word of ``OF_LABELS``."""
    word = "label"
    if len({frozenset(kinds[kind]) for kind in labels}) > 1:
        word = "part"
    elif _of_raters([kinds[kind] for kind in labels]):
        word = "rater"
    if word != "label":  # those that are numbered, not their consensus beside them
        numbered: dict[str, list[str]] = defaultdict(list)
        for kind in labels:
            numbered[_NUMBER.sub("#", kind)].append(kind)
        labels = max(numbered.values(), key=len, default=[])
    pattern = _joined(labels, word) if len(labels) > 1 else None
    layout = None if pattern is None else _layout(files, kinds, pattern, labels, channels=True)
    return [] if layout is None else [layout]


def _kinds_of(files: Mapping[str, Path]) -> Kinds:
    """Return patterns of paths, each with the file of each case; those of most cases."""
    kinds: dict[str, dict[str, Path]] = defaultdict(dict)
    twice = set()
    for text, path in files.items():
        for case, pattern in _patterns_of(text):
            if kinds[pattern].setdefault(case, path) is not path:
                twice.add(pattern)
    for pattern in twice:
        del kinds[pattern]
    for depth in range(max([text.count("/") for text in files], default=0)):
        _join_folders(kinds, depth)
    usual = sorted([kind for kind in kinds if len(kinds[kind]) > 1], key=lambda k: -len(kinds[k]))
    return {kind: kinds[kind] for kind in usual[:_PATTERNS]}


def _join_folders(kinds: dict[str, dict[str, Path]], depth: int) -> None:
    """Add a pattern with ``*`` for folders that have different cases; many of one are no kinds."""
    groups: dict[str, list[str]] = defaultdict(list)
    for pattern in kinds:
        parts = pattern.split("/")
        if depth < len(parts) - 1 and parts[depth] != "*" and "{case}" not in parts[depth]:
            parts[depth] = "*"
            groups["/".join(parts)].append(pattern)
    for pattern, members in groups.items():
        joined = dict(kinds.get(pattern, {}))
        count = len(joined) + sum([len(kinds[member]) for member in members])
        for member in members:
            joined.update(kinds[member])
        if len(joined) == count and len(members) > 1:
            kinds[pattern] = joined
        elif len(members) > _SIBLINGS:
            for member in members:
                del kinds[member]


def _patterns_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each case that a path may be of, and the pattern that then fits it."""
    *folders, name = text.split("/")
    match = _ENDING.fullmatch(name)
    if match is None or re.search(r"[*?{}]", text):
        return
    stem, ending = match["stem"], match["ending"]
    borders = [border.start() for border in _BORDER.finditer(stem)]
    for at in (len(stem), *borders):
        if stem[at - 1].isalnum():
            yield stem[:at], f"{_home(folders, stem[:at])}{{case}}{stem[at:]}{ending}"
    for at in borders:
        if stem[at].isalnum():
            yield stem[at:], f"{_home(folders, stem[at:])}{stem[:at]}{{case}}{ending}"
    for place, case in enumerate(folders):
        parts = [*folders[:place], "{case}", *folders[place + 1 :]]
        yield case, "/".join([*parts, name.replace(case, "{case}", 1)])


def _home(folders: Sequence[str], case: str) -> str:
    """Return the folders of a file, with ``*`` for those that are a part of its case's name."""
    return "".join([f"{'*' if folder in case else folder}/" for folder in folders])


def _layout(
    files: Mapping[str, Path], kinds: Kinds, label: str, drawn: Sequence[str], channels: bool
) -> FoundLayout | None:
    """Return the layout of label maps of some kinds, the first of most cases; None: of none."""
    cases, images = kinds[drawn[0]], _images_of(kinds, drawn[0])
    if not channels:
        images = _nearest(images, drawn[0])
    image = _joined(images, "channel") if images else None
    if image is None or (len(images) > 1 and not channels):
        return None
    keys = {"image": image, "label": label}
    of_labels, of_images = _fitting(files, keys)
    if {found.case for found in of_images.values()} != cases.keys():
        glob = _glob_of(cases, {found.case for found in of_images.values()} - cases.keys())
        if glob:
            keys = {
                key: text.replace("{case}", f"{{case:{glob}}}", 1) for key, text in keys.items()
            }
            of_labels, of_images = _fitting(files, keys)
    shown = [path for kind in images for case, path in kinds[kind].items() if case in cases]
    if not of_images.keys() >= {*shown}:
        return None
    names = {of_images[path].channel for path in shown}
    if names < {found.channel for found in of_images.values()}:
        keys["channels"] = ",".join(sorted(names))
    files_of: dict[str, list[Path]] = defaultdict(list)
    for path, found in of_labels.items():
        files_of[found.label].append(path)
    known = {path for kind in drawn for path in kinds[kind].values()}
    names = {n for n in files_of if known.intersection(files_of[n]) or _are_empty(files_of[n])}
    if names < files_of.keys():
        numbered = [f"{name}:{number}" for number, name in enumerate(sorted(names), start=1)]
        keys["labels"] = ",".join(numbered)
    count = len(shown) + len(of_labels)
    whole = (
        4 * count >= 3 * len(files)
        and {found.case for found in of_images.values()} == cases.keys()
        and {*of_labels} == {*cases.values()}
    )
    return FoundLayout(keys, whole, _people(cases, shown), count)


def _people(cases: Collection[str], files: Iterable[Path]) -> str:
    """Return an expression of the people of cases who have a folder each; empty where it is one."""
    homes = {part for file in files for part in file.parts[:-1]}
    people = {home for home in homes if any([case.startswith(home) for case in cases])}
    shapes = {re.sub(r"\d+", "[0-9]+", re.escape(person)) for person in people}
    if len(shapes) != 1 or len(people) in (1, len(cases)):
        return ""
    return f"({min(shapes)})".replace("\\-", "-")


def _fitting(
    files: Mapping[str, Path], keys: Mapping[str, str]
) -> tuple[dict[Path, NamedFile], dict[Path, NamedFile]]:
    """Return the label maps that fit a layout, and its images."""
    label, image = NamePattern(keys["label"]), NamePattern(keys["image"])
    labels = {path: found for text, path in files.items() if (found := label.fits(text))}
    images = {path: found for text, path in files.items() if (found := image.fits(text))}
    return labels, {path: found for path, found in images.items() if path not in labels}


def _glob_of(cases: Iterable[str], others: Collection[str]) -> str:
    """Return a glob that fits some cases' names, and none of others; empty if there is none."""
    for digits, sign in ((r"\d", "?"), (r"\d+", "*")):
        shapes = {re.sub(digits, sign, case) for case in cases}
        pattern = NamePattern(f"{{case:{min(shapes)}}}")
        if len(shapes) == 1 and not any([pattern.fits(other) for other in others]):
            return min(shapes)
    return ""


def _of_raters(kinds: Sequence[Mapping[str, Path]]) -> bool:
    """Return whether two kinds of label maps draw the same things, and none the other's part."""
    alike = asked = 0
    for case in list(kinds[0])[:_OPENED] if len(kinds) > 1 else ():
        try:
            first, second = [read_volume(kind[case]).array for kind in kinds[:2]]
        except GansynthError:
            continue
        alike_values = np.array_equal(np.unique(first), np.unique(second))
        first, second = first > 0, second > 0
        if first.shape != second.shape or not (first.any() and second.any()):
            continue
        asked += 1
        both = int(np.count_nonzero(first & second))
        least, most = sorted([int(np.count_nonzero(first)), int(np.count_nonzero(second))])
        same = alike_values and 2 * both > _OVERLAP * (least + most)
        alike += same and (both < least or both == most)
    return 2 * alike > asked


def _images_of(kinds: Kinds, label: str) -> list[str]:
    """Return the kinds of images of some label maps, on their grid: one, or one per channel."""
    images: dict[frozenset[Path], str] = {}
    beside = {kind: _others(kinds, label, kind) for kind in _beside(kinds, label)}
    many = [kind for kind, others in beside.items() if 2 * len(others) >= len(kinds[label])]
    for kind in sorted(_images_among(kinds, label, many), key=lambda kind: len(kinds[kind])):
        images.setdefault(frozenset(beside[kind]), kind)
    fitting = [
        kind
        for files, kind in images.items()
        if not any([files < others for others in images]) and _on_grid(kinds[label], kinds[kind])
    ]
    depths = Counter([kind.count("/") for kind in fitting])
    return [kind for kind in fitting if kind.count("/") == depths.most_common(1)[0][0]]


def _nearest(images: Sequence[str], label: str) -> list[str]:
    """Return the kinds of images that share most folders, from the first on, with label maps."""
    shared = [len(os.path.commonpath([image, label])) for image in images]
    return [image for image, length in zip(images, shared, strict=True) if length == max(shared)]


def _on_grid(labels: Mapping[str, Path], images: Mapping[str, Path]) -> bool:
    """Return whether images have as many voxels along each axis as label maps; some are asked."""
    for case in [case for case in labels if case in images][:_ASKED]:
        if labels[case].suffix.lower() not in SUFFIXES:
            with suppress(GansynthError):
                drawn, image = [read_volume_header(kind[case]).shape for kind in (labels, images)]
                if drawn[:3] != image[:3]:
                    return False
    return True


def _joined(patterns: Sequence[str], word: str) -> str | None:
    """Return the pattern that all have in common, with ``{word}`` where they differ; or None.

    Where folders differ too, they get ``*``.
    """
    if len(patterns) == 1:
        return patterns[0]
    if len({pattern.count("/") for pattern in patterns}) > 1:
        return None
    columns = list(zip(*[pattern.split("/") for pattern in patterns], strict=True))
    differing = [place for place, parts in enumerate(columns) if len(set(parts)) > 1]
    parts = [texts[0] for texts in columns]
    for place in differing:
        parts[place] = "*"
    at = differing[-1]
    if at < len(columns) - 1 and len(differing) > 1:
        return None
    begin = _shared_start(columns[at])
    end = _shared_start([text[len(begin) :][::-1] for text in columns[at]])[::-1]
    begin, end = re.sub(r"[^\W_]+$", "", begin), re.sub(r"^[^\W_]+", "", end)  # whole words
    parts[at] = f"{begin}{{{word}}}{end}"
    return "/".join(parts) if "{case}" in "/".join(parts) else None


def _shared_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    same = [one == other for one, other in zip(first, last, strict=False)]
    return first[: [*same, False].index(False)]
