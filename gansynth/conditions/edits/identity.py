"""No change: conditions are the training cases' own labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gansynth.core.edit import Edit
from gansynth.core.schema import LabelArray, Schema


class Identity(Edit):
    """Leaves labels and context as they are."""

    name: ClassVar[str] = "identity"

    def draw(self, labels: LabelArray, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
        """Nothing to draw; ``rng`` is not used."""
        return {}

    def apply(self, labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> LabelArray:
        """A copy of the labels."""
        return labels.copy()
