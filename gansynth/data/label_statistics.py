"""Statistics of training label maps, and quality checks of generated ones.

Small faults of generated maps are corrected. Maps unlike all training cases are rejected. Only
counts of a case are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Mask, Schema
from gansynth.data.connected_components import LabelComponents, parts_of, remove_component
from gansynth.runtime.serialise import Document

QUANTILES = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)
SPECK = 0.02  # quantile of the sizes of a label's training parts below which a part is a speck
MANY = 0.99  # share of the training maps that have no more parts than a drawn one may
LEAST_RANK = 0.02
"""Share of the training maps that may show less foreground than a drawn one: slices at a lesion's
end have a voxel or two, and so have those of noise."""
WIDER = 1.5
"""How far beyond the outer quantiles of the training areas a drawn label may lie, as a factor."""
FEW_MAPS = 30
"""Training maps of a label at which that factor is doubled: their quantiles are worth less."""
ROUGHER, ROUGHER_LABEL = 1.25, 1.5
"""Factors by which all foreground, or one label, may be rougher than 99 % of the training maps.
Borders within a lesion differ more between subjects than its outline."""


class MapStatistics(NamedTuple):
    """Counts of one value in one map: voxels, sizes of its parts, largest first, ``roughness``."""

    area: int
    sizes: list[int]
    rough: float


@dataclass(frozen=True)
class LabelPrior(Document):
    """Statistics of one value in training maps; areas are its voxels in the maps that show it.

    Attributes: ``area``: ``QUANTILES`` of it, empty where no map shows it. ``parts``: median
    number; of background and outside, of those enclosed. ``most``: parts that all but 1 % of the
    maps do not exceed. ``speck``: voxels below which a part is smaller than nearly all. ``rough``:
    for maps of 1, 2 to 3, 4 to 7, ... voxels, the roughness that all but 1 % of the training maps
    of about as many do not exceed. ``least``: voxels that all but 2 % of the training maps have,
    fewer where these are few.
    """

    value: int
    name: str
    maps: int = 0
    share: float = 0.0
    area: tuple[float, ...] = ()
    parts: float = 0.0
    most: int = 0
    speck: int = 0
    rough: tuple[float, ...] = ()
    least: int = 0

    @classmethod
    def of(cls, value: int, name: str, maps: Sequence[MapStatistics]) -> LabelPrior:
        """Summarise the counts of maps, one entry for each."""
        labelled = [entry for entry in maps if entry.area]
        areas = np.array([entry.area for entry in labelled])
        counts = [len(entry.sizes) for entry in labelled]
        sizes = np.array([size for entry in labelled for size in entry.sizes])
        if not areas.size:
            return cls(value, name)
        return cls(
            value,
            name,
            maps=len(areas),
            share=len(areas) / len(maps),
            area=tuple(map(float, np.quantile(areas, QUANTILES))),
            parts=float(np.median(counts)),
            most=int(np.quantile(counts, MANY, method="higher")),
            speck=int(np.quantile(sizes, SPECK, method="lower")) if sizes.size else 0,
            rough=_by_octave(areas, np.array([entry.rough for entry in labelled])),
            least=int(np.quantile(areas, LEAST_RANK) / (1 + FEW_MAPS / len(areas))),
        )

    @property
    def title(self) -> str:
        """Name of the label in messages."""
        return f"label {self.value} ({self.name})"

    @property
    def median(self) -> float | None:
        """Median area; None where no map shows it."""
        return self.area[QUANTILES.index(0.5)] if self.area else None

    @property
    def range(self) -> tuple[int, int]:
        """Least and most voxels a drawn label may cover."""
        wider = WIDER * (1 + FEW_MAPS / self.maps)
        return int(self.area[0] / wider), int(np.ceil(self.area[-1] * wider))

    def summary(self) -> dict[str, float | None]:
        """Share, median area and parts, as JSON."""
        parts = self.parts if self.area else None
        return {"share": round(self.share, 4), "area": self.median, "parts": parts}

    def doomed(self, parts: LabelComponents) -> npt.NDArray[np.int64]:
        """Return numbers of parts to remove: those that nearly no training map has."""
        gone = (parts.sizes < self.speck) | (np.arange(len(parts.sizes)) >= self.most)
        # The largest is the label itself: it goes only where maps without the label are known, and
        # so little of it would be a flaw.
        if self.value > 0 and self.maps and len(gone):
            gone[0] = self.share < 1 and parts.sizes.sum() < self.range[0]
        return parts.numbers[gone]

    def reject_reason(self, labels: LabelArray, always: bool) -> str:
        """Return why the label makes a map, int16, unlike training maps; empty if it does not."""
        area = int(np.count_nonzero(labels == self.value))
        if not area:
            if not always or self.share < 1:
                return ""
            return f"{self.title} is missing, expected in every label map as in the training ones"
        if not self.maps:
            return f"{self.title} covers {area} voxels, expected none as in the training label maps"
        least, most = self.range
        if not least <= area <= most:
            return (
                f"{self.title} has an unusual size: {area} voxels, expected {least} to {most} as "
                "in the training label maps"
            )
        count, most = len(parts_of(labels, self.value).sizes), int(np.ceil(self.most * WIDER)) + 1
        if count > most:
            return (
                f"{self.title} has {count} parts, expected at most {most} as in the training ones"
            )
        return ""

    def strewn(self, mask: Mask, rougher: float = ROUGHER_LABEL) -> str:
        """Return why an uncleaned mask is rougher than training maps; empty if it is not."""
        area = int(np.count_nonzero(mask))
        if not area or not self.rough:
            return ""
        limit = self.rough[min(_octave(area), len(self.rough) - 1)] * rougher * (1 + 1 / self.maps)
        rough = roughness(mask)
        if rough <= limit:
            return ""
        return (
            f"is strewn about: {area} voxels with {rough / limit:.1f} times the border that they "
            "may have, expected shapes as compact as in the training label maps"
        )


def measure_map(labels: LabelArray, value: int) -> MapStatistics:
    """Count one value in a map; all counts are 0 where the value is absent."""
    mask = labels == value
    area = int(np.count_nonzero(mask))
    if not area:
        return MapStatistics(0, [], 0.0)
    return MapStatistics(area, parts_of(labels, value).sizes.tolist(), roughness(mask))


def roughness(mask: Mask) -> float:
    """Faces between a mask and the rest, over its voxels to the power of 1/2 in 2D, 2/3 in 3D.

    It is 4 for any square and 6 for any cube, so it depends on shape alone. For n separate pixels
    it is 4 times the root of n.
    """
    faces = 0
    for axis in range(mask.ndim):
        faces += int(np.count_nonzero(np.diff(mask, axis=axis)))
    return float(faces / np.count_nonzero(mask) ** (1 - 1 / mask.ndim))


def _octave(area: int) -> int:
    return area.bit_length() - 1


def _by_octave(areas: npt.NDArray[np.int64], rough: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """See ``LabelPrior.rough``: of each octave and its neighbours, else of the next with some."""
    limits: list[float | None] = []
    for octave in range(_octave(int(areas.max())) + 1):
        near = rough[(areas >= 2 ** (octave - 1)) & (areas < 2 ** (octave + 2))]
        limits.append(float(np.quantile(near, MANY, method="higher")) if near.size else None)
    filled = [i for i, limit in enumerate(limits) if limit is not None]
    nearest = [min(filled, key=lambda k: abs(k - i)) for i in range(len(limits))]
    return tuple([round(limits[k] or 0.0, 3) for k in nearest])


FAR, FAR_SHARE = 2.0, 0.2
"""Factor of shares and areas, and difference of shares, above which a warning is given."""
MOST_CLEANED, MOST_LABELLED = 0.05, 0.34
"""Share of a generated map, and of its foreground, that may be cleaned; of a training map one voxel
in ten thousand is."""
FEWEST = 8  # least number of samples, and of training maps, that are compared on the whole
SURE = 16  # number of training maps from which a label in all of them is required


@dataclass(frozen=True)
class LabelPriors(Document):
    """Statistics of the label maps of a training set.

    ``empty``: share of them that show no foreground. ``priors``: of each value, foreground first.
    ``whole``: of all foreground together.
    """

    maps: int
    empty: float
    priors: tuple[LabelPrior, ...]
    whole: LabelPrior

    @classmethod
    def fit(cls, label_maps: Iterable[LabelArray], schema: Schema) -> LabelPriors:
        """Learn from label maps int16 (D, H, W) or (H, W) of training cases, all of one size."""
        names = {number: name for name, number in schema.labels.items()} | {OUTSIDE: "outside"}
        # Foreground first: what is cleaned of a label may open or close a hole in another.
        others = [value for value in (0, OUTSIDE) if value in schema.label_values]
        values = (*schema.foreground, *others)
        return cls._of(label_maps, {v: names[v] for v in values})

    @classmethod
    def _of(cls, label_maps: Iterable[LabelArray], names: Mapping[int, str]) -> LabelPriors:
        by_value: dict[int, list[MapStatistics]] = {value: [] for value in names}
        together: list[MapStatistics] = []
        for labels in label_maps:
            together.append(measure_map((labels > 0).astype(np.int16), 1))
            for value, rows in by_value.items():
                rows.append(measure_map(labels, value))
        priors = [LabelPrior.of(value, names[value], rows) for value, rows in by_value.items()]
        whole = LabelPrior.of(1, "all labels", together)
        return cls(len(together), 1 - whole.share, tuple(priors), whole)

    def clean(self, labels: LabelArray) -> LabelArray:
        """Remove what nearly no training map has: specks, surplus parts, holes.

        Removed voxels get the commonest value around them. A label's largest part stays, unless
        training maps without the label exist and the part is too small for the label.
        """
        cleaned = labels.copy()
        changed = self.maps > 0
        while changed:  # a part taken away joins its neighbours: there are fewer every time
            changed = False
            for prior in self.priors:
                parts = parts_of(cleaned, prior.value)
                doomed = prior.doomed(parts)
                if doomed.size and parts.sizes[0] < cleaned.size:
                    remove_component(cleaned, parts, doomed)
                    changed = True
        return cleaned

    def noise(self, drawn: LabelArray, cleaned: LabelArray) -> str:
        """Return why a map is noise, in one line; empty if it is not.

        Scattered labels are noise, however few voxels they cover. So is a map of which much had to
        be cleaned. ``drawn``: int16 (D, H, W) or (H, W), before it was cleaned.
        """
        if self.maps == 0:
            return ""
        changed, labelled = drawn != cleaned, drawn > 0
        foreground = int(labelled.sum())
        for part, share, most in (
            ("label map", changed.mean(), MOST_CLEANED),
            ("foreground", (changed & labelled).sum() / max(foreground, 1), MOST_LABELLED),
        ):
            if share > most:
                much = f"too much of the {part} had to be cleaned"
                return f"{much}: {share:.1%}, expected at most {most:.0%}"
        strewn = self.whole.strewn(labelled, ROUGHER)
        if strewn:
            return f"foreground {strewn}"
        for prior in self.priors:
            strewn = prior.strewn(drawn == prior.value) if prior.value > 0 else ""
            if strewn:
                return f"{prior.title} {strewn}"
        return ""

    def reject_reason(self, labels: LabelArray) -> str:
        """Return why a map is unlike all training maps, in one line; empty if it is not.

        The area of a label may exceed the central 99 % of training areas by a factor of 1.5. The
        factor is 3 where only 30 maps show it. Foreground may not cover less than in all but 2 %.
        A label that is in all of at least 16 training maps must be there.
        """
        if self.maps == 0:
            return ""
        enough = self.maps >= SURE
        if enough and self.empty == 0 and not (labels > 0).any():
            return "no label is drawn, expected some in every label map as in the training ones"
        foreground = int((labels > 0).sum())
        if 0 < foreground < self.whole.least:
            return (
                f"foreground covers {foreground} voxels, expected at least {self.whole.least} as "
                "in the training label maps"
            )
        for prior in self.priors:
            reason = prior.reject_reason(labels, enough) if prior.value else ""
            if reason:
                return reason
        return ""

    def compare(self, label_maps: Iterable[LabelArray]) -> dict[str, Any]:
        """Compare frequency, area and parts of generated maps with the training maps, as JSON.

        ``labels``: name -> ``value``, ``samples``, ``training``: each ``share`` of maps that show
        it, median ``area`` and ``parts``. ``warnings``: a line for each that is far off.
        """
        drawn = LabelPriors._of(label_maps, {p.value: p.name for p in self.priors})
        pairs = [(d, t) for d, t in zip(drawn.priors, self.priors, strict=True) if t.value != 0]
        too_few = min(drawn.maps, self.maps) < FEWEST
        return {
            "samples": drawn.maps,
            "training": self.maps,
            "labels": {
                t.name: {"value": t.value, "samples": d.summary(), "training": t.summary()}
                for d, t in pairs
            },
            "warnings": [
                warning
                for d, t in pairs
                if not too_few
                for warning in (_share_off(d, t, drawn.maps, self.maps), _area_off(d, t))
                if warning
            ],
        }


def _share_off(drawn: LabelPrior, real: LabelPrior, samples: int, maps: int) -> str:
    # Three standard errors: a rare label that is absent from a few samples says nothing. Half a
    # map more keeps what every map shows from being certain.
    share = (real.maps + 0.5) / (maps + 1)
    error = 3 * (share * (1 - share) * (1 / samples + 1 / maps)) ** 0.5
    gap = abs(drawn.share - real.share)
    twice = max(drawn.share, real.share) > FAR * min(drawn.share, real.share)
    if gap <= error or not (twice or gap > FAR_SHARE):
        return ""
    return (
        f"{real.title} is in {drawn.share:.0%} of {samples} samples, expected about "
        f"{real.share:.0%} as of the training label maps"
    )


def _area_off(drawn: LabelPrior, real: LabelPrior) -> str:
    area, expected = drawn.median, real.median
    if area is None or expected is None or min(drawn.maps, real.maps) < FEWEST:
        return ""
    if max(area, expected) <= FAR * min(area, expected):
        return ""
    return (
        f"{real.title} covers {area:.0f} voxels in the median sample that shows it, expected "
        f"about {expected:.0f} as in the training label maps"
    )


Rows = npt.NDArray[np.float64]
"""Of one label: count, sum and sum of squares of its voxels, each (C,)."""


def label_share(cases: Iterable[tuple[FloatArray, LabelArray | None]]) -> float:
    """Return the share of the images' variance that lies between labels (eta squared), 0 to 1.

    The mean over channels, 0 for those without variance; NaN without cases.

    Args:
        cases: images (C, D, H, W) or (C, H, W), and labels (D, H, W) or (H, W), -1 outside.
    """
    sums: dict[int, Rows] = {}
    for image, labels in cases:
        assert labels is not None, "every case has labels"
        for value in np.unique(labels[labels != OUTSIDE]).tolist():
            part = image[:, labels == value].astype(np.float64)
            rows = np.array([np.full(len(part), part.shape[1]), part.sum(1), (part**2).sum(1)])
            sums[value] = sums[value] + rows if value in sums else rows
    if not sums:
        return float("nan")
    count, total, squares = np.sum(list(sums.values()), axis=0)
    variance = squares - total**2 / count
    within = squares - np.sum([t**2 / n for n, t, _ in sums.values()], axis=0)
    varies = variance > 1e-9 * squares
    return float(np.mean(np.where(varies, 1 - within / np.where(varies, variance, 1), 0)))
