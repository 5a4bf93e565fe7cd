"""Whether label maps lie on what they label, by what other cases' images show at their label maps.

How often intensities, edges and local contrast occur inside a label, at its border and around it is
counted over the other cases. By these counts a case's own label map should fit its image better
than the label maps of other cases do, and than its own one flipped, turned, transposed or moved; a
label that leaves the body meets values that others do not have. Where that is not so, files are
likely to be paired or oriented wrongly. It is no measure of quality: a label that is only rough, or
of what the image hardly shows, says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, LabelArray, Mask
from gansynth.core.source import CaseSource, Looked

MOST_CASES, FEWEST_CASES = 32, 6
"""Most cases that are looked at, and least."""
MOST_READ = 48
"""Most cases that are read for that, where some show no foreground."""
EDGES = {2: 128, 3: 48}
"""Longest edge by the number of axes; larger images are thinned out."""
RING = 3  # voxels around a label that count as its surroundings
LEVELS, CLASSES = 12, 4
"""Quantiles of intensities, and of edges and local contrast; one more class is the outer space."""
KINDS = (LEVELS + 1) * (CLASSES + 1) ** 2
INSIDE, BORDER, AROUND, FAR = range(4)
RARE = 1e-3  # added to shares, so that what was never counted is not impossible
OUTER = 0.1  # least share of one value for it to be what lies around a body
WEAKLY, SPREAD, SURE = 0.72, 0.28, 2.6
"""Mean share of other label maps that fit worse where images show little, as T1 does of gliomas;
deviation over cases; and errors of the mean below it that such a set hardly reaches."""
WELL = 0.85
"""That share, from which label maps lie where they should."""
MOVES = (1 / 12, 1 / 6)  # of an edge
CLEAR, CLEARER = 3.5, 6.0
"""Least mean gain of a change in its standard errors: the first plus the second per case."""
MOST_GAIN, SOME_GAIN = 2 / 3, 0.2
"""Share of cases that must gain by a change, and that must gain by far if only a part does."""
SMOOTH = 0.2  # least correlation of neighbours in an image; noise has none
Counts = npt.NDArray[np.float64]
Parts = npt.NDArray[np.int8]


def misplaced(cases: Sequence[Case]) -> Looked:
    """Return what is wrong with the places of label maps, or why that cannot be told."""
    places = [place_of(case.id, case.image, case.labels) for case in cases]
    return _looked([place for place in places if place is not None])


def _looked(drawn: Sequence[Place]) -> Looked:
    drawn = [place for place in drawn if place.channels and (place.parts != FAR).any()]
    axes = max([place.parts.ndim for place in drawn], default=0)
    drawn = [place for place in drawn if place.parts.ndim == axes > 1]
    if len(drawn) < FEWEST_CASES:
        text = f"{len(drawn)} case(s) with a foreground, expected {FEWEST_CASES} or more"
        return Looked(unclear=text)
    fits = _Fits([_Shown(place) for place in drawn])
    if fits.smoothness < SMOOTH:
        return Looked(unclear="the images look like noise")
    better, changes = fits.share_below(), fits.changes()
    of = f"of {len(drawn)} cases that were looked at"
    all_better = [change for change in changes if change.surely]
    if all_better:
        return max(all_better, key=lambda change: change.surely).looked(of)
    if not better.size:
        return Looked(unclear="label maps are the same in all cases")
    mean, error = float(better.mean()), SPREAD / len(better) ** 0.5
    described = f"label maps {of} fit their images better than {mean:.0%} of other cases' do"
    if mean < WEAKLY - SURE * error:
        return Looked(wrong=f"{described}, by chance 50%")
    some_better = [change for change in changes if change.gains >= SOME_GAIN * len(drawn)]
    if some_better and mean > 0.5 + 2 * error:
        return max(some_better, key=lambda change: change.gains).looked(of)
    if mean < WELL:
        why = "too few cases, or images that show little of them"
        return Looked(unclear=f"{described}, expected {WELL:.0%}: {why}; look at some in a viewer")
    return Looked()


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

    def looked(self) -> Looked:
        """Return what ``misplaced`` says of the chosen cases."""
        return _looked(sorted(self._kept, key=lambda kept: self._numbers[kept.name]))


def _spread(count: int) -> list[int]:
    """Return 0 to ``count - 1`` of which the first, however many, lie evenly."""
    bits = max(1, (count - 1).bit_length())
    reversed_bits = [int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits)]
    return [number for number in reversed_bits if number < count]


def look(source: CaseSource) -> Looked:
    """Return what ``misplaced`` says of some of a source's cases, which have label maps.

    Up to ``MOST_READ`` are read.
    """
    chosen = Chosen((*source.train_ids, *source.held_out_ids))
    for case_id in chosen.ranked()[:MOST_READ]:
        case = as_stored(source, case_id)
        place = place_of(case_id, case.image, case.labels, source.schema.ignore)
        if place is not None:
            chosen.add(place)
        if chosen.full:
            break
    return chosen.looked()


def as_stored(source: CaseSource, case_id: str) -> Case:
    """Read a case, in its files' own units and on their grid if there are such."""
    files = source.files(case_id)
    if files is None or files.arrays is None:
        return source.load(case_id)
    image, labels = files.arrays()
    return Case(case_id, case_id, image, labels)


