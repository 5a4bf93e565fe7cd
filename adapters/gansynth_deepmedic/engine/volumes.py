"""Normalisation, rotation and zoom of whole volumes as in DeepMedic (commit e10ba7c).

Sources: ``dataManagement/preprocessing.py`` and ``augmentImage.py``. The angles of its
``max_rot_xyz`` are those in the planes xy, xz and yz, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, model_validator

from gansynth_deepmedic.engine.configs import ConfigFile, Flag, Number, Share, Weight, ZScoreKeys

Mode = Literal[
    "nearest",
    "min",
    "constant",
    "mirror",
    "reflect",
    "wrap",
    "grid-constant",
    "grid-mirror",
    "grid-wrap",
]
"""scipy's modes, and ``min``: the constant minimum of the image."""
_Order = Literal[0, 1, 2, 3]  # of interpolation


_Percent = Annotated[float, Field(strict=True, ge=0, le=100)]
Matrix = npt.NDArray[np.float64]
T = TypeVar("T", bound=np.generic)


class _Scores(ZScoreKeys, extra="forbid"):
    cutoff_percents: tuple[_Percent, _Percent] | None = None
    cutoff_times_std: tuple[Weight, Weight] | None = None
    cutoff_below_mean: Flag | None = False


class _Affine(BaseModel, extra="forbid"):
    prob: Share = 0.0
    max_rot_xyz: tuple[Number, Number, Number] = (45.0, 45.0, 45.0)
    max_scaling: Annotated[float, Field(strict=True, ge=0, le=0.99)] = 0.1
    interp_order_imgs: _Order | tuple[_Order, ...] = 1
    interp_order_lbls: _Order = 0
    interp_order_roi: _Order = 0
    interp_order_wmaps: Any = None
    boundary_mode: Mode = "nearest"
    cval: Any = None  # unused, as in DeepMedic
    seed: Any = None  # ignored

    @model_validator(mode="before")
    @classmethod
    def _without_none(cls, values: Any) -> Any:
        given = isinstance(values, dict)
        return {k: v for k, v in values.items() if v is not None} if given else values


_Table = Annotated[dict[Literal["affine"], _Affine | None], Field(min_length=1)]


@dataclass(frozen=True)
class ZScore:
    """Normalisation to mean 0 and standard deviation 1 of the values within cutoffs of the region.

    A constant channel, e.g. a missing one, only loses its mean; DeepMedic turns it into NaN.
    """

    channels: tuple[bool, ...] | None = None  # channels to normalise; None for all
    # percentiles of the region, low and high, beyond which values do not count
    percents: tuple[float, ...] | None = None
    # standard deviations below and above the region's mean beyond which they do not
    times_std: tuple[float, ...] | None = None
    below_mean: bool = False  # whether values below the image's mean do not

    @classmethod
    def from_values(
        cls, path: Path | None, values: Mapping[str, Any], channels: int
    ) -> ZScore | None:
        """Read ``norm_zscore_prms`` of a configuration; None without normalisation."""
        file = ConfigFile(path, values)
        keys = file.get("norm_zscore_prms", _Scores, None)
        if keys is None:
            return None
        each = keys.apply_per_channel
        if each is not None and (keys.apply_to_all_channels or len(each) != channels):
            expected = f"apply_per_channel for each of {channels}, or None with apply_to_all"
            raise file.odd("norm_zscore_prms", expected)
        if not keys.apply_to_all_channels and not any(each or ()):
            return None
        below = bool(keys.cutoff_below_mean)
        return cls(each, keys.cutoff_percents, keys.cutoff_times_std, below)

    def apply(
        self, image: npt.NDArray[np.float32], roi: npt.NDArray[np.int16] | None
    ) -> npt.NDArray[np.float32]:
        """Normalise an image (C, X, Y, Z).

        Args:
            roi: (X, Y, Z); None for everywhere.
        """
        inside = np.ones(image.shape[1:], np.bool_) if roi is None else roi > 0
        channels = (True,) * len(image) if self.channels is None else self.channels
        normalised = image.copy()
        for channel, taken in zip(normalised, channels, strict=True):
            if taken:
                mean, std = self.moments(channel, inside)
                channel -= np.float32(mean)
                channel /= np.float32(std)
        return normalised

    def moments(
        self, channel: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]
    ) -> tuple[float, float]:
        """Return mean and standard deviation of a channel (X, Y, Z); a deviation of 0 becomes 1."""
        region = (channel[inside] if inside.any() else channel.ravel()).astype(np.float64)
        counted = np.ones(region.shape, np.bool_)
        if self.percents is not None:
            low, high = np.percentile(region, self.percents)
            counted &= (region > low) & (region < high)
        if self.times_std is not None:
            mean, std = region.mean(), region.std()
            low, high = mean - self.times_std[0] * std, mean + self.times_std[1] * std
            counted &= (region > low) & (region < high)
        if self.below_mean:
            counted &= (region > channel.mean(dtype=np.float64)) & (region < channel.max())
        left = region[counted]
        if not left.size or left.std() == 0:
            return float(region.mean()), 1.0
        return float(left.mean()), float(left.std())


