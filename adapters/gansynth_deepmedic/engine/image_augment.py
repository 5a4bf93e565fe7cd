"""Turning and zooming whole volumes, as DeepMedic's ``dataManagement/augmentImage.py``.

Commit e10ba7c. The angles that its ``max_rot_xyz`` names are those in the planes xy, xz and yz, in
this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth_deepmedic.engine.nested import Nested

KEY = "augm_img_prms_tr"
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
_KNOWN = (
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
        given = Nested.of(path, values, KEY)
        if not given.given:
            return None
        affine = given.table(("affine",), ("affine",))["affine"]
        if not affine.given:
            return None
        parts, usual = affine.table(_KNOWN), cls()
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
