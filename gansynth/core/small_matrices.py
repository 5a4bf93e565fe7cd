"""Products and principal axes of small matrices, with the same bits on every machine.

BLAS and LAPACK round by the kind of the CPU and the number of threads. Where a lesion's shape or
place hangs on a tie, or on the sign of an axis, it would be another one on another machine.
``einsum`` multiplies and sums in one order.
"""

from __future__ import annotations

import itertools
import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
T = TypeVar("T", bound=np.floating)

SWEEPS = 32  # rounds of rotations at most; a matrix of ten rows takes about eight
NOTHING = 1e-30
"""Share of the squares of a matrix below which what is off its diagonal is rounding."""


def product(first: npt.NDArray[T], second: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return the product of a matrix (n, m) with another (m, ...)."""
    return np.asarray(np.einsum("ij,j...->i...", first, second))


def covariance(rows: Matrix, least: int = 0) -> Matrix:
    """Return the covariance (n, n) of rows (N, n); ``least`` is taken off their number."""
    centred = rows - rows.mean(axis=0)
    return np.asarray(np.einsum("ni,nj->ij", centred, centred) / (len(rows) - least))


def principal_axes(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Return values, increasing, and axes, in columns, of a symmetric matrix (n, n).

    By Jacobi's rotations.
    """
    left, axes = np.array(matrix, np.float64), np.eye(len(matrix))
    limit = NOTHING * float(np.square(left).sum())
    for _ in range(SWEEPS):
        if float(np.square(np.triu(left, 1)).sum()) <= limit:
            break
        for one, other in itertools.combinations(range(len(left)), 2):
            _rotate(left, axes, one, other)
    values = left.diagonal()
    order = np.argsort(values, kind="stable")
    return values[order], axes[:, order]


def _rotate(left: Matrix, axes: Matrix, one: int, other: int) -> None:
    """Turn two axes so that the matrix is 0 where they cross, in place."""
    crossing = float(left[one, other])
    if crossing == 0:
        return
    ahead = (float(left[other, other]) - float(left[one, one])) / (2 * crossing)
    tangent = math.copysign(1, ahead) / (abs(ahead) + math.sqrt(ahead * ahead + 1))
    cosine = 1 / math.sqrt(tangent * tangent + 1)
    sine = tangent * cosine
    for rows in (left, left.T, axes.T):
        here, there = rows[one].copy(), rows[other].copy()
        rows[one], rows[other] = cosine * here - sine * there, sine * here + cosine * there
    left[one, other] = left[other, one] = 0.0


def of_axes(values: Matrix, axes: Matrix) -> Matrix:
    """Return the symmetric matrix of these values along these axes."""
    return np.asarray(np.einsum("ik,k,jk->ij", axes, values, axes))
