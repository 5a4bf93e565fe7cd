"""``parametric``: a lesion of sampled contrast, edge and texture in a real image, by no network.

The fit measures training lesions: the level of each class and of each depth below the lesion's
edge, against the tissue around, and the texture of each class. A new lesion varies the measures of
one that is like it in size and tissue.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from gansynth import (
    OUTSIDE,
    Capabilities,
    Case,
    Condition,
    DataFault,
    Generator,
    GeneratorOptions,
    LabelArray,
    Sample,
    organ_mask,
)
from gansynth.data.connected_components import parts
from gansynth.imaging.lesion_grain import (
    AROUND,
    LEAST_VOXELS,
    Look,
    tissue_around,
    value_limits,
)

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
MOST_NUMBERS, MOST_BYTES = 16_000, 120_000
"""Measures kept of lesions, and bytes of them in a run's manifest."""
LEAST_ALIKE = 12
"""Similar lesions, at least, to vary one of."""


def _filled(rows: Sequence[Matrix]) -> Matrix:
    """Stack lesions' measures; those of a class that a lesion lacks are other lesions'."""
    table = np.array(rows)
    for column in table.T:
        lacks = np.isnan(column)
        others = 0.0 if lacks.all() else column[~lacks]
        column[lacks] = np.resize(others, lacks.sum())
    return table.round(5)


class ParametricOptions(GeneratorOptions):
    """Options of ``parametric``."""

    rim_mm: float = Field(
        3.0,
        ge=0,
        le=100,
        description="how far beyond the lesion its edge may reach, mm; 0: nowhere",
    )
    variety: float = Field(
        0.3, ge=0, le=2, description="variation of a training lesion's look; 0: none"
    )
    lesions: tuple[str, ...] = Field((), description="labels of lesions; none: all foreground")


