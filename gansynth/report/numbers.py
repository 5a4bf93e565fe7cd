"""Numbers in text, each linked to its place in the results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gansynth.report.document import JsonNode, pattern

NOTHING = "–"
"""Placeholder of a missing number."""
MINUTE, HOUR = 60.0, 3600.0


@dataclass(frozen=True)
class LinkedNumber:
    """A number as shown, and its place in the results.

    Attributes:
        text: as shown, without its unit.
        value: as stored, or as derived from stored values.
        pointer: its place; for a derived number the place that contains all its inputs.
        scale: shown number = value x scale.
        how: derivation: mean, sum, count, least, most, share or better; else empty.
        of: the pattern of its inputs' places.
    """

    text: str
    value: Any
    pointer: str
    scale: float = 1.0
    how: str = ""
    of: str = ""

    @property
    def source(self) -> str:
        """The place of the number and its stored value, as text."""
        where = f"{self.how} of {self.of}" if self.how else self.pointer
        return f"{where} = {'nothing' if self.value is None else self.value}"


Line = Sequence["str | LinkedNumber"]
"""Text with numbers in it."""


def plain(line: Line) -> str:
    """Return the text alone."""
    return "".join(part if isinstance(part, str) else part.text for part in line)


def joined(lines: Iterable[Line], between: str = ", ", last: str = " and ") -> Line:
    """Join lines to an enumeration."""
    parts = [list(line) for line in lines]
    pieces: list[str | LinkedNumber] = []
    for index, part in enumerate(parts):
        if index:
            pieces.append(last if index == len(parts) - 1 else between)
        pieces += part
    return pieces


def rounded(value: float, decimals: int, *, sign: bool = False) -> str:
    """Format a number with a true minus sign; a zero after rounding has no sign."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if not float(text):
        return f"{0:.{decimals}f}"
    return text.replace("-", "−")


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
    def of(cls, measure: JsonNode, name: str) -> NumberFormat:
        """Read a measure's entry in ``measures``; shares of 1 are shown in points."""
        unit = measure["unit"].text
        title, region = measure["title"].text or name, measure["region"].text
        if region and region != "foreground" and region not in title:
            title = f"{title} ({region})"
        up = measure["better"].value != "lower"
        return cls(title, unit, 1.0, 2, up) if unit else cls(title, "points", 100.0, 1, up)

    @property
    def _side(self) -> float:
        return self.scale if self.up else -self.scale

    def value(self, node: JsonNode) -> LinkedNumber:
        """Return a value of the measure."""
        return number(node, self.decimals, scale=self.scale)

    def difference(self, node: JsonNode) -> LinkedNumber:
        """Return a difference, with its sign."""
        return number(node, 2, scale=self.scale, sign=True)

    def size(self, node: JsonNode) -> LinkedNumber:
        """Return a margin, or a smallest difference, without a sign."""
        return number(node, 2, scale=self.scale)

    def gain(self, node: JsonNode) -> LinkedNumber:
        """Return a difference with the sign that makes better positive."""
        return number(node, 2, scale=self._side)

    def loss(self, node: JsonNode) -> LinkedNumber:
        """Return a difference with the sign that makes worse positive."""
        return number(node, 2, scale=-self._side)

    def better(self, value: float) -> float:
        """Return a stored difference with the sign that makes better positive."""
        return value if self.up else -value

    def room(self, value: float) -> float:
        """Return the largest possible gain over a stored value: to 1 for a share, else to 0."""
        if not self.up:
            return value
        return 1 - value if self.unit == "points" else math.inf


def number(
    node: JsonNode, decimals: int, *, scale: float = 1.0, sign: bool = False
) -> LinkedNumber:
    """Return a number of the document."""
    value = node.number
    text = NOTHING if value is None else rounded(value * scale, decimals, sign=sign)
    return LinkedNumber(text, node.value, node.pointer, scale)


def whole(node: JsonNode) -> LinkedNumber:
    """Return a count of the document."""
    return number(node, 0)


def probability(node: JsonNode) -> LinkedNumber:
    """Return a p-value: three decimals, none below 0.001."""
    value = node.number
    if value is not None and value < 0.001:
        return LinkedNumber("< 0.001", node.value, node.pointer)
    return number(node, 3)


def time_unit(seconds: Iterable[float | None]) -> tuple[str, float]:
    """Return a common unit of durations in a column, and its length in seconds."""
    longest = max((abs(s) for s in seconds if s is not None), default=0.0)
    if longest >= 2 * HOUR:
        return "h", HOUR
    return ("min", MINUTE) if longest >= 2 * MINUTE else ("s", 1.0)


def derived(
    how: str,
    nodes: Sequence[JsonNode],
    decimals: int = 0,
    *,
    of: str,
    holder: str,
    scale: float = 1.0,
) -> LinkedNumber:
    """Derive a number from several.

    Args:
        how: mean, sum, least or most of the numbers among them, or count of all.
        nodes: the inputs.
        decimals: digits behind the point.
        of: the pattern that leads to the nodes.
        holder: pointer to the place that contains them all.
        scale: factor on the shown number.
    """
    values = [value for node in nodes if (value := node.number) is not None]
    result: float | None
    if how == "count":
        result = len(nodes)
    elif not values:
        result = None
    else:
        result = {"sum": sum(values), "least": min(values), "most": max(values)}.get(
            how, sum(values) / len(values)
        )
    text = NOTHING if result is None else rounded(result * scale, decimals)
    return LinkedNumber(text, result, holder, scale, how, of)


def index_of(node: JsonNode) -> int:
    """Return the index of a list's item, from its pointer."""
    return int(node.pointer.rpartition("/")[2])


def of_runs(runs: Sequence[JsonNode], *steps: str | Sequence[str]) -> str:
    """Return the pattern of one place within several runs."""
    return pattern("runs", [index_of(run) for run in runs], *steps)


def interval(low: LinkedNumber, high: LinkedNumber) -> Line:
    """Return both ends; a dash if neither is known."""
    return [NOTHING] if low.text == high.text == NOTHING else [low, " to ", high]


def with_interval(middle: LinkedNumber, low: LinkedNumber, high: LinkedNumber) -> Line:
    """Return a number, followed by both ends of its interval if they are known."""
    return [middle] if low.text == high.text == NOTHING else [middle, " (", low, " to ", high, ")"]


Three = tuple[LinkedNumber, LinkedNumber, LinkedNumber]
"""A number and both ends of its interval."""


def three(node: JsonNode, places: int, key: str = "value", *, sign: bool = False) -> Three:
    """Return a number and its interval; keys are ``low``, ``high``, prefixed unless ``value``."""
    before = "" if key == "value" else f"{key}_"
    middle, low, high = (
        number(node[k], places, sign=sign) for k in (key, f"{before}low", f"{before}high")
    )
    return middle, low, high


def value_of(number: LinkedNumber) -> float | None:
    """Return the number as stored in the document, or None."""
    return JsonNode(number.value).number


def link_number(node: JsonNode) -> LinkedNumber:
    """Return a text of the document, with its place."""
    return LinkedNumber(node.text, node.text, node.pointer)


def finite(nodes: Iterable[JsonNode]) -> list[float]:
    """Return the finite numbers of nodes."""
    return [value for node in nodes if (value := node.number) is not None]
