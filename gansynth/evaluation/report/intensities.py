"""How intensities are distributed: of whole channels, and within labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from markupsafe import Markup

from gansynth.evaluation.report.found import finite, listed
from gansynth.report.blocks import Block, Key, More, Panels, Words
from gansynth.report.document import Node
from gansynth.report.svg import (
    LEFT,
    RIGHT,
    Axis,
    Drawings,
    corners_of,
    line,
    sourced,
    stretched,
    tag,
)
from gansynth.report.svg import words as text
from gansynth.report.words import Line

AT_ONCE = 6
"""Distributions within labels that are shown at once; more are folded away."""
INTENSITIES_KEY = Key((("line synthetic", "samples"), ("area real", "real images")))
FLOOR = 118.0
"""Bottom of a distribution, in pixels."""
ROOF = 14.0
CUT = 3.0
"""A few bins that are so many times higher than the next ones are cut off."""
FEW = 4
TRIFLE = 0.003
"""Share of a panel's height below which bins at its sides are not drawn."""


def intensities(root: Node, drawings: Drawings) -> list[Block]:
    """How intensities are distributed: of whole channels, and within labels."""
    own = [
        node
        for node in root["curves"]["intensities"]
        if len(finite(node["edges"])) > 1 and (finite(node["synthetic"]) or finite(node["real"]))
    ]
    if not own:
        return []
    whole = [_histogram(drawings, node) for node in own if not node["label"]]
    parts = [_histogram(drawings, node) for node in own if node["label"]]
    note = "How intensities are distributed; each panel has its own axes."
    blocks: list[Block] = [Words([note], "note")]
    if len(parts) > AT_ONCE:
        return [*blocks, Panels(whole), INTENSITIES_KEY, More("Within labels", [Panels(parts)])]
    return [*blocks, Panels([*whole, *parts]), INTENSITIES_KEY]


def _histogram(drawings: Drawings, node: Node) -> tuple[Line, Markup]:
    sides = {key: [one.number or 0.0 for one in node[key]] for key in ("real", "synthetic")}
    densities = sorted([v for own in sides.values() for v in own], reverse=True) or [1.0]
    top = _top(densities)
    edges, sides = _trimmed(finite(node["edges"]), sides, TRIFLE * top)
    along = Axis.over(edges, LEFT - 12, RIGHT, about=4, tight=True)
    down = Axis(0.0, top, (), FLOOR, ROOF)
    drawn = [line(along.start, FLOOR, along.end, FLOOR, "grid")]
    for side, own in sides.items():
        steps = corners_of(_steps(edges, own, along, down))
        shape = tag("polyline", points=steps, class_=f"curve {side}")
        drawn.append(sourced(listed(node[side]), stretched(FLOOR + 2, shape)))
    drawn += [text(along.at(t), FLOOR + 16, along.words(t), "tick") for t in along.ticks]
    if densities[0] > top:
        drawn.append(text(along.end, 9, "peaks are cut", "side", "end"))
    channel, label = node["channel"].text or "Channel without a name", node["label"].text
    name = f"{channel}, {label}" if label else channel
    said = "; ".join(f"{side} highest at {_mode(edges, own)}" for side, own in sides.items())
    return [name], drawings.drawing(f"Intensities, {name}", f"{said}.", FLOOR + 20, *drawn)


def _trimmed(
    edges: list[float], sides: dict[str, list[float]], least: float
) -> tuple[list[float], dict[str, list[float]]]:
    """Without bins at both ends that are too low to be seen; never without any."""
    seen = [i for own in sides.values() for i, v in enumerate(own) if v > least]
    seen = [i for i in seen if i + 1 < len(edges)] or [0, len(edges) - 2]
    first, last = min(seen), max(seen) + 1
    return edges[first : last + 1], {key: own[first:last] for key, own in sides.items()}


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
    """The middle of the highest bin, in words."""
    pairs = list(zip(itertools.pairwise(edges), densities, strict=False))
    (left, right), most = max(pairs, key=lambda pair: pair[1], default=((0.0, 0.0), 0.0))
    return f"{(left + right) / 2:.3g}" if most else "nowhere"