@dataclass(frozen=True)
class RandomAffine:
    """The distribution of random rotations and zooms of volumes."""

    prob: float = 0.0  # probability of a transformation
    # degrees, largest angle in the planes xy, xz and yz
    max_rot: tuple[float, ...] = (45.0, 45.0, 45.0)
    max_scaling: float = 0.1  # zoom is drawn from 1 minus to 1 plus this, the same along all axes
    orders: tuple[int, ...] = (1,)  # order of interpolation of each channel; one number for all
    order_labels: int = 0  # of the labels
    order_roi: int = 0  # of the region of interest
    mode: Mode = "nearest"  # of values outside a volume

    @classmethod
    def from_values(
        cls, path: Path | None, values: Mapping[str, Any], channels: int
    ) -> RandomAffine | None:
        """Read ``augm_img_prms_tr['affine']`` of a configuration; None without.

        Its ``seed`` is ignored, and ``cval`` is unused, as in DeepMedic.
        """
        file = ConfigFile(path, values)
        table = file.get("augm_img_prms_tr", _Table, None)
        if table is None or table["affine"] is None:
            return None
        keys = table["affine"]
        orders = keys.interp_order_imgs
        orders = orders if isinstance(orders, tuple) else (orders,)
        if len(orders) not in (1, channels):
            raise file.odd("augm_img_prms_tr", f"interp_order_imgs for each of {channels}")
        affine = cls(
            prob=keys.prob,
            max_rot=keys.max_rot_xyz,
            max_scaling=keys.max_scaling,
            orders=orders,
            order_labels=keys.interp_order_lbls,
            order_roi=keys.interp_order_roi,
            mode=keys.boundary_mode,
        )
        return affine if affine.prob > 0 else None

    def draw(self, rng: np.random.Generator) -> Matrix | None:
        """Draw the next volume's matrix; None for no change."""
        chance, angles, zoom = rng.random(), rng.uniform(-1, 1, 3), rng.uniform(-1, 1)
        if chance > self.prob:
            return None
        return matrix(np.asarray(self.max_rot) * angles, 1 + self.max_scaling * zoom)

    def of_image(self, image: npt.NDArray[np.float32], change: Matrix) -> npt.NDArray[np.float32]:
        """Transform an image (C, X, Y, Z) about its middle."""
        orders = self.orders if len(self.orders) == len(image) else self.orders[:1] * len(image)
        channels = [
            transformed(channel, change, order, self.mode)
            for channel, order in zip(image, orders, strict=True)
        ]
        return np.stack(channels)

    def of_labels(self, labels: npt.NDArray[np.int16], change: Matrix) -> npt.NDArray[np.int16]:
        """Transform labels (X, Y, Z)."""
        return transformed(labels, change, self.order_labels, self.mode)

    def of_roi(self, roi: npt.NDArray[np.int16], change: Matrix) -> npt.NDArray[np.int16]:
        """Transform a region of interest (X, Y, Z)."""
        return transformed(roi, change, self.order_roi, self.mode)

    def of_mask(self, mask: npt.NDArray[np.bool_], change: Matrix) -> npt.NDArray[np.bool_]:
        """Transform a mask (X, Y, Z), False outside the volume."""
        return transformed(mask.view(np.uint8), change, 0, "constant").view(np.bool_)


def matrix(degrees: npt.NDArray[np.float64], zoom: float) -> Matrix:
    """Return the matrix from voxels of the result to voxels of the input."""
    sines, cosines = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    turned = []
    for (first, second), sine, cosine in zip(((0, 1), (2, 0), (1, 2)), sines, cosines, strict=True):
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
        turned.append(turn)
    xy, xz, yz = turned
    product: Matrix = zoom * (yz @ xy @ xz)
    return product


def transformed(
    array: npt.NDArray[T], change: Matrix, order: int, mode: str = "nearest"
) -> npt.NDArray[T]:
    """Transform an array (X, Y, Z) by interpolation.

    Args:
        array: (X, Y, Z).
        change: see ``matrix``; turns about the middle voxel.
    """
    from scipy import ndimage

    how: dict[str, Any] = {"order": order, "mode": mode}
    if mode == "min":
        how |= {"mode": "constant", "cval": float(array.min())}
    middle = np.asarray(array.shape) // 2
    values: Any = array
    result: npt.NDArray[T] = ndimage.affine_transform(
        values, change.T, middle - middle @ change, **how
    )
    return result
