"""Small SVG drawings that stretch with their place while words and lines keep their size.

Horizontal positions are shares of the width, vertical positions are pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from markupsafe import Markup, escape

from gansynth.report.numbers import LinkedNumber, rounded

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
LOG_STEPS: tuple[tuple[float, ...], ...] = (
    tuple(n / 10 for n in range(10, 100)),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 2.0, 5.0),
    (1.0, 3.0),
    (1.0,),
)
"""Ticks of a logarithmic axis in each decade, from the densest to the sparsest."""
HEIGHT = 190.0
"""Height of a panel."""
TOP, BOTTOM = 12.0, 158.0
LEFT, RIGHT = 15.0, 97.0
"""Edges of a panel's frame."""


def tag(name: str, *children: Markup | str, **attributes: str | float | None) -> Markup:
    """Make an element; text and attributes are escaped; ``stroke_width`` means stroke-width."""
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(children)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Axis:
    """Linear map from numbers to positions between two edges.

    Attributes:
        low: number at ``start``.
        high: number at ``end``.
        start: share of the width, or pixels.
        end: likewise; may be smaller.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    start: float
    end: float

    @classmethod
    def over(
        cls,
        values: Iterable[float | None],
        start: float,
        end: float,
        *,
        about: int = 5,
        tight: bool = False,
    ) -> Axis:
        """Make an axis that contains all numbers, with round ticks.

        Args:
            values: the numbers; all may be None.
            tight: end a little beyond the numbers instead of at a tick.
        """
        numbers = [value for value in values if value is not None] or [0.0, 1.0]
        low, high = min(numbers), max(numbers)
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5
        rough = (high - low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in STEPS if s * power >= rough * 0.999)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
        if tight:
            edge = 0.04 * (high - low)
            inside = tuple(t for t in ticks if low - edge <= t <= high + edge)
            return cls(low - edge, high + edge, inside, start, end)
        return cls(ticks[0], ticks[-1], ticks, start, end)

    def at(self, value: float) -> float:
        """Return the position of a number; numbers outside are put on the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def words(self, tick: float, *, sign: bool = False) -> str:
        """Format a tick's number, with as many decimals as the steps have."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-9), 6)
        return rounded(tick, decimals, sign=sign)


@dataclass(frozen=True)
class LogAxis(Axis):
    """A logarithmic axis; its numbers are above zero."""

    @classmethod
    def over(
        cls,
        values: Iterable[float | None],
        start: float,
        end: float,
        *,
        about: int = 5,
        tight: bool = True,
    ) -> LogAxis:
        """Make an axis that contains all numbers above zero, with round ticks; always tight."""
        numbers = [value for value in values if value is not None and value > 0] or [0.1, 10.0]
        edge = max((max(numbers) / min(numbers)) ** 0.04, 1.05)
        low, high = min(numbers) / edge, max(numbers) * edge
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for firsts in LOG_STEPS:
            ticks = [round(f * 10.0**d, 9 - d) for d in decades for f in firsts]
            ticks = [tick for tick in ticks if low <= tick <= high]
            if len(ticks) <= about:
                break
        return cls(low, high, tuple(ticks[:: math.ceil(len(ticks) / about) or 1]), start, end)

    def at(self, value: float) -> float:
        """Return the position of a number; numbers outside are put on the edge."""
        inside = min(max(value, self.low), self.high)
        share = math.log(inside / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def words(self, tick: float, *, sign: bool = False) -> str:
        """Format a tick's number as briefly as possible."""
        return f"{tick:+g}" if sign else f"{tick:g}"


def across(share: float) -> str:
    """Format a share of the width."""
    return f"{_short(share)}%"


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Draw a line; x in shares of the width, y in pixels."""
    return tag("line", x1=across(x1), y1=y1, x2=across(x2), y2=y2, class_=class_)


def block(x1: float, x2: float, top: float, height: float, class_: str) -> Markup:
    """Draw a rectangle between two shares of the width."""
    left, width = min(x1, x2), abs(x2 - x1)
    return tag("rect", x=across(left), width=across(width), y=top, height=height, class_=class_)


def words(x: float, y: float, text: str, class_: str, anchor: str = "middle") -> Markup:
    """Draw a text; its class names its role, its anchor the position of the point in it."""
    return tag("text", escape(text), x=across(x), y=y, class_=class_, text_anchor=anchor)


def mark(shape: str, x: float, y: float, class_: str) -> Markup:
    """Draw one of the page's marks: circle, ring, diamond, up or down."""
    return tag("use", href=f"#mark-{shape}", x=across(x), y=y, class_=class_)


