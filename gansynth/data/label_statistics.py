"""What label maps of a training set look like, and whether drawn ones look like them.

Small faults of drawn maps are mended; maps that no training case resembles are refused. Only counts
are kept of a case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from gansynth.data.connected_components import boxes_of, parts_of, take_away
from gansynth.data.label_priors import ROUGHER, LabelPrior, Seen, look
from gansynth.runtime.serialise import Document

__all__ = ["LabelPrior", "LabelPriors", "boxes_of"]

FAR, FAR_SHARE = 2.0, 0.2
"""Factor of shares and areas, and difference of shares, from which on samples are far off."""
MOST_CLEANED, MOST_LABELLED = 0.05, 0.34
"""Share of a drawn map, and of its foreground, that may be cleaned. Of a training map one voxel in
ten thousand is."""
FEWEST = 8
"""Samples or training maps below which nothing is said of them on the whole."""
SURE = 16
"""Training maps from which on what all of them show must be there."""


@dataclass(frozen=True)
class LabelPriors(Document):
    """What label maps of a training set look like.

    ``empty``: share of them that show no foreground. ``priors``: of each value, foreground first.
    ``whole``: of all foreground together; None in runs fitted before it was looked at.
    """

    maps: int
    empty: float
    priors: tuple[LabelPrior, ...]
    whole: LabelPrior | None = None

    @classmethod
    def fit(cls, label_maps: Iterable[LabelArray], schema: Schema) -> LabelPriors:
        """Learn from label maps int16 (D, H, W) or (H, W) of training cases, all of one size."""
        names = {number: name for name, number in schema.labels.items()} | {OUTSIDE: "outside"}
        # Foreground first: what is cleaned of a label may open or close a hole in another.
        values = (*schema.foreground, *(v for v in (0, OUTSIDE) if v in schema.label_values))
        return cls._of(label_maps, {v: names[v] for v in values})

    @classmethod
    def _of(cls, label_maps: Iterable[LabelArray], names: Mapping[int, str]) -> LabelPriors:
        seen: dict[int, list[Seen]] = {value: [] for value in names}
        together: list[Seen] = []
        for labels in label_maps:
            together.append(look((labels > 0).astype(np.int16), 1))
            for value, rows in seen.items():
                rows.append(look(labels, value))
        priors = tuple(LabelPrior.of(value, names[value], rows) for value, rows in seen.items())
        whole = LabelPrior.of(1, "all labels", together)
        return cls(len(together), 1 - whole.share, priors, whole)

    def clean(self, labels: LabelArray) -> LabelArray:
        """The map without what nearly no training map has: specks, surplus parts, holes.

        Voxels taken away get the value of most around them. A label's largest part stays, unless
        maps without the label are known and so little of it would be a flaw.
        """
        cleaned = labels.copy()
        changed = self.maps > 0
        while changed:  # a part taken away joins its neighbours: there are fewer every time
            changed = False
            for prior in self.priors:
                parts = parts_of(cleaned, prior.value)
                doomed = prior.doomed(parts)
                if doomed.size and parts.sizes[0] < cleaned.size:
                    take_away(cleaned, parts, doomed)
                    changed = True
        return cleaned

    def noise(self, drawn: LabelArray, cleaned: LabelArray) -> str:
        """Why a map is no label map but noise, in one line, or nothing.

        Strewn labels are noise, however few voxels they cover; so is a map of which much had to be
        cleaned. ``drawn``: int16 (D, H, W) or (H, W), before it was cleaned.
        """
        if self.maps == 0:
            return ""
        changed, labelled = drawn != cleaned, drawn > 0
        foreground = int(labelled.sum())
        for what, share, most in (
            ("label map", changed.mean(), MOST_CLEANED),
            ("foreground", (changed & labelled).sum() / max(foreground, 1), MOST_LABELLED),
        ):
            if share > most:
                return f"{what} of which {share:.1%} had to be cleaned, expected at most {most:.0%}"
        strewn = "" if self.whole is None else self.whole.strewn(labelled, ROUGHER)
        if strewn:
            return f"foreground {strewn}"
        found = ((p.title, p.strewn(drawn == p.value)) for p in self.priors if p.value > 0)
        return next((f"{title} {strewn}" for title, strewn in found if strewn), "")

    def flaw(self, labels: LabelArray) -> str:
        """Why no training map looks like this one, in one line, or nothing.

        A label may cover 1.5 times less or more than in all but the outer 0.5 % of the training
        maps that show it, 3 times where only 30 do. Foreground may not cover less than in all but 2
        %. What every one of at least 16 training maps shows must be there.
        """
        if self.maps == 0:
            return ""
        many = self.maps >= SURE
        if many and self.empty == 0 and not (labels > 0).any():
            return "no label is drawn, expected some in every label map as in the training ones"
        foreground = int((labels > 0).sum())
        if self.whole is not None and 0 < foreground < self.whole.least:
            return (
                f"foreground covers {foreground} voxels, expected at least {self.whole.least} as "
                "in the training label maps"
            )
        found = (prior.flaw(labels, many) for prior in self.priors if prior.value != 0)
        return next((flaw for flaw in found if flaw), "")

    def compare(self, label_maps: Iterable[LabelArray]) -> dict[str, Any]:
        """Frequency, area and parts of drawn maps beside those of the training maps, as JSON.

        ``labels``: name -> ``value``, ``samples``, ``training``: each ``share`` of maps that show
        it, median ``area`` and ``parts``. ``warnings``: a line for each that is far off.
        """
        drawn = LabelPriors._of(label_maps, {p.value: p.name for p in self.priors})
        pairs = [(d, t) for d, t in zip(drawn.priors, self.priors, strict=True) if t.value != 0]
        few = min(drawn.maps, self.maps) < FEWEST
        return {
            "samples": drawn.maps,
            "training": self.maps,
            "labels": {
                t.name: {"value": t.value, "samples": d.told(), "training": t.told()}
                for d, t in pairs
            },
            "warnings": [
                warning
                for d, t in pairs
                if not few
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
    found, wanted = drawn.median, real.median
    if found is None or wanted is None or min(drawn.maps, real.maps) < FEWEST:
        return ""
    if max(found, wanted) <= FAR * min(found, wanted):
        return ""
    return (
        f"{real.title} covers {found:.0f} voxels in the median sample that shows it, expected "
        f"about {wanted:.0f} as in the training label maps"
    )
