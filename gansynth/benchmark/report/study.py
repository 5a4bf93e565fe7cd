"""What a results document is about: its arms, sizes and measures, and what belongs together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gansynth.report.blocks import Sign
from gansynth.report.document import Node
from gansynth.report.words import Show

NO_NETWORK = ("elastic", "copypaste")
"""Generators that learn nothing: what a GAN must do better than."""
LEVEL = 0.05
"""Of p after Holm's correction, below which an effect is shown."""


@dataclass(frozen=True)
class Arm:
    """One way of training the host.

    Attributes:
        kind: control, gan, rival (no network draws its samples), yardstick (more real cases), or
            tuned.
    """

    key: str
    title: str
    kind: str
    node: Node


class Study:
    """A results document, any part of which may be missing."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.root = Node(dict(document))

    @cached_property
    def control(self) -> str:
        """The arm that the others are held against."""
        named = self.root["control"].text
        return named or next((key for key, _ in self.root["arms"].members()), "")

    @cached_property
    def primary(self) -> str:
        """The measure that the verdict is about."""
        named = self.root["primary"].text
        return named or next((key for key, _ in self.root["measures"].members()), "")

    @cached_property
    def measures(self) -> dict[str, Show]:
        """How each measure is shown, the primary one first."""
        found = {name: Show.of(node, name) for name, node in self.root["measures"].members()}
        for list_ in ("comparisons", "means"):
            for node in self.root[list_]:
                found.setdefault(node["measure"].text, Show.of(Node(None), node["measure"].text))
        found.pop("", None)
        first = {self.primary: found.get(self.primary) or Show.of(Node(None), self.primary)}
        return {**first, **found} if self.primary else found

    @property
    def show(self) -> Show:
        """How the primary measure is shown."""
        return self.measures.get(self.primary) or Show.of(Node(None), "the primary measure")

    @cached_property
    def sizes(self) -> list[int]:
        """Numbers of training subjects, rising."""
        known = [node.number for node in self.root["sizes"]]
        known += [n.number for part in ("runs", "means", "comparisons") for n in self._column(part)]
        return sorted({int(n) for n in known if n is not None})

    def _column(self, part: str) -> list[Node]:
        return [node["n"] for node in self.root[part]]

    @cached_property
    def arms(self) -> list[Arm]:
        """In the document's order, the control first; also those that only results tell of."""
        keys = [key for key, _ in self.root["arms"].members()]
        for part in ("runs", "comparisons", "means"):
            keys += [node["arm"].text for node in self.root[part]]
        keys = [self.control, *dict.fromkeys(keys)] if self.control in keys else keys
        return [self._arm(key) for key in dict.fromkeys(keys) if key]

    def _arm(self, key: str) -> Arm:
        node = self.root["arms"][key]
        return Arm(key, node["title"].text or key, self._kind(key, node), node)

    def _kind(self, key: str, node: Node) -> str:
        if key == self.control:
            return "control"
        planned = next((a for a in self.root["plan"]["arms"] if a["name"].text == key), Node(None))
        if any((known["real"].number or 1) > 1 for known in (planned, node)):
            return "yardstick"
        if planned["tune"] or node["tune"] or any(run["chosen"] for run in self.runs(key)):
            return "tuned"
        generator = node["generator"].text
        plugin = self.root["plan"]["generators"][generator]["plugin"].text or generator
        return "rival" if not plugin or plugin in NO_NETWORK else "gan"

    @property
    def others(self) -> list[Arm]:
        """All arms but the control."""
        return [arm for arm in self.arms if arm.kind != "control"]

    def title(self, key: str) -> str:
        """An arm's title."""
        return self.root["arms"][key]["title"].text or key

    def size_node(self, n: int) -> Node:
        """Where a number of training subjects stands."""
        found = [node for node in self.root["sizes"] if node.number == n]
        found += [node for p in ("runs", "means", "comparisons") for node in self._column(p)]
        return next((node for node in found if node.number == n), Node(n))

    def places(self, arms: Sequence[Arm]) -> Iterator[tuple[Arm, int]]:
        """Each of some arms at each size."""
        for arm in arms:
            for n in self.sizes:
                yield arm, n

    def entries(
        self, part: str, arms: Sequence[Arm], measure: str = ""
    ) -> list[tuple[Arm, int, Node]]:
        """What a list says of some arms at each size; an empty node where it says nothing."""
        return [(arm, n, self.entry(part, arm.key, n, measure)) for arm, n in self.places(arms)]

    def entry(self, part: str, arm: str, n: int, measure: str = "") -> Node:
        """The entry of a list that is about an arm and size, and a measure where one is given."""
        return self._entries.get((part, arm, n, measure), Node(None))

    @cached_property
    def _entries(self) -> dict[tuple[str, str, int, str], Node]:
        found: dict[tuple[str, str, int, str], Node] = {}
        for part in ("comparisons", "means", "worth", "costs"):
            for node in self.root[part]:
                n, measure = node["n"].number, node["measure"].text
                for name in {measure, ""} if n is not None else ():
                    found.setdefault((part, node["arm"].text, int(n or 0), name), node)
        return found

    @cached_property
    def _by_place(self) -> dict[tuple[str, float | None], list[Node]]:
        found: dict[tuple[str, float | None], list[Node]] = {}
        for run in self.root["runs"]:
            found.setdefault((run["arm"].text, run["n"].number), []).append(run)
        return found

    def runs(self, arm: str, n: int | None = None, *, status: str | None = None) -> list[Node]:
        """Runs of an arm; of one size and with one status where they are given."""
        return [
            run
            for (key, size), runs in self._by_place.items()
            if key == arm and n in (None, size)
            for run in runs
            if status in (None, run["status"].text)
        ]

    def pairs(self, arm: str, n: int) -> list[tuple[Node, Node]]:
        """Finished runs of an arm, each with the control's of the same draw and seed."""
        controls = {_place(run): run for run in self.runs(self.control, n, status="done")}
        runs = self.runs(arm, n, status="done")
        return [(controls[_place(r)], r) for r in runs if _place(r) in controls]

    @property
    def development(self) -> bool:
        """Whether this is a look at the development split."""
        return bool(self.root["look"]["split"].value == "development")


def _place(run: Node) -> tuple[float | None, float | None]:
    return run["draw"].number, run["seed"].number


# -- findings -------------------------------------------------------------------------------------


class Finding(Sign):
    """What a comparison with the control shows; the value is its sign and its name."""

    GAIN = ("▲", "gain")
    LOSS = ("▼", "loss")
    SAME = ("=", "no effect")
    UNCLEAR = ("?", "not shown")
    MISSING = ("–", "not finished")

    @property
    def words(self) -> str:
        """Its name."""
        return str(self.value[1])


def finding_of(comparison: Node, show: Show) -> Finding:
    """What a comparison shows."""
    interval = comparison["interval"]
    low, high, p = interval["low"].number, interval["high"].number, comparison["p_holm"].number
    if comparison["difference"].number is None:
        return Finding.MISSING
    if low is not None and high is not None and p is not None and p < LEVEL and low * high > 0:
        return Finding.GAIN if show.better(low) > 0 else Finding.LOSS
    return Finding.SAME if comparison["equivalent"].value is True else Finding.UNCLEAR


def ends_of(comparison: Node) -> list[Node]:
    """Both ends of an interval, the lower one first."""
    return [comparison["interval"]["low"], comparison["interval"]["high"]]
