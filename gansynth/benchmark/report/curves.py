"""Learning curves, one panel per arm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from gansynth.benchmark.report.study import ReportArm, ReportData
from gansynth.report.blocks import Block, Legend, Panels, Paragraph
from gansynth.report.document import JsonNode
from gansynth.report.numbers import Line, NumberFormat
from gansynth.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Drawings,
    corners_of,
    frame,
    line,
    mark,
    sourced,
    stretched,
    tag,
)

ASIDE = 2.5  # horizontal offset of an arm's points from the control's, in percent of the width
CURVE_KEY = Legend(
    (("dot control", "control, with its 95 % CI"), ("square arm", "arm, with its 95 % CI"))
)


def curves(study: ReportData, drawings: Drawings) -> list[Block]:
    """Return the control's learning curve over real cases, with the points of each arm."""
    show, primary = study.show, study.primary
    entries = study.entries("means", study.arms, primary)
    means = {(arm.key, n): node for arm, n, node in entries}
    ends = [node[k].number for node in means.values() for k in ("low", "high", "mean")]
    if all(end is None for end in ends):
        return [Paragraph(["No training was finished."], "note")]
    down = Axis.over(
        [e * show.scale for e in ends if e is not None], BOTTOM, TOP, about=5, tight=True
    )
    arms = study.others or study.arms
    panels = [
        _curve(study, drawings, down, arm, {n: means[arm.key, n] for n in study.sizes})
        for arm in arms
    ]
    across_ = "real training subjects" if len(study.sizes) > 1 else "one size only: no curve"
    note = f"{show.title}, {show.unit}, over {across_}; all panels have the same axes."
    return [Paragraph([note], "note"), Panels(panels), CURVE_KEY]


def _curve(
    study: ReportData, drawings: Drawings, down: Axis, arm: ReportArm, means: Mapping[int, JsonNode]
) -> tuple[Line, Markup]:
    where = _places(study.sizes)
    drawn = frame(down, [(where[n], str(n)) for n in study.sizes])
    control = {n: study.entry("means", study.control, n, study.primary) for n in study.sizes}
    drawn += _joined(study, down, where, control)
    for n in study.sizes:
        drawn += _point(study.show, down, where[n], control[n], "dot", "control")
        if arm.key != study.control:
            drawn += _point(study.show, down, where[n] + ASIDE, means[n], "square", "arm")
    sentences = [
        f"N = {n}: control {_said(study.show, control[n])}, arm {_said(study.show, means[n])}."
        for n in study.sizes
    ]
    return [arm.title], drawings.drawing(arm.title, " ".join(sentences), HEIGHT, *drawn)


def _said(show: NumberFormat, mean: JsonNode) -> str:
    return show.value(mean["mean"]).text


def _places(sizes: Sequence[int]) -> dict[int, float]:
    """Return the horizontal position of each size, on a log2 scale."""
    first, last = LEFT + 10, RIGHT - 10
    if len(sizes) < 2:
        return dict.fromkeys(sizes, (first + last) / 2)
    logs = [math.log2(max(1, n)) for n in sizes]
    span = (logs[-1] - logs[0]) or 1.0
    return {
        n: first + (x - logs[0]) / span * (last - first) for n, x in zip(sizes, logs, strict=True)
    }


def _joined(
    study: ReportData, down: Axis, where: Mapping[int, float], means: Mapping[int, JsonNode]
) -> list[Markup]:
    """Return the line through the control's means, and the band of their intervals."""
    scale = study.show.scale
    spans = [
        (where[n], [node[k].number for k in ("low", "mean", "high")]) for n, node in means.items()
    ]
    spans = [(x, values) for x, values in spans if None not in values]
    points = [(x, [down.at((v or 0.0) * scale) for v in values]) for x, values in spans]
    corners = [(x, low) for x, (low, _, _) in points]
    corners += [(x, high) for x, (_, _, high) in reversed(points)]
    # The band is stretched with the panel; a stretched line would change its width.
    band = stretched(HEIGHT, tag("polygon", points=corners_of(corners), class_="band"))
    pairs = itertools.pairwise(points)
    return [band, *(line(x1, a[1], x2, b[1], "control") for (x1, a), (x2, b) in pairs)]


def _point(
    show: NumberFormat, down: Axis, x: float, mean: JsonNode, shape: str, class_: str
) -> list[Markup]:
    drawn = []
    low, middle, high = (mean[k].number for k in ("low", "mean", "high"))
    if low is not None and high is not None:
        for key, end in (("low", low), ("high", high)):
            at = down.at(end * show.scale)
            half = down.at((middle if middle is not None else (low + high) / 2) * show.scale)
            drawn.append(sourced(show.value(mean[key]), line(x, half, x, at, class_)))
    if middle is not None:
        dot = mark(shape, x, down.at(middle * show.scale), class_)
        drawn.append(sourced(show.value(mean["mean"]), dot))
    return drawn
