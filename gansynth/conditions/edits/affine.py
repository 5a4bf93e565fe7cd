"""Affine edits: labels moved as a rigid or scaled whole, and the edit that moves nothing.

Mirroring is exact, voxel by voxel; the others look labels up by a matrix, in mm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.shared import ordered
from gansynth.conditions.edits.warp import WarpEdit, WarpOptions
from gansynth.core.edit import Edit, EditContext, EditOptions, EditResult
from gansynth.core.geometry import Mask, Matrix, affine_coordinates, centroid, random_direction
from gansynth.core.schema import FloatArray, Schema
from gansynth.runtime.errors import UsageFault


class Identity(Edit):
    """Leaves labels and context as they are."""

    name: ClassVar[str] = "identity"

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Nothing to draw; ``rng`` is not used."""
        return {}

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """A copy of the labels."""
        return EditResult(context.labels.copy())


class FlipOptions(WarpOptions):
    """Along which axes to mirror, how often, and about what."""

    axes: tuple[int, ...] = Field(
        (-1,),
        min_length=1,
        description="array axes to choose from, negative ones counted from the last; list only "
        "those along which a mirrored case could be a real one",
    )
    probability: float = Field(0.5, ge=0, le=1, description="share of conditions flipped, 0 to 1")
    about: Literal["array", "centroid"] = Field(
        "array", description="mirror in the middle of the array, or in the centroid of what moves"
    )


class Flip(WarpEdit):
    """Mirrors labels along one axis, drawn from ``axes``; exact, voxel by voxel."""

    name: ClassVar[str] = "flip"
    Options: ClassVar[type[EditOptions]] = FlipOptions
    # There is no half a flip: each try draws an axis anew.
    STRENGTHS: ClassVar[tuple[float, ...]] = (1.0,) * 8
    options: FlipOptions

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """See ``WarpEdit.draw``; ``strength`` is 0 for conditions that are not to be flipped."""
        n = context.schema.ndim
        beyond = [axis for axis in self.options.axes if not -n <= axis < n]
        if beyond:
            raise UsageFault(
                f"edit 'flip': axes holds {beyond}, expected {-n} to {n - 1} for arrays with axes "
                f"{context.schema.axes!r}"
            )
        if rng.random() >= self.options.probability:
            return {"strength": 0.0, "tries": 0}
        return super().draw(context, rng)

    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw ``axis``; note ``mirror``, the sum of a voxel's index and its image's."""
        axis = int(rng.choice(self.options.axes)) % schema.ndim
        if self.options.about == "centroid":
            return {"axis": axis, "mirror": round(2 * centroid(moved)[axis])}
        return {"axis": axis, "mirror": moved.shape[axis] - 1}

    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """See ``WarpEdit.coordinates``."""
        pull = np.indices(shape, np.float32)
        pull[params["axis"]] = params["mirror"] - pull[params["axis"]]
        return pull


class RotateOptions(WarpOptions):
    """How far to turn."""

    max_deg: float = Field(15.0, ge=0, le=180, description="largest angle either way, degrees")


class Rotate(WarpEdit):
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
        """See ``WarpEdit.coordinates``."""
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


class ScaleEditOptions(WarpOptions):
    """How much to scale."""

    low: float = Field(0.8, ge=0.25, le=4, description="smallest factor on lengths, no unit")
    high: float = Field(1.25, ge=0.25, le=4, description="largest factor on lengths, no unit")

    _ordered = model_validator(mode="after")(ordered)


class ScaleEdit(WarpEdit):
    """Scales labels about their centroid by one factor on all axes, drawn log-uniformly."""

    name: ClassVar[str] = "scale"
    Options: ClassVar[type[EditOptions]] = ScaleEditOptions
    options: ScaleEditOptions

    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw ``factor`` on lengths and note ``centre`` in voxels."""
        log_factor = rng.uniform(math.log(self.options.low), math.log(self.options.high))
        return {"factor": math.exp(strength * log_factor), "centre": list(centroid(moved))}

    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """See ``WarpEdit.coordinates``."""
        matrix = np.eye(len(shape)) / params["factor"]
        return affine_coordinates(shape, matrix, params["centre"])

    def volume_factor(self, schema: Schema, params: Mapping[str, Any]) -> float:
        """The factor on volumes (2D: on areas)."""
        return float(params["factor"] ** schema.ndim)


class ShiftOptions(WarpOptions):
    """How far to shift."""

    max_mm: float = Field(
        8.0, ge=0, le=200, description="longest shift, mm; places are even within that radius"
    )


class Shift(WarpEdit):
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
        """See ``WarpEdit.coordinates``."""
        voxels = np.array(params["shift_mm"]) / np.array(schema.spacing)
        matrix = np.c_[np.eye(len(shape)), -voxels]
        return affine_coordinates(shape, matrix, (0.0,) * len(shape))
