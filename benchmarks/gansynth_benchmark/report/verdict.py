"""The verdict of a benchmark in words that claim no more than its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gansynth.metrics.segmentation.measures import COSTS, NO_CASE, beside
from gansynth.report.numbers import NumberFormat, joined, known, probability
from gansynth_benchmark.report.study import (
    LEVEL,
    ComparisonOutcome,
    Entry,
    ReportArm,
    ReportData,
    ends_of,
    finding_of,
)

SPOKEN_FOR = ("draws", "seeds", "subjects")
"""What a comparison may generalise to, as in its ``generalises``."""
NAMED = 3  # maximum number of arms that the sentence names for one finding


@dataclass(frozen=True)
class ArmResult:
    """The finding for one arm at one size on one measure."""

    arm: ReportArm
    n: int
    finding: ComparisonOutcome
    node: Entry
    show: NumberFormat

    @property
    def gain(self) -> float:
        """The stored difference with the sign such that positive is better."""
        return self.show.better(self.node.get("difference") or 0.0)

    @property
    def ends(self) -> list[float]:
        """The finite ends of its interval, with the sign such that positive is better."""
        return [self.show.better(end) for end in known(ends_of(self.node))]


def verdict(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict of a results document on its primary measure.

    A gain or a loss is shown if the 95 % interval excludes zero and p after Holm is below 0.05.
    No effect is a finding if the comparison is ``equivalent`` within its margin. All else is not
    shown. Effects come first, with their intervals, then what gains cost in false alarms. The
    minimum detectable effect follows, why an effect is not shown although its interval excludes
    zero, and what is lost without a gain.

    Returns:
        ``sentence``: one sentence with host and sizes. ``per_arm``: words for each other arm.
    """
    study = ReportData(document)
    places = places_of(study, study.primary)
    clauses = "; ".join(_clauses(study, places))
    per_arm = {}
    for arm in study.others:
        words = [_place_words(study, place, places) for place in places if place.arm == arm]
        per_arm[arm.key] = " ".join(words)
    return {
        "sentence": f"{_insensitive(study, places)}{_setting(study)}{clauses}.",
        "per_arm": per_arm,
    }


def places_of(study: ReportData, measure: str) -> list[ArmResult]:
    """Return the finding of each other arm at each size."""
    show = study.measures[measure]
    return [
        ArmResult(arm, n, finding_of(node, show), node, show)
        for arm, n, node in study.entries("comparisons", study.others, measure)
    ]


def _insensitive(study: ReportData, places: Sequence[ArmResult]) -> str:
    """Return a sentence on sizes where more real cases show no gain; no arm could show one."""
    yardsticks = [place for place in places if place.arm.kind == "yardstick"]
    shown = {place.n for place in yardsticks if place.finding is ComparisonOutcome.GAIN}
    names = _names(study, [place for place in yardsticks if place.n not in shown])
    if shown and not names:
        return ""
    why = f"{names} is not shown to help" if names else "no arm has more real cases"
    return f"This plan cannot tell what helps: {why}. "


def _setting(study: ReportData) -> str:
    words = "Development look, no test result: on " if study.development else "On "
    host = study.document.get("host", {}).get("title", "")
    words += f"{host}, trained on {joined(map(str, study.sizes))}"
    words += " subject" if study.sizes == [1] else " subjects"
    if study.others:
        words += f", against “{study.title(study.control)}”"
    return f"{words}: "


def _found(places: Sequence[ArmResult], finding: ComparisonOutcome) -> list[ArmResult]:
    return [place for place in places if place.finding is finding]


def _clauses(study: ReportData, places: Sequence[ArmResult]) -> list[str]:
    title = study.show.title
    if not study.others:
        return ["nothing is compared, for no arm but the control was trained"]
    if len(_found(places, ComparisonOutcome.MISSING)) == len(places):
        return [f"nothing can be said, for no comparison on {title} was finished"]
    yardsticks = [place for place in places if place.arm.kind == "yardstick"]
    blanks = [place for place in places if place.arm.kind == "again"]
    compared = [place for place in places if place not in (*yardsticks, *blanks)]
    best = _found(compared, ComparisonOutcome.GAIN)
    rest = [place for place in compared if place not in best]
    clauses = [*_by_chance(study, blanks), *_effects(study, compared), *_costs(study, best)]
    clauses += _unshown(study, compared)
    clauses += _costs(study, rest, "a cost without a gain: ")
    gains = _found(yardsticks, ComparisonOutcome.GAIN)
    if gains:
        clauses.append(f"to compare: {title} is better by {_amounts(study, gains)}")
    texts = [place.node.get("generalises") or "" for place in places]
    lacking = [word for word in SPOKEN_FOR if any(word not in text for text in texts if text)]
    if lacking:
        clauses.append(f"intervals say nothing of other {joined(lacking)}")
    return clauses


