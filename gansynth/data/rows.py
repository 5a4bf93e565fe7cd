"""Rows of lists whose cells name different cases: lists in another order, or sorted one by one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from gansynth.core.source import Finding
from gansynth.core.volumes import volume_stem
from gansynth.data.listing import VolumeSet

FEWEST = 6
"""Fewest rows of which an order says something."""
_WORD = re.compile(r"[^\W_]+")


def rows_mixed_up(listing: VolumeSet) -> Iterator[Finding]:
    """Warn of a list whose files are called as those of other rows, or that says no row at all.

    Each list, of label maps, channels or regions of interest, is compared with the first channel's.
    """
    first, *others = list(zip(*[entry.columns for entry in listing.entries], strict=False)) or [()]
    images = [path for path in first if path is not None]
    for column in others:
        files = [path for path in column if path is not None]
        if len(files) < len(images) or len(images) < len(first):
            continue  # a row without such a file
        image_words, file_words = _own_words(images), _own_words(files)
        mixed_up = _others_named(image_words, file_words)
        text = ""
        if mixed_up:
            number = mixed_up[0]
            text = (
                f"{len(mixed_up)} cases have a file that is called as another case's image is, "
                f"such as {images[number]} with {files[number]}; expected rows of one case each, "
                "so lists may be in another order: correct them"
            )
        elif _sorted_apart(images, files):
            number = 0
            text = (
                f"no name tells which files are of one case, such as {images[0]} and {files[0]}, "
                "and each list is in the order of its names, as if it was sorted alone; look at "
                "some cases in a viewer, and correct the rows if that is so"
            )
        if text:
            case = listing.entries[number].case
            yield Finding("warning", case, listing.where, f"{listing.where}: {text}")


def _words(paths: Sequence[Path]) -> list[set[str]]:
    """Return the words of each path but those that all have, numbers without leading zeros."""
    places = [os.path.abspath(path.with_name(_stem(path))) for path in paths]
    home = os.path.commonpath([os.path.dirname(place) for place in places])
    texts = [place[len(home) :] for place in places]
    parts = [set(_WORD.findall(text)) for text in texts]
    words = []
    for own in [each - set.intersection(*parts) for each in parts]:
        numbers = [str(int(number)) for part in own for number in re.findall(r"\d+", part)]
        words.append({part.casefold() for part in own if not part.isdecimal()} | {*numbers})
    return words


def _stem(path: Path) -> str:
    return volume_stem(path.name, listed=False) or path.name


def _own_words(paths: Sequence[Path]) -> list[set[str]]:
    words = _words(paths)
    counts = Counter([word for each in words for word in each])
    return [{word for word in each if counts[word] == 1} for each in words]


def _others_named(images: Sequence[set[str]], files: Sequence[set[str]]) -> list[int]:
    """Return the rows whose file has words of another row's image alone, if all rows have some."""
    row_of = {word: row for row, words in enumerate(images) for word in words}
    named = [{row_of[word] for word in words if word in row_of} for words in files]
    if not all(named):
        return []
    return [row for row, rows in enumerate(named) if row not in rows]


def _sorted_apart(images: Sequence[Path], files: Sequence[Path]) -> bool:
    """Return whether rows are known by their order alone, which is that of both lists' names.

    Lists that are merely numbered, without gaps, are what they seem.
    """
    if len(images) < FEWEST:
        return False
    each = zip(_words(images), _words(files), strict=True)
    if 2 * len([1 for image, file in each if image & file]) >= len(images):
        return False
    order = sorted(range(len(images)), key=lambda row: str(images[row]))
    names = [str(files[row]) for row in order]
    return names == sorted(names) and not _numbered([images[row] for row in order])


def _numbered(paths: Sequence[Path]) -> bool:
    """Return whether names count their cases one by one."""
    ends = [re.findall(r"\d+", _stem(path))[-1:] for path in paths]
    numbers = [int(end[0]) for end in ends if end]
    steps = {later - number for number, later in pairwise(numbers)}
    return len(numbers) == len(paths) and steps == {1}
