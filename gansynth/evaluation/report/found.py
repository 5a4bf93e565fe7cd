"""What was found, as a sign with its word; and numbers of which nobody knows how large they are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum

from gansynth.report.document import Node
from gansynth.report.words import NOTHING, Line, Linked, number

RESULTS = "evaluation.json"
"""The document's file, beside the report."""
MOST_DECIMALS = 4


class Found(Enum):
    """What something was found to be; the value is its sign in words."""

    SAME = "◆"
    LOSS = "▼"
    UNCLEAR = "○"
    MISSING = "–"

    @property
    def sign(self) -> str:
        """As it stands in words."""
        return self.value

    @property
    def shape(self) -> str:
        """As it stands in drawings."""
        return {"SAME": "diamond", "LOSS": "down"}.get(self.name, "ring")


FINDINGS = {
    "like real": Found.SAME,
    "unlike real": Found.LOSS,
    "unclear": Found.UNCLEAR,
    "faithful": Found.SAME,
    "partly": Found.UNCLEAR,
    "no more than shuffled labels": Found.LOSS,
    "copies": Found.LOSS,
    "nearer to training": Found.LOSS,
    "not shown": Found.UNCLEAR,
}


def found(finding: Node) -> Found:
    """The sign of a finding; of words that are unknown here that of what is unclear."""
    return FINDINGS.get(finding.text, Found.UNCLEAR) if finding else Found.MISSING


def decimals(nodes: Iterable[Node], widths: Iterable[tuple[Node, Node]] = ()) -> int:
    """How many decimals numbers that stand side by side need.

    Args:
        widths: both ends of their intervals. The narrowest one gets two digits that count; without
            intervals the largest number gets three.
    """
    ends = [finite(pair) for pair in widths]
    narrow = [width for pair in ends if len(pair) == 2 and (width := pair[1] - pair[0]) > 0]
    known = [abs(value) for node in nodes if (value := node.number)]
    size, digits = (min(narrow), 1) if narrow else (max(known, default=1.0), 2)
    return min(max(digits - math.floor(math.log10(size)), 0), MOST_DECIMALS)


def shortest(node: Node) -> Linked:
    """A number with no more decimals than it takes."""
    value = node.number or 0.0
    exact = (d for d in range(12) if abs(round(value, d) - value) <= 1e-4 * abs(value))
    return number(node, next(exact, 12))


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


def value_of(shown: Linked) -> float | None:
    """The number as it stands in the document, where it is one."""
    return Node(shown.value).number


def sentence(text: str) -> Line:
    """Words as a sentence that others follow; nothing if there are none."""
    text = text.strip().rstrip(".")
    return [f"{text[0].upper()}{text[1:]}. "] if text else []


def told(node: Node) -> Linked:
    """A text of the document, with its place."""
    return Linked(node.text, node.text, node.pointer)


def listed(node: Node) -> Linked:
    """A list of numbers as a whole, for what is drawn of all of them."""
    count = len(node.value) if isinstance(node.value, list) else 0
    return Linked("", f"a list of {count}", node.pointer)


def finite(nodes: Iterable[Node]) -> list[float]:
    """The numbers that are known."""
    return [value for node in nodes if (value := node.number) is not None]
