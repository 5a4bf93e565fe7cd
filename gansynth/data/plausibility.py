"""Whether label maps lie on what they label: edges of images, and borders of labels.

A label's border runs along edges of the image. The image's mean gradient there is compared with
that at the border of the same label map flipped, turned, transposed, or of another case. Where most
cases prefer one of these, and clearly, the files are likely to be paired or oriented wrongly. It is
no measure of quality: a label that is only rough, or of what the image does not show, says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, LabelArray, Mask
from gansynth.core.source import CaseSource

MOST_CASES, FEWEST_CASES = 12, 6
"""Most cases that are looked at, and least."""
MOST_READ = 24
"""Most cases that are read for that, where some show no foreground."""
VOXELS = 1 << 20  # of a case; larger ones are thinned out
MARGIN = 1.15
"""Least factor between the mean gradient at a better place and at others, for it to count."""
SAME_PLACE_SHARE = 0.8
"""Share of the cases whose best place must be the same wrong one."""
CLEAR_MARGIN, PART_SHARE = 2.0, 0.4
"""That margin, and that share, where only a part of a data set is turned."""
Gradients = npt.NDArray[np.float32]


def misplaced(cases: Sequence[Case]) -> str:
    """Return what fits the images better than their label maps do, with figures; else nothing."""
    return _misplaced(
        [
            place
            for case in cases
            if (place := place_of(case.id, case.image, case.labels)) is not None
        ]
    )


def _misplaced(drawn: Sequence[Place]) -> str:
    drawn = [each for each in drawn if each.border.any() and each.gradients]
    if len(drawn) < FEWEST_CASES:
        return ""
    turns = _turns(drawn[0].border.ndim)
    turned = [
        each.gains({name: turn(each.border) for name, turn in turns.items()}) for each in drawn
    ]
    totals = dict.fromkeys(turns, 0.0)
    for gains in turned:
        for name, gain in gains.items():
            totals[name] += gain
    likeliest = max(totals, key=totals.__getitem__)
    for margin, share in ((MARGIN, SAME_PLACE_SHARE), (CLEAR_MARGIN, PART_SHARE)):
        better = [gains[likeliest] for gains in turned if gains.get(likeliest, 0) >= margin]
        if len(better) >= share * len(drawn):
            return f"{_description(better, len(drawn))} {likeliest}"
    others = [each.best({o.name: o.border for o in drawn if o is not each}) for each in drawn]
    named = [(each.name, *found) for each, found in zip(drawn, others, strict=True) if found[0]]
    if len({name for _, name, _ in named}) < SAME_PLACE_SHARE * len(drawn):
        return ""
    first, second, _ = named[0]
    description = _description([factor for _, _, factor in named], len(drawn))
    return f"{description} of other cases: the image of {first} that of {second}"


class Chosen:
    """``MOST_CASES`` of the cases with lesions, spread over an order that all have.

    Args:
        order: all cases; of a fold those that it trains on first, so that both sides are chosen.
    """

    def __init__(self, order: Sequence[str]) -> None:
        spread = _spread(len(order))
        self._numbers = {case: number for number, case in enumerate(order)}
        self._rank = {order[number]: rank for rank, number in enumerate(spread)}
        self._kept: list[Place] = []

    @property
    def full(self) -> bool:
        """Whether there are as many as are looked at."""
        return len(self._kept) == MOST_CASES

    def ranked(self) -> list[str]:
        """Return all cases, those that are wanted most first."""
        return sorted(self._rank, key=self._rank.__getitem__)

    def wants(self, case_id: str) -> bool:
        """Whether a case would be among the chosen ones if it has lesions."""
        if case_id not in self._rank:
            return False
        return not self.full or self._rank[case_id] < self._rank[self._kept[-1].name]

    def add(self, place: Place) -> None:
        """Add a case with lesions; the least wanted of too many is left out."""
        self._kept = sorted([*self._kept, place], key=lambda kept: self._rank[kept.name])
        del self._kept[MOST_CASES:]

    def words(self) -> str:
        """Return what ``misplaced`` says of the chosen cases."""
        return _misplaced(sorted(self._kept, key=lambda kept: self._numbers[kept.name]))


def _spread(count: int) -> list[int]:
    """Return 0 to ``count - 1`` of which the first, however many, lie evenly."""
    bits = max(1, (count - 1).bit_length())
    reversed_bits = [int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits)]
    return [number for number in reversed_bits if number < count]


def look(source: CaseSource) -> str:
    """Return what ``misplaced`` says of some of a source's cases, which have label maps.

    Up to ``MOST_READ`` are read.
    """
    chosen = Chosen((*source.train_ids, *source.held_out_ids))
    for case_id in chosen.ranked()[:MOST_READ]:
        case = as_stored(source, case_id)
        place = place_of(case_id, case.image, case.labels)
        if place is not None:
            chosen.add(place)
        if chosen.full:
            break
    return chosen.words()


def as_stored(source: CaseSource, case_id: str) -> Case:
    """Read a case, in its files' own units and on their grid if there are such."""
    files = source.files(case_id)
    if files is None or files.arrays is None:
        return source.load(case_id)
    image, labels = files.arrays()
    return Case(case_id, case_id, image, labels)


