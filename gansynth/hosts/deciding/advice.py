"""Whether samples have helped data like these: the user's set beside those that were measured.

A set is described by what its training cases hold. ``evidence.json`` has the same words of each set
of ``benchmarks/gains``, with its results; ``benchmarks/measure/gain_evidence.py`` writes it. What
follows is said and chosen by ``advice_for`` alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import bounding_box
from gansynth.core.schema import Case, FloatArray, Mask
from gansynth.core.source import CaseSource
from gansynth.data.connected_components import LabelComponents
from gansynth.data.organs import evenly_chosen
from gansynth.hosts.deciding.suggestion import RULES, Contents, contents_of
from gansynth.imaging.box_contrast import FEW_VOXELS, NOTICED, gap, spread
from gansynth.runtime.serialise import Document

CASES, VOXELS = (16, 128), 4_000_000
"""Training cases that are looked at, fewest and most; between these as many as hold some voxels."""
SMALLEST = 8  # fewest pixels of a lesion whose outline and contrast tell something
SPECK = 10  # a part below the largest one's voxels over this is not counted
RIM = 3  # pixels around a lesion that it is compared with
FEWEST_HELPED = 2  # sets like the user's that samples must have helped, for samples by default


@dataclass(frozen=True)
class Description(Document):
    """A labelled set in the words by which sets are compared; None where no case tells.

    Outline, contrast and share are medians of lesions: of volumes, in the slice that shows most.

    Attributes:
        kind: what the labels are, a key of ``RULES``.
        dimensions: 2 for pictures and slices, 3 for volumes.
        subjects: that are trained on.
        voxels: of a lesion.
        share: pixels of a lesion over those of the body.
        parts: lesions in a case that shows any.
        hollow: share of the smallest convex outline around a lesion that is not labelled. In it
            lies what a rim or a tree belongs to.
        contrast: largest gap between the distributions of a lesion and the pixels around it, 0 to
            1, of the clearest channel.
        prevalence: share of cases that show a lesion.
    """

    kind: str
    dimensions: int
    subjects: int
    voxels: float | None
    share: float | None
    parts: float | None
    hollow: float | None
    contrast: float | None
    prevalence: float | None


@dataclass(frozen=True)
class Limit:
    """How far two sets that are alike may differ in a figure, and the figure in words.

    ``by``: a factor where ``ratio``, else a difference.
    """

    name: str
    by: float
    ratio: bool
    words: str

    def scaled(self, reach: float) -> Limit:
        """Return a limit that lets sets lie so many times as far apart."""
        return replace(self, by=self.by**reach if self.ratio else self.by * reach)

    def apart(self, one: float, other: float) -> float:
        """Return the difference of two figures; 1 is the most that sets alike have."""
        if self.ratio:
            return abs(math.log(one / other)) / math.log(self.by)
        return abs(one - other) / self.by


LIMITS = (
    Limit("share", 10, True, "a labelled part covers {:.2%} of the body"),
    Limit("parts", 3, True, "{:.0f} labelled part(s) in a case"),
    Limit("hollow", 0.2, False, "{:.0%} of a part's outline not labelled"),
    Limit("contrast", 0.35, False, "a contrast of {:.2f}"),
    Limit("prevalence", 0.4, False, "labelled parts in {:.0%} of the cases"),
)
"""Set by hand, knowing the measured sets: five decided ones teach no rule. ``gain_evidence.py
--leave-one-out`` prints what other limits would have advised, all at once and each by itself."""


@dataclass(frozen=True)
class Result(Document):
    """What samples changed in one study, in points of its measure with a 95 % interval.

    ``report``: in the repository. ``alarms``: points of false alarms, if they were counted;
    ``equal_alarms``: whether both arms were compared at as many. ``ceiling``: what twice the real
    subjects brought, if that was trained.
    """

    report: str
    samples: str
    host: str
    subjects: int
    measure: str
    difference: float
    low: float
    high: float
    equal_alarms: bool
    alarms: float | None
    ceiling: float | None

    @property
    def helped(self) -> bool:
        """Whether a gain is shown; one that extra false alarms may have brought is none."""
        return self.equal_alarms and self.low > 0

    def __str__(self) -> str:
        told = f"{self.subjects} to train on: {self.measure} {self.difference:+.1f}"
        gained = self.low > 0 and not self.helped
        more = ", false alarms not made equal" if gained else ""
        return f"{told}, {self.low:+.1f} to {self.high:+.1f}{more}"


Outcome = Literal["helped", "harmed", "unclear"]


@dataclass(frozen=True)
class MeasuredSet(Document):
    """One set, and all that was measured on it; sets of one ``people`` show the same ones."""

    name: str
    people: str
    description: Description
    results: tuple[Result, ...]

    @property
    def outcome(self) -> Outcome:
        """Harm in one study counts more than help in others."""
        if any(result.high < 0 for result in self.results):
            return "harmed"
        return "helped" if any(result.helped for result in self.results) else "unclear"

    @property
    def shown(self) -> Result:
        """The result that the outcome is read from: harm first, then one at equal alarms."""
        if self.outcome == "harmed":
            return min(self.results, key=lambda result: result.difference)
        return max(self.results, key=lambda result: (result.equal_alarms, result.difference))

    @property
    def subjects(self) -> int:
        """The most subjects that samples have helped; 0 if they have not."""
        return max([result.subjects for result in self.results if result.helped], default=0)


@dataclass(frozen=True)
class Advice:
    """What sets like the user's say; ``ratio``: of real cases to samples, for training.

    ``near``: sets like the user's, the nearest first. ``apart``: if there is none, what parts the
    user's from the nearest one.
    """

    description: Description
    near: tuple[MeasuredSet, ...]
    apart: str

    @property
    def ratio(self) -> str:
        """1:1 where samples helped two such sets, one with as many subjects, and harmed none."""
        helped = self._named("helped")
        enough = max([one.subjects for one in helped], default=0) >= self.description.subjects
        good = len(helped) >= FEWEST_HELPED and not self._named("harmed") and enough
        return "1:1" if good else "1:0"

    def _named(self, outcome: Outcome) -> list[MeasuredSet]:
        return [one for one in self.near if one.outcome == outcome]

    def __str__(self) -> str:
        if not self.near:
            return f"nothing like these data was measured ({self.apart})"
        told = []
        for outcome in ("helped", "harmed", "unclear"):
            found = self._named(outcome)
            names = "; ".join([f"{one.name}, {one.shown}" for one in found])
            told.append(f"{outcome} {len(found)}" + (f" ({names})" if names else ""))
        count = len(self.near)
        text = f"of {count} set{'s' * (count > 1)} like these, samples {', '.join(told)}"
        most = max([one.subjects for one in self.near])
        if most and self.description.subjects > most:
            text += f"; none helped with more than {most} subjects, these have "
            text += str(self.description.subjects)
        return text


def advice_for(
    description: Description,
    sets: Sequence[MeasuredSet] | None = None,
    limits: Sequence[Limit] = LIMITS,
) -> Advice:
    """Return what the sets that are like a described one say, of all that were measured.

    ``limits``: how far apart sets that are alike may be.
    """
    distances = [(*_apart(description, one.description, limits), one) for one in sets or evidence()]
    distances.sort(key=lambda entry: entry[0])
    near = [one for far, _, one in distances if far <= 1]
    far, words, nearest = distances[0]
    apart = f"{words}; the nearest, {nearest.name}" if math.isfinite(far) else words
    return Advice(description, tuple(near), apart)


def evidence() -> list[MeasuredSet]:
    """Return the sets that were measured."""
    text = Path(__file__).with_name("evidence.json").read_text(encoding="utf-8")
    return [MeasuredSet.from_json(one) for one in json.loads(text)["sets"]]


def _apart(mine: Description, other: Description, limits: Sequence[Limit]) -> tuple[float, str]:
    """Return how far apart two sets are, 1 for the most that are alike, and by what."""
    if (mine.kind, mine.dimensions) != (other.kind, other.dimensions):
        return math.inf, f"{RULES[mine.kind].data} in {mine.dimensions}D"
    found = [(0.0, "")]
    for limit in limits:
        one, two = getattr(mine, limit.name), getattr(other, limit.name)
        if one is None or two is None:
            found.append((math.inf, f"no {limit.name} of a lesion can be told"))
        else:
            words = f"{limit.words.format(one)}, there {limit.words.format(two)}"
            found.append((limit.apart(one, two), words))
    return max(found, key=lambda entry: entry[0])


# -- what the cases hold ---------------------------------------------------------------------------


def describe_source(source: CaseSource, contents: Contents | None = None) -> Description:
    """Describe what up to 128 training cases of any labelled source hold."""
    found = contents or contents_of(source)
    names = found.lesions or found.organs
    values = [source.schema.labels[name] for name in names]
    size = math.prod(source.load(source.train_ids[0]).image.shape)
    chosen = evenly_chosen(source.train_ids, int(np.clip(VOXELS // size, *CASES)))
    figures, dimensions = _Figures(), 0
    for case in map(source.load, chosen):
        figures.add(case, values, source.schema.spacing)
        dimensions = case.image.ndim - 1
    return Description(
        found.kind,
        dimensions,
        len({source.header(case).subject for case in source.train_ids}),
        figures.median("voxels"),
        figures.median("share"),
        figures.median("parts"),
        figures.median("hollow"),
        figures.median("contrast"),
        round(figures.shown / len(chosen), 4),
    )


class _Figures:
    """Collects the figures of lesions, case by case."""

    def __init__(self) -> None:
        self.shown = 0
        self.of: dict[str, list[float]] = {}

    def median(self, name: str) -> float | None:
        values = self.of.get(name)
        return round(float(np.median(values)), 4) if values else None

    def add(self, case: Case, values: Sequence[int], spacing: Sequence[float]) -> None:
        """Add the lesions of a case."""
        lesions = _lesions_of(case, values)
        if not lesions.any():
            return
        self.shown += 1
        sizes = LabelComponents.of(lesions[bounding_box(lesions)]).sizes
        large = sizes[sizes * SPECK >= sizes[0]]
        self._note("parts", len(large))
        for size in large.tolist():
            self._note("voxels", size)
        image, flat = _fullest_slice(case.image, lesions, spacing)
        body = shown_body(image) | flat
        for lesion in _pieces(flat):
            self._note("share", lesion.sum() / body.sum())
            self._note("hollow", _hollow(lesion))
            rim = _rim_of(lesion) & body & ~flat
            if rim.sum() >= FEW_VOXELS:
                gaps = [
                    gap(channel[lesion], channel[rim], NOTICED * spread(channel[body]))
                    for channel in image
                ]
                self._note("contrast", max(map(abs, gaps)))

    def _note(self, name: str, value: float) -> None:
        self.of.setdefault(name, []).append(float(value))


def _lesions_of(case: Case, values: Sequence[int]) -> Mask:
    """Voxels of the labels with these values, else of the boxes, (D, H, W) or (H, W)."""
    if values and case.labels is not None:
        return np.isin(case.labels, values)
    mask = np.zeros(case.image.shape[1:], bool)
    for row in () if case.boxes is None else case.boxes.coords:
        low, high = np.floor(row[: mask.ndim]).astype(int), np.ceil(row[mask.ndim :]).astype(int)
        mask[tuple([slice(*ends) for ends in zip(low, high, strict=True)])] = True
    return mask


def _fullest_slice(
    image: FloatArray, lesions: Mask, spacing: Sequence[float]
) -> tuple[FloatArray, Mask]:
    """Return the slice that shows most of the lesions, across the axis of the widest spacing."""
    if lesions.ndim == 2:
        return image, lesions
    axis = int(np.argmax(spacing))
    others = tuple([each for each in range(3) if each != axis])
    index = int(lesions.sum(axis=others).argmax())
    return np.take(image, [index], axis + 1).squeeze(axis + 1), lesions.take([index], axis).squeeze(
        axis
    )


def _pieces(flat: Mask) -> Iterator[Mask]:
    """Yield the connected lesions of a slice that are large enough to tell something."""
    components = LabelComponents.of(flat)
    for number in components.numbers[components.sizes >= SMALLEST].tolist():
        yield components.numbered == number


def _hollow(lesion: Mask) -> float:
    """Share of the convex hull of a lesion's pixels, (H, W), that is not the lesion."""
    from scipy.spatial import ConvexHull

    places = np.argwhere(lesion)
    corners = [places + shift for shift in ((0, 0), (0, 1), (1, 0), (1, 1))]
    return 1 - len(places) / float(ConvexHull(np.concatenate(corners)).volume)


def _rim_of(lesion: Mask) -> Mask:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(lesion, iterations=RIM) & ~lesion)
