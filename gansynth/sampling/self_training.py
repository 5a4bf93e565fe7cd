"""Samples of ``--self-train``: unlabelled scans with the labels of a first training.

No generator draws them. Where the first training was unsure, the label is the ignore value, so that
nothing is learnt there (as in pseudo-labelling with a confidence threshold: Lee 2013, ICML
workshop; FixMatch, Sohn et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gansynth.conditions.unlabelled import MarkedSource
from gansynth.core.case_pool import TrainingCases
from gansynth.core.sample_request import MARKED
from gansynth.core.schema import Case, Sample, known_labels
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache

_WHETHER, _WHICH = 5, 6  # last parts of keys


@dataclass(frozen=True)
class MarkedScans:
    """Scans with labels, drawn as samples; the i-th sample of a seed is always the same.

    Attributes:
        sources: scans, in the intensities of the training cases, with their labels.
        space: that samples are drawn in.
        share: of the samples that are such scans.
        traced: what the provenance of all samples holds.
        backgrounds: number of a source -> its scans without a lesion, which are held there.
    """

    sources: Sequence[MarkedSource]
    space: Space
    share: float
    traced: dict[str, Any]
    backgrounds: Mapping[int, TrainingCases]

    def has(self, seed: int, index: int) -> bool:
        """Whether a sample is a scan; no other random number depends on it."""
        rng = np.random.default_rng(np.random.SeedSequence((seed, index, 0, _WHETHER)))
        return bool(self.sources) and bool(rng.random() < self.share)

    def draw(self, seed: int, index: int) -> Sample:
        """Return a scan, cut in the space as a training case is, with its labels."""
        rng = np.random.default_rng(np.random.SeedSequence((seed, index, 0, _WHICH)))
        number, case_id = self._named[int(rng.integers(len(self._named)))]
        case = self._read(number, case_id)
        placement = self.space.place(known_labels(case, self.sources[number].schema), rng)
        placed = self.space.to_generator(case, placement)
        provenance = {
            "dataset": self.sources[number].name,
            "case": case_id,
            MARKED: number,
            "shape": list(case.image.shape[1:]),
            "placement": placement.to_json(),
            "edits": [],
            "seed": seed,
            "index": index,
        }
        return Sample(placed.image, placed.labels, provenance=provenance | self.traced)

    def case_of(self, provenance: dict[str, Any]) -> Case:
        """Return the scan of a sample at its place, in the generator's space."""
        case = self._read(provenance[MARKED], provenance["case"])
        return self.space.to_generator(case, Placement.from_json(provenance["placement"]))

    def _read(self, number: int, case_id: str) -> Case:
        held = self.backgrounds.get(number)
        if held is not None and case_id in held.ids:
            return held(case_id)
        return self._caches[number](case_id)

    @cached_property
    def _named(self) -> list[tuple[int, str]]:
        return [(n, case) for n, each in enumerate(self.sources) for case in each.train_ids]

    @cached_property
    def _caches(self) -> list[CaseCache]:
        return [CaseCache(each) for each in self.sources]
