"""Numbers as reports show them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "–"
"""Placeholder of a missing number."""
MINUTE, HOUR = 60.0, 3600.0


def rounded(value: float, decimals: int, *, sign: bool = False) -> str:
    """Format a number with a true minus sign; a zero after rounding has no sign."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if not float(text):
        return f"{0:.{decimals}f}"
    return text.replace("-", "−")


def known(values: Iterable[float | None]) -> list[float]:
    """Return the finite numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


def number(
    value: float | None, decimals: int = 0, *, scale: float = 1.0, sign: bool = False
) -> str:
    """Format a number, or a dash if it is missing."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return rounded(value * scale, decimals, sign=sign)


def probability(p: float | None) -> str:
    """Format a p-value: three decimals, none below 0.001."""
    return "< 0.001" if p is not None and p < 0.001 else number(p, 3)


def interval(low: str, high: str) -> str:
    """Return both ends; a dash if neither is known."""
    return NOTHING if low == high == NOTHING else f"{low} to {high}"


def with_interval(middle: str, low: str, high: str) -> str:
    """Return a number, followed by both ends of its interval if they are known."""
    return middle if low == high == NOTHING else f"{middle} ({low} to {high})"


def joined(texts: Iterable[str], between: str = ", ", last: str = " and ") -> str:
    """Join texts to an enumeration: 6, 12 and 24."""
    *first, end = [*texts] or [""]
    return f"{between.join(first)}{last}{end}" if first else end


def time_unit(seconds: Iterable[float | None]) -> tuple[str, float]:
    """Return a common unit of durations in a column, and its length in seconds."""
    longest = max(map(abs, known(seconds)), default=0.0)
    if longest >= 2 * HOUR:
        return "h", HOUR
    return ("min", MINUTE) if longest >= 2 * MINUTE else ("s", 1.0)


def decimals_of(values: Iterable[float | None], ends: Sequence[Sequence[float | None]] = ()) -> int:
    """Return the decimals that a column of numbers needs, at most four.

    Args:
        ends: both ends of their intervals. The narrowest has two significant digits; without
            intervals the largest number has three.
    """
    pairs = [known(pair) for pair in ends]
    widths = [pair[1] - pair[0] for pair in pairs if len(pair) == 2]
    narrow = [width for width in widths if width > 0]
    if narrow:
        decimals = 1 - math.floor(math.log10(min(narrow)))
    else:
        largest = max([abs(value) for value in known(values) if value], default=1.0)
        decimals = 2 - math.floor(math.log10(largest))
    return min(max(decimals, 0), 4)


@dataclass(frozen=True)
class NumberFormat:
    """How to show a measure.

    Attributes:
        title: name to show.
        unit: behind a difference: points, or the measure's own.
        scale: factor on stored values.
        decimals: of values; differences have two.
        up: whether higher is better.
    """

    title: str
    unit: str
    scale: float
    decimals: int
    up: bool

    @classmethod
    def of(cls, measure: Mapping[str, Any], name: str) -> NumberFormat:
        """Read a measure's entry in ``measures``; shares of 1 are shown in points."""
        unit, title, region = [measure.get(key) or "" for key in ("unit", "title", "region")]
        title = title or name
        if region and region != "foreground" and region not in title:
            title = f"{title} ({region})"
        up = measure.get("better") != "lower"
        return cls(title, unit, 1.0, 2, up) if unit else cls(title, "points", 100.0, 1, up)

    def value(self, value: float | None) -> str:
        """Format a value of the measure."""
        return number(value, self.decimals, scale=self.scale)

    def difference(self, value: float | None) -> str:
        """Format a difference, with its sign."""
        return number(value, 2, scale=self.scale, sign=True)

    def size(self, value: float | None) -> str:
        """Format a margin, or a smallest difference, without a sign."""
        return number(value, 2, scale=self.scale)

    def gain(self, value: float | None) -> str:
        """Format a difference with the sign that makes better positive."""
        return number(value, 2, scale=self.scale if self.up else -self.scale)

    def loss(self, value: float | None) -> str:
        """Format a difference with the sign that makes worse positive."""
        return number(value, 2, scale=-self.scale if self.up else self.scale)

    def better(self, value: float) -> float:
        """Return a stored difference with the sign that makes better positive."""
        return value if self.up else -value

    def room(self, value: float) -> float:
        """Return the largest possible gain over a stored value: to 1 for a share, else to 0."""
        if not self.up:
            return value
        return 1 - value if self.unit == "points" else math.inf
