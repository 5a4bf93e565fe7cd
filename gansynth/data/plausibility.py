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

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import Mask
from gansynth.core.schema import Case, FloatArray, LabelArray
from gansynth.core.source import CaseSource
from gansynth.data.organs import evenly_chosen

MOST_CASES, FEWEST_CASES = 12, 6
"""Most cases that are looked at, and least."""
VOXELS = 1 << 20  # of a case; larger ones are thinned out
MARGIN = 1.15
"""Least factor between the mean gradient at a better place and at others, for it to count."""
SAME_PLACE_SHARE = 0.8
"""Share of the cases whose best place must be the same wrong one."""
Gradients = npt.NDArray[np.float32]


def misplaced(cases: Sequence[Case]) -> str:
    """Return what fits the images better than their label maps do, with figures; else nothing."""
    drawn = [_Drawn(case) for case in cases if case.labels is not None and (case.labels > 0).any()]
    drawn = [each for each in drawn if each.border.any()]
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
    better = [gains[likeliest] for gains in turned if gains.get(likeliest, 0) >= MARGIN]
    if len(better) >= SAME_PLACE_SHARE * len(drawn):
        return f"{_description(better, len(drawn))} {likeliest}"
    others = [each.best({o.name: o.border for o in drawn if o is not each}) for each in drawn]
    named = [(each.name, *found) for each, found in zip(drawn, others, strict=True) if found[0]]
    if len({name for _, name, _ in named}) < SAME_PLACE_SHARE * len(drawn):
        return ""
    first, second, _ = named[0]
    description = _description([factor for _, _, factor in named], len(drawn))
    return f"{description} of other cases: the image of {first} that of {second}"


def look(source: CaseSource) -> str:
    """Return what ``misplaced`` says of some of a source's cases, which have label maps."""
    cases: list[Case] = []
    for case_id in evenly_chosen((*source.train_ids, *source.held_out_ids), 2 * MOST_CASES):
        case = as_stored(source, case_id)
        if case.labels is not None and (case.labels > 0).any() and len(cases) < MOST_CASES:
            cases.append(case)
    return misplaced(cases)


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


class _Drawn:
    """The gradients of a case, and where its label map has a border."""

    def __init__(self, case: Case) -> None:
        assert case.labels is not None
        thin = max(1, round((case.labels.size / VOXELS) ** (1 / case.labels.ndim)))
        steps = (slice(None, None, thin),) * case.labels.ndim
        self.name = case.id
        self.gradients = _gradients(case.image[(slice(None), *steps)])
        self.border = _border(case.labels[steps])

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
        return float(self.gradients[:, border].mean(axis=1, dtype=np.float64).max())


def _gradients(image: FloatArray) -> Gradients:
    """Magnitude of the gradient, (C, ...), of values within the 1st and 99th percentile."""
    found = []
    for channel in image:
        low, high = np.percentile(channel, (1, 99))
        clipped = np.clip(channel, low, high).astype(np.float32)
        squares = np.zeros_like(clipped)
        for axis, length in enumerate(clipped.shape):
            if length > 1:  # a slice that is stored as a volume has no slope across it
                squares += np.square(np.gradient(clipped, axis=axis))
        found.append(np.sqrt(squares))
    return np.stack(found)


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
