"""What the numbers of label maps mean, by what the maps hold, of every kind of source.

Of each number of a map it is asked how much it fills, whether it lies along the edge of the image,
whether it is one connected part, and whether it is thin everywhere. From all maps of a set follows
what is proposed: names, a threshold, what is not to be learnt, and what is no class at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import numpy.typing as npt

EDGE = 128  # longest edge of what is looked at; larger maps are thinned out
MOST_NAMED, LARGEST_NUMBER = 64, 2**15 - 1  # classes that are proposed by name, and their numbers
SOFT, MOSTLY = 32, 0.9
"""A soft mask, as of JPEG: this share of its pixels is so near to 0 or to 255."""
SOFT_NUMBERS = 8  # least different numbers in a soft mask
IGNORED = 255
"""By custom the number of voxels without an annotation."""
THIN = 0.05  # most of a thin number that is left after two voxels are taken off all around
ALONG, OFF = 0.9, 0.05
"""Share of an image's edge that a background lies along at least, and a foreground at most."""
FEWEST_OBJECTS, FEWEST_MAPS = 4, 3
"""Objects in the fullest map, and maps, from which numbers are told to count objects."""


@dataclass(frozen=True)
class Held:
    """What one label map holds, of a number each.

    ``filled``: share of all voxels. ``edge``: share of the outermost voxels. ``single``: numbers of
    one connected part. ``thin``: numbers without an inside.
    """

    filled: Mapping[int, float]
    edge: Mapping[int, float]
    single: frozenset[int]
    thin: frozenset[int]

    @classmethod
    def of(cls, array: npt.NDArray[Any], numbers: npt.NDArray[Any] | None = None) -> Held:
        """Look at a label map of whole numbers, (D, H, W) or (H, W); ``numbers``: all, sorted."""
        numbers = np.unique(array) if numbers is None else numbers
        array = array.reshape([length for length in array.shape if length > 1] or [1])
        array = array[tuple([slice(None, None, -(-length // EDGE)) for length in array.shape])]
        places = np.searchsorted(numbers, array).astype(np.int32)
        faces = [np.take(places, end, axis) for axis in range(places.ndim) for end in (0, -1)]
        shares = [
            np.bincount(where, minlength=len(numbers)) / where.size
            for where in (places.ravel(), np.concatenate([face.ravel() for face in faces]))
        ]
        filled, edge = [dict(zip(map(int, numbers), s.tolist(), strict=True)) for s in shares]
        single, thin = set[int](), set[int]()
        if numbers[-1] >= FEWEST_OBJECTS:  # smaller ones are classes
            for number, (is_single, is_thin) in _shapes(places, numbers):
                single |= {number} if is_single else set()
                thin |= {number} if is_thin else set()
        return cls(filled, edge, frozenset(single), frozenset(thin))


def _shapes(
    places: npt.NDArray[np.int32], numbers: npt.NDArray[Any]
) -> Iterator[tuple[int, tuple[bool, bool]]]:
    """Yield numbers above 0, and whether each is one connected part, and thin everywhere."""
    from scipy.ndimage import binary_erosion, find_objects, generate_binary_structure, label

    joined = generate_binary_structure(places.ndim, places.ndim)
    boxes = find_objects(places + 1, max_label=len(numbers))
    for place, (number, box) in enumerate(zip(map(int, numbers), boxes, strict=True)):
        if number > 0 and box is not None:
            mask = places[box] == place
            inside = binary_erosion(mask, joined, iterations=2).sum()
            yield number, (label(mask, joined)[1] == 1, inside <= THIN * mask.sum())


@dataclass(frozen=True)
class Judgement:
    """What the numbers mean: ``reason``, in words; ``keys``: ``--read`` keys that say so, if any.

    ``kind``: ``soft``, ``objects``, ``void``, ``inverted`` or ``named``.
    """

    kind: str
    reason: str
    keys: Mapping[str, str]

    @property
    def typed(self) -> str:
        return " ".join([f"--read {key}={quote(text)}" for key, text in self.keys.items()])


def judge(
    maps: Sequence[Held], *, pictures: bool, typed: Mapping[str, int] | None = None
) -> Judgement:
    """Say what numbers mean that nobody has named; some map holds more than 0.

    ``pictures``: a mask's numbers become 1, 2, ..., and any of them may be the background. Of
    volumes 0 always is. ``typed``: name -> number as somebody typed it, of which as much is kept
    as the maps allow.
    """
    typed = typed or {}
    numbers = sorted({number for held in maps for number in held.filled})
    named = [number for number in numbers if number > 0]
    if counts_objects(maps):
        keys = {"threshold": "1"} if pictures else {}
        way = "for one class of all" if keys else "write a map of their classes"
        return Judgement(
            "objects", f"they seem to count objects, from 1 on in each map; {way}", keys
        )
    if pictures and _is_soft(maps, numbers):
        return Judgement("soft", "its borders are soft", {"threshold": "128"})
    around = _background(maps)
    if around is not None and around not in typed.values():
        others = [number for number in numbers if number != around]
        if not pictures:
            text = f"{around} lies along the image's edge as background does; renumber it to 0"
            return Judgement("inverted", text, {})
        text = f"{around} lies along the image's edge as background does"
        names = [f"background:{around}", *_names(others)]
        return Judgement("inverted", text, {"labels": ",".join(names)})
    if not named or len(named) > MOST_NAMED or named[-1] > LARGEST_NUMBER:
        single = pictures and len(named) == 1
        return Judgement("named", "", {"threshold": str(named[0])} if single else {})
    if typed:
        return Judgement("named", "", {"labels": ",".join(_renamed(typed, numbers))})
    ignored = {n for n in named[-1:] if len(named) > 1 and _is_void(maps, n, named[-2])}
    names = [f"ignore:{n}" if n in ignored else f"label {n}:{n}" for n in named]
    text = f"{named[-1]} seems to be what is not annotated" if ignored else ""
    return Judgement("void" if ignored else "named", text, {"labels": ",".join(names)})


def counts_objects(maps: Sequence[Held]) -> bool:
    """Whether numbers count objects: 1, 2, ... of one part each, and not as many in every map."""
    each = [sorted(number for number in held.filled if number > 0) for held in maps]
    counts = [len(numbers) for numbers in each if numbers]
    if len(counts) < FEWEST_MAPS or max(counts) < FEWEST_OBJECTS or len(set(counts)) == 1:
        return False
    in_order = all(numbers == list(range(1, len(numbers) + 1)) for numbers in each)
    parts = sum([len(held.single) for held in maps if len(held.filled) > FEWEST_OBJECTS])
    drawn = sum([count for count in counts if count >= FEWEST_OBJECTS])
    return in_order and parts >= MOSTLY * drawn


def _is_soft(maps: Iterable[Held], numbers: Sequence[int]) -> bool:
    """Whether most pixels are near 0 or 255, and the rest lie between, in no class of its own."""
    if numbers[-1] > 255 or len(numbers) < SOFT_NUMBERS:
        return False
    ends = [
        (
            sum([share for number, share in held.filled.items() if number <= SOFT]),
            sum([share for number, share in held.filled.items() if number >= 255 - SOFT]),
        )
        for held in maps
    ]
    low, high = np.mean(ends, axis=0)
    between = [number for number in numbers if 0 < number < 255]
    scattered = np.mean([bool(between) and not _solid(held) & set(between) for held in maps])
    return bool(low > 0 and high > 0 and low + high > MOSTLY and scattered > 0.5)


def _solid(held: Held) -> set[int]:
    """Numbers that fill some place, more than at its border."""
    return set(held.single - held.thin)


def _background(maps: Sequence[Held]) -> int | None:
    """Return the number other than 0 that most maps have around everything else, if any."""
    largest = [max(held.filled, key=held.filled.__getitem__) for held in maps]
    for number in set(largest) - {0}:
        around = [
            held.edge.get(number, 0) >= ALONG and held.edge.get(0, 0) <= OFF and 0 in held.filled
            for held in maps
        ]
        if np.mean(around) >= MOSTLY:
            return number
    return None


def _is_void(maps: Sequence[Held], number: int, below: int) -> bool:
    """Whether the largest number is far above the others, and a thin ring or along the edge."""
    if number != IGNORED or below >= IGNORED // 2:
        return False
    having = [held for held in maps if number in held.filled and held.edge]
    aside = [number in held.thin or held.edge.get(number, 0) > OFF for held in having]
    return not having or bool(np.mean(aside) > 0.5)


def _names(numbers: Collection[int]) -> list[str]:
    return [f"label {number}:{number}" for number in sorted(numbers)]


def _renamed(typed: Mapping[str, int], numbers: Collection[int]) -> list[str]:
    """Keep typed names; a single class that no map holds gets the single number left over."""
    new = sorted(set(numbers) - {typed.get("background", 0), *typed.values()})
    lost = [name for name in typed if name != "ignore" and typed[name] not in numbers]
    found = dict(zip(lost, new, strict=True)) if len(lost) == len(new) == 1 else {}
    kept = [(name, found.get(name, n)) for name, n in typed.items() if found or name not in lost]
    names = [f"{name}:{n}" for name, n in kept if (name, n) != ("background", 0)]
    return names if found else names + _names(new)


def odd_labels(
    files: Mapping[int, Path], maps: Sequence[Held] = (), objects: Path | None = None
) -> str | None:
    """Describe unnamed numbers of volumes that are not classes 0, 1, 2, ...; None if they are.

    Args:
        files: number -> a file that has it.
        maps: what is held by those that are known.
        objects: a file that says which class each number of a map is of, if there is one.
    """
    ordered = sorted({0, *files})
    gaps = [value for number, value in enumerate(ordered) if value != number]
    if not gaps:
        if objects is None and not counts_objects(maps):
            return None
        said = "" if objects is None else f", as {objects} says"
        return (
            f"label values seem to count objects{said}, expected classes; write a map of their "
            f"classes, or name them if they are: --read labels='{','.join(_names(ordered[1:]))}'"
        )
    found = judge(maps or [Held(dict.fromkeys(ordered, 0.0), {}, frozenset(), frozenset())],
                  pictures=False)  # fmt: skip
    text = (
        f"label values are {sorted(files)[:16]}, expected 0, 1, 2, ... without a gap, but "
        f"{gaps[0]} is in {files[gaps[0]]}"
    )
    if not found.keys:
        return f"{text}; {found.reason or 'renumber them'}"
    because = f" ({found.reason})" if found.reason else ""
    return f"{text}; renumber them, or name them all{because}: {found.typed}"


def likely_labels(
    values: Collection[int], likely: Iterable[Mapping[str, int]]
) -> Mapping[str, int] | None:
    """Return the first naming that has all values found in files, and whose largest occurs."""
    for naming in likely:
        if set(values) <= set(naming.values()) and max(naming.values()) in values:
            return naming
    return None