def sourced(number: LinkedNumber, *elements: Markup) -> Markup:
    """Group the elements of a number with its source."""
    return tag("g", tag("title", escape(number.source)), *elements, data_pointer=number.pointer)


def whisker(
    axis: Axis, ends: Sequence[tuple[float | None, LinkedNumber]], y: float
) -> list[Markup]:
    """Draw an interval with its ends; an arrow where it goes beyond the axis.

    Args:
        ends: both, each with its number; nothing is drawn unless both are known.
        y: in pixels.
    """
    bounds = sorted((end for end, _ in ends if end is not None))
    if len(bounds) < 2:
        return []
    elements = [line(axis.at(bounds[0]), y, axis.at(bounds[-1]), y, "whisker")]
    for end, source in ends:
        if end is None:
            continue
        at = axis.at(end)
        if axis.low <= end <= axis.high:
            cap = line(at, y - 4, at, y + 4, "whisker")
        else:
            cap = mark("left" if end < axis.low else "right", at, y, "beyond")
        elements.append(sourced(source, cap))
    return elements


def stretched(height: float, *elements: Markup) -> Markup:
    """Stretch shapes to their place; their coordinates are 0 to 100 horizontally, and pixels."""
    return tag(
        "svg",
        *elements,
        viewBox=f"0 0 100 {height:g}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
    )


def corners_of(places: Iterable[tuple[float, float]]) -> str:
    """Format the corners of a polygon for its attribute."""
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in places)


class Drawings:
    """Makes drawings with ids that are unique on a page."""

    def __init__(self) -> None:
        self._next = count(1)

    def drawing(
        self, title: str, description: str, height: float, *elements: Markup, class_: str = ""
    ) -> Markup:
        """Make one drawing.

        Args:
            title: its name for screen readers.
            height: in pixels; the width is that of its place.
        """
        prefix = f"drawing-{next(self._next)}"
        return tag(
            "svg",
            tag("title", escape(title), id=f"{prefix}-title"),
            tag("desc", escape(description), id=f"{prefix}-words"),
            *elements,
            class_=f"drawing {class_}".strip(),
            role="img",
            aria_labelledby=f"{prefix}-title",
            aria_describedby=f"{prefix}-words",
            width="100%",
            height=height,
        )


def frame(down: Axis, ticks: Sequence[tuple[float, str]]) -> list[Markup]:
    """Draw a panel's frame: lines and numbers at the left, words at the bottom."""
    elements = []
    for tick in down.ticks:
        elements.append(line(LEFT, down.at(tick), RIGHT, down.at(tick), "grid"))
        elements.append(words(LEFT - 2, down.at(tick) + 4, down.words(tick), "tick", "end"))
    return [*elements, *(words(x, BOTTOM + 20, word, "tick") for x, word in ticks)]


def ruler(
    drawings: Drawings,
    axis: Axis,
    title: str,
    description: str,
    ends: tuple[str, str] = ("", ""),
    *,
    sign: bool = False,
) -> Markup:
    """Draw an axis as a column's heading: its numbers, and the meaning of its ends."""
    sides = zip((axis.start, axis.end), ends, ("start", "end"), strict=True)
    top = 16 if any(ends) else 0
    return drawings.drawing(
        title,
        description,
        top + 22,
        *(words(at, 10, text, "side", anchor) for at, text, anchor in sides if text),
        *(words(axis.at(t), top + 16, axis.words(t, sign=sign), "tick") for t in axis.ticks),
    )


def grid(axis: Axis, height: float) -> list[Markup]:
    """Draw lines at the ticks of an axis."""
    return [line(axis.at(t), 0, axis.at(t), height, "grid") for t in axis.ticks]
