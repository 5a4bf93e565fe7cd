"""The verdict of a benchmark in words that claim no more than its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gansynth.benchmark.report.study import (
    LEVEL,
    ComparisonOutcome,
    ReportArm,
    ReportData,
    ends_of,
    finding_of,
)
from gansynth.metrics.segmentation.measures import COSTS, NO_CASE, beside
from gansynth.report.document import JsonNode, pattern
from gansynth.report.numbers import (
    Line,
    LinkedNumber,
    NumberFormat,
    derived,
    joined,
    of_runs,
    plain,
    probability,
    whole,
)

SPOKEN_FOR = ("draws", "seeds", "subjects")
"""What a comparison may generalise to, as in its ``generalises``."""
NO_INTERVAL = "the design is too small for an interval"
NAMED = 3  # maximum number of arms that the sentence names for one finding


@dataclass(frozen=True)
class ArmResult:
    """The finding for one arm at one size on one measure."""

    arm: ReportArm
    n: int
    finding: ComparisonOutcome
    node: JsonNode
    show: NumberFormat

    @property
    def gain(self) -> float:
        """The stored difference with the sign such that positive is better."""
        return self.show.better(self.node["difference"].number or 0.0)

    @property
    def ends(self) -> list[float]:
        """The finite ends of its interval, with the sign such that positive is better."""
        return [self.show.better(v) for end in ends_of(self.node) if (v := end.number) is not None]


@dataclass(frozen=True)
class Verdict:
    """The words of a verdict, with links for its numbers.

    Attributes:
        per_arm: of each other arm, the findings at each size in words.
    """

    sentence: Line
    per_arm: Mapping[str, Sequence[tuple[ComparisonOutcome, Line]]]


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
    words = verdict_of(ReportData(document))
    return {
        "sentence": plain(words.sentence),
        "per_arm": {
            arm: " ".join(plain(line) for _, line in lines) for arm, lines in words.per_arm.items()
        },
    }


def verdict_of(study: ReportData) -> Verdict:
    """Return the verdict of a study, with links for its numbers."""
    places = places_of(study, study.primary)
    clauses = _clauses(study, places)
    sentence = [*_insensitive(study, places), *_setting(study), *joined(clauses, "; ", "; "), "."]
    return Verdict(sentence, {arm.key: _arm_words(study, arm, places) for arm in study.others})


def places_of(study: ReportData, measure: str) -> list[ArmResult]:
    """Return the finding of each other arm at each size."""
    show = study.measures[measure]
    return [
        ArmResult(arm, n, finding_of(node, show), node, show)
        for arm, n, node in study.entries("comparisons", study.others, measure)
    ]


def numbers(nodes: Sequence[JsonNode]) -> Line:
    """Join numbers of training subjects: 6, 12 and 24."""
    return joined([[whole(node)] for node in nodes])


def _insensitive(study: ReportData, places: Sequence[ArmResult]) -> Line:
    """Return a sentence on sizes where more real cases show no gain; no arm could show one."""
    yardsticks = [place for place in places if place.arm.kind == "yardstick"]
    shown = {place.n for place in yardsticks if place.finding is ComparisonOutcome.GAIN}
    names = _names(study, [place for place in yardsticks if place.n not in shown])
    why: Line = [*names, " is not shown to help. "] if names else ["no arm has more real cases. "]
    return ["This plan cannot tell what helps: ", *why] if names or not shown else []


def _setting(study: ReportData) -> Line:
    words: list[str | LinkedNumber] = [
        "Development look, no test result: o" * study.development or "O"
    ]
    words.append(f"n {study.root['host']['title'].text}, trained on ")
    words += [*numbers([study.size_node(n) for n in study.sizes])]
    words.append(" subject" + "s" * (study.sizes != [1]))
    if study.others:
        words.append(f", against “{study.title(study.control)}”")
    return [*words, ": "]


def _clauses(study: ReportData, places: Sequence[ArmResult]) -> list[Line]:
    title = study.show.title
    if not study.others:
        return [["nothing is compared, for no arm but the control was trained"]]
    if all(place.finding is ComparisonOutcome.MISSING for place in places):
        return [[f"nothing can be said, for no comparison on {title} was finished"]]
    yardsticks = [place for place in places if place.arm.kind == "yardstick"]
    compared = [place for place in places if place not in yardsticks]
    best = [place for place in compared if place.finding is ComparisonOutcome.GAIN]
    rest = [place for place in compared if place not in best]
    clauses = [*_effects(study, compared), *_costs(study, best), *_unshown(study, compared)]
    clauses += _costs(study, rest, "a cost without a gain: ")
    if gains := [place for place in yardsticks if place.finding is ComparisonOutcome.GAIN]:
        clauses.append([f"to compare: {title} is better by ", *_amounts(study, gains)])
    return [*clauses, *_limits(places)]


def _effects(study: ReportData, compared: Sequence[ArmResult]) -> list[Line]:
    title = study.show.title
    by = {finding: [p for p in compared if p.finding is finding] for finding in ComparisonOutcome}
    learnt = [place for place in by[ComparisonOutcome.GAIN] if place.arm.kind != "rival"]
    unlearnt = [place for place in by[ComparisonOutcome.GAIN] if place.arm.kind == "rival"]
    clauses: list[Line] = []
    if learnt:
        clauses.append([f"{title} is better by ", *_amounts(study, learnt)])
    if unlearnt:
        start = "by " if learnt else f"{title} is better by "
        clauses.append([start, *_amounts(study, unlearnt), ", without a GAN"])
    clauses += [line for line in [_rival_clause(study, learnt, compared)] if line]
    if by[ComparisonOutcome.LOSS]:
        clauses.append([f"{title} is worse by ", *_amounts(study, by[ComparisonOutcome.LOSS])])
    return clauses


def _costs(
    study: ReportData, places: Sequence[ArmResult], words: str = "this costs "
) -> list[Line]:
    """Return clauses on what arms cost in false alarms; other changes are told of gains only.

    An interval is enough for a cost: Holm's correction would hide harm.
    """
    lost, kept, last = list[Line](), list[Line](), list[Line]()
    of = {(place.arm.key, place.n) for place in places}
    start = "this costs no false alarms that this plan can show: "
    for name, cost in COSTS.items():
        key = beside(name, study.primary)
        if not of or name == "dice" or key == study.primary or key not in study.measures:
            continue
        found = [
            place
            for place in places_of(study, key)
            if (place.arm.key, place.n) in of and place.finding is not ComparisonOutcome.MISSING
        ]
        worse = [p for p in found if p.ends and max(p.ends) < 0]
        rest = [p for p in found if p not in worse]
        more, most = "" if study.measures[key].up else "more ", 2 * NAMED * (len(of) > 1)
        if worse:
            lost.append(_amounts(study, worse, unit=f"{more}{cost}", most=most))
        if rest:
            kept.append(_amounts(study, rest, signed=True, unit=cost, most=most))
        if not all(p.ends for p in rest):
            start = ""
        if not found and name == "false_alarms":
            last.append([NO_CASE])
    clauses: list[Line] = [[words, *joined(lost, last=", and ")]] if lost else []
    if all(place.finding is ComparisonOutcome.GAIN for place in places):
        start = "no other cost is shown: " if lost else start
        clauses += [*([[start, *joined(kept, last=", and ")]] if kept else []), *last]
    return clauses


def _unshown(study: ReportData, compared: Sequence[ArmResult]) -> list[Line]:
    title, clauses = study.show.title, list[Line]()
    by = {finding: [p for p in compared if p.finding is finding] for finding in ComparisonOutcome}
    if by[ComparisonOutcome.SAME]:
        margin = study.show.size(by[ComparisonOutcome.SAME][0].node["margin"])
        words: Line = [
            f"{title} changes by ",
            *_amounts(study, by[ComparisonOutcome.SAME], signed=True),
        ]
        clauses.append([*words, ", no effect beyond ± ", margin, f" {study.show.unit}"])
    if unclear := by[ComparisonOutcome.UNCLEAR]:
        words = [f"{title} changes by ", *_amounts(study, unclear, signed=True)]
        clauses.append([*words, ", so neither gain nor loss is shown"])
        clauses += [
            ["the interval of ", *_names(study, [place]), " ", *why]
            for place in unclear
            if (why := why_not(study, place.node))
        ]
        clauses += [line for line in [_power(study, [place.node for place in unclear])] if line]
    if by[ComparisonOutcome.MISSING]:
        clauses.append(["nothing was finished of ", *_names(study, by[ComparisonOutcome.MISSING])])
    return clauses


def _limits(places: Sequence[ArmResult]) -> list[Line]:
    texts = {text for place in places if (text := place.node["generalises"].text)}
    lacking = [word for word in SPOKEN_FOR if any(word not in text for text in texts)]
    return [["intervals say nothing of other " + plain(joined([[w] for w in lacking]))]] * bool(
        lacking
    )


def _amounts(
    study: ReportData,
    places: Sequence[ArmResult],
    *,
    signed: bool = False,
    unit: str = "",
    most: int = NAMED,
) -> Line:
    """Return effects with the names of so many arms, the largest first; 0 for one without a name.

    ``signed``: with the stored sign. ``unit``: default: the measure's.
    """
    ordered = sorted(places, key=lambda place: -abs(place.gain))
    arms = list(_by_arm(ordered).values())
    lines: list[Line] = []
    for group in arms[: most or 1]:
        words = "" if lines else f" {unit or group[0].show.unit}"
        who: Line = [" with ", *_names(study, group)] if most else []
        lines.append([*_amount(group, words, signed), *who])
    small = not signed and all(place.node["equivalent"].value is True for place in places)
    line = joined([*lines, *([["others"]] if len(arms) > (most or 1) else [])])
    return [*line, ", within the margin that makes no difference"] if small else line


def _amount(places: Sequence[ArmResult], unit: str, signed: bool) -> Line:
    """Return an effect with its interval; of several, the range of effects and of intervals."""
    show = places[0].show
    upwards = places[0].gain > 0
    write = show.difference if signed else show.gain if upwards else show.loss
    turned = not signed and upwards != show.up
    ordered = sorted(places, key=lambda place: place.node["difference"].number or 0.0)
    effects = [write(place.node["difference"]) for place in ordered[:: -1 if turned else 1]]
    lows, highs = zip(*(ends_of(place.node) for place in places), strict=True)
    finite = [[end for end in ends if end.number is not None] for ends in (lows, highs)]
    line: list[str | LinkedNumber] = [effects[0]]
    line += [" to ", effects[-1]] if effects[0].text != effects[-1].text else []
    if not finite[0] or not finite[1]:
        return [*line, unit, f" ({NO_INTERVAL})"]
    outer = (
        min(finite[0], key=lambda end: end.number or 0.0),
        max(finite[1], key=lambda end: end.number or 0.0),
    )
    low, high = outer[:: -1 if turned else 1]
    intervals = "95 % CI " if len(places) == 1 else "95 % CIs within "
    return [*line, unit, f" ({intervals}", write(low), " to ", write(high), ")"]


def _by_arm(places: Sequence[ArmResult]) -> dict[str, list[ArmResult]]:
    groups: dict[str, list[ArmResult]] = {}
    for place in places:
        groups.setdefault(place.arm.key, []).append(place)
    return groups


def _names(study: ReportData, places: Sequence[ArmResult]) -> Line:
    """Return the names of arms, each with its sizes unless these are all sizes."""
    arms = _by_arm(places)
    named: list[Line] = []
    for group in list(arms.values())[:NAMED]:
        sizes = sorted(place.n for place in group)
        nodes = [study.size_node(n) for n in sizes]
        where: Line = () if sizes == study.sizes else [" at N = ", *numbers(nodes)]
        named.append([f"“{group[0].arm.title}”", *where])
    return joined([*named, *([["others"]] if len(arms) > NAMED else [])])


def _power(study: ReportData, comparisons: Sequence[JsonNode]) -> Line:
    powered = [node for node in comparisons if node["mde"].number is not None]
    within = [node["mde"] for node in powered if not _beyond(node, study.show)]
    if not powered:
        return []
    if not within:
        return ["the design is too small to see even the largest gain that there is room for"]
    within.sort(key=lambda node: node.number or 0)
    ends = [study.show.size(node) for node in (within[0], within[-1])]
    several = ends[0].text != ends[1].text
    between: Line = [ends[0], " to ", ends[1]] if several else ends[:1]
    others = ", elsewhere none that there is room for" * (len(within) < len(powered))
    detectable = f" {study.show.unit} would have been seen with 80 % power{others}"
    return ["a gain of ", *between, detectable]


def _beyond(comparison: JsonNode, show: NumberFormat) -> bool:
    """Whether the detectable effect exceeds the largest gain possible over the control."""
    control, mde = comparison["mean_control"].number, comparison["mde"].number
    return control is not None and mde is not None and mde > show.room(control)


def why_not(study: ReportData, comparison: JsonNode) -> Line:
    """Return why an interval that excludes zero shows no effect; empty if it includes zero."""
    low, high = (end.number for end in ends_of(comparison))
    if low is None or high is None or low * high <= 0:
        return []
    p, corrected = comparison["p"], comparison["p_holm"]
    if p.number is None or corrected.number is None or p.number >= LEVEL:
        return ["leaves zero out, but draws and subjects are too few for a test to follow it"]
    measure = comparison["measure"].text
    family = [c["p"] for c in study.root["comparisons"] if c["measure"].text == measure]
    of = pattern("comparisons", [int(node.pointer.split("/")[2]) for node in family], "p")
    count = derived("count", family, of=of, holder="/comparisons")
    words: list[str | LinkedNumber] = ["leaves zero out, but p ", *probability_words(p)]
    words += [" is ", probability(corrected), " after Holm's correction for ", count]
    return [*words, " comparisons"]


def rivals(place: ArmResult, places: Sequence[ArmResult]) -> list[tuple[ArmResult, bool]]:
    """Return arms without a GAN that match an arm, or may do so, at the same size.

    Returns:
        Each with True if it shows an equal or larger gain. With False if the two cannot be told
        apart: its interval contains the arm's difference.
    """
    matches = []
    difference = place.node["difference"].number
    for rival in places:
        if (
            rival.arm.kind != "rival"
            or rival.n != place.n
            or rival.finding is ComparisonOutcome.MISSING
        ):
            continue
        low, high = (end.number for end in ends_of(rival.node))
        if rival.finding is ComparisonOutcome.GAIN and rival.gain >= place.gain:
            matches.append((rival, True))
        elif low is not None and high is not None and difference is not None:
            matches += [(rival, False)] * (low <= difference <= high)
    return matches


def _rival_clause(
    study: ReportData, gains: Sequence[ArmResult], places: Sequence[ArmResult]
) -> Line:
    if not gains:
        return []
    matches = rivals(max(gains, key=lambda place: place.gain), places)
    equal = [rival for rival, as_well in matches if as_well]
    if equal:
        return ["so no GAN is needed: ", *_names(study, equal), " does as well"]
    if matches:
        names = _names(study, [rival for rival, _ in matches])
        return ["this is not told apart from ", *names, ", which needs no GAN"]
    return []


def _arm_words(
    study: ReportData, arm: ReportArm, places: Sequence[ArmResult]
) -> list[tuple[ComparisonOutcome, Line]]:
    arm_places = [place for place in places if place.arm.key == arm.key]
    return [(place.finding, _place_words(study, place, places)) for place in arm_places]


def _place_words(study: ReportData, place: ArmResult, places: Sequence[ArmResult]) -> Line:
    show, node = study.show, place.node
    start: list[str | LinkedNumber] = ["At N = ", whole(study.size_node(place.n)), " "]
    if place.finding is ComparisonOutcome.MISSING:
        return [*start, "nothing was finished", *_unfinished(study, place), "."]
    effect = _amount([place], f" {show.unit}", signed=True)
    if not place.ends:
        return [*start[:-1], ": ", *effect, "."]
    p = [", p ", *probability_words(node["p_holm"]), " after Holm"]
    costs = [part for line in _costs(study, [place]) for part in ("; ", *line)]
    margin: Line = ["± ", show.size(node["margin"]), f" {show.unit}"]
    if place.finding in (ComparisonOutcome.GAIN, ComparisonOutcome.LOSS):
        within: Line = ()
        if node["equivalent"].value is True:
            within = [", yet within the margin of ", *margin]
        line = [*start, f"a {place.finding.words} is shown: ", *effect, *p, *within, *costs, "."]
        return [*line, *_rival_words(study, place, places)]
    if place.finding is ComparisonOutcome.SAME:
        within = [", p ", *probability_words(node["equivalence_p"]), " for lying within"]
        line = [*start, "there is no effect beyond ", *margin, ": ", *effect, *within]
        return [*line, *costs, "."]
    line = [*start[:-1], ": ", *effect, *p, ", so neither gain nor loss is shown"]
    why, power = why_not(study, node), _power(study, [node])
    line += ["; the interval ", *why] if why else []
    line += ["; ", *power] if power else []
    return [*line, *costs, ".", *_rival_words(study, place, places)]


def _rival_words(study: ReportData, place: ArmResult, places: Sequence[ArmResult]) -> Line:
    if place.arm.kind not in ("gan", "tuned") or place.finding is ComparisonOutcome.LOSS:
        return []
    for rival, as_well in rivals(place, places):
        gain = study.show.difference(rival.node["difference"])
        if as_well:
            does = "does as well" if place.finding is ComparisonOutcome.GAIN else "shows a gain"
            return [f" “{rival.arm.title}” {does} without a GAN (", gain, ")."]
        if place.finding is ComparisonOutcome.GAIN:
            return [f" “{rival.arm.title}” (", gain, ", without a GAN) is not told apart from it."]
    return []


def probability_words(node: JsonNode) -> Line:
    """Return a p-value with its sign: = 0.034, or < 0.001."""
    text = probability(node)
    return [text] if text.text.startswith("<") else ["= ", text]


def _unfinished(study: ReportData, place: ArmResult) -> Line:
    runs = study.runs(place.arm.key, place.n)
    failed = [run for run in runs if run["status"].text == "failed"]
    if not failed:
        return []
    counts = [
        derived("count", group, of=of_runs(group, "status"), holder="/runs")
        for group in (failed, runs)
    ]
    return [" (", counts[0], " of ", counts[1], " runs failed)"]
