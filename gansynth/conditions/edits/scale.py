"""Scale: larger or smaller about the centroid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.moving import Move, MoveOptions
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import Mask, affine_coordinates, centroid
from gansynth.core.schema import FloatArray, Schema


class ScaleOptions(MoveOptions):
    """How much to scale."""

    low: float = Field(0.8, ge=0.25, le=4, description="smallest factor on lengths, no unit")
    high: float = Field(1.25, ge=0.25, le=4, description="largest factor on lengths, no unit")

    @model_validator(mode="after")
    def _ordered(self) -> ScaleOptions:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}, expected low <= high")
        return self


class Scale(Move):
    """Scales labels about their centroid by one factor on all axes, drawn log-uniformly."""

    name: ClassVar[str] = "scale"
    Options: ClassVar[type[EditOptions]] = ScaleOptions
    options: ScaleOptions

    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw ``factor`` on lengths and note ``centre`` in voxels."""
        log_factor = rng.uniform(math.log(self.options.low), math.log(self.options.high))
        return {"factor": math.exp(strength * log_factor), "centre": list(centroid(moved))}

    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """See ``Move.coordinates``."""
        matrix = np.eye(len(shape)) / params["factor"]
        return affine_coordinates(shape, matrix, params["centre"])

    def volume_factor(self, schema: Schema, params: Mapping[str, Any]) -> float:
        """The factor on volumes (2D: on areas)."""
        return float(params["factor"] ** schema.ndim)
