"""Rotate: turned about the centroid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.moving import Move, MoveOptions
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import Mask, Matrix, affine_coordinates, centroid, random_direction
from gansynth.core.schema import FloatArray, Schema


class RotateOptions(MoveOptions):
    """How far to turn."""

    max_deg: float = Field(15.0, ge=0, le=180, description="largest angle either way, degrees")


class Rotate(Move):
    """Turns labels about their centroid, in mm: about any axis in 3D, in the plane in 2D."""

    name: ClassVar[str] = "rotate"
    Options: ClassVar[type[EditOptions]] = RotateOptions
    options: RotateOptions

    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw ``angle_deg`` and ``axis`` (empty in 2D), and note ``centre`` in voxels."""
        limit = strength * self.options.max_deg
        return {
            "angle_deg": float(rng.uniform(-limit, limit)),
            "axis": random_direction(3, rng).tolist() if schema.ndim == 3 else [],
            "centre": list(centroid(moved)),
        }

    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """See ``Move.coordinates``."""
        # The pull turns back; in voxels a turn in mm is a shear where spacings differ.
        back = rotation(-math.radians(params["angle_deg"]), params["axis"])
        mm = np.array(schema.spacing)
        return affine_coordinates(shape, back * mm[None, :] / mm[:, None], params["centre"])


def rotation(angle: float, axis: Sequence[float]) -> Matrix:
    """The matrix that turns by ``angle`` (radians): (3, 3) about a unit axis, (2, 2) without."""
    c, s = math.cos(angle), math.sin(angle)
    if len(axis) == 0:
        return np.array([[c, -s], [s, c]])
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + s * cross + (1 - c) * cross @ cross)
