"""Whole volumes are normalised, turned and zoomed as DeepMedic does it (commit e10ba7c).

``dataManagement/preprocessing.py`` and ``augmentImage.py``. The angles that its ``max_rot_xyz``
names are those in the planes xy, xz and yz, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth_deepmedic.engine.nested import Nested

_SCORES = "norm_zscore_prms"
_OF_SCORES = (
    "apply_to_all_channels",
    "apply_per_channel",
    "cutoff_percents",
    "cutoff_times_std",
    "cutoff_below_mean",
)


@dataclass(frozen=True)
class ZScore:
    """Mean 0 and standard deviation 1 within the region of interest, but for what is cut off.

    A channel without any spread there, one that a case lacks say, only loses its mean; DeepMedic
    makes it not-a-number.
    """

    channels: tuple[bool, ...] | None = None  # which ones; None for all
    # percentiles of the region, low and high, beyond which values do not count
    percents: tuple[float, ...] | None = None
    # how many standard deviations below and above the region's mean they do not
    times_std: tuple[float, ...] | None = None
    below_mean: bool = False  # whether values below the mean of the whole image do not

    @classmethod
    def from_values(
        cls, path: Path | None, values: Mapping[str, Any], channels: int
    ) -> ZScore | None:
        """``norm_zscore_prms`` of a configuration; None where nothing is normalised.

        Raises:
            DataFault: naming the key.
        """
        given = Nested.of(path, values, _SCORES)
        if not given.given:
            return None
        parts = given.table(_OF_SCORES)
        everything, some = parts["apply_to_all_channels"], parts["apply_per_channel"]
        whole = everything.given and everything.flag()
        if whole and some.given:
            raise some.fault("None where apply_to_all_channels is True")
        wanted = some.flags(channels) if some.given else None
        percents, times, below = (parts[key] for key in _OF_SCORES[2:])
        found = cls(
            wanted,
            percents.numbers(2, 0, 100) if percents.given else None,
            times.numbers(2, 0) if times.given else None,
            below.given and below.flag(),
        )
        return found if whole or (wanted is not None and any(wanted)) else None

    def apply(
        self, image: npt.NDArray[np.float32], roi: npt.NDArray[np.int16] | None
    ) -> npt.NDArray[np.float32]:
        """An image (C, X, Y, Z), normalised.

        Args:
            roi: (X, Y, Z); None for everywhere.
        """
        inside = np.ones(image.shape[1:], np.bool_) if roi is None else roi > 0
        wanted = (True,) * len(image) if self.channels is None else self.channels
        found = image.copy()
        for channel, taken in zip(found, wanted, strict=True):
            if taken:
                mean, std = self.moments(channel, inside)
                channel -= np.float32(mean)
                channel /= np.float32(std)
        return found

    def moments(
        self, channel: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]
    ) -> tuple[float, float]:
        """What a channel (X, Y, Z) is normalised by; a deviation of 1 where it has none."""
        region = (channel[inside] if inside.any() else channel.ravel()).astype(np.float64)
        kept = np.ones(region.shape, np.bool_)
        if self.percents is not None:
            low, high = np.percentile(region, self.percents)
            kept &= (region > low) & (region < high)
        if self.times_std is not None:
            mean, std = region.mean(), region.std()
            low, high = mean - self.times_std[0] * std, mean + self.times_std[1] * std
            kept &= (region > low) & (region < high)
        if self.below_mean:
            kept &= (region > channel.mean(dtype=np.float64)) & (region < channel.max())
        left = region[kept]
        if not left.size or left.std() == 0:
            return float(region.mean()), 1.0
        return float(left.mean()), float(left.std())


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
"""scipy's, and ``min``: a constant, the smallest value of the image."""
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
class Affine:
    """How volumes are turned and zoomed at random."""

    prob: float = 0.0  # probability that a volume is
    # degrees, largest angle in the planes xy, xz and yz
    max_rot: tuple[float, ...] = (45.0, 45.0, 45.0)
    max_scaling: float = 0.1  # zoom is drawn from 1 minus to 1 plus this, the same along all axes
    orders: tuple[int, ...] = (1,)  # order of interpolation of each channel; one number for all
    order_labels: int = 0  # of the labels
    order_roi: int = 0  # of the region of interest
    mode: str = "nearest"  # what lies outside of a volume, one of ``MODES``

    @classmethod
    def from_values(
        cls, path: Path | None, values: Mapping[str, Any], channels: int
    ) -> Affine | None:
        """``augm_img_prms_tr['affine']`` of a configuration; None for none.

        DeepMedic's ``seed`` is left to this program, ``cval`` is no more used than there.

        Raises:
            DataFault: naming the key.
        """
        given = Nested.of(path, values, _AFFINE)
        if not given.given:
            return None
        affine = given.table(("affine",), ("affine",))["affine"]
        if not affine.given:
            return None
        parts, usual = affine.table(_OF_AFFINE), cls()
        found = cls(
            prob=_or(parts["prob"], usual.prob, 0, 1),
            max_rot=_angles(parts["max_rot_xyz"], usual.max_rot),
            max_scaling=_or(parts["max_scaling"], usual.max_scaling, 0, 0.99),
            orders=_orders(parts["interp_order_imgs"], channels),
            order_labels=_order(parts["interp_order_lbls"], 0),
            order_roi=_order(parts["interp_order_roi"], 0),
            mode=_mode(parts["boundary_mode"]),
        )
        return found if found.prob > 0 else None

    def draw(self, rng: np.random.Generator) -> Matrix | None:
        """The next volume's matrix; None leaves it as it is."""
        chance, angles, zoom = rng.random(), rng.uniform(-1, 1, 3), rng.uniform(-1, 1)
        if chance > self.prob:
            return None
        return matrix(np.asarray(self.max_rot) * angles, 1 + self.max_scaling * zoom)

    def of_image(self, image: npt.NDArray[np.float32], change: Matrix) -> npt.NDArray[np.float32]:
        """An image (C, X, Y, Z), turned about its middle."""
        orders = self.orders if len(self.orders) == len(image) else self.orders[:1] * len(image)
        channels = [
            transformed(channel, change, order, self.mode)
            for channel, order in zip(image, orders, strict=True)
        ]
        return np.stack(channels)

    def of_labels(self, labels: npt.NDArray[np.int16], change: Matrix) -> npt.NDArray[np.int16]:
        """Labels (X, Y, Z), likewise."""
        return transformed(labels, change, self.order_labels, self.mode)

    def of_roi(self, roi: npt.NDArray[np.int16], change: Matrix) -> npt.NDArray[np.int16]:
        """A region of interest (X, Y, Z), likewise."""
        return transformed(roi, change, self.order_roi, self.mode)

    def of_mask(self, mask: npt.NDArray[np.bool_], change: Matrix) -> npt.NDArray[np.bool_]:
        """A mask (X, Y, Z), likewise; outside of a volume there is none of it."""
        return transformed(mask.view(np.uint8), change, 0, "constant").view(np.bool_)