def _description(factors: Sequence[float], count: int) -> str:
    return (
        f"{len(factors)} of {count} cases that were looked at have edges {np.median(factors):.2g} "
        "times as strong where their label maps would have their borders"
    )


class Place:
    """Where a case's label map has a border, and the gradients of its image; both thinned out.

    Args:
        name: of the case.
        labels: (D, H, W) or (H, W).
        ignore: the label of what has none, if it is above 0.
    """

    def __init__(self, name: str, labels: npt.NDArray[Any], ignore: int | None = None) -> None:
        thin = max(1, round((labels.size / VOXELS) ** (1 / labels.ndim)))
        self._steps = (slice(None, None, thin),) * labels.ndim
        shown = labels[self._steps].astype(np.int16)
        self.name = name
        self.border = _border(np.where(shown == ignore, 0, shown))
        self.gradients: list[Gradients] = []

    def add(self, channel: npt.NDArray[Any]) -> None:
        """Add a channel of the image, of the labels' shape."""
        self.gradients.append(_gradient(channel[self._steps]))

    def gains(self, borders: Mapping[str, Mask]) -> dict[str, float]:
        """Return how far edges are stronger along each border than the own and most others."""
        own, found = self._along(borders)
        usual = max(own, float(np.median([own, *found.values()])), 1e-12)
        return {name: edges / usual for name, edges in found.items()}

    def best(self, borders: Mapping[str, Mask]) -> tuple[str, float]:
        """Return the border along which edges are strongest by far, and how far above the own one.

        No name: it is the own one, or none stands out.
        """
        own, found = self._along(borders)
        if not found:
            return "", 1.0
        name = max(found, key=found.__getitem__)
        others = [edges for other, edges in found.items() if other != name]
        if found[name] < MARGIN * max(own, *others, 0.0):
            return "", 1.0
        return name, found[name] / max(own, 1e-12)

    def _along(self, borders: Mapping[str, Mask]) -> tuple[float, dict[str, float]]:
        """Mean gradient along the own border, and along each other one that fits the image."""
        fits = {name: at for name, at in borders.items() if at.shape == self.border.shape}
        return self._edges(self.border), {name: self._edges(at) for name, at in fits.items()}

    def _edges(self, border: Mask) -> float:
        """Mean gradient along a border, in the channel where it is largest."""
        return max([float(each[border].mean(dtype=np.float64)) for each in self.gradients])


def place_of(case_id: str, image: FloatArray, labels: LabelArray | None) -> Place | None:
    """Return where the labels of an image (C, ...) lie; None if it has none."""
    if labels is None or not (labels > 0).any():
        return None
    place = Place(case_id, labels)
    for channel in image:
        place.add(channel)
    return place


def _gradient(channel: npt.NDArray[Any]) -> Gradients:
    """Magnitude of the gradient of values within the 1st and 99th percentile."""
    low, high = np.percentile(channel, (1, 99))
    clipped = np.clip(channel, low, high).astype(np.float32)
    squares: Gradients = np.zeros_like(clipped)
    with np.errstate(over="ignore"):  # of values that no scanner makes
        for axis, length in enumerate(clipped.shape):
            if length > 1:  # a slice that is stored as a volume has no slope across it
                squares += np.square(np.gradient(clipped, axis=axis))
    return np.asarray(np.sqrt(squares))


def _border(labels: LabelArray) -> Mask:
    """Voxels with a neighbour of another label; an ignored or outer one counts as background."""
    shown, border = np.maximum(labels, 0), np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        ahead = [slice(None)] * labels.ndim
        behind = list(ahead)
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        differs = shown[tuple(ahead)] != shown[tuple(behind)]
        border[tuple(ahead)] |= differs
        border[tuple(behind)] |= differs
    return border


def _turns(ndim: int) -> Mapping[str, Callable[[Mask], Mask]]:
    """The ways in which a label map may be laid down wrongly, by what a message calls them."""
    names = "zyx"[-ndim:]
    turns: dict[str, Callable[[Mask], Mask]] = {}
    for axis, name in enumerate(names):
        turns[f"flipped along {name}"] = partial(np.flip, axis=axis)
    for pair in combinations(range(ndim), 2):
        called = f"{names[pair[0]]} and {names[pair[1]]}"
        turns[f"flipped along {called}"] = partial(np.flip, axis=pair)
        turns[f"with {called} swapped"] = partial(np.swapaxes, axis1=pair[0], axis2=pair[1])
    return turns
