"""Access to a results document: its arms, sizes, measures, runs, and matching entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any

from gansynth.core.registry import installed
from gansynth.metrics.segmentation.measures import FOREGROUND, OF_SIZES, told_first
from gansynth.report.numbers import NOTHING, NumberFormat, known

LEVEL = 0.05  # significance level of p after Holm's correction
Entry = Mapping[str, Any]
"""A run, a comparison or another entry of a results document."""


@dataclass(frozen=True, eq=False)
class ReportArm:
    """An experiment arm.

    Attributes:
        kind: control, again (the control with other random numbers), gan, rival (no network draws
            its samples), yardstick (more real cases), or tuned.
    """

    key: str
    title: str
    kind: str
    node: Entry


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
        self.document = document
        self.control: str = document.get("control", "")  # what the other arms are compared with
        self.primary: str = document["primary"]  # the measure of the verdict
        self.sizes: list[int] = document.get("sizes", [])  # numbers of training subjects, rising
        self.runs: Sequence[Entry] = document.get("runs", ())
        self.plan: Entry = document["plan"]

    @cached_property
    def measures(self) -> dict[str, NumberFormat]:
        """Display settings of each measure, the primary one first; each region's voxels once.

        Those by the size of lesions are left out, see ``tables.by_size``.
        """
        measures = self.document["measures"]
        names = [self.primary, *[name for name in measures if name not in OF_SIZES]]
        region = self.primary.partition("/")[2]
        shown: dict[tuple[str, frozenset[str]], str] = {}
        for name in sorted(names, key=lambda n: _rank(n, region)):
            shown.setdefault(self._voxels(name), name)
        kept = [name for name in dict.fromkeys(names) if name in shown.values()]
        return {name: NumberFormat.of(measures.get(name, {}), name) for name in kept}

    def _voxels(self, name: str) -> tuple[str, frozenset[str]]:
        """Return a measure without its region, and the region's labels."""
        measure, _, region = name.partition("/")
        labels = [key.partition("/")[2] for key in self.document["measures"]]
        formulas = {name: str(text) for name, text in (self.plan.get("regions") or {}).items()}
        formulas[FOREGROUND] = "+".join(filter(str.isdigit, labels))
        return measure, frozenset(formulas.get(region, region).replace(" ", "").split("+"))

    def beside(self) -> dict[str, NumberFormat]:
        """Dice at equal alarms, the primary measure, then those of lesions and false alarms."""
        keys = told_first(self.primary)
        return {key: self.measures[key] for key in keys if key in self.measures}

    @property
    def show(self) -> NumberFormat:
        """Display settings of the primary measure."""
        return self.measures[self.primary]

    @cached_property
    def arms(self) -> list[ReportArm]:
        """Arms in the document's order, the control first."""
        arms = self.document["arms"]
        return [
            ReportArm(key, arms[key]["title"], self._kind(key), arms[key])
            for key in dict.fromkeys([self.control, *arms])
        ]

    def _kind(self, key: str) -> str:
        if key == self.control:
            return "control"
        arm = {arm["name"]: arm for arm in self.plan["arms"]}[key]
        if arm.get("again"):
            return "again"
        if (arm.get("real") or 1) > 1 or arm.get("at_target"):
            return "yardstick"
        if arm.get("tune"):
            learnt = any(self._kind(choice) == "gan" for choice in arm["tune"])
            return "tuned" if learnt else "rival"
        generator = self.plan.get("generators", {}).get(arm.get("generator"))
        return (
            "gan"
            if generator and trains(generator.get("plugin") or generator["generator"])
            else "rival"
        )

    @property
    def others(self) -> list[ReportArm]:
        """All arms except the control."""
        return [arm for arm in self.arms if arm.kind != "control"]

    @property
    def baselines(self) -> list[ReportArm]:
        """Arms whose samples no network draws: copy-paste and the like."""
        return [arm for arm in self.arms if arm.kind == "rival" and arm.node.get("generator")]

    def title(self, key: str) -> str:
        """Return an arm's title."""
        return str(self.document["arms"][key]["title"])

    def places(self, arms: Sequence[ReportArm]) -> Iterator[tuple[ReportArm, int]]:
        for arm in arms:
            for n in self.sizes:
                yield arm, n

    def entries(
        self, part: str, arms: Sequence[ReportArm], measure: str = ""
    ) -> list[tuple[ReportArm, int, Entry]]:
        """Return the entries of a list for arms at each size; an empty one where there is none."""
        return [(arm, n, self.entry(part, arm.key, n, measure)) for arm, n in self.places(arms)]

    def entry(self, part: str, arm: str, n: int, measure: str = "") -> Entry:
        """Return the entry of a list for an arm, a size and, if given, a measure."""
        return self._entries.get((part, arm, n, measure), {})

    @cached_property
    def _entries(self) -> dict[tuple[str, str, int, str], Entry]:
        entries: dict[tuple[str, str, int, str], Entry] = {}
        for part in ("comparisons", "means", "worth", "gaps", "costs"):
            for entry in self.document.get(part, ()):
                for name in {entry.get("measure", ""), ""}:
                    entries.setdefault((part, entry["arm"], entry["n"], name), entry)
        return entries

    def done(self, arm: str, n: int | None = None) -> list[Entry]:
        """Return the finished runs of an arm, optionally of one size."""
        return [
            run
            for run in self.runs
            if run["arm"] == arm and n in (None, run["n"]) and run["status"] == "done"
        ]

    def pairs(self, arm: str, n: int) -> list[tuple[Entry, Entry]]:
        """Return pairs of finished runs of the control and an arm with the same draw and seed."""
        controls = {(run["draw"], run["seed"]): run for run in self.done(self.control, n)}
        runs = [(controls.get((run["draw"], run["seed"])), run) for run in self.done(arm, n)]
        return [(control, run) for control, run in runs if control is not None]

    def scores(self, run: Entry) -> Mapping[str, float | None]:
        """Return a run's scores by the primary measure: case -> score."""
        return run["scores"].get(self.primary, {})  # type: ignore[no-any-return]

    def subject_means(self, runs_of: Mapping[str, Sequence[Entry]]) -> dict[str, dict[str, float]]:
        """Return means of the primary measure over cases with a score in all runs.

        Args:
            runs_of: arm -> its runs.

        Returns:
            Subject -> arm -> mean over its runs and the subject's cases.
        """
        scores = {arm: [self.scores(run) for run in runs] for arm, runs in runs_of.items() if runs}
        every = [score for own in scores.values() for score in own]
        cases: dict[str, list[str]] = {}
        for case in every[0] if every else ():
            if len(known(score.get(case) for score in every)) == len(every):
                cases.setdefault(self.document["subjects"].get(case) or case, []).append(case)
        return {
            subject: {arm: _mean(own, of_subject) for arm, own in scores.items()}
            for subject, of_subject in cases.items()
        }

    def beyond(self, comparison: Entry) -> bool:
        """Whether the detectable effect exceeds the largest one that there is room for.

        Of the primary measure that is a gain over the control, of others a change to either side.
        """
        control, name = comparison.get("mean_control"), comparison["measure"]
        if control is None:
            return False
        show = self.measures[name]
        other = replace(show, up=not show.up)
        sides = [show] if name == self.primary else [show, other]
        rooms = [side.room(control) for side in sides]
        return bool(comparison["mde"] > max(rooms))

    def detectable(self, comparison: Entry) -> str:
        """The minimum detectable effect; ``none`` where there is no room for it."""
        mde = comparison.get("mde")
        if not mde:  # arms that are equal in every run tell nothing of others
            return NOTHING
        found = self.measures[comparison["measure"]].size(mde)
        return "none" if self.beyond(comparison) else found

    @property
    def development(self) -> bool:
        """Whether the results are of the development split."""
        return bool(self.document.get("look", {}).get("split") == "development")