def matrix(degrees: npt.NDArray[np.float64], zoom: float) -> Matrix:
    """What voxels of the result are multiplied with to be looked up."""
    sines, cosines = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    turned = []
    for (one, other), sine, cosine in zip(((0, 1), (2, 0), (1, 2)), sines, cosines, strict=True):
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = cosine
        turn[one, other], turn[other, one] = -sine, sine
        turned.append(turn)
    xy, xz, yz = turned
    found: Matrix = zoom * (yz @ xy @ xz)
    return found


def transformed(
    array: npt.NDArray[T], change: Matrix, order: int, mode: str = "nearest"
) -> npt.NDArray[T]:
    """An array (X, Y, Z), interpolated.

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
    found: npt.NDArray[T] = ndimage.affine_transform(
        values, change.T, middle - middle @ change, **how
    )
    return found


def _or(given: Nested, default: float, low: float, high: float) -> float:
    return given.number(low, high) if given.given else default


def _angles(given: Nested, default: tuple[float, ...]) -> tuple[float, ...]:
    return given.numbers(3) if given.given else default


def _order(given: Nested, default: int) -> int:
    if not given.given:
        return default
    if isinstance(given.value, bool) or given.value not in (0, 1, 2, 3):
        raise given.fault("an order of interpolation, 0, 1, 2 or 3")
    return int(given.value)


def _orders(given: Nested, channels: int) -> tuple[int, ...]:
    if not isinstance(given.value, list | tuple):
        return (_order(given, 1),)
    orders = tuple(_order(Nested(given.path, given.name, order), -1) for order in given.value)
    if len(orders) != channels or -1 in orders:
        raise given.fault(f"an order of interpolation for each of {channels} channel(s)")
    return orders


def _mode(given: Nested) -> str:
    if not given.given:
        return MODES[0]
    if given.value not in MODES:
        raise given.fault(f"one of {', '.join(MODES)}")
    return str(given.value)