class Place:
    """A case's thinned out images, and which of their voxels its label map calls what.

    Args:
        name: of the case.
        labels: (D, H, W) or (H, W).
        ignore: the label of what has none, if it is above 0.

    Attributes:
        parts: int8, ``INSIDE``, ``BORDER``, ``AROUND`` or ``FAR``; axes of length 1 are left out.
        channels: arrays of that shape.
    """

    def __init__(self, name: str, labels: npt.NDArray[Any], ignore: int | None = None) -> None:
        self._shape = tuple([length for length in labels.shape if length > 1])
        most = EDGES.get(len(self._shape), max(EDGES.values()))
        self._steps = tuple([slice(None, None, -(-length // most)) for length in self._shape])
        shown = self._thin(labels)
        self.name = name
        self.parts = _parts((shown > 0) & (shown != (0 if ignore is None else ignore)))
        self.channels: list[npt.NDArray[Any]] = []

    def add(self, channel: npt.NDArray[Any]) -> None:
        """Add a channel of the image, of the labels' shape."""
        self.channels.append(self._thin(channel).copy())

    def _thin(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array.reshape(self._shape)[self._steps]


def place_of(
    case_id: str, image: FloatArray, labels: LabelArray | None, ignore: int | None = None
) -> Place | None:
    """Return where the labels of an image (C, ...) lie; None if it has none."""
    if labels is None or not (labels > 0).any():
        return None
    place = Place(case_id, labels, ignore)
    for channel in image:
        place.add(channel)
    return place


def _parts(drawn: Mask) -> Parts:
    from scipy.ndimage import binary_dilation, binary_erosion

    parts = np.full(drawn.shape, FAR, np.int8)
    if drawn.any():
        parts[binary_dilation(drawn, iterations=RING)] = AROUND
        parts[drawn] = BORDER
        parts[binary_erosion(drawn)] = INSIDE
    return parts


class _Shown:
    """What a case's image shows at each voxel: the kind of its intensity, edge and local contrast.

    ``kinds``: of each channel int64 (voxels,), 0 to ``KINDS - 1``; ``shares``: (channels, KINDS),
    how often each occurs in the image. ``smoothness``: correlation of neighbours.
    """

    def __init__(self, place: Place) -> None:
        self.parts = place.parts
        channels = [channel.astype(np.float32) for channel in place.channels]
        self.kinds = [_kinds(channel).ravel() for channel in channels]
        self.shares = np.stack([_counts(kinds, KINDS) for kinds in self.kinds])
        self.smoothness = max(map(_smoothness, channels))

    def at(self, laid: _Laid) -> Counts:
        """Return shares (channels, FAR, KINDS) of what it shows at the parts of a label map."""
        flat = laid.flat
        if laid.shape != self.parts.shape:  # the same place of the image
            where = np.unravel_index(flat, laid.shape)
            pairs = zip(where, self.parts.shape, laid.shape, strict=True)
            near = [((place + 0.5) * own // other).astype(int) for place, own, other in pairs]
            flat = np.ravel_multi_index(tuple(near), self.parts.shape)
        found = [_counts(laid.which + kinds[flat], FAR * KINDS) for kinds in self.kinds]
        shares = np.stack(found).reshape(len(found), FAR, KINDS)
        return np.asarray(shares / np.maximum(shares.sum(axis=2, keepdims=True), 1e-12))


class _Laid:
    """Where a label map has its parts: numbers of voxels, and which part each is of."""

    def __init__(self, parts: Parts) -> None:
        self.shape = parts.shape
        self.flat = np.flatnonzero(parts != FAR)
        self.which = parts.ravel()[self.flat].astype(np.int64) * KINDS


@dataclass(frozen=True)
class _Change:
    """What label maps gain by a change: surely all of them, or a part of them by far; 0 for not."""

    name: str
    surely: float
    gains: int

    def looked(self, of: str) -> Looked:
        return Looked(wrong=f"{self.gains} {of} fit label maps better that are {self.name}")


def _counts(numbers: npt.NDArray[np.int64], size: int) -> Counts:
    return np.bincount(numbers, minlength=size) / max(1, numbers.size)


def _kinds(channel: FloatArray) -> npt.NDArray[np.int64]:
    from scipy.ndimage import uniform_filter

    values, counts = np.unique(channel, return_counts=True)
    body = np.ones(channel.shape, bool)
    if OUTER * channel.size < counts.max() < channel.size:
        body = channel != values[counts.argmax()]
    near, wide = uniform_filter(channel, 3), uniform_filter(channel, 9)
    edges = np.zeros_like(near)
    for axis in range(channel.ndim):
        edges += np.square(np.gradient(near, axis=axis))
    kinds = _quantile(channel, LEVELS, body)
    for shown in (edges, near - wide):
        kinds = kinds * (CLASSES + 1) + _quantile(shown, CLASSES, body)
    return kinds


def _quantile(values: FloatArray, count: int, body: Mask) -> npt.NDArray[np.int64]:
    """Return by which of the body's quantiles each value lies, from 1; outside of it 0."""
    borders = np.quantile(values[body], np.linspace(0, 1, count + 1)[1:-1])
    return np.asarray(np.where(body, np.searchsorted(borders, values) + 1, 0), np.int64)


def _smoothness(channel: FloatArray) -> float:
    one, other = channel[..., 1:].ravel(), channel[..., :-1].ravel()
    if not (one.std() > 0 and other.std() > 0):
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


class _Fits:
    """How well label maps fit images, by what other cases' images show at their own label maps."""

    def __init__(self, cases: Sequence[_Shown]) -> None:
        self.cases = cases
        self.smoothness = float(np.median([case.smoothness for case in cases]))
        self._least = min([len(case.kinds) for case in cases])
        self._laid = [_Laid(case.parts) for case in cases]
        self._shares = np.stack([case.shares[: self._least] for case in cases])
        own = self._at(self._laid)
        self._weights = self._learnt(own)
        self._fit = _sums(self._weights, own)

    def share_below(self) -> npt.NDArray[np.float64]:
        """Return of each case the share of other cases' label maps that fit its image worse."""
        found = []
        for case, weights, fit in zip(self.cases, self._weights, self._fit, strict=True):
            others = [
                float((weights * case.at(laid)[: self._least]).sum())
                for laid, other in zip(self._laid, self.cases, strict=True)
                if not np.array_equal(other.parts, case.parts)
            ]
            if others:
                found.append(np.mean(np.array(others) < fit))
        return np.array(found)

    def changes(self) -> list[_Change]:
        """Return what label maps gain by each change that keeps their shapes."""
        found = []
        for name, change in _changes(self.cases[0].parts.ndim):
            changed = [_Laid(change(case.parts)) for case in self.cases]
            if [laid.shape for laid in changed] != [laid.shape for laid in self._laid]:
                continue
            at = self._at(changed)
            gains = _sums(self._learnt(at), at) - self._fit
            errors = float(gains.mean() / max(gains.std(), 1e-9)) * len(at) ** 0.5
            sure = errors >= CLEAR + CLEARER / len(at) and (gains > 0).mean() >= MOST_GAIN
            if not sure:  # of a part of the set, the others say what is right
                gains = _sums(self._weights, at) - self._fit - np.median(np.abs(self._fit)) / 2
            found.append(_Change(name, errors if sure else 0.0, int((gains > 0).sum())))
        return found

    def _at(self, laid: Sequence[_Laid]) -> Counts:
        pairs = zip(self.cases, laid, strict=True)
        return np.stack([case.at(each)[: self._least] for case, each in pairs])

    def _learnt(self, at: Counts) -> Counts:
        """Return of each case how much likelier the others show a kind at a part than anywhere."""
        others = len(at) - 1
        there = (at.sum(axis=0) - at) / others + RARE
        anywhere = (self._shares.sum(axis=0) - self._shares) / others + RARE
        return np.asarray(np.log(there) - np.log(anywhere)[:, :, None])


def _sums(weights: Counts, at: Counts) -> npt.NDArray[np.float64]:
    return np.asarray((weights * at).sum(axis=(1, 2, 3)))


def _changes(ndim: int) -> Iterator[tuple[str, Callable[[Parts], Parts]]]:
    """Yield ways in which a label map may have to be laid down, by what a message calls them."""
    names = "zyx"[-ndim:]
    for axis, name in enumerate(names):
        yield f"flipped along {name}", partial(np.flip, axis=axis)
        for share in (*MOVES, *[-share for share in MOVES]):
            way = f"{'+' if share > 0 else '-'}{name}"
            yield (
                f"moved to {way} by about {abs(share):.0%} of the image",
                partial(_moved, axis=axis, share=share),
            )
    for pair in combinations(range(ndim), 2):
        called = f"{names[pair[0]]} and {names[pair[1]]}"
        yield f"flipped along {called}", partial(np.flip, axis=pair)
        yield f"with {called} swapped", partial(np.swapaxes, axis1=pair[0], axis2=pair[1])


def _moved(parts: Parts, axis: int, share: float) -> Parts:
    by = round(share * parts.shape[axis])
    rolled = np.roll(parts, by, axis)
    left = [slice(None)] * parts.ndim
    left[axis] = slice(None, by) if by > 0 else slice(by, None)
    if by:
        rolled[tuple(left)] = FAR
    return rolled
