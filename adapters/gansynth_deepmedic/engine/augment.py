"""Augmentation of segments, as DeepMedic's ``dataManagement/augmentSample.py`` (commit e10ba7c).

Random values are drawn per segment. Intensities are shifted and scaled per channel, equally in the
segment and its contexts. Then axes are mirrored and planes rotated, as are the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.configs import ConfigFile, Flag, Number, Share, Triple, Weight
from gansynth_deepmedic.engine.geometry import SegmentGeometry

KEY = "augm_sample_prms_tr"
PLANES: Mapping[str, tuple[int, int]] = {"xy": (0, 1), "yz": (1, 2), "xz": (0, 2)}
TURNS = ("0", "90", "180", "270")
Moments = tuple[float, float]  # mean and standard deviation of a normal distribution


class _Normal(BaseModel, extra="forbid"):
    mu: Number
    std: Weight


_Turns = Annotated[dict[Literal["0", "90", "180", "270"], Weight], Field(min_length=4)]


class _Keys(BaseModel, extra="forbid"):
    hist_dist: (
        Annotated[dict[Literal["shift", "scale"], _Normal | None], Field(min_length=2)] | None
    ) = None
    reflect: tuple[Share, Share, Share] | None = None
    rotate90: (
        Annotated[dict[Literal["xy", "yz", "xz"], _Turns | None], Field(min_length=3)] | None
    ) = None


@dataclass(frozen=True)
class SegmentChange:
    """The augmentation of one segment."""

    shift: npt.NDArray[np.float32]  # float32 (C,), added first
    scale: npt.NDArray[np.float32]  # float32 (C,)
    mirrored: tuple[bool, ...]  # mirrored axes
    turned: tuple[int, ...]  # quarter turns in each of the ``PLANES``

    def of_image(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Augment a segment or a context (C, X, Y, Z)."""
        by = (slice(None), None, None, None)
        return self._moved((image + self.shift[by]) * self.scale[by], 1)

    def of_labels(self, labels: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Augment labels (X, Y, Z)."""
        return self._moved(labels, 0)

    def _moved(self, array: npt.NDArray[Any], lead: int) -> npt.NDArray[Any]:
        axes = tuple(lead + axis for axis, flip in enumerate(self.mirrored) if flip)
        array = np.flip(array, axes)
        for times, (first, second) in zip(self.turned, PLANES.values(), strict=True):
            if times:
                array = np.rot90(array, times, (lead + first, lead + second))
        return array


@dataclass(frozen=True)
class SegmentAugmentation:
    """The distribution of random augmentations of segments."""

    shift: Moments | None = None  # of intensities; None for none
    scale: Moments | None = None  # of intensities, after the shift; None for none
    reflect: tuple[float, ...] = (0.0, 0.0, 0.0)  # probability for each axis x, y, z
    # for each of the ``PLANES`` the probabilities of 0, 1, 2 and 3 quarter turns, which add up to
    # 1; None for none
    rotate90: tuple[tuple[float, ...] | None, ...] = (None, None, None)

    @classmethod
    def usual(cls, axis: int = 0) -> SegmentAugmentation:
        """Return the augmentation of DeepMedic's example: intensities and mirroring."""
        reflect = tuple(0.5 * (n == axis) for n in range(3))
        return cls((0.0, 0.05), (1.0, 0.01), reflect)

    @classmethod
    def from_values(
        cls, path: Path | None, values: Mapping[str, Any]
    ) -> SegmentAugmentation | None:
        """Read ``augm_sample_prms_tr`` of a configuration, or the older keys; None without."""
        file, augmentation = ConfigFile(path, values), cls()
        keys = file.get(KEY, _Keys, None)
        if keys is not None:
            moments, turns = keys.hist_dist or {}, keys.rotate90 or {}
            shift, scale = moments.get("shift"), moments.get("scale")
            augmentation = cls(
                None if shift is None else (shift.mu, shift.std),
                None if scale is None else (scale.mu, scale.std),
                keys.reflect or augmentation.reflect,
                tuple(_chances(turns.get(plane)) for plane in PLANES),
            )
        # Keys that DeepMedic still takes, over the others.
        flags = file.get("reflectImagesPerAxis", tuple[Flag, Flag, Flag], None)
        if flags is not None:
            augmentation = replace(augmentation, reflect=tuple(0.5 * flag for flag in flags))
        if values.get("performIntAugm") is True:
            add, times = (
                file.get(f"sampleIntAugm{kind}WithMuAndStd", tuple[Number, Number])
                for kind in ("Shift", "Multi")
            )
            augmentation = replace(
                augmentation, shift=(add[0], abs(add[1])), scale=(times[0], abs(times[1]))
            )
        return None if augmentation == cls() else augmentation

    def check(self, geometry: SegmentGeometry, path: Path | None = None) -> None:
        """Reject rotations of planes in which segments are not square."""
        shapes = (geometry.segment, geometry.output, *geometry.low)
        for (plane, axes), chances in zip(PLANES.items(), self.rotate90, strict=True):
            if (
                chances
                and chances[1] + chances[3] > 0
                and not all(_square(s, axes) for s in shapes)
            ):
                raise DataFault(
                    f"{path}: {KEY}['rotate90'][{plane!r}] has turns by 90 or 270 degrees, "
                    f"expected none: segments of {geometry.segment} are not square there; set 0"
                )

    def draw(self, channels: int, rng: np.random.Generator) -> SegmentChange:
        """Draw the augmentation of the next segment."""
        mirrored = rng.random(3) < self.reflect
        turned = [
            0 if chances is None else int(rng.choice(4, p=chances)) for chances in self.rotate90
        ]
        return SegmentChange(
            _draw(self.shift, 0.0, channels, rng),
            _draw(self.scale, 1.0, channels, rng),
            tuple(bool(flag) for flag in mirrored),
            tuple(turned),
        )


def _draw(
    moments: Moments | None, default: float, channels: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    mean, std = (default, 0.0) if moments is None else moments
    return rng.normal(mean, std, channels).astype(np.float32)


def _chances(weights: Mapping[str, float] | None) -> tuple[float, ...] | None:
    """Return the probabilities of quarter turns, normalised as DeepMedic accepts any sum."""
    if weights is None:
        return None
    total = sum(weights.values())
    turned = total > weights["0"]
    return tuple(weights[turn] / total for turn in TURNS) if turned else None


def _square(shape: Triple, axes: tuple[int, int]) -> bool:
    return shape[axes[0]] == shape[axes[1]]
