"""Figures of a benchmark: forest plots, learning curves, subjects, shares of the variance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from gansynth.report.figures import (
    BAND,
    GAIN,
    INK,
    LOSS,
    SOFT,
    as_svg,
    axes_of,
    hollow,
    plain,
    write_above,
)
from gansynth.report.numbers import NumberFormat, known
from gansynth_benchmark.report.study import (
    ComparisonOutcome,
    Entry,
    ReportArm,
    ReportData,
    ends_of,
    finding_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEYOND = 2.5
"""The axis ends at this multiple of the median interval, so that outliers do not dominate."""
MARKS: Mapping[ComparisonOutcome, tuple[str, str, str]] = {
    ComparisonOutcome.GAIN: ("^", GAIN, "gain shown"),
    ComparisonOutcome.LOSS: ("v", LOSS, "loss shown"),
    ComparisonOutcome.SAME: ("D", "#0b6b60", "no effect beyond the margin"),
    ComparisonOutcome.UNCLEAR: ("o", SOFT, "not shown either way"),
}
"""Marker, colour and meaning of each finding."""
PARTS = {
    "draw": ("draw", "which real cases were drawn for training"),
    "seed": ("seed", "the random numbers of one training"),
    "case": ("subject", "test subjects for whom an arm does more than for others"),
    "draw_case": ("draw × subject", "subjects for whom one draw does more than another"),
    "rest": ("rest", "all else: the same subject, draw and arm under another seed"),
}
"""Part of the variance in the document -> its name and meaning."""
FILLS = (
    ("#9cc7f0", ""),
    ("#ffcf87", "///"),
    ("#a5d9ba", ""),
    ("#d3bcea", "\\\\\\"),
    ("#d5d8dc", ""),
)
ROW = 0.24
"""Inches of a row."""
Rows = Sequence[tuple[ReportArm, int, Entry]]


def forest(study: ReportData, measure: str) -> str:
    """Draw the differences to the control on a measure, an arm after the other."""
    rows, show = study.entries("comparisons", study.others, measure), study.measures[measure]
    reaches = []
    for *_, entry in rows:
        points = known([*ends_of(entry), entry.get("difference")])
        if points:
            reaches.append(max(map(abs, points)))
    others = [abs(v) for *_, entry in rows for v in known([entry.get("margin"), entry.get("mde")])]
    most = max(reaches, default=1.0)
    most = max(
        min(most, BEYOND * median(reaches or [1.0])), 1.2 * min(max(others, default=0), most)
    )
    axes = _rows_of(rows, 4 * ROW)
    limit = 1.04 * (most or 1.0) * show.scale
    axes.set(xlim=(-limit, limit))
    for y, (_, _, entry) in zip(_places(rows), rows, strict=True):
        room = entry.get("mde") is None or not study.beyond(entry)
        draw_comparison(axes, y, entry if room else dict(entry, mde=None), show)
    axes.axvline(0, color=INK, lw=0.8, zorder=1)
    sides = ("control better", "arm better") if show.up else ("arm better", "control better")
    axes.set_xlabel(f"◂ {sides[0]} · {plain(show.title, 30)}, {show.unit} · {sides[1]} ▸")
    for marker, colour, words in MARKS.values():
        axes.plot([], [], marker, color=colour, label=words, **hollow(marker))
    axes.plot([], [], "-", color=INK, label="95 % confidence interval")
    axes.fill_between([], [], color=BAND, label="margin: makes no difference")
    axes.plot([], [], ":", color=SOFT, label="detectable at 80 % power")
    _legend(axes)
    return as_svg(axes)


def draw_comparison(axes: Axes, y: float, entry: Entry, show: NumberFormat) -> None:
    """Draw a row of a forest plot: margin, detectable effect, interval and difference.

    What lies beyond the axis is drawn as an arrow at its edge.
    """
    finding, scale = finding_of(entry, show), show.scale
    for margin in known([entry.get("margin")]):
        axes.barh(y, 2 * margin * scale, 0.9, -margin * scale, color=BAND, zorder=0)
    if finding is ComparisonOutcome.MISSING:
        return
    for mde in known([entry.get("mde")]):
        axes.vlines([-mde * scale, mde * scale], y - 0.35, y + 0.35, SOFT, "dotted", lw=1.2)
    ends = [end * scale for end in known(ends_of(entry))]
    marker, colour, _ = MARKS[finding]
    draw_interval(axes, y, entry["difference"] * scale, ends, marker, colour)


def draw_interval(
    axes: Axes, y: float, middle: float | None, ends: Sequence[float], marker: str, colour: str
) -> None:
    """Draw an interval and its middle; an arrow where an end lies beyond the axis."""
    low, high = axes.get_xlim()
    if ends:
        axes.hlines(y, max(min(ends), low), min(max(ends), high), INK, lw=1.4)
    for end in ends:
        if low <= end <= high:
            axes.plot(end, y, "|", color=INK, ms=6)
        else:
            edge, marker = (low, "<") if end < low else (high, ">")
            axes.plot(edge, y, marker, color=INK, clip_on=False)
    if middle is not None and low <= middle <= high:
        axes.plot(middle, y, marker, color=colour, ms=7, **hollow(marker))


def _rows_of(rows: Rows, below: float) -> Axes:
    """Return axes with a place for each row, below the title of its arm; inches are left below."""
    places = _places(rows)
    height = (places[-1] + 1) * ROW + 0.5
    axes = axes_of(4.8, height + below)
    axes.set(
        ylim=(places[-1] + 0.6, -0.6), yticks=places, yticklabels=[f"N = {n}" for _, n, _ in rows]
    )
    axes.tick_params("y", length=0, pad=8)
    axes.spines["left"].set_visible(False)
    last = ""
    for y, (arm, _, _) in zip(places, rows, strict=True):
        if arm.key != last:
            write_above(axes, y - 1, arm.title, x=-0.1, weight="bold")
        last = arm.key
    axes.grid(axis="x", color=BAND, lw=0.6)
    axes.set_axisbelow(True)
    return axes


def _places(rows: Rows) -> list[float]:
    """Return the row of each entry, with an empty one above the first of each arm."""
    keys = [arm.key for arm, *_ in rows]
    return [float(at + len(dict.fromkeys(keys[: at + 1]))) for at in range(len(keys))]


def _legend(axes: Axes) -> None:
    """Put a legend below all else."""
    axes.figure.legend(loc="outside lower left", ncols=2, fontsize=8, frameon=False)


def worth(study: ReportData) -> str:
    """Draw the equivalent number of extra real cases of each arm; empty if none is known."""
    rows = [entry for entry in study.entries("worth", study.others) if entry[-1]]
    reach = known(entry["cases"] for *_, entry in rows)
    if not reach:
        return ""
    points = reach + known([entry[key] for *_, entry in rows for key in ("low", "high")])
    usual = BEYOND * median(map(abs, points)) or 1.0
    inside = [0.0] + [min(max(value, -usual), usual) for value in points]
    edge = 0.05 * (max(inside) - min(inside))
    axes = _rows_of(rows, 0)
    axes.set(xlim=(min(inside) - edge, max(inside) + edge), xlabel="real cases")
    axes.axvline(0, color=INK, lw=0.8, zorder=1)
    for y, (_, _, entry) in zip(_places(rows), rows, strict=True):
        if known([entry["low"], entry["high"]]):  # without a limit, it goes beyond the axis
            low, high = entry["low"], entry["high"]
            span = [-math.inf if low is None else low, math.inf if high is None else high]
            draw_interval(axes, y, entry["cases"], span, "o", GAIN)
        else:
            draw_interval(axes, y, entry["cases"], [], "o", GAIN)
    return as_svg(axes)


def curves(study: ReportData) -> Iterator[tuple[str, str]]:
    """Draw the control's learning curve over real cases, with each arm's points: title, figure."""
    show = study.show
    entries = study.entries("means", study.arms, study.primary)
    means = {(arm.key, n): entry for arm, n, entry in entries if entry}
    ends = known(e[key] for e in means.values() for key in ("low", "high", "mean"))
    if not ends:
        return
    span = _span([end * show.scale for end in ends])
    for arm in study.others or study.arms:
        axes = axes_of(2.9, 2.1)
        for key, marker, colour in ((study.control, "o", SOFT), (arm.key, "s", GAIN)):
            found = [(n, means[key, n]) for n in study.sizes if (key, n) in means]
            known_ends = [(n, e) for n, e in found if len(known([e["low"], e["high"]])) == 2]
            x = [n for n, _ in known_ends]
            low = [e["low"] * show.scale for _, e in known_ends]
            high = [e["high"] * show.scale for _, e in known_ends]
            if key == study.control:
                axes.fill_between(x, low, high, color=BAND)
            axes.vlines(x, low, high, colour, lw=1.2)
            points = [(n, e["mean"] * show.scale) for n, e in found if known([e["mean"]])]
            style = "-" if key == study.control else ""
            label = "control" if key == study.control else "arm"
            axes.plot(*zip(*points, strict=True), marker + style, color=colour, label=label, ms=5)
            if arm.key == study.control:
                break
        axes.set_xscale("log", base=2)
        axes.set_xticks(study.sizes, map(str, study.sizes))
        axes.minorticks_off()
        axes.margins(x=0.15)
        axes.set(ylim=span, ylabel=plain(f"{show.title}, {show.unit}", 30))
        axes.legend(fontsize=8, frameon=False)
        yield arm.title, as_svg(axes)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return ends of an axis a little beyond the values."""
    edge = 0.05 * (max(values) - min(values)) or 0.5
    return min(values) - edge, max(values) + edge


