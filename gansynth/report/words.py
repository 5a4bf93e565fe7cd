"""Numbers in words, each with the place it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gansynth.report.document import Node, pattern

NOTHING = "–"
"""Stands where there is no number."""
MINUTE, HOUR = 60.0, 3600.0


@dataclass(frozen=True)
class Linked:
    """A number as it is shown, and where it stands in the results.

    Attributes:
        text: as shown, without its unit.
        value: as it stands there, or as worked out of what stands there.
        pointer: where; for what is worked out the place that holds all it is worked out of.
        scale: shown number = value x scale.
        how: how it is worked out: mean, sum, count, least, most, share or better; else empty.
        of: the pattern of the places that it is worked out of.
    """

    text: str
    value: Any
    pointer: str
    scale: float = 1.0
    how: str = ""
    of: str = ""

    @property
    def source(self) -> str:
        """Where it is from and how exactly it stands there, for people."""
        where = f"{self.how} of {self.of}" if self.how else self.pointer
        return f"{where} = {'nothing' if self.value is None else self.value}"


Line = Sequence["str | Linked"]
"""Words with numbers in them."""


def plain(line: Line) -> str:
    """The words alone."""
    return "".join(part if isinstance(part, str) else part.text for part in line)


def joined(lines: Iterable[Line], between: str = ", ", last: str = " and ") -> Line:
    """Lines as an enumeration."""
    parts = [list(line) for line in lines]
    pieces: list[str | Linked] = []
    for index, part in enumerate(parts):
        if index:
            pieces.append(last if index == len(parts) - 1 else between)
        pieces += part
    return pieces


def rounded(value: float, decimals: int, *, sign: bool = False) -> str:
    """A number with a true minus sign; nothing that is rounded to zero has a sign."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if not float(text):
        return f"{0:.{decimals}f}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Show:
    """How a measure is shown.

    Attributes:
        title: for people.
        unit: behind a difference: points, or the measure's own.
        scale: what stored values are multiplied with.
        decimals: of values; differences have two.
        up: whether higher is better.
    """

    title: str
    unit: str
    scale: float
    decimals: int
    up: bool

    @classmethod
    def of(cls, measure: Node, name: str) -> Show:
        """A measure's, by its entry in ``measures``; shares of 1 are shown in points."""
        unit = measure["unit"].text
        title, region = measure["title"].text or name, measure["region"].text
        if region and region != "foreground" and region not in title:
            title = f"{title} ({region})"
        up = measure["better"].value != "lower"
        return cls(title, unit, 1.0, 2, up) if unit else cls(title, "points", 100.0, 1, up)

    @property
    def _side(self) -> float:
        return self.scale if self.up else -self.scale

    def value(self, node: Node) -> Linked:
        """A value of the measure."""
        return number(node, self.decimals, scale=self.scale)

    def difference(self, node: Node) -> Linked:
        """A difference, with its sign."""
        return number(node, 2, scale=self.scale, sign=True)

    def size(self, node: Node) -> Linked:
        """A margin, or a smallest difference: without a sign."""
        return number(node, 2, scale=self.scale)

    def gain(self, node: Node) -> Linked:
        """A difference counted towards better, whichever way that is."""
        return number(node, 2, scale=self._side)

    def loss(self, node: Node) -> Linked:
        """A difference counted towards worse."""
        return number(node, 2, scale=-self._side)

    def better(self, value: float) -> float:
        """A stored difference counted towards better."""
        return value if self.up else -value

    def room(self, value: float) -> float:
        """The largest gain there can be from a value, as stored: to 1 of a share, else to 0."""
        if not self.up:
            return value
        return 1 - value if self.unit == "points" else math.inf


def number(node: Node, decimals: int, *, scale: float = 1.0, sign: bool = False) -> Linked:
    """A number of the document."""
    value = node.number
    text = NOTHING if value is None else rounded(value * scale, decimals, sign=sign)
    return Linked(text, node.value, node.pointer, scale)


def whole(node: Node) -> Linked:
    """A count of the document."""
    return number(node, 0)


def probability(node: Node) -> Linked:
    """A p-value: three decimals, none below 0.001."""
    value = node.number
    if value is not None and value < 0.001:
        return Linked("< 0.001", node.value, node.pointer)
    return number(node, 3)


def time_unit(seconds: Iterable[float | None]) -> tuple[str, float]:
    """The unit that suits durations that stand below each other, and its length in seconds."""
    longest = max((abs(s) for s in seconds if s is not None), default=0.0)
    if longest >= 2 * HOUR:
        return "h", HOUR
    return ("min", MINUTE) if longest >= 2 * MINUTE else ("s", 1.0)


def derived(
    how: str, nodes: Sequence[Node], decimals: int = 0, *, of: str, holder: str, scale: float = 1.0
) -> Linked:
    """A number worked out of several.

    Args:
        how: mean, sum, least or most of the numbers among them, or count of all.
        nodes: what it is worked out of.
        decimals: digits behind the point.
        of: the pattern that leads to the nodes.
        holder: pointer of what holds them all.
        scale: what it is multiplied with to be shown.
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
    return Linked(text, result, holder, scale, how, of)


def index_of(node: Node) -> int:
    """The index of a list's item, from its pointer."""
    return int(node.pointer.rpartition("/")[2])


def of_runs(runs: Sequence[Node], *steps: str | Sequence[str]) -> str:
    """The pattern of one place within several runs."""
    return pattern("runs", [index_of(run) for run in runs], *steps)


def interval(low: Linked, high: Linked) -> Line:
    """Both ends; a dash if neither is known."""
    return [NOTHING] if low.text == high.text == NOTHING else [low, " to ", high]


def with_interval(middle: Linked, low: Linked, high: Linked) -> Line:
    """A number with both ends of its interval behind it, where they are known."""
    return [middle] if low.text == high.text == NOTHING else [middle, " (", low, " to ", high, ")"]


Three = tuple[Linked, Linked, Linked]
"""A number and both ends of its interval."""


def three(node: Node, places: int, key: str = "value", *, sign: bool = False) -> Three:
    """A number of an object, and ``low`` and ``high``: of all but a value with its name before."""
    before = "" if key == "value" else f"{key}_"
    middle, low, high = (
        number(node[k], places, sign=sign) for k in (key, f"{before}low", f"{before}high")
    )
    return middle, low, high


def value_of(number: Linked) -> float | None:
    """The number as it stands in the document, where it is one."""
    return Node(number.value).number


def told(node: Node) -> Linked:
    """A text of the document, with its place."""
    return Linked(node.text, node.text, node.pointer)


def finite(nodes: Iterable[Node]) -> list[float]:
    """The numbers that are known."""
    return [value for node in nodes if (value := node.number) is not None]
