"""What the training maps say of one label: how often it is there, how much, in how many parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.labelmaps_parts import Parts, parts_of
from gansynth.schema import LabelArray

QUANTILES = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)
SPECK = 0.02
"""Share of the training parts of a label that may be smaller than what is taken for a speck."""
MANY = 0.99
"""Share of the training maps that have no more parts than a drawn one may."""
WIDER = 1.5
"""How far beyond the outer quantiles of the training areas a drawn label may lie, as a factor."""
FEW = 30
"""Training maps of a label at which that factor is doubled: their quantiles are worth less."""

Seen = tuple[int, list[int]]
"""Area of a value in one map, and the sizes of its parts."""


@dataclass(frozen=True)
class LabelPrior:
    """What the training maps say of one value; areas are its voxels in the maps that show it.

    Attributes:
        value: the label value; 0 background, -1 outside.
        name: how the schema calls it.
        maps: how many show it.
        share: of all maps.
        area: ``QUANTILES`` of its area; empty where no map shows it.
        parts: median number of parts; of background and outside, of those enclosed by others.
        most: parts that all but 1 % of the maps do not exceed.
        speck: voxels below which a part is smaller than nearly all parts; 0 without parts.
    """

    value: int
    name: str
    maps: int = 0
    share: float = 0.0
    area: tuple[float, ...] = ()
    parts: float = 0.0
    most: int = 0
    speck: int = 0

    @classmethod
    def of(cls, value: int, name: str, seen: Sequence[Seen]) -> LabelPrior:
        """What so many maps say, one entry for each."""
        areas = np.array([area for area, _ in seen if area])
        counts = [len(sizes) for area, sizes in seen if area]
        sizes = np.array([size for _, parts in seen for size in parts])
        if not areas.size:
            return cls(value, name)
        return cls(
            value,
            name,
            maps=len(areas),
            share=len(areas) / len(seen),
            area=tuple(float(q) for q in np.quantile(areas, QUANTILES)),
            parts=float(np.median(counts)),
            most=int(np.quantile(counts, MANY, method="higher")),
            speck=int(np.quantile(sizes, SPECK, method="lower")) if sizes.size else 0,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``from_json`` reads back."""
        return {**asdict(self), "area": list(self.area)}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> LabelPrior:
        """Read what ``to_json`` wrote."""
        return cls(**{**doc, "area": tuple(doc["area"])})

    @property
    def title(self) -> str:
        """How a message calls it."""
        return f"label {self.value} ({self.name})"

    @property
    def median(self) -> float | None:
        """Median area; None where no map shows it."""
        return self.area[QUANTILES.index(0.5)] if self.area else None

    @property
    def range(self) -> tuple[int, int]:
        """Least and most voxels a drawn label may cover."""
        wider = WIDER * (1 + FEW / self.maps)
        return int(self.area[0] / wider), int(np.ceil(self.area[-1] * wider))

    def told(self) -> dict[str, float | None]:
        """Share, median area and parts, as JSON."""
        parts = self.parts if self.area else None
        return {"share": round(self.share, 4), "area": self.median, "parts": parts}

    def doomed(self, parts: Parts) -> npt.NDArray[np.int64]:
        """Numbers of the parts of a map that nearly no training map has."""
        gone = (parts.sizes < self.speck) | (np.arange(len(parts.sizes)) >= self.most)
        # The largest is the label itself: it goes only where maps without the label are known, and
        # so little of it would be a flaw.
        if self.value > 0 and self.maps and len(gone):
            gone[0] = self.share < 1 and parts.sizes.sum() < self.range[0]
        return parts.numbers[gone]

    def flaw(self, labels: LabelArray, always: bool) -> str:
        """What is wrong with the label in a map, or nothing.

        Args:
            labels: int16 (D, H, W) or (H, W).
            always: whether a map must show what every training map shows.
        """
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
                f"{self.title} covers {area} voxels, expected {least} to {most} as in the training "
                "label maps"
            )
        count, most = len(parts_of(labels, self.value).sizes), int(np.ceil(self.most * WIDER)) + 1
        if count > most:
            return (
                f"{self.title} has {count} parts, expected at most {most} as in the training ones"
            )
        return ""


def look(labels: LabelArray, value: int) -> Seen:
    """Area of a value in a map, and the sizes of its parts, the largest first."""
    area = int(np.count_nonzero(labels == value))
    return area, parts_of(labels, value).sizes.tolist() if area else []
