"""Elastic: a smooth random deformation that never folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.warp import WarpEdit, WarpOptions
from gansynth.core.edit import EditOptions
from gansynth.core.geometry import Mask, Matrix
from gansynth.core.schema import FloatArray, Schema

STEEPEST = 0.7
"""Largest norm of the displacement's gradient; below 1 the map ``x + u(x)`` cannot fold."""
LEAST_WIDTH = 2.0  # narrowest Gaussian, voxels; a narrower one would be noise from voxel to voxel
REACH = 3
"""How far beyond the array nodes are laid, in widths; farther ones weigh about 1 % or less."""


class ElasticEditOptions(WarpOptions):
    """How strongly and how finely to deform."""

    amplitude_mm: float = Field(
        3.0,
        ge=0,
        le=100,
        description="root mean square of the displacement along each axis, mm; less where that "
        "would fold (beyond about 0.2 times the correlation length)",
    )
    correlation_mm: float = Field(
        20.0,
        ge=1,
        le=1000,
        description="width (standard deviation) of the Gaussian that smooths the field, mm; at "
        "least 2 voxels are used",
    )


class ElasticEdit(WarpEdit):
    """Deforms labels by Gaussian-smooth noise, seeded by a number in the parameters."""

    name: ClassVar[str] = "elastic"
    Options: ClassVar[type[EditOptions]] = ElasticEditOptions
    options: ElasticEditOptions

    def draw_move(
        self, moved: Mask, schema: Schema, rng: np.random.Generator, strength: float
    ) -> dict[str, Any]:
        """Draw the field's ``seed``; note ``amplitude_mm`` (used, not asked) and the width."""
        seed, width = int(rng.integers(2**32)), self.options.correlation_mm
        steepest = SmoothField(seed, moved.shape, schema.spacing, width).steepest()
        amplitude = min(self.options.amplitude_mm, STEEPEST / max(steepest, 1e-9))
        return {"seed": seed, "amplitude_mm": strength * amplitude, "correlation_mm": width}

    def coordinates(
        self, shape: Sequence[int], schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """See ``WarpEdit.coordinates``."""
        field = SmoothField(params["seed"], shape, schema.spacing, params["correlation_mm"])
        return field.coordinates(params["amplitude_mm"])


@dataclass(frozen=True)
class SmoothField:
    """Smooth displacements of standard deviation 1 mm along each axis, the same for a seed.

    White noise on a coarse grid of nodes, one width apart, is upsampled with Gaussians axis by
    axis. So wide fields cost no more than narrow ones. ``einsum`` without BLAS gives the same bits
    with any number of threads.
    """

    seed: int
    shape: Sequence[int]
    spacing: Sequence[float]
    width_mm: float

    def coordinates(self, amplitude_mm: float) -> FloatArray:
        """Each voxel's own place plus its displacement: float32 (n, *shape), in voxels."""
        out = self._blow_up([np.arange(length, dtype=np.float64) for length in self.shape])
        for axis, (length, mm) in enumerate(zip(self.shape, self.spacing, strict=True)):
            out[axis] *= np.float32(amplitude_mm / mm)
            places = np.arange(length, dtype=np.float32)
            out[axis] += places.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return out

    def steepest(self) -> float:
        """Largest Frobenius norm of the displacement's gradient, mm per mm.

        Exact at points a third of the width apart, hence a few per cent low in between.
        """
        points = [
            np.linspace(0, length - 1, int(np.ceil(3 * (length - 1) / width)) + 1)
            for length, width in zip(self.shape, self._widths, strict=True)
        ]
        slopes = [self._blow_up(points, derived=axis) / mm for axis, mm in enumerate(self.spacing)]
        return float(np.sqrt(np.square(slopes).sum(axis=(0, 1)).max()))

    @property
    def _widths(self) -> list[float]:
        return [max(self.width_mm / mm, LEAST_WIDTH) for mm in self.spacing]

    def _blow_up(self, points: Sequence[Matrix], derived: int | None = None) -> FloatArray:
        """The field (n, *lengths) at a grid of points, or its derivative along an axis."""
        weights = []
        for axis, (at, length, width) in enumerate(
            zip(points, self.shape, self._widths, strict=True)
        ):
            nodes = np.arange(-REACH, (length - 1) / width + REACH + 1)
            steps = at[:, None] / width - nodes
            # The squares of these Gaussians sum to the root of π, wherever the point lies.
            weight = np.exp(-0.5 * steps**2) / np.pi**0.25
            weights.append(-weight * steps / width if axis == derived else weight)
        n = len(self.shape)
        counts = [weight.shape[1] for weight in weights]
        noise = np.random.default_rng(self.seed).standard_normal((n, *counts), dtype=np.float32)
        for axis in reversed(range(n)):
            # The innermost axis first: the last product, the large one, then runs along memory.
            free = "abc"[:n]
            summed, axes = free.replace(free[axis], "s"), free
            noise = np.einsum(
                f"{free[axis]}s,n{summed}->n{axes}", weights[axis].astype(np.float32), noise
            )
        return np.asarray(noise, np.float32)