class Parametric(Generator):
    """The rival of lesion generators that learns no network and copies no voxel."""

    name: ClassVar[str] = "parametric"
    Options: ClassVar[type[GeneratorOptions]] = ParametricOptions
    options: ParametricOptions

    @property
    def capabilities(self) -> Capabilities:
        names = self.options.lesions
        return Capabilities(
            takes=frozenset({"labels", "lesion"}),
            edits=("blob:share=0.5", "flip", "rotate", "elastic"),
            lesions=f"classes={'+'.join(names)}" if names else None,
            donors=False,
            rim_mm=self.options.rim_mm,
            remedies={"organs": "name the lesions (--set lesions=NAME)"},
        )

    def networks(self) -> dict[str, nn.Module]:
        self.values = self.schema.lesion_values(self.options.lesions)
        return {}

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Measure the lesions of training cases, and their values; DataFault: no lesion."""
        rows, ends = list[Matrix](), list[Matrix]()
        for case in cases:  # one at a time: all of them may not fit into memory
            rows += self._measured(case)
            shown = case.image[:, np.isin(self._labels(case), self.values)]
            if shown.size:
                ends.append(value_limits([shown]).T)
        if not rows:
            raise DataFault(
                "parametric.no-lesions",
                f"{self.name}: the training cases show no lesion of {LEAST_VOXELS} voxels, "
                "expected some; name the lesions' labels with --set lesions=NAME",
            )
        step = len(rows) * len(rows[0]) // MOST_NUMBERS + 1
        self.table = _filled(rows[::step])
        while len(json.dumps(self.table.tolist())) > MOST_BYTES:  # values of many digits
            step += 1
            self.table = _filled(rows[::step])
        self.limits = value_limits(ends)
        return {"lesions": self.table.tolist(), "limits": self.limits.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``observe`` returned; DataFault: another version did."""
        self.table = np.array(state["lesions"])
        self.limits = np.array(state["limits"])
        channels = len(self.schema.channels)
        shapes = Look.shapes(len(self.values), channels, len(self.size))
        expected = 1 + channels + sum(map(math.prod, shapes))
        if self.table.shape[1] != expected:
            raise DataFault(
                "parametric.lesion-measures-differ",
                f"{self.name}: the run has {self.table.shape[1]} measures of a lesion, expected "
                f"{expected}: another version of gansynth has fitted it; fit it again",
            )

    def lesion_margin(self) -> int:
        return AROUND

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """See ``Generator.sample``; DataFault: a condition has no background and lesion."""
        rngs = map(np.random.default_rng, seeds)
        return [self._one(c, rng) for c, rng in zip(conditions, rngs, strict=True)]

    def _one(self, condition: Condition, rng: np.random.Generator) -> Sample:
        image, labels, lesion = map(condition.required, ("background", "labels", "lesion"))
        body = organ_mask(image) if condition.body is None else condition.body
        free, out, look = self._free(body, labels), image.copy(), None
        if condition.region is not None and condition.donor is not None:  # what a lesion vacated
            out = np.where(condition.region & (lesion == 0), condition.donor, out)
        effect = float((labels[lesion > 0] > 0).any())  # a sham has none
        for part in parts(lesion, self.schema):
            box, tissue = tissue_around(part, out, free)
            if look is None:
                look = self._lesion_like(part.voxels, tissue, rng)
            local = out[(slice(None), *box)]
            shown = part.whole()[box]
            new = look.drawn(
                local,
                shown,
                tissue,
                free[box],
                self.values,
                self.schema.spacing,
                rng,
                self.options.rim_mm,
                effect,
            )
            # What is drawn is as a training lesion is, or as the background was.
            ends = self.limits.reshape(2, -1, *[1] * shown.ndim)
            local[:] = np.clip(new, np.minimum(ends[0], local), np.maximum(ends[1], local))
        return Sample(out, labels.copy())

    def _free(self, body: Mask, labels: LabelArray) -> Mask:
        return np.asarray(body & (labels != OUTSIDE) & ~np.isin(labels, self.values))

    def _measured(self, case: Case) -> Iterator[Matrix]:
        """Yield log size, tissue (C,), and the measures of each class, of each lesion."""
        labels = self._labels(case)
        found = parts(labels, self.schema, self.values, least=LEAST_VOXELS)
        if not found:
            return
        free = self._free(organ_mask(case.image), labels)
        for part in found:
            box, tissue = tissue_around(part, case.image, free)
            local, held = case.image[(slice(None), *box)], part.whole()[box]
            look = Look.measured(local, held, tissue, free[box], self.values, self.schema.spacing)
            yield np.concatenate([[np.log(part.voxels)], tissue, look.row()])

    def _labels(self, case: Case) -> LabelArray:
        return np.zeros(self.size, np.int16) if case.labels is None else case.labels

    def _lesion_like(self, voxels: int, tissue: Matrix, rng: np.random.Generator) -> Look:
        """Draw a similar training lesion, and vary it as two others differ."""
        here = np.array([np.log(voxels), *tissue])
        seen = self.table[:, : len(here)]
        distances = np.square((seen - here) / np.maximum(seen.std(axis=0), 1e-6)).sum(axis=1)
        near = self.table[np.argsort(distances, kind="stable")[: max(LEAST_ALIKE, len(seen) // 3)]]
        near_tissue, near = near[:, 1 : len(here)], near[:, len(here) :]
        first, second, third = near[rng.integers(len(near), size=3)]
        middle, by = near.mean(axis=0), self.options.variety
        varied = first - middle + by * (second - third) / np.sqrt(2)
        row = middle + varied / np.sqrt(1 + by**2)  # spread as the lesions are
        sizes = len(self.values), len(tissue), len(self.size)
        look, whole = Look.of_row(row, *sizes), Look.of_row(first, *sizes)
        # A mean as such lesions have: what contrasts with bright tissue would be black on dark one.
        contrasts = np.array([Look.of_row(one, *sizes).contrast for one in near])
        rooms = near_tissue[:, None] + contrasts - tissue
        least, most = np.minimum(rooms.min(axis=0), 0), np.maximum(rooms.max(axis=0), 0)
        contrast = np.clip(look.contrast, least, most)
        # A mean of spectra is grainier than any of them.
        return look._replace(contrast=contrast, shares=whole.shares)
