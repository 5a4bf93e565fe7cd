"""Access to a results document: its arms, sizes, measures, and matching entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gansynth.core.registry import installed
from gansynth.metrics.segmentation.measures import FOREGROUND, LESIONS, beside
from gansynth.report.blocks import Marker
from gansynth.report.document import JsonNode
from gansynth.report.numbers import NumberFormat

LEVEL = 0.05  # significance level of p after Holm's correction


@dataclass(frozen=True)
class ReportArm:
    """An experiment arm.

    Attributes:
        kind: control, gan, rival (no network draws its samples), yardstick (more real cases), or
            tuned.
    """

    key: str
    title: str
    kind: str
    node: JsonNode


def trains(plugin: str) -> bool:
    """Return whether fits of a generator train networks; True if it is not installed here."""
    from gansynth.core.generator import capabilities_of

    registry = installed()
    if plugin not in registry.names("generators"):
        return True
    return capabilities_of(registry.generator(plugin)).trains


class ReportData:
    """A results document; also one whose statistics are not computed yet."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.root = JsonNode(dict(document))
        self.control = self.root["control"].text  # the arm that the others are compared with
        self.primary = self.root["primary"].text  # the measure of the verdict
        self.sizes: list[int] = self.root["sizes"].value  # numbers of training subjects, rising

    @cached_property
    def measures(self) -> dict[str, NumberFormat]:
        """Display settings of each measure, the primary one first; each region's voxels once."""
        nodes = self.root["measures"]
        names = [self.primary, *(name for name, _ in nodes.members())]
        region = self.primary.partition("/")[2]
        shown: dict[tuple[str, frozenset[str]], str] = {}
        for name in sorted(names, key=lambda n: _rank(n, region)):
            shown.setdefault(self._voxels(name), name)
        kept = [name for name in dict.fromkeys(names) if name in shown.values()]
        return {name: NumberFormat.of(nodes[name], name) for name in kept}

    def _voxels(self, name: str) -> tuple[str, frozenset[str]]:
        """Return a measure without its region, and the region's labels."""
        measure, _, region = name.partition("/")
        labels = [key.partition("/")[2] for key, _ in self.root["measures"].members()]
        formulas = {name: node.text for name, node in self.root["plan"]["regions"].members()}
        formulas[FOREGROUND] = "+".join(filter(str.isdigit, labels))
        return measure, frozenset(formulas.get(region, region).replace(" ", "").split("+"))

    def beside(self) -> dict[str, NumberFormat]:
        """The primary measure, then those of lesions and false alarms that stand beside it."""
        keys = (self.primary, *(beside(name, self.primary) for name in LESIONS))
        return {key: self.measures[key] for key in keys if key in self.measures}

    @property
    def show(self) -> NumberFormat:
        """Display settings of the primary measure."""
        return self.measures[self.primary]

    @cached_property
    def arms(self) -> list[ReportArm]:
        """Arms in the document's order, the control first."""
        keys = [self.control, *(key for key, _ in self.root["arms"].members())]
        return [self._arm(key) for key in dict.fromkeys(keys)]

    def _arm(self, key: str) -> ReportArm:
        node = self.root["arms"][key]
        return ReportArm(key, node["title"].text, self._kind(key), node)

    def _kind(self, key: str) -> str:
        if key == self.control:
            return "control"
        plan = self.root["plan"]
        arm = next(arm for arm in plan["arms"] if arm["name"].text == key)
        if (arm["real"].number or 1) > 1:
            return "yardstick"
        if arm["tune"]:
            learnt = any(self._kind(choice.text) == "gan" for choice in arm["tune"])
            return "tuned" if learnt else "rival"
        plugin = plan["generators"][arm["generator"].text]["plugin"].text
        return "gan" if plugin and trains(plugin) else "rival"

    @property
    def others(self) -> list[ReportArm]:
        """All arms except the control."""
        return [arm for arm in self.arms if arm.kind != "control"]

    @property
    def baselines(self) -> list[ReportArm]:
        """Arms whose samples no network draws: copy-paste and the like."""
        return [arm for arm in self.arms if arm.kind == "rival" and arm.node["generator"]]

    def title(self, key: str) -> str:
        """Return an arm's title."""
        return self.root["arms"][key]["title"].text

    def size_node(self, n: int) -> JsonNode:
        """Return a node with a number of training subjects."""
        return self.root["sizes"][self.sizes.index(n)]

    def places(self, arms: Sequence[ReportArm]) -> Iterator[tuple[ReportArm, int]]:
        """Yield each of the arms at each size."""
        for arm in arms:
            for n in self.sizes:
                yield arm, n

    def entries(
        self, part: str, arms: Sequence[ReportArm], measure: str = ""
    ) -> list[tuple[ReportArm, int, JsonNode]]:
        """Return the entries of a list for arms at each size; an empty node where there is none."""
        return [(arm, n, self.entry(part, arm.key, n, measure)) for arm, n in self.places(arms)]

    def entry(self, part: str, arm: str, n: int, measure: str = "") -> JsonNode:
        """Return the entry of a list for an arm, a size and, if given, a measure."""
        return self._entries.get((part, arm, n, measure), JsonNode(None))

    @cached_property
    def _entries(self) -> dict[tuple[str, str, int, str], JsonNode]:
        entries: dict[tuple[str, str, int, str], JsonNode] = {}
        for part in ("comparisons", "means", "worth", "costs"):
            for node in self.root[part]:
                for name in {node["measure"].text, ""}:
                    entries.setdefault((part, node["arm"].text, node["n"].value, name), node)
        return entries

    @cached_property
    def _by_place(self) -> dict[tuple[str, float | None], list[JsonNode]]:
        groups: dict[tuple[str, float | None], list[JsonNode]] = {}
        for run in self.root["runs"]:
            groups.setdefault((run["arm"].text, run["n"].number), []).append(run)
        return groups

    def runs(self, arm: str, n: int | None = None, *, status: str | None = None) -> list[JsonNode]:
        """Return the runs of an arm, optionally of one size or status."""
        return [
            run
            for (key, size), runs in self._by_place.items()
            if key == arm and n in (None, size)
            for run in runs
            if status in (None, run["status"].text)
        ]

    def pairs(self, arm: str, n: int) -> list[tuple[JsonNode, JsonNode]]:
        """Return pairs of finished runs of the control and an arm with the same draw and seed."""
        controls = {_place(run): run for run in self.runs(self.control, n, status="done")}
        runs = self.runs(arm, n, status="done")
        return [(controls[_place(r)], r) for r in runs if _place(r) in controls]

    @property
    def development(self) -> bool:
        """Whether the results are of the development split."""
        return bool(self.root["look"]["split"].value == "development")