def slopes(study: ReportData) -> Iterator[tuple[str, str]]:
    """Draw, for each arm and size, lines from the control to the arm for each test subject."""
    show, found = study.show, {}
    for arm, n in study.places(study.others):
        pairs = study.pairs(arm.key, n)
        runs = {"control": [control for control, _ in pairs], "arm": [run for _, run in pairs]}
        means = study.subject_means(runs)
        if means:
            found[arm, n] = [
                (m["control"] * show.scale, m["arm"] * show.scale) for m in means.values()
            ]
    if not found:
        return
    span = _span([value for lines in found.values() for line in lines for value in line])
    for (arm, n), lines in found.items():
        axes = axes_of(2.9, 2.1)
        better = [show.better(last - first) > 0 for first, last in lines]
        for line, rises in zip(lines, better, strict=True):
            colour, dashes = (GAIN, "-") if rises else (LOSS, "--")
            axes.plot([0, 1], line, marker="o", ms=2, lw=0.9, color=colour, ls=dashes)
        axes.set(ylim=span, xlim=(-0.3, 1.3), ylabel=plain(f"{show.title}, {show.unit}", 30))
        axes.set_xticks([0, 1], ["control", "arm"])
        title = f"{arm.title}, N = {n}: better in {sum(better)} of {len(better)}"
        yield title, as_svg(axes)


def shares(entry: Entry) -> dict[str, float]:
    """Return the shares of the parts of a variance; negative estimates count as zero."""
    variance = entry.get("variance") or {}
    parts = {part: max(0.0, variance.get(part) or 0.0) for part in PARTS}
    total = sum(parts.values())
    return {part: value / total for part, value in parts.items()} if total > 0 else {}


def spread(rows: Rows) -> str:
    """Draw a bar for each comparison, in shares of the variance."""
    axes = _rows_of(rows, 2 * ROW)
    for y, (_, _, entry) in zip(_places(rows), rows, strict=True):
        start = 0.0
        for (colour, hatch), share in zip(FILLS, shares(entry).values(), strict=True):
            axes.barh(y, 100 * share, 0.75, start, color=colour, hatch=hatch, edgecolor="white")
            start += 100 * share
    for (colour, hatch), (name, _) in zip(FILLS, PARTS.values(), strict=True):
        axes.fill_between([], [], color=colour, hatch=hatch, edgecolor="white", label=name)
    axes.set(xlim=(0, 100), xlabel="% of the variance")
    axes.figure.legend(loc="outside lower left", ncols=5, fontsize=8, frameon=False)
    return as_svg(axes)
