"""``parametric``: a lesion of sampled contrast and grain in a real image. It has no networks.

The fit measures training lesions: each class's contrast to the tissue around the lesion, and its
grain. A new lesion varies the measures of one that is like it in size and tissue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import nn

from gansynth import (
    OUTSIDE,
    Capabilities,
    Case,
    Condition,
    DataFault,
    FloatArray,
    Generator,
    GeneratorOptions,
    LabelArray,
    Sample,
    organ_mask,
)
from gansynth.core.geometry import Mask, Matrix, mask_of
from gansynth.data.connected_components import lesion_values, parts
from gansynth.data.lesion_grain import (
    LEAST,
    drawn_grain,
    measured,
    tissue_around,
    value_limits,
    within,
)

MOST, LIKE, BORDER = 8000, 12, 0.5
"""Measures kept of lesions; similar lesions, at least, to vary one of; Gaussian between classes."""


class ParametricOptions(GeneratorOptions):
    """Options of ``parametric``."""

    edge: float = Field(
        1.25, ge=1, le=20, description="width of the soft edge within a lesion, voxels; 1: hard"
    )
    variety: float = Field(
        0.3, ge=0, le=2, description="variation of a training lesion's contrast and grain; 0: none"
    )
    lesions: tuple[str, ...] = Field((), description="labels of lesions; none: all foreground")


class Parametric(Generator):
    """The rival of lesion generators that learns no network and copies no voxel."""

    name: ClassVar[str] = "parametric"
    Options: ClassVar[type[GeneratorOptions]] = ParametricOptions
    options: ParametricOptions

    @property
    def capabilities(self) -> Capabilities:
        """What it can under its options."""
        names = self.options.lesions
        return Capabilities(
            takes=frozenset({"labels", "lesion"}),
            edits=("blob:share=0.5", "flip", "rotate", "elastic"),
            lesions=f"classes={'+'.join(names)}" if names else None,
            remedies={"organs": "name the lesions (--set lesions=NAME)"},
        )

    def networks(self) -> dict[str, nn.Module]:
        """Return none."""
        self.values = lesion_values(self.schema, self.options.lesions)
        return {}

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Measure the lesions of training cases, and their values; DataFault: no lesion."""
        cases = list(cases)
        rows = [row for case in cases for row in self._measured(case)]
        if not rows:
            raise DataFault(
                f"{self.name}: the training cases show no lesion of {LEAST} voxels, expected some; "
                "name the lesions' labels with --set lesions=NAME"
            )
        table = np.array(rows[:: len(rows) * len(rows[0]) // MOST + 1])
        for column in table.T:  # a class that a lesion lacks is another lesion's
            lacks = np.isnan(column)
            column[lacks] = np.resize(column[~lacks] if not lacks.all() else 0.0, lacks.sum())
        self.table, self.limits = table.round(5), value_limits(case.image for case in cases)
        return {"lesions": self.table.tolist(), "limits": self.limits.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``observe`` returned."""
        self.table = np.array(state["lesions"])
        self.limits = np.array(state["limits"])

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """See ``Generator.sample``; DataFault: a condition has no background and lesion."""
        rngs = map(np.random.default_rng, seeds)
        return [self._one(c, rng) for c, rng in zip(conditions, rngs, strict=True)]

    def _one(self, condition: Condition, rng: np.random.Generator) -> Sample:
        image, labels, lesion = map(condition.required, ("background", "labels", "lesion"))
        free, out, row = self._tissue(image, labels), image.copy(), None
        if condition.region is not None and condition.donor is not None:  # what a lesion vacated
            out = np.where(condition.region & (lesion == 0), condition.donor, out)
        effect = float((labels[lesion > 0] > 0).any())  # a sham has none
        for part in parts(lesion, self.schema):
            box, tissue = tissue_around(part, out, free)
            row = self._lesion_like(part.voxels, tissue, rng) if row is None else row
            local = out[(slice(None), *box)]
            local[:] = self._drawn(local, part.whole()[box], tissue, row, rng, effect)
        return Sample(out, labels.copy())

    def _tissue(self, image: FloatArray, labels: LabelArray) -> Mask:
        return np.asarray(organ_mask(image) & (labels != OUTSIDE) & ~mask_of(labels, self.values))

    def _measured(self, case: Case) -> Iterator[Matrix]:
        """Yield log size, tissue (C,), and the measures of each class, of each lesion."""
        labels = np.zeros(self.size, np.int16) if case.labels is None else case.labels
        free = self._tissue(case.image, labels)
        for part in parts(labels, self.schema, self.values, least=LEAST):
            box, tissue = tissue_around(part, case.image, free)
            local, held = case.image[(slice(None), *box)], part.whole()[box]
            blocks = [measured(local, held == value, tissue) for value in self.values]
            yield np.concatenate([[np.log(part.voxels)], tissue, *blocks])

    def _lesion_like(self, voxels: int, tissue: Matrix, rng: np.random.Generator) -> Matrix:
        """Draw a similar training lesion, and vary it as two others differ."""
        here = np.array([np.log(voxels), *tissue])
        seen = self.table[:, : len(here)]
        apart = np.square((seen - here) / np.maximum(seen.std(axis=0), 1e-6)).sum(axis=1)
        near = self.table[np.argsort(apart, kind="stable")[: max(LIKE, len(seen) // 3)]]
        first, second, third = near[rng.integers(len(near), size=3)]
        middle, by = near.mean(axis=0), self.options.variety
        varied = first - middle + by * (second - third) / np.sqrt(2)
        return np.asarray(middle + varied / np.sqrt(1 + by**2))  # spread as the lesions are

    def _drawn(
        self,
        image: FloatArray,
        labels: LabelArray,
        tissue: Matrix,
        row: Matrix,
        rng: Any,
        effect: float,
    ) -> FloatArray:
        from scipy.ndimage import distance_transform_edt, gaussian_filter

        mask, count = labels > 0, len(image)
        share = np.clip(distance_transform_edt(mask) / self.options.edge, 0, 1)
        level, noise = np.zeros((2, *image.shape))
        blocks = row[1 + count :].reshape(len(self.values), -1)
        for value, block in zip(self.values, blocks, strict=True):
            where = labels == value
            if where.any():
                level[:, where] = effect * block[:count, None] / share[where].mean()
                noise[:, where] = drawn_grain(block, count, where, rng)
        # The levels of neighbouring classes run into each other.
        weight = np.maximum(gaussian_filter(mask.astype(float), BORDER), 1e-6)
        level = np.stack([gaussian_filter(channel, BORDER) for channel in level]) / weight
        target = within(tissue.reshape(-1, *[1] * labels.ndim) + level + noise, self.limits)
        return np.where(mask, image + share * (target - image), image).astype(np.float32)