def _rank(measure: str, region: str) -> tuple[bool, bool]:
    """Sort key: the region's measures first, those of labels last."""
    own = measure.partition("/")[2]
    return own != region, own.isdigit()


def _place(run: JsonNode) -> tuple[float | None, float | None]:
    return run["draw"].number, run["seed"].number


# -- findings -------------------------------------------------------------------------------------


class ComparisonOutcome(Marker):
    """Finding of a comparison with the control; the value is its sign and its name."""

    GAIN = ("▲", "gain")
    LOSS = ("▼", "loss")
    SAME = ("=", "no effect")
    UNCLEAR = ("?", "not shown")
    MISSING = ("–", "not finished")

    @property
    def words(self) -> str:
        """Its name."""
        return str(self.value[1])


def finding_of(comparison: JsonNode, show: NumberFormat) -> ComparisonOutcome:
    """Return the finding of a comparison."""
    interval = comparison["interval"]
    low, high, p = interval["low"].number, interval["high"].number, comparison["p_holm"].number
    if comparison["difference"].number is None:
        return ComparisonOutcome.MISSING
    if low is not None and high is not None and p is not None and p < LEVEL and low * high > 0:
        return ComparisonOutcome.GAIN if show.better(low) > 0 else ComparisonOutcome.LOSS
    return (
        ComparisonOutcome.SAME
        if comparison["equivalent"].value is True
        else ComparisonOutcome.UNCLEAR
    )


def ends_of(comparison: JsonNode) -> list[JsonNode]:
    """Return both ends of an interval, the lower one first."""
    return [comparison["interval"]["low"], comparison["interval"]["high"]]
