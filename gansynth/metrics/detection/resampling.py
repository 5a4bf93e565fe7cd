"""Bootstrap over patients: the sampling error of a number.

A resample is defined by how often it has each patient. Arms share resamples, so that differences
are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from gansynth.metrics.detection.record import Array, Numbers

LEVEL = 0.95
FEW = 10  # fewest patients for a reliable interval
AT_ONCE = 250  # resamples computed at once, to bound memory


@dataclass(frozen=True)
class BootstrapEstimate:
    """A number of all patients, and the middle 95 % of its resamples; nan: undefined."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Value and interval, None where undefined."""
        return {name: None if np.isnan(v) else float(v) for name, v in vars(self).items()}


def resamples(subjects: int, times: int, rng: np.random.Generator) -> Array:
    """float64 (times, subjects): count of each patient in each resample; rows sum to subjects."""
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=times).astype(np.float64)


def everyone(subjects: int) -> Array:
    """float64 (1, subjects): every patient once."""
    return np.ones((1, subjects))


def chunks(weights: Array) -> Iterator[Array]:
    """The resamples in batches."""
    yield from (weights[first : first + AT_ONCE] for first in range(0, len(weights), AT_ONCE))


def estimate(measure: Callable[[Array], Array], weights: Array) -> BootstrapEstimate:
    """A number with its interval; ``measure``: weights (B, P) to (B,), nan where undefined."""
    value = float(measure(everyone(weights.shape[1]))[0])
    return with_interval(value, [measure(part) for part in chunks(weights)])


def with_interval(value: float, resampled: list[Array], level: float = LEVEL) -> BootstrapEstimate:
    """A number and its percentile interval, without undefined resamples."""
    values = np.concatenate([np.empty(0), *resampled])
    values = values[~np.isnan(values)]
    if not len(values):
        return BootstrapEstimate(value, np.nan, np.nan)
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return BootstrapEstimate(value, float(low), float(high))


def counted(rows: Numbers, subjects: Numbers, shape: tuple[int, int]) -> sparse.csr_array:
    """Counts by row and patient; the product with weights counts resamples."""
    return sparse.csr_array((np.ones(len(rows)), (rows, subjects)), shape=shape)


def ratio(above: Array, below: Array) -> Array:
    """A quotient; nan where the denominator is 0."""
    share: Array = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return share