def _mean(scores: Sequence[Mapping[str, float | None]], cases: Sequence[str]) -> float:
    values = known(score[case] for score in scores for case in cases)
    return sum(values) / len(values)


def _rank(measure: str, region: str) -> tuple[bool, bool]:
    """Sort key: the region's measures first, those of labels last."""
    own = measure.partition("/")[2]
    return own != region, own.isdigit()


# -- findings -------------------------------------------------------------------------------------


class ComparisonOutcome(Enum):
    """Finding of a comparison with the control; the value is its sign and its name."""

    GAIN = ("▲", "gain")
    LOSS = ("▼", "loss")
    SAME = ("=", "no effect")
    UNCLEAR = ("?", "not shown")
    MISSING = ("–", "not finished")

    @property
    def sign(self) -> str:
        """A single letter."""
        return self.value[0]

    @property
    def words(self) -> str:
        """Its name."""
        return self.value[1]


def finding_of(comparison: Entry, show: NumberFormat) -> ComparisonOutcome:
    """Return the finding of a comparison."""
    if comparison.get("difference") is None:
        return ComparisonOutcome.MISSING
    low, high = ends_of(comparison)
    p = comparison.get("p_holm")
    if low is not None and high is not None and p is not None and p < LEVEL and low * high > 0:
        return ComparisonOutcome.GAIN if show.better(low) > 0 else ComparisonOutcome.LOSS
    if comparison.get("equivalent"):
        return ComparisonOutcome.SAME
    return ComparisonOutcome.UNCLEAR


def ends_of(comparison: Entry) -> tuple[float | None, float | None]:
    """Return both ends of an interval, the lower one first."""
    interval = comparison.get("interval") or {}
    return interval.get("low"), interval.get("high")
