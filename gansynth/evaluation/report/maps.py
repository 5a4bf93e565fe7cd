"""Maps: samples and real cases as points, with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from gansynth.evaluation.report.assessments import RESULTS, sentence
from gansynth.report.blocks import Block, Details, Drawing, Paragraph, data_uri
from gansynth.report.document import JsonNode, pattern
from gansynth.report.numbers import Line, LinkedNumber, derived, index_of, joined
from gansynth.report.rendering import html
from gansynth.report.svg import across, tag

SIDES = {
    "training": ("dot", "real, training"),
    "held-out": ("square", "real, held-out"),
    "synthetic": ("up", "synthetic"),
}
"""Side of a point -> its mark, and its name, in drawing order."""
KINDS = 8  # most kinds with controls of their own: as many as the style sheet has
WIDE, HIGH = 4.0, 3.0  # width and height of a map in units
MARGIN = 0.04
NOTE = (
    "Each point is an image; similar images are close. Distances between clusters, "
    "their sizes and densities mean nothing in t-SNE. Check whether samples lie among "
    "real images: examine clusters of one side alone."
)
HINT = "Point at a point, tap it, or reach it with Tab and the arrow keys"
WARNING = (
    "This page holds pictures of patients. It must not be passed on to anybody who may not see "
    "these images."
)


@dataclass(frozen=True)
class MapPoint:
    """A point and its place on the map."""

    node: JsonNode
    side: str  # key in `SIDES`
    x: float  # share of the width
    y: float  # share of the height

    @property
    def words(self) -> str:
        """Name, side and kind."""
        parts = (self.node["name"].text, SIDES[self.side][1], self.node["kind"].text)
        return ", ".join(part for part in parts if part)


def maps(root: JsonNode, pictures: Mapping[str, bytes]) -> list[Block]:
    """All maps, and all pictures by their names."""
    drawn = [(node, _placed(node)) for node in root["maps"]]
    keys = {name: f"picture-{index}" for index, name in enumerate(pictures)}
    blocks: list[Block] = []
    if not drawn:
        blocks.append(Paragraph(["No map was made."], "note"))
    else:
        hint = f"{HINT}{' to see its image.' if pictures else ' to see its name.'}"
        inner = Markup("").join(_map(node, points, keys) for node, points in drawn)
        summary: list[Line] = [
            [node["title"].text, ": ", *_counts(node, points)] for node, points in drawn
        ]
        blocks += [
            Paragraph([NOTE]),
            Paragraph([hint], "note"),
            Drawing(tag("div", inner, class_="maps"), joined(summary, ". ", ". ")),
        ]
    if pictures:
        blocks.append(_gallery(pictures, keys, [points for _, points in drawn]))
    return blocks


def _placed(node: JsonNode) -> list[MapPoint]:
    """Points in drawing order; one unit has the same length in both directions."""
    xs, ys = ([p[axis].number or 0.0 for p in node["points"]] for axis in ("x", "y"))
    unit = max((max(xs) - min(xs)) / WIDE, (max(ys) - min(ys)) / HIGH) or 1.0
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    inside = 100 * (1 - 2 * MARGIN)
    points = [
        MapPoint(
            point,
            point["side"].text,
            50 + inside * (x - middle[0]) / unit / WIDE,
            50 - inside * (y - middle[1]) / unit / HIGH,
        )
        for point, x, y in zip(node["points"], xs, ys, strict=True)
    ]
    order = list(SIDES)
    return sorted(points, key=lambda p: order.index(p.side))


def _map(node: JsonNode, placed: Sequence[MapPoint], keys: Mapping[str, str]) -> Markup:
    """A map with controls for its sides."""
    kinds = list(dict.fromkeys(p.node["kind"].text for p in placed))
    kinds = kinds if 1 < len(kinds) <= KINDS else []
    title = node["title"].text
    points = [_point(p, keys, kinds, first=not index) for index, p in enumerate(placed)]
    plot = tag(
        "svg",
        *points,
        tag("circle", r="9", class_="ring"),
        role="listbox",
        aria_label=f"{title}: {len(placed)} points",
        width="100%",
    )
    caption = html([*sentence(node["what"].text), *_counts(node, placed)], RESULTS)
    return tag(
        "figure",
        tag("figcaption", tag("h3", escape(title)), tag("p", caption, class_="note")),
        *_toggles("side", _sides(placed)),
        *_toggles("kind", [(f"kind-{i}", k or "no kind", "") for i, k in enumerate(kinds)]),
        tag("div", plot, _card(), class_="plot"),
        class_="map",
    )


def _sides(points: Sequence[MapPoint]) -> list[tuple[str, str, str]]:
    """Class, name and mark of each side that has points."""
    present = {point.side for point in points}
    return [(key, name, shape) for key, (shape, name) in SIDES.items() if key in present]


def _point(
    point: MapPoint, keys: Mapping[str, str], kinds: Sequence[str], *, first: bool
) -> Markup:
    """A point; the first one receives the keyboard focus."""
    shape = SIDES[point.side][0]
    kind = point.node["kind"].text
    classes = ["point", point.side] + ([f"kind-{kinds.index(kind)}"] if kind in kinds else [])
    return tag(
        "g",
        tag("title", escape(point.words)),
        tag("use", href=f"#mark-{shape}", x=across(point.x), y=across(point.y)),
        class_=" ".join(classes),
        role="option",
        tabindex="0" if first else "-1",
        aria_selected="false",
        data_picture=keys.get(point.node["name"].text),
        data_place=point.node.pointer,
    )


def _toggles(name: str, entries: Sequence[tuple[str, str, str]]) -> list[Markup]:
    """Controls that show and hide points of one class; their signs are the map's legend."""
    if not entries:
        return []
    labels = []
    for class_, words, shape in entries:
        box = Markup('<input type="checkbox" checked class="only-{}">').format(class_)
        use = tag("use", href=f"#mark-{shape}", x="8", y="8") if shape else Markup("")
        sign = tag("svg", use, class_=f"sign {class_}", aria_hidden="true", width="16", height="16")
        labels.append(tag("label", box, sign if shape else "", escape(words)))
    legend = tag("legend", escape(f"Shown {name}s"))
    return [tag("fieldset", legend, *labels, class_="key")]


