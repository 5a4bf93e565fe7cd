"""Normalisation, rotation and zoom of whole volumes as in DeepMedic (commit e10ba7c).

Sources: ``dataManagement/preprocessing.py`` and ``augmentImage.py``. The angles of its
``max_rot_xyz`` are those in the planes xy, xz and yz, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth_deepmedic.keys import ConfigKeys

_SCORES = "norm_zscore_prms"
_OF_SCORES = (
    "apply_to_all_channels",
    "apply_per_channel",
    "cutoff_percents",
    "cutoff_times_std",
    "cutoff_below_mean",
)
_AFFINE = "augm_img_prms_tr"
MODES = (
    "nearest",
    "min",
    "constant",
    "mirror",
    "reflect",
    "wrap",
    "grid-constant",
    "grid-mirror",
    "grid-wrap",
)
"""scipy's modes, and ``min``: the constant minimum of the image."""
_OF_AFFINE = (
    "prob",
    "max_rot_xyz",
    "max_scaling",
    "seed",
    "interp_order_imgs",
    "interp_order_lbls",
    "interp_order_roi",
    "interp_order_wmaps",
    "boundary_mode",
    "cval",
)
Matrix = npt.NDArray[np.float64]
T = TypeVar("T", bound=np.generic)


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
        parts = ConfigKeys(path, values).table(_SCORES, _OF_SCORES)
        if parts is None:
            return None
        whole = parts.flag("apply_to_all_channels", False)
        if whole and parts.has("apply_per_channel"):
            raise parts.odd("apply_per_channel", "None where apply_to_all_channels is True")
        channel_flags = (
            parts.flags("apply_per_channel", channels) if parts.has("apply_per_channel") else None
        )
        percents, times, below = _OF_SCORES[2:]
        scores = cls(
            channel_flags,
            parts.numbers(percents, count=2, low=0, high=100) if parts.has(percents) else None,
            parts.numbers(times, count=2, low=0) if parts.has(times) else None,
            parts.flag(below, False),
        )
        return scores if whole or (channel_flags is not None and any(channel_flags)) else None

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
    mode: str = "nearest"  # values outside a volume, one of ``MODES``

    @classmethod
    def from_values(
        cls, path: Path | None, values: Mapping[str, Any], channels: int
    ) -> RandomAffine | None:
        """Read ``augm_img_prms_tr['affine']`` of a configuration; None without.

        Its ``seed`` is ignored, and ``cval`` is unused, as in DeepMedic.
        """
        table = ConfigKeys(path, values).table(_AFFINE, ("affine",), ("affine",))
        parts = None if table is None else table.table("affine", _OF_AFFINE)
        if parts is None:
            return None
        usual = cls()
        affine = cls(
            prob=parts.number("prob", usual.prob, 0, 1),
            max_rot=parts.numbers("max_rot_xyz", usual.max_rot, 3),
            max_scaling=parts.number("max_scaling", usual.max_scaling, 0, 0.99),
            orders=_orders(parts, channels),
            order_labels=_order(parts, "interp_order_lbls", 0),
            order_roi=_order(parts, "interp_order_roi", 0),
            mode=parts.one_of("boundary_mode", MODES, usual.mode),
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


def _order(keys: ConfigKeys, key: str, default: int) -> int:
    if keys.has(key) and not _is_order(keys.values[key]):
        raise keys.odd(key, "an order of interpolation, 0, 1, 2 or 3")
    return int(keys.values[key]) if keys.has(key) else default


def _orders(keys: ConfigKeys, channels: int, key: str = "interp_order_imgs") -> tuple[int, ...]:
    orders = keys.values.get(key)
    if not isinstance(orders, list | tuple):
        return (_order(keys, key, 1),)
    if not all(map(_is_order, orders)):
        raise keys.odd(key, "an order of interpolation, 0, 1, 2 or 3")
    if len(orders) != channels:
        raise keys.odd(key, f"an order of interpolation for each of {channels} channel(s)")
    return tuple(map(int, orders))


def _is_order(value: object) -> bool:
    return not isinstance(value, bool) and value in (0, 1, 2, 3)
