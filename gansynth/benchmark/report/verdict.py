"""What a benchmark shows, in words that claim no more than its intervals do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gansynth.benchmark.report.document import Node
from gansynth.benchmark.report.study import Arm, Study
from gansynth.benchmark.report.words import (
    Line,
    Linked,
    Show,
    derived,
    joined,
    of_runs,
    plain,
    probability,
    whole,
)

LEVEL = 0.05
"""Of p after Holm's correction, below which an effect is shown."""
SPOKEN_FOR = ("draws", "seeds", "subjects")
"""What a comparison may hold for others of, as its ``generalises`` says."""
NAMED = 3
"""Arms that the sentence names for one finding; the others stand below it."""


class Finding(Enum):
    """What a comparison with the control shows; the value is its sign and its name."""

    GAIN = ("▲", "gain")
    LOSS = ("▼", "loss")
    SAME = ("=", "no effect")
    UNCLEAR = ("?", "not shown")
    MISSING = ("–", "not finished")

    @property
    def sign(self) -> str:
        """A sign that goes with its name."""
        return self.value[0]

    @property
    def words(self) -> str:
        """Its name."""
        return self.value[1]


@dataclass(frozen=True)
class Place:
    """What was found for one arm at one size."""

    arm: Arm
    n: int
    finding: Finding
    node: Node

    def gain(self, show: Show) -> float:
        """The difference counted towards better, as stored."""
        return show.better(self.node["difference"].number or 0.0)


@dataclass(frozen=True)
class Verdict:
    """The words of a verdict, with the places of its numbers.

    Attributes:
        sentence: one sentence.
        per_arm: of each other arm what was found at each size, in words.
    """

    sentence: Line
    per_arm: Mapping[str, Sequence[tuple[Finding, Line]]]


