"""Small label maps, and edits by name."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.base import Edit
from gansynth.conditions.geometry import Mask
from gansynth.registry import installed
from gansynth.schema import OUTSIDE, LabelArray, Schema


def _schema(ndim: int = 3, spacing: Sequence[float] | None = None) -> Schema:
    labels = {"background": 0, "shell": 1, "core": 2, "nodule": 4}
    mm = tuple(spacing or (1.0,) * ndim)
    return Schema(("T1",), labels, mm, "DHW"[-ndim:], has_outside=True)


def _make(name: str, **options: Any) -> Edit:
    edit = installed().edit(name)
    return edit(edit.Options(**options))


def _within(
    shape: Sequence[int], centre: Sequence[float], radius_mm: float, spacing: Sequence[float]
) -> Mask:
    squares = np.zeros(tuple(shape))
    for grid, middle, mm in zip(np.indices(tuple(shape)), centre, spacing, strict=True):
        squares += ((grid - middle) * mm) ** 2
    return np.asarray(squares < radius_mm**2)


def _toy(ndim: int = 3, spacing: Sequence[float] | None = None) -> LabelArray:
    """A core in a shell and a nodule apart, in a round body 24 mm wide; -1 beyond it."""
    spacing = spacing or (1.0,) * ndim
    shape = [math.ceil(24 / mm) + axis for axis, mm in enumerate(spacing)]
    middle = [(n - 1) / 2 for n in shape]
    labels = np.where(_within(shape, middle, 12, spacing), 0, OUTSIDE).astype(np.int16)
    seat = [c - 2 / mm for c, mm in zip(middle, spacing, strict=True)]
    labels[_within(shape, seat, 6, spacing)] = 1
    labels[_within(shape, seat, 3.2, spacing)] = 2
    far = [c + 5 / mm for c, mm in zip(middle, spacing, strict=True)]
    labels[_within(shape, far, 2.2, spacing)] = 4
    return labels


def _ball(radius_mm: float = 8.0, spacing: Sequence[float] = (1.0,) * 3) -> LabelArray:
    """A ball (2D: a disc) of class 1 in the middle of some 34 mm of background."""
    shape = [round(34 / mm) - axis for axis, mm in enumerate(spacing)]
    middle = [(n - 1) / 2 for n in shape]
    return _within(shape, middle, radius_mm, spacing).astype(np.int16)


@pytest.fixture(scope="session")
def schema() -> Callable[..., Schema]:
    return _schema


@pytest.fixture(scope="session")
def make() -> Callable[..., Edit]:
    return _make


@pytest.fixture(scope="session")
def toy() -> Callable[..., LabelArray]:
    return _toy


@pytest.fixture(scope="session")
def ball() -> Callable[..., LabelArray]:
    return _ball
