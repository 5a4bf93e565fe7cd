"""The nearest real training case of a sample: does a generator copy its training data?

Distances are root mean squares over channels and voxels, each channel in deviations of real cases.
All positions of all training cases are searched on a coarse grid (blocks, at most 16 along an
axis). The twenty nearest cases are compared in full; a copy may be shifted by up to two blocks. The
distance is divided by the usual one, of a real crop to the nearest crop of another subject. A ratio
far below 1 indicates a copy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, Sample
from gansynth.core.space import Placement, Space
from gansynth.runtime.progress import NullReporter, Reporter

GRID = 16  # most blocks along an axis
CANDIDATES = 20  # cases (or slices, of volumes cut into slices) that are compared in full
STEPS = 8
"""Positions in a case larger than a sample are an eighth of the sample apart, then refined."""
REACH = 1  # blocks by which a copy may be shifted along each axis
PART = 1 << 23  # values of the positions that are compared at once: all of a volume take a GB
ITEMS = 512  # cases, or slices, after which only the nearest are kept

Load = Callable[[str], Case]
Found = tuple[float, str, Placement]  # distance, case and position


@dataclass
class SearchQuery:
    """A search image (C, *size) in deviations; crops of ``subject`` are excluded."""

    image: FloatArray
    subject: str | None = None


class NearestSearch:
    """Search training cases in order.

    ``people``: the cases' subjects. ``scale``: channels' deviations, (C, 1, ...).
    """

    def __init__(
        self, people: Mapping[str, str], space: Space, size: Sequence[int], load: Load
    ) -> None:
        self.people, self.load, self.size = people, load, tuple(size)
        self.space = replace(space, grid="crop", size=self.size) if not space.size else space
        self.factors = tuple(-(-n // GRID) for n in self.size)
        self.scale: FloatArray = np.ones((1, *[1] * len(self.size)), np.float32)
        self.compared = 0
        self.margins: list[float] = []

    def draw(self, count: int, rng: np.random.Generator) -> list[SearchQuery]:
        """Cut real crops as training does."""
        ids = list(self.people)
        chosen = sorted(rng.choice(len(ids), count, replace=len(ids) < count).tolist())
        queries = []
        for number in chosen:
            case = self.load(ids[number])
            image = self.space.to_generator(case, self.space.place(case, rng)).image
            queries.append(SearchQuery(image, self.people[ids[number]]))
        return queries

    def learn_scale(self, images: Sequence[FloatArray]) -> None:
        """Estimate each channel's standard deviation from real crops."""
        stacked = np.stack(images)
        axes = (0, *range(2, stacked.ndim))
        deviation = stacked.std(axis=axes, keepdims=True)[0]
        self.scale = np.asarray(np.maximum(deviation, 1e-6), np.float32)

    def run(self, queries: Sequence[SearchQuery], tick: Callable[[], None]) -> list[Found]:
        """Return distance, case and position of the nearest match of each query; infinite if there
        is none.

        Sets ``margins``: the distance over that to the next subject, 0 to 1.
        """
        best, small = _BestMatches([q.subject for q in queries]), self._pooled(queries)
        for case_id, subject in self.people.items():
            case = self.load(case_id)
            for plane in self._planes(case):
                blocks = pool(self._whole(case, plane)[0], self.factors)
                best.add(self._matches(small, blocks)[0], (case_id, plane), subject)
                self.compared += 1
            tick()
        nearest: list[Found] = [(float("inf"), "", Placement())] * len(queries)
        by_subject: list[dict[str, list[float]]] = [{} for _ in queries]
        for case_id, by_plane in best.candidates().items():
            case, person = self.load(case_id), self.people[case_id]
            for plane, numbers in by_plane.items():
                image, origin = self._whole(case, plane)
                blocks = pool(image, self.factors)
                starts = self._matches(small[numbers], blocks)[1]
                for number, start in zip(numbers, starts, strict=True):
                    query = queries[number].image
                    distance, corner = self._refine(query, small[number], image, blocks, start)
                    by_subject[number].setdefault(person, []).append(distance)
                    if distance < nearest[number][0]:
                        at = [c + o for c, o in zip(corner, origin, strict=False)]
                        nearest[number] = (distance, case_id, Placement(tuple(at), plane))
        self.margins = [_margin(distances) for distances in by_subject]
        return nearest

    def table(self, queries: Sequence[SearchQuery], tick: Callable[[], None]) -> FloatArray:
        """Distance of each query to each case on the coarse grid: (queries, cases)."""
        small = self._pooled(queries)
        squared = np.full((len(queries), len(self.people)), np.inf)
        for number, case_id in enumerate(self.people):
            case = self.load(case_id)
            for plane in self._planes(case):
                blocks = pool(self._whole(case, plane)[0], self.factors)
                distances = self._matches(small, blocks)[0]
                squared[:, number] = np.minimum(squared[:, number], distances)
                self.compared += 1
            tick()
        return np.asarray(np.sqrt(np.maximum(squared, 0) / small[0].size), np.float32)

    def _pooled(self, queries: Sequence[SearchQuery]) -> FloatArray:
        return np.stack([pool(query.image, self.factors) for query in queries])

    def _planes(self, case: Case) -> Sequence[int | None]:
        """Slice numbers to search; None stands for the whole case."""
        return range(case.image.shape[1]) if self.space.grid == "slice" else [None]

    def _whole(self, case: Case, plane: int | None) -> tuple[FloatArray, tuple[int, ...]]:
        """A case, or a slice of it, in deviations; padded as crops are if it is smaller."""
        if self.space.grid == "resample":
            return self.space.to_generator(case).image / self.scale, ()
        shape = case.image.shape[-len(self.size) :]
        origin = tuple(min(0, (n - s) // 2) for n, s in zip(shape, self.size, strict=True))
        whole = replace(self.space, size=tuple(map(max, shape, self.size)))
        return whole.to_generator(case, Placement(origin, plane)).image / self.scale, origin

    def _matches(
        self, small: FloatArray, blocks: FloatArray
    ) -> tuple[npt.NDArray[np.float64], list[tuple[int, ...]]]:
        """Compare coarse queries (Q, C, *blocks) with all windows of a coarse image.

        Returns:
            The least squared distance of each query (Q), and the corner of that window.
        """
        small = small.reshape(len(small), -1)
        squares = (small.astype(np.float64) ** 2).sum(axis=1)
        least = np.full(len(small), np.inf)
        nearest: list[tuple[int, ...]] = [()] * len(small)
        for rows, corners in self._windows(blocks):
            own = np.einsum("nf,nf->n", rows, rows, dtype=np.float64)
            squared = squares[:, None] + own - 2.0 * (small @ rows.T)
            for query, at in enumerate(squared.argmin(axis=1).tolist()):
                if squared[query, at] < least[query]:
                    least[query], nearest[query] = squared[query, at], corners[at]
        return least, nearest

    def _windows(self, blocks: FloatArray) -> Iterator[tuple[FloatArray, list[tuple[int, ...]]]]:
        """Yield flattened windows of a coarse image (W, features) and their corners, in parts."""
        edges = [n // f for n, f in zip(self.size, self.factors, strict=True)]
        last = [n - edge for n, edge in zip(blocks.shape[1:], edges, strict=True)]
        starts = [
            sorted({-REACH, *range(0, end, max(1, edge // STEPS)), end, end + REACH})
            for end, edge in zip(last, edges, strict=True)
        ]
        wide = np.pad(blocks, [(0, 0), *[(REACH, REACH)] * len(edges)], mode="edge")
        views = np.lib.stride_tricks.sliding_window_view(
            wide, edges, axis=tuple(range(1, wide.ndim))
        )
        corners = list(product(*starts))
        count = max(1, PART // (len(blocks) * math.prod(edges)))
        for first in range(0, len(corners), count):
            part = corners[first : first + count]
            picked = []
            for corner in part:
                at = [c + REACH for c in corner]
                picked.append(views[(slice(None), *at)])
            yield np.stack(picked).reshape(len(part), -1), part

    def _refine(
        self,
        query: FloatArray,
        small: FloatArray,
        image: FloatArray,
        blocks: FloatArray,
        start: tuple[int, ...],
    ) -> tuple[float, tuple[int, ...]]:
        """Smallest distance of a query to an image near a coarse corner, and its corner."""
        around = product(*[range(c - REACH, c + REACH + 1) for c in start])
        start = min(around, key=lambda corner: gap(small, blocks, corner))
        best = tuple(c * f for c, f in zip(start, self.factors, strict=True))
        least = gap(query, image, best)
        for _ in range(2):  # one axis after the other
            for axis, factor in enumerate(self.factors):
                for start_at in range(best[axis] - factor, best[axis] + factor + 1):
                    corner = (*best[:axis], start_at, *best[axis + 1 :])
                    distance = gap(query, image, corner)
                    if distance < least:
                        least, best = distance, corner
        return least, best


def _margin(by_subject: Mapping[str, Sequence[float]]) -> float:
    """The smallest distance over that of the next subject; 1 if undefined."""
    if not by_subject:
        return 1.0
    nearest = sorted(min(distances) for distances in by_subject.values())
    every_distance = [distance for distances in by_subject.values() for distance in distances]
    following = nearest[1] if len(nearest) > 1 else max(every_distance)
    return nearest[0] / following if following else 1.0


class _BestMatches:
    """The nearest positions of each query so far, on the coarse grid."""

    def __init__(self, subjects: Sequence[str | None]) -> None:
        self.subjects = np.array([s or "" for s in subjects])
        self.free = np.array([s is None for s in subjects])
        shape = (len(subjects), CANDIDATES)
        self.distance = np.full(shape, np.inf)
        self.item = np.full(shape, -1)
        self.items: list[tuple[str, int | None]] = []
        self._latest: list[npt.NDArray[np.float64]] = []

    def add(
        self, squared: npt.NDArray[np.float64], item: tuple[str, int | None], subject: str
    ) -> None:
        """Note the least squared distance of each query (Q) to one case or slice."""
        own = (self.subjects == subject) & ~self.free
        self.items.append(item)
        self._latest.append(np.where(own, np.inf, squared))
        if len(self._latest) >= ITEMS:
            self._flush()

    def _flush(self) -> None:
        if not self._latest:
            return
        squared = np.stack(self._latest, axis=1)
        first = len(self.items) - len(self._latest)
        numbers = np.broadcast_to(np.arange(first, len(self.items)), squared.shape)
        distance = np.concatenate([self.distance, squared], axis=1)
        item = np.concatenate([self.item, numbers], axis=1)
        keep = np.argpartition(distance, CANDIDATES - 1, axis=1)[:, :CANDIDATES]
        self.distance = np.take_along_axis(distance, keep, axis=1)
        self.item = np.take_along_axis(item, keep, axis=1)
        self._latest = []

    def candidates(self) -> dict[str, dict[int | None, list[int]]]:
        """Case -> slice -> the queries it is near to, in the order of the cases."""
        self._flush()
        by_case: dict[str, dict[int | None, list[int]]] = {}
        pairs = [
            (int(item), query)
            for query, (items, distances) in enumerate(zip(self.item, self.distance, strict=True))
            for item, distance in zip(items, distances, strict=True)
            if np.isfinite(distance)
        ]
        for item, query in sorted(pairs):
            case, plane = self.items[item]
            by_case.setdefault(case, defaultdict(list))[plane].append(query)
        return by_case


def pool(image: FloatArray, factors: Sequence[int]) -> FloatArray:
    """Means of whole blocks of an image (C, *size): float32 (C, *blocks)."""
    for axis, factor in enumerate(factors, 1):
        if factor == 1:
            continue
        count = image.shape[axis] // factor
        part = image[(slice(None),) * axis + (slice(count * factor),)]
        split = part.reshape(*part.shape[:axis], count, factor, *part.shape[axis + 1 :])
        image = split.mean(axis=axis + 1)
    return np.asarray(image, np.float32)


def gap(query: npt.NDArray[Any], image: npt.NDArray[Any], corner: Sequence[int]) -> float:
    """Root mean square difference where (C, *size) overlaps (C, *larger) at a corner."""
    query_part, covered = [slice(None)], [slice(None)]
    for start, length, extent in zip(corner, query.shape[1:], image.shape[1:], strict=True):
        first, last = max(start, 0), min(start + length, extent)
        query_part.append(slice(first - start, last - start))
        covered.append(slice(first, last))
    difference = (query[tuple(query_part)] - image[tuple(covered)]).ravel()
    return float(np.sqrt(np.dot(difference, difference) / difference.size))


# -- samples, in usual distances -------------------------------------------------------------------

REAL = 64  # real crops whose nearest neighbours define the usual distance
COPY = 0.5
"""Median ratio below which samples look like copies. A blurred image that is no copy lies at about
0.7 of the usual distance from any image: it lacks its own half of the variance. For hippocampus
slices held-out real ones have 1.08, copies with a fifth of noise 0.34, blurred ones 0.21."""


@dataclass(frozen=True)
class NearestCase:
    """The nearest case of a sample.

    ``ratio``: to the usual distance. ``margin``: see ``NearestSearch.run``.
    """

    case: str
    placement: Placement
    distance: float
    ratio: float | None
    margin: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return {
            "case": self.case,
            "placement": self.placement.to_json(),
            "distance": round(self.distance, 5),
            "ratio": None if self.ratio is None else round(self.ratio, 4),
        }


@dataclass(frozen=True)
class NearestCases:
    """The nearest training case of each sample; ``usual``: median distance of real crops."""

    near: tuple[NearestCase, ...]
    usual: float | None
    compared: int
    margins: tuple[float, ...] = ()

    @property
    def median_ratio(self) -> float | None:
        """Median of the samples' ratios."""
        ratios = [near.ratio for near in self.near if near.ratio is not None]
        return float(np.median(ratios)) if ratios else None

    @property
    def hint(self) -> str:
        """One line if the samples look like copies, else nothing."""
        median = self.median_ratio
        if median is None or median >= COPY:
            return ""
        return (
            f"samples lie {median:.2f} of the usual distance from their nearest training case "
            f"(expected about 1, at least {COPY}): the generator may be memorising. Look at the "
            "preview grid. More cases, fewer steps or a smaller generator help"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document; it names training cases."""
        return {
            "compared": self.compared,
            "usual_distance": self.usual,
            "median_ratio": self.median_ratio,
            "samples": [near.to_json() for near in self.near],
        }


def find_nearest(
    samples: Sequence[Sample],
    people: Mapping[str, str],
    space: Space,
    *,
    load: Load,
    real: int = REAL,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> NearestCases:
    """Find the nearest training case of each sample; each case is read at most twice.

    ``samples``: in the generator's space, all of one shape; at least one. ``people``: the
    training cases' subjects. ``load``: reads a case.
    """
    search = NearestSearch(people, space, samples[0].image.shape[1:], load)
    rng = np.random.default_rng(seed)
    usual_ones = search.draw(real, rng)
    search.learn_scale([query.image for query in usual_ones])
    queries = [SearchQuery(s.image) for s in samples] + usual_ones
    for query in queries:
        query.image = query.image / search.scale
    with (reporter or NullReporter()).task(len(people), "nearest real case") as bar:
        results = search.run(queries, bar.advance)
    usual = _median([d for d, _, _ in results[len(samples) :] if np.isfinite(d)])
    near = []
    for (distance, case, placement), margin in zip(results, search.margins, strict=True):
        ratio = distance / usual if usual else None
        near.append(NearestCase(case, placement, distance, ratio, margin))
    margins = tuple(search.margins[len(samples) :])
    return NearestCases(tuple(near[: len(samples)]), usual, search.compared, margins)


def _median(distances: Sequence[float]) -> float | None:
    middle = float(np.median(distances)) if distances else 0.0
    return middle or None