def _card() -> Markup:
    """The place for the picture of a point."""
    place = tag("a", class_="place")
    return tag("div", tag("p", class_="who"), tag("p", place), class_="card", hidden="")


def _counts(node: JsonNode, points: Sequence[MapPoint]) -> Line:
    """Number of points of each side."""
    steps = node.pointer.split("/")[1:]
    counts: list[Line] = []
    for side in dict.fromkeys(point.side for point in points):
        nodes = [p.node for p in points if p.side == side]
        of = pattern(*steps, "points", sorted(index_of(n) for n in nodes), "side")
        count: LinkedNumber = derived("count", nodes, of=of, holder=f"{node.pointer}/points")
        counts.append([count, f" {SIDES[side][1]}"])
    return [*joined(counts), "."]


def _gallery(
    pictures: Mapping[str, bytes], keys: Mapping[str, str], maps: Sequence[Sequence[MapPoint]]
) -> Details:
    """Every picture once; points refer to them."""
    words = {p.node["name"].text: p.words for points in reversed(maps) for p in points}
    figures = [
        tag(
            "figure",
            _image(png, words.get(name, name)),
            tag("figcaption", escape(words.get(name, name))),
            id=keys[name],
        )
        for name, png in pictures.items()
    ]
    note = ["Pictures are in report.html only."]
    return Details("All pictures", [Drawing(tag("div", *figures, class_="gallery"), note)])


def _image(png: bytes, described: str) -> Markup:
    return Markup('<img src="{}" alt="{}" loading="lazy">').format(data_uri(png), described)
