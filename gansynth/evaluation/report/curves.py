"""Curves: power over frequency, and distributions of intensities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from markupsafe import Markup

from gansynth.evaluation.report.assessments import listed
from gansynth.report.blocks import (
    Block,
    Details,
    Legend,
    Panels,
    Paragraph,
    Table,
    TableColumn,
    TableRow,
)
from gansynth.report.document import JsonNode
from gansynth.report.numbers import Line, finite, interval, number
from gansynth.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Drawings,
    LogAxis,
    corners_of,
    frame,
    line,
    mark,
    sourced,
    stretched,
    tag,
)
from gansynth.report.svg import words as text

SPREAD_KEYS = ("low", "high", "real_low", "real_high")
SPECTRUM_KEY = Legend(
    (
        ("line synthetic", "samples, with their 95 % CI"),
        ("band", "other real subjects"),
        ("rule", "1: as much power as real images"),
    )
)

AT_ONCE = 6  # distributions within labels shown openly; more are collapsed
INTENSITIES_KEY = Legend((("line synthetic", "samples"), ("area real", "real images")))
FLOOR = 118.0  # bottom of a distribution, in pixels
ROOF = 14.0
CUT = 3.0  # a few bins are cut off if they exceed the next ones by this factor
FEW = 4
TRIFLE = 0.003  # smallest share of a panel's height at which outer bins are drawn


def curves(root: JsonNode, drawings: Drawings) -> list[Block]:
    """Spectra and distributions, or a note that there are none."""
    blocks = [*spectra(root, drawings), *intensities(root, drawings)]
    return blocks or [Paragraph(["No curves were computed."], "note")]


def spectra(root: JsonNode, drawings: Drawings) -> list[Block]:
    """Power of samples over that of real images, a panel for each channel."""
    nodes = [node for node in root["curves"]["spectrum"] if finite(node["ratio"])]
    if not nodes:
        return []
    keys = ("ratio", *SPREAD_KEYS)
    down = LogAxis.over(
        [1.0, *(v for node in nodes for k in keys for v in finite(node[k]))], BOTTOM, TOP, about=6
    )
    along = LogAxis.over(
        (v for node in nodes for v in finite(node["frequency"])), LEFT + 2, RIGHT - 2, about=5
    )
    note = (
        "Power of samples over power of real images, by frequency in 1/mm: below 1 detail is "
        "missing, above 1 it is added. Both axes are logarithmic, and the same in all panels."
    )
    panels = [_spectrum(drawings, down, along, node) for node in nodes]
    return [
        Paragraph([note], "note"),
        Panels(panels),
        SPECTRUM_KEY,
        Details("Numbers of the spectra", [_bands(nodes)]),
    ]


def _spectrum(drawings: Drawings, down: Axis, along: Axis, node: JsonNode) -> tuple[Line, Markup]:
    drawn = frame(down, [(along.at(t), along.words(t)) for t in along.ticks])
    edges = [_places(node, key, down, along) for key in ("real_low", "real_high")]
    drawn.insert(0, sourced(listed(node["real_high"]), stretched(HEIGHT, *_filled(*edges))))
    drawn.append(line(LEFT, down.at(1), RIGHT, down.at(1), "rule"))
    places = _places(node, "ratio", down, along)
    for first, second in itertools.pairwise(places):
        if first and second:
            drawn.append(line(*first, *second, "synthetic"))
    for key in ("low", "high"):
        for index, (end, middle) in enumerate(
            zip(_places(node, key, down, along), places, strict=True)
        ):
            if end and middle:
                reach = line(*middle, *end, "synthetic reach")
                drawn.append(sourced(number(node[key][index], 3), reach))
    for index, place in enumerate(places):
        if place:
            dot = mark("speck", *place, "synthetic")
            drawn.append(sourced(number(node["ratio"][index], 3), dot))
    channel = node["channel"].text or "Channel without a name"
    ratios = finite(node["ratio"])
    summary = f"Ratio between {min(ratios):.2f} and {max(ratios):.2f} in {len(ratios)} bands."
    return [channel], drawings.drawing(f"Spectrum, {channel}", summary, HEIGHT, *drawn)


Place = tuple[float, float] | None


def _places(node: JsonNode, key: str, down: Axis, along: Axis) -> list[Place]:
    """Points of a curve; None where a number is unknown or has no logarithm."""
    places: list[Place] = []
    for frequency, value in zip(node["frequency"], node[key], strict=False):
        x, y = frequency.number, value.number
        defined = x is not None and y is not None and x > 0 and y > 0
        places.append((along.at(x or 1), down.at(y or 1)) if defined else None)
    return places


def _filled(lows: Sequence[Place], highs: Sequence[Place]) -> list[Markup]:
    """A band wherever both of its edges are known."""
    drawn = []
    pairs = itertools.zip_longest(lows, highs)
    for _, run in itertools.groupby(pairs, lambda pair: None in pair):
        inside = [(low, high) for low, high in run if low and high]
        if inside:
            corners = [low for low, _ in inside] + [high for _, high in reversed(inside)]
            if len(inside) == 1:  # as wide as to be seen
                (x, bottom), (_, top) = inside[0]
                corners = [(x - 2, bottom), (x + 2, bottom), (x + 2, top), (x - 2, top)]
            drawn.append(tag("polygon", points=corners_of(corners), class_="band"))
    return drawn


def _bands(nodes: Sequence[JsonNode]) -> Table:
    """Every number of the spectra."""
    rows = []
    for node in nodes:
        for index, _ in enumerate(node["frequency"]):
            low, high, first, last = (number(node[key][index], 3) for key in SPREAD_KEYS)
            cells: list[Line] = [
                [number(node["frequency"][index], 3)],
                [number(node["ratio"][index], 3)],
                interval(low, high),
                interval(first, last),
            ]
            rows.append(TableRow(cells, node["channel"].text))
    titles = ("frequency, 1/mm", "ratio", "95 % CI", "other real subjects")
    columns = [TableColumn(title) for title in titles]
    return Table("Power of samples over real images", columns, rows, "grouped", "channel")


# -- intensities ----------------------------------------------------------------------------------


def intensities(root: JsonNode, drawings: Drawings) -> list[Block]:
    """Distributions of intensities, of whole channels and within labels."""
    nodes = [
        node
        for node in root["curves"]["intensities"]
        if len(finite(node["edges"])) > 1 and (finite(node["synthetic"]) or finite(node["real"]))
    ]
    if not nodes:
        return []
    whole = [_histogram(drawings, node) for node in nodes if not node["label"]]
    parts = [_histogram(drawings, node) for node in nodes if node["label"]]
    note = "How intensities are distributed; each panel has its own axes."
    blocks: list[Block] = [Paragraph([note], "note")]
    if len(parts) > AT_ONCE:
        return [*blocks, Panels(whole), INTENSITIES_KEY, Details("Within labels", [Panels(parts)])]
    return [*blocks, Panels([*whole, *parts]), INTENSITIES_KEY]


def _histogram(drawings: Drawings, node: JsonNode) -> tuple[Line, Markup]:
    comparison = {key: [bin.number or 0.0 for bin in node[key]] for key in ("real", "synthetic")}
    densities = sorted(
        [v for densities_of in comparison.values() for v in densities_of], reverse=True
    ) or [1.0]
    top = _top(densities)
    edges, comparison = _trimmed(finite(node["edges"]), comparison, TRIFLE * top)
    along = Axis.over(edges, LEFT - 12, RIGHT, about=4, tight=True)
    down = Axis(0.0, top, (), FLOOR, ROOF)
    drawn = [line(along.start, FLOOR, along.end, FLOOR, "grid")]
    for side, densities_of in comparison.items():
        steps = corners_of(_steps(edges, densities_of, along, down))
        shape = tag("polyline", points=steps, class_=f"curve {side}")
        drawn.append(sourced(listed(node[side]), stretched(FLOOR + 2, shape)))
    drawn += [text(along.at(t), FLOOR + 16, along.words(t), "tick") for t in along.ticks]
    if densities[0] > top:
        drawn.append(text(along.end, 9, "peaks are cut", "side", "end"))
    channel, label = node["channel"].text or "Channel without a name", node["label"].text
    name = f"{channel}, {label}" if label else channel
    summary = "; ".join(
        f"{side} highest at {_mode(edges, densities_of)}"
        for side, densities_of in comparison.items()
    )
    return [name], drawings.drawing(f"Intensities, {name}", f"{summary}.", FLOOR + 20, *drawn)


def _trimmed(
    edges: list[float], comparison: dict[str, list[float]], least: float
) -> tuple[list[float], dict[str, list[float]]]:
    """Remove bins at both ends that are too low to be visible, keeping at least one."""
    visible = [i for densities in comparison.values() for i, v in enumerate(densities) if v > least]
    visible = [i for i in visible if i + 1 < len(edges)] or [0, len(edges) - 2]
    first, last = min(visible), max(visible) + 1
    return edges[first : last + 1], {
        key: densities[first:last] for key, densities in comparison.items()
    }


def _top(densities: Sequence[float]) -> float:
    """Height of a panel: of the highest bin, unless a few of them would flatten all others."""
    usual = densities[min(FEW, len(densities) - 1)]
    high = densities[0] > CUT * usual > 0
    return 1.1 * usual if high else densities[0] or 1.0


def _steps(
    edges: Sequence[float], densities: Sequence[float], along: Axis, down: Axis
) -> list[tuple[float, float]]:
    """Corners of a histogram, from floor to floor."""
    corners = [(along.at(edges[0]), FLOOR)]
    for (left, right), density in zip(itertools.pairwise(edges), densities, strict=False):
        corners += [(along.at(left), down.at(density)), (along.at(right), down.at(density))]
    return [*corners, (corners[-1][0], FLOOR)]


def _mode(edges: Sequence[float], densities: Sequence[float]) -> str:
    """Centre of the highest bin, as text."""
    pairs = list(zip(itertools.pairwise(edges), densities, strict=False))
    (left, right), most = max(pairs, key=lambda pair: pair[1], default=((0.0, 0.0), 0.0))
    return f"{(left + right) / 2:.3g}" if most else "nowhere"