def _by_chance(study: ReportData, blanks: Sequence[ArmResult]) -> list[str]:
    """Return a clause where the control differs from itself: nothing else is sure then."""
    shown = (ComparisonOutcome.GAIN, ComparisonOutcome.LOSS)
    differing = [place for place in blanks if place.finding in shown]
    if not differing:
        return []
    amounts = _amounts(study, differing, signed=True)
    return [f"chance alone changes {study.show.title} by {amounts}, so no difference here is sure"]


def _effects(study: ReportData, compared: Sequence[ArmResult]) -> list[str]:
    title, clauses = study.show.title, []
    gains = _found(compared, ComparisonOutcome.GAIN)
    learnt = [place for place in gains if place.arm.kind != "rival"]
    unlearnt = [place for place in gains if place.arm.kind == "rival"]
    if learnt:
        clauses.append(f"{title} is better by {_amounts(study, learnt)}")
    if unlearnt:
        start = "by" if learnt else f"{title} is better by"
        clauses.append(f"{start} {_amounts(study, unlearnt)}, without a GAN")
    if learnt:
        matches = rivals(max(learnt, key=lambda place: place.gain), compared)
        equal = [rival for rival, as_well in matches if as_well]
        if equal:
            clauses.append(f"so no GAN is needed: {_names(study, equal)} does as well")
        elif matches:
            names = _names(study, [rival for rival, _ in matches])
            clauses.append(f"this is not told apart from {names}, which needs no GAN")
    losses = _found(compared, ComparisonOutcome.LOSS)
    if losses:
        clauses.append(f"{title} is worse by {_amounts(study, losses)}")
    return clauses


def _costs(study: ReportData, places: Sequence[ArmResult], words: str = "this costs ") -> list[str]:
    """Return clauses on what arms cost in false alarms; other changes are told of gains only.

    An interval is enough for a cost: Holm's correction would hide harm.
    """
    worse_amounts, other_amounts, unmeasured = list[str](), list[str](), list[str]()
    asked = {(place.arm.key, place.n) for place in places}
    # Of a single arm at a single size, nobody needs its name.
    most = 2 * NAMED if len(asked) > 1 else 0
    start_of_others = "this costs no false alarms that this plan can show: "
    for name, cost in COSTS.items():
        key = beside(name, study.primary)
        if (
            not asked
            or name.startswith("dice")
            or key == study.primary
            or key not in study.measures
        ):
            continue
        found = [
            place
            for place in places_of(study, key)
            if (place.arm.key, place.n) in asked and place.finding is not ComparisonOutcome.MISSING
        ]
        worse = [place for place in found if place.ends and max(place.ends) < 0]
        others = [place for place in found if place not in worse]
        if worse:
            unit = cost if study.measures[key].up else f"more {cost}"
            worse_amounts.append(_amounts(study, worse, unit=unit, most=most))
        if others:
            other_amounts.append(_amounts(study, others, signed=True, unit=cost, most=most))
        if not all(place.ends for place in others):  # without an interval nothing can be shown
            start_of_others = ""
        if not found and name == "false_alarms":
            unmeasured.append(NO_CASE)
    clauses = [words + joined(worse_amounts, last=", and ")] if worse_amounts else []
    if all(place.finding is ComparisonOutcome.GAIN for place in places):
        if worse_amounts:
            start_of_others = "no other cost is shown: "
        if other_amounts:
            clauses.append(start_of_others + joined(other_amounts, last=", and "))
        clauses += unmeasured
    return clauses


