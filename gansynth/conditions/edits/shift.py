"""Shift: another place nearby."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.moving import Move, MoveOptions
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import Mask, affine_coordinates, random_direction
from gansynth.core.schema import FloatArray, Schema


class ShiftOptions(MoveOptions):
    """How far to shift."""

    max_mm: float = Field(
        8.0, ge=0, le=200, description="longest shift, mm; places are even within that radius"
    )


class Shift(Move):
    """Moves labels by the same vector everywhere, drawn evenly from a ball (2D: a disc)."""

    name: ClassVar[str] = "shift"
    Options: ClassVar[type[EditOptions]] = ShiftOptions
    options: ShiftOptions

    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw ``shift_mm``, one number per axis in array order."""
        length = strength * self.options.max_mm * rng.random() ** (1 / schema.ndim)
        return {"shift_mm": (length * random_direction(schema.ndim, rng)).tolist()}

    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """See ``Move.coordinates``."""
        voxels = np.array(params["shift_mm"]) / np.array(schema.spacing)
        matrix = np.c_[np.eye(len(shape)), -voxels]
        return affine_coordinates(shape, matrix, (0.0,) * len(shape))
