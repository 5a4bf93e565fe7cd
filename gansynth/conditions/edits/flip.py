"""Flip: mirrored along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.moving import Move, MoveOptions
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import Mask, centroid
from gansynth.core.schema import FloatArray, LabelArray, Schema
from gansynth.runtime.errors import UsageFault


class FlipOptions(MoveOptions):
    """Along which axes to mirror, how often, and about what."""

    axes: tuple[int, ...] = Field(
        (-1,),
        min_length=1,
        description="array axes to choose from, negative ones counted from the last; list only "
        "those along which a mirrored case could be a real one",
    )
    probability: float = Field(0.5, ge=0, le=1, description="share of conditions flipped, 0 to 1")
    about: Literal["array", "centroid"] = Field(
        "array",
        description="mirror in the middle of the array, or in the centroid of what moves",
    )


class Flip(Move):
    """Mirrors labels along one axis, drawn from ``axes``; exact, voxel by voxel."""

    name: ClassVar[str] = "flip"
    Options: ClassVar[type[EditOptions]] = FlipOptions
    # There is no half a flip: each try draws an axis anew.
    STRENGTHS: ClassVar[tuple[float, ...]] = (1.0,) * 8
    options: FlipOptions

    def draw(self, labels: LabelArray, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
        """See ``Move.draw``; ``strength`` is 0 for those conditions that are not to be flipped.

        Raises:
            UsageFault: if the options name a class or an axis that the schema lacks.
        """
        n = schema.ndim
        beyond = [axis for axis in self.options.axes if not -n <= axis < n]
        if beyond:
            raise UsageFault(
                f"edit 'flip': axes holds {beyond}, expected {-n} to {n - 1} for arrays with axes "
                f"{schema.axes!r}"
            )
        if rng.random() >= self.options.probability:
            return {"strength": 0.0, "tries": 0}
        return super().draw(labels, schema, rng)

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
        """See ``Move.coordinates``."""
        pull = np.indices(shape, np.float32)
        pull[params["axis"]] = params["mirror"] - pull[params["axis"]]
        return pull