def _unshown(study: ReportData, compared: Sequence[ArmResult]) -> list[str]:
    title, clauses = study.show.title, list[str]()
    same = _found(compared, ComparisonOutcome.SAME)
    if same:
        margin = f"{study.show.size(same[0].node['margin'])} {study.show.unit}"
        amounts = _amounts(study, same, signed=True)
        clauses.append(f"{title} changes by {amounts}, no effect beyond ± {margin}")
    unclear = _found(compared, ComparisonOutcome.UNCLEAR)
    if unclear:
        amounts = _amounts(study, unclear, signed=True)
        clauses.append(f"{title} changes by {amounts}, so neither gain nor loss is shown")
        for place in unclear:
            why = why_not(study, place.node)
            if why:
                clauses.append(f"the interval of {_names(study, [place])} {why}")
        power = _power(study, [place.node for place in unclear])
        if power:
            clauses.append(power)
    missing = _found(compared, ComparisonOutcome.MISSING)
    if missing:
        clauses.append(f"nothing was finished of {_names(study, missing)}")
    return clauses


def _amounts(
    study: ReportData,
    places: Sequence[ArmResult],
    *,
    signed: bool = False,
    unit: str = "",
    most: int = NAMED,
) -> str:
    """Return the effects of arms, the largest first, each with its interval and the arm's name.

    Args:
        signed: write the stored sign, not the size of a gain or a loss.
        unit: default: the measure's.
        most: arms that are named, the others are "others"; 0 for one effect without a name.
    """
    arms = list(_by_arm(sorted(places, key=lambda place: -abs(place.gain))).values())
    texts = list[str]()
    for group in arms[: most or 1]:
        words = "" if texts else f" {unit or group[0].show.unit}"
        who = f" with {_names(study, group)}" if most else ""
        texts.append(_amount(group, words, signed) + who)
    if len(arms) > (most or 1):
        texts.append("others")
    text = joined(texts)
    if not signed and all(place.node.get("equivalent") for place in places):
        text += ", within the margin that makes no difference"
    return text


def _amount(places: Sequence[ArmResult], unit: str, signed: bool) -> str:
    """Return an effect with its interval; of several, the range of effects and of intervals."""
    show = places[0].show
    upwards = places[0].gain > 0
    write = show.gain if upwards else show.loss
    if signed:
        write = show.difference
    # Sizes of gains or losses rise where the stored differences fall.
    order = -1 if not signed and upwards != show.up else 1
    differences = sorted(place.node["difference"] for place in places)[::order]
    effects = list(dict.fromkeys([write(differences[0]), write(differences[-1])]))
    text = " to ".join(effects) + unit
    ends = [ends_of(place.node) for place in places]
    lows, highs = known([low for low, _ in ends]), known([high for _, high in ends])
    if not lows or not highs:
        once = all(place.node.get("runs") == 1 for place in places)
        why = "one training each: says nothing"
        return f"{text} ({why if once else 'the design is too small for an interval'})"
    low, high = [write(end) for end in (min(lows), max(highs))[::order]]
    return f"{text} ({'95 % CI' if len(places) == 1 else '95 % CIs within'} {low} to {high})"