def verdict(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a results document shows on its primary measure.

    A gain or a loss is shown if the 95 % interval leaves zero out and p after Holm is below 0.05;
    no effect is a finding where the comparison is ``equivalent`` within its margin. All else is
    not shown, either way, and the minimum detectable effect stands beside it.

    Returns:
        ``sentence``: one sentence with host and sizes. ``per_arm``: words for each other arm.
    """
    words = verdict_of(Study(document))
    return {
        "sentence": plain(words.sentence),
        "per_arm": {arm: said(lines) for arm, lines in words.per_arm.items()},
    }


def said(lines: Sequence[tuple[Finding, Line]]) -> str:
    """What was found of an arm, as one text."""
    return " ".join(plain(line) for _, line in lines)


def verdict_of(study: Study) -> Verdict:
    """As ``verdict``, of a study, with the places of the numbers."""
    places = places_of(study)
    clauses = _clauses(study, places)
    sentence = [*_setting(study), *joined(clauses, "; ", "; "), "."]
    return Verdict(sentence, {arm.key: _arm_words(study, arm, places) for arm in study.others})


def finding_of(comparison: Node, show: Show) -> Finding:
    """What a comparison shows."""
    interval = comparison["interval"]
    low, high, p = interval["low"].number, interval["high"].number, comparison["p_holm"].number
    if comparison["difference"].number is None:
        return Finding.MISSING
    if low is not None and high is not None and p is not None and p < LEVEL and low * high > 0:
        return Finding.GAIN if show.better(low) > 0 else Finding.LOSS
    return Finding.SAME if comparison["equivalent"].value is True else Finding.UNCLEAR


def places_of(study: Study) -> list[Place]:
    """Each other arm at each size."""
    return [
        Place(arm, n, finding_of(node, study.show), node)
        for arm in study.others
        for n in study.sizes
        for node in [study.entry("comparisons", arm.key, n, study.primary)]
    ]


def numbers(nodes: Sequence[Node]) -> Line:
    """Numbers of training subjects: 6, 12 and 24."""
    return joined([[whole(node)] for node in nodes])


def _setting(study: Study) -> Line:
    host = study.root["host"]
    found: list[str | Linked] = ["Development look, no test result: o" * study.development or "O"]
    found.append(f"n {host['title'].text or host['target'].text or 'a host that is not named'}")
    if study.sizes:
        found += [", trained on ", *numbers([study.size_node(n) for n in study.sizes])]
        found.append(" subject" + "s" * (study.sizes != [1]))
    if study.others:
        found.append(f", against “{study.title(study.control)}”")
    return [*found, ": "]


def _clauses(study: Study, places: Sequence[Place]) -> list[Line]:
    title = study.show.title
    if not study.others:
        return [["nothing is compared, for no arm but the control was trained"]]
    if all(place.finding is Finding.MISSING for place in places):
        return [[f"nothing can be said, for no comparison on {title} was finished"]]
    yardsticks = [place for place in places if place.arm.kind == "yardstick"]
    shown = [place for place in places if place not in yardsticks]
    found = [*_effects(study, shown), *_unshown(study, shown)]
    if any(place.finding is Finding.GAIN for place in yardsticks):
        gains = [place for place in yardsticks if place.finding is Finding.GAIN]
        found.append(["to compare: by ", *_amounts(study, gains)])
    elif any(place.finding is not Finding.MISSING for place in yardsticks):
        found.append(["no gain is shown even for ", *_names(study, yardsticks)])
    return [*found, *_limits(places)]


def _effects(study: Study, shown: Sequence[Place]) -> list[Line]:
    """Gains and losses, and whether they take a GAN."""
    title = study.show.title
    by = {finding: [p for p in shown if p.finding is finding] for finding in Finding}
    learnt = [place for place in by[Finding.GAIN] if place.arm.kind != "rival"]
    unlearnt = [place for place in by[Finding.GAIN] if place.arm.kind == "rival"]
    found: list[Line] = []
    if learnt:
        found.append([f"{title} is better by ", *_amounts(study, learnt)])
    if unlearnt:
        start = "without a GAN by " if learnt else f"{title} is better without a GAN, by "
        found.append([start, *_amounts(study, unlearnt)])
    found += [line for line in [_rival_clause(study, learnt, shown)] if line]
    if by[Finding.LOSS]:
        found.append([f"{title} is worse by ", *_amounts(study, by[Finding.LOSS])])
    return found


def _unshown(study: Study, shown: Sequence[Place]) -> list[Line]:
    """What has no effect, what is not shown, and what was not finished."""
    title, found = study.show.title, list[Line]()
    by = {finding: [p for p in shown if p.finding is finding] for finding in Finding}
    if by[Finding.SAME]:
        margin = study.show.size(by[Finding.SAME][0].node["margin"])
        words: Line = [f"no effect on {title} beyond ± ", margin, f" {study.show.unit} of "]
        found.append([*words, *_names(study, by[Finding.SAME])])
    if by[Finding.UNCLEAR]:
        start = "neither gain nor loss is shown for "
        names = _names(study, by[Finding.UNCLEAR])
        found.append([start, *names, *_power(study, [p.node for p in by[Finding.UNCLEAR]])])
    if by[Finding.MISSING]:
        found.append(["nothing was finished of ", *_names(study, by[Finding.MISSING])])
    return found


def _limits(places: Sequence[Place]) -> list[Line]:
    """For what others the intervals say nothing, where that is anything."""
    said = {text for place in places if (text := place.node["generalises"].text)}
    lacking = [word for word in SPOKEN_FOR if any(word not in text for text in said)]
    return [["intervals say nothing of other " + plain(joined([[w] for w in lacking]))]] * bool(
        lacking
    )


def _amounts(study: Study, places: Sequence[Place]) -> Line:
    """Sizes of effects, the largest first, each with the arm that has it."""
    ordered = sorted(places, key=lambda place: -abs(place.gain(study.show)))
    arms = list(_by_arm(ordered).values())
    named: list[Line] = []
    for own in arms[:NAMED]:
        unit = "" if named else f" {study.show.unit}"
        named.append([*_amount(study, own, unit), " with ", *_names(study, own)])
    small = all(place.node["equivalent"].value is True for place in places)
    line = joined([*named, *([["others"]] if len(arms) > NAMED else [])])
    return [*line, ", within the margin that makes no difference"] if small else line


def _amount(study: Study, places: Sequence[Place], unit: str) -> Line:
    """One effect with its interval, or the smallest and the largest of several."""
    largest, smallest = places[0], places[-1]
    upwards = largest.gain(study.show) > 0
    write = study.show.gain if upwards else study.show.loss
    if largest is not smallest:
        ends = [write(place.node["difference"]) for place in (smallest, largest)]
        several = ends[0].text != ends[1].text
        return [ends[0], " to ", ends[1], unit] if several else [ends[0], unit]
    low, high = ends_of(largest.node)[:: 1 if upwards == study.show.up else -1]
    first = write(largest.node["difference"])
    return [first, unit, " (95 % CI ", write(low), " to ", write(high), ")"]


def ends_of(comparison: Node) -> list[Node]:
    """Both ends of an interval, the lower one first."""
    return [comparison["interval"]["low"], comparison["interval"]["high"]]


def _by_arm(places: Sequence[Place]) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.arm.key, []).append(place)
    return found


def _names(study: Study, places: Sequence[Place]) -> Line:
    """Arms, each with the sizes that are meant unless all are."""
    arms = _by_arm(places)
    named: list[Line] = []
    for own in list(arms.values())[:NAMED]:
        sizes = sorted(place.n for place in own)
        nodes = [study.size_node(n) for n in sizes]
        where: Line = () if sizes == study.sizes else [" at N = ", *numbers(nodes)]
        named.append([f"“{own[0].arm.title}”", *where])
    return joined([*named, *([["others"]] if len(arms) > NAMED else [])])


def _power(study: Study, comparisons: Sequence[Node]) -> Line:
    """What would have been seen, of the smallest and the largest detectable effect."""
    known = [node["mde"] for node in comparisons if node["mde"].number is not None]
    if not known:
        return []
    known.sort(key=lambda node: node.number or 0)
    ends = [study.show.size(node) for node in (known[0], known[-1])]
    several = ends[0].text != ends[1].text
    between: Line = [ends[0], " to ", ends[1]] if several else ends[:1]
    return [" (a gain of ", *between, f" {study.show.unit} would have been seen with 80 % power)"]


def rivals(study: Study, place: Place, places: Sequence[Place]) -> list[tuple[Place, bool]]:
    """Arms without a GAN at the same size that do as well as an arm, or may do so.

    Returns:
        Each with True if it shows a gain that is as large, with False if it is merely not told
        apart: its interval holds the arm's difference.
    """
    show, found = study.show, []
    difference = place.node["difference"].number
    for other in places:
        if other.arm.kind != "rival" or other.n != place.n or other.finding is Finding.MISSING:
            continue
        low, high = (end.number for end in ends_of(other.node))
        if other.finding is Finding.GAIN and other.gain(show) >= place.gain(show):
            found.append((other, True))
        elif low is not None and high is not None and difference is not None:
            found += [(other, False)] * (low <= difference <= high)
    return found


def _rival_clause(study: Study, gains: Sequence[Place], places: Sequence[Place]) -> Line:
    """Whether the largest gain of a GAN takes a GAN."""
    if not gains:
        return []
    best = max(gains, key=lambda place: place.gain(study.show))
    found = rivals(study, best, places)
    equal = [other for other, as_well in found if as_well]
    if equal:
        return ["so no GAN is needed: ", *_names(study, equal), " does as well"]
    if found:
        names = _names(study, [other for other, _ in found])
        return ["this is not told apart from ", *names, ", which needs no GAN"]
    return []


def _arm_words(study: Study, arm: Arm, places: Sequence[Place]) -> list[tuple[Finding, Line]]:
    own = [place for place in places if place.arm.key == arm.key]
    lines = [(place.finding, _place_words(study, place, places)) for place in own]
    return lines or [(Finding.MISSING, ["Nothing was finished."])]


def _place_words(study: Study, place: Place, places: Sequence[Place]) -> Line:
    show, node = study.show, place.node
    start: list[str | Linked] = ["At N = ", whole(study.size_node(place.n)), " "]
    if place.finding is Finding.MISSING:
        return [*start, "nothing was finished", *_unfinished(study, place), "."]
    found: Line = [show.difference(node["difference"]), f" {show.unit}"]
    if any(end.number is None for end in ends_of(node)):
        return [*start, "there is too little to tell: ", *found, ", without an interval."]
    ends = joined([[show.difference(end)] for end in ends_of(node)], last=" to ")
    found = [*found, " (95 % CI ", *ends, ")"]
    p = [", p ", *probability_words(node["p_holm"]), " after Holm"]
    margin: Line = ["± ", show.size(node["margin"]), f" {show.unit}"]
    if place.finding in (Finding.GAIN, Finding.LOSS):
        within: Line = ()
        if node["equivalent"].value is True:
            within = [", yet within the margin of ", *margin]
        line = [*start, f"a {place.finding.words} is shown: ", *found, *p, *within, "."]
        return [*line, *_rival_words(study, place, places)]
    if place.finding is Finding.SAME:
        within = [", p ", *probability_words(node["equivalence_p"]), " for lying within"]
        return [*start, "there is no effect beyond ", *margin, ": ", *found, *within, "."]
    line = [*start, "neither gain nor loss is shown: ", *found, *p]
    return [*line, *_power(study, [node]), ".", *_rival_words(study, place, places)]


def _rival_words(study: Study, place: Place, places: Sequence[Place]) -> Line:
    """What arms without a GAN do, where this one or they show a gain."""
    if place.arm.kind not in ("gan", "tuned") or place.finding is Finding.LOSS:
        return []
    for other, as_well in rivals(study, place, places):
        gain = study.show.difference(other.node["difference"])
        if as_well:
            does = "does as well" if place.finding is Finding.GAIN else "shows a gain"
            return [f" “{other.arm.title}” {does} without a GAN (", gain, ")."]
        if place.finding is Finding.GAIN:
            return [f" “{other.arm.title}” (", gain, ", without a GAN) is not told apart from it."]
    return []


def probability_words(node: Node) -> Line:
    """A p-value behind its sign: = 0.034, or < 0.001."""
    found = probability(node)
    return [found] if found.text.startswith("<") else ["= ", found]


def _unfinished(study: Study, place: Place) -> Line:
    """How many runs there were, and how many of them failed."""
    runs = study.runs(place.arm.key, place.n)
    failed = [run for run in runs if run["status"].text == "failed"]
    if not failed:
        return []
    counts = [
        derived("count", some, of=of_runs(some, "status"), holder="/runs")
        for some in (failed, runs)
    ]
    return [" (", counts[0], " of ", counts[1], " runs failed)"]