def _by_arm(places: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    groups: dict[str, list[ArmResult]] = {}
    for place in places:
        groups.setdefault(place.arm.key, []).append(place)
    return groups


def _names(study: ReportData, places: Sequence[ArmResult]) -> str:
    """Return the names of arms, each with its sizes unless these are all sizes."""
    arms = list(_by_arm(places).values())
    named = []
    for group in arms[:NAMED]:
        sizes = sorted(place.n for place in group)
        where = "" if sizes == study.sizes else f" at N = {joined(map(str, sizes))}"
        named.append(f"“{group[0].arm.title}”{where}")
    if len(arms) > NAMED:
        named.append("others")
    return joined(named)


def _power(study: ReportData, comparisons: Sequence[Entry]) -> str:
    """Return the minimum detectable effects, smallest to largest; empty if none is known."""
    powered = [c for c in comparisons if c.get("mde")]
    within = sorted(c["mde"] for c in powered if not study.beyond(c))
    if not powered:
        return ""
    if not within:
        return "the design is too small to see even the largest gain that there is room for"
    ends = dict.fromkeys(map(study.show.size, (within[0], within[-1])))
    seen = f"{study.show.unit} would have been seen with 80 % power"
    if len(within) < len(powered):
        seen += ", elsewhere none that there is room for"
    return f"a gain of {' to '.join(ends)} {seen}"


def why_not(study: ReportData, comparison: Entry) -> str:
    """Return why an interval that excludes zero shows no effect; empty if it includes zero."""
    low, high = ends_of(comparison)
    if low is None or high is None or low * high <= 0:
        return ""
    p, corrected = comparison.get("p"), comparison.get("p_holm")
    if p is None or corrected is None or p >= LEVEL:
        return "leaves zero out, but draws and subjects are too few for a test to follow it"
    measure = comparison["measure"]
    family = [c["measure"] for c in study.document["comparisons"]].count(measure)
    return (
        f"leaves zero out, but p {_equals(p)} is {probability(corrected)} after Holm's correction "
        f"for {family} comparisons"
    )


def rivals(place: ArmResult, places: Sequence[ArmResult]) -> list[tuple[ArmResult, bool]]:
    """Return arms without a GAN that match an arm, or may do so, at the same size.

    Returns:
        Each with True if it shows an equal or larger gain. With False if the two cannot be told
        apart: its interval contains the arm's difference.
    """
    matches = []
    difference = place.node.get("difference")
    for rival in places:
        missing = rival.finding is ComparisonOutcome.MISSING
        if rival.arm.kind != "rival" or rival.n != place.n or missing:
            continue
        low, high = ends_of(rival.node)
        if rival.finding is ComparisonOutcome.GAIN and rival.gain >= place.gain:
            matches.append((rival, True))
        elif low is None or high is None or difference is None:
            continue
        elif low <= difference <= high:
            matches.append((rival, False))
    return matches


def _place_words(study: ReportData, place: ArmResult, places: Sequence[ArmResult]) -> str:
    show, node = study.show, place.node
    start = f"At N = {place.n}"
    if place.finding is ComparisonOutcome.MISSING:
        return f"{start} nothing was finished{_unfinished(study, place)}."
    effect = _amount([place], f" {show.unit}", signed=True)
    if not place.ends:
        return f"{start}: {effect}."
    p = f"p {_equals(node.get('p_holm'))} after Holm"
    costs = "".join([f"; {clause}" for clause in _costs(study, [place])])
    margin = f"± {show.size(node.get('margin'))} {show.unit}"
    if place.finding in (ComparisonOutcome.GAIN, ComparisonOutcome.LOSS):
        within = f", yet within the margin of {margin}" if node.get("equivalent") else ""
        words = f"{start} a {place.finding.words} is shown: {effect}, {p}{within}{costs}."
        return words + _rival_words(study, place, places)
    if place.finding is ComparisonOutcome.SAME:
        within = f"p {_equals(node.get('equivalence_p'))} for lying within"
        return f"{start} there is no effect beyond {margin}: {effect}, {within}{costs}."
    words = f"{start}: {effect}, {p}, so neither gain nor loss is shown"
    why, power = why_not(study, node), _power(study, [node])
    if why:
        words += f"; the interval {why}"
    if power:
        words += f"; {power}"
    return f"{words}{costs}.{_rival_words(study, place, places)}"


def _rival_words(study: ReportData, place: ArmResult, places: Sequence[ArmResult]) -> str:
    if place.arm.kind not in ("gan", "tuned") or place.finding is ComparisonOutcome.LOSS:
        return ""
    shown = place.finding is ComparisonOutcome.GAIN
    for rival, as_well in rivals(place, places):
        gain = study.show.difference(rival.node["difference"])
        if as_well:
            does = "does as well" if shown else "shows a gain"
            return f" “{rival.arm.title}” {does} without a GAN ({gain})."
        if shown:
            return f" “{rival.arm.title}” ({gain}, without a GAN) is not told apart from it."
    return ""


def _equals(p: float | None) -> str:
    """Return a p-value with its sign: = 0.034, or < 0.001."""
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def _unfinished(study: ReportData, place: ArmResult) -> str:
    runs = [run for run in study.runs if (run["arm"], run["n"]) == (place.arm.key, place.n)]
    failed = [run["status"] for run in runs].count("failed")
    return f" ({failed} of {len(runs)} runs failed)" if failed else ""
