import math
import re
from itertools import pairwise
from urllib.parse import unquote

import pytest

from gansynth.evaluation.report.assessments import decimals
from gansynth.evaluation.report.curves import intensities
from gansynth.evaluation.report.realism import RealRange
from gansynth.report.blocks import Panels
from gansynth.report.document import JsonNode
from gansynth.report.svg import Drawings, LogAxis
from tests.benchmark.html_tree import parsed
from tests.benchmark.tracing import check_link, loose, resolve, strings, traced
from tests.evaluation.documents import figure
from tests.evaluation.pages import EVERY, page, section, written


@EVERY
def test_every_number_drawing_and_point_is_that_of_its_pointer(name):
    document = written(name)[0]
    links = [a for a in page(name).all("a") if a.has("n")]
    assert len(links) > (200 if name == "full" else 0) or name == "minimal"
    for link in links:
        check_link(document, link, "evaluation.json")
    drawn = [g for g in page(name).all("g") if "data-pointer" in g.attributes]
    assert len(drawn) > (150 if name == "full" else 0) or name in ("minimal", "whys")
    for group in drawn:
        pointer, source = group.attributes["data-pointer"], next(group.all("title")).text
        if isinstance(listed := resolve(document, pointer), list):
            assert source == f"{pointer} = a list of {len(listed)}"
        else:
            traced(document, pointer, source)
    points = [g for g in page(name).all("g") if g.has("point")]
    told = [resolve(document, g.attributes["data-place"]) for g in points]
    known = [p for m in document.get("maps") or () for p in m["points"]]
    assert sorted(map(id, told)) == sorted(map(id, known))
    for point, group in zip(told, points, strict=True):
        assert group.has(point["side"])
        assert next(group.all("title")).text.startswith(point["name"])


SAID = {"95", "0.5", "0.50", "0.05", "1", "0", "9", "10"}
"""What the template's own words need: levels, chance, and what axes mean."""


@pytest.mark.parametrize("name", ["full", "small", "whys"])
def test_no_number_stands_without_a_link(name):
    document = written(name)[0]
    text = " ".join(loose(next(page(name).all("body"))))
    for known in sorted(set(strings(document)), key=len, reverse=True):
        if re.search(r"\d", known) and re.search(r"[A-Za-z.]", known):
            for said in (known, known.rstrip("."), known[0].upper() + known[1:]):
                text = text.replace(said, " ")
    assert set(re.findall(r"\d[\d.,]*\d|\d", text)) <= SAID


def scale(**more):
    return RealRange.of(JsonNode(figure("m", "n", "t", 0.1, 0.3, 0.1) | more))


@pytest.mark.parametrize(
    ("better", "value", "right"),
    [
        *(("lower", 0.3, True), ("lower", 0.01, False), ("higher", 0.01, True)),
        *(("higher", 0.3, False), ("real", 0.3, True), ("real", 0.01, True)),
        *(("half", 0.3, True), ("half", 0.6, True)),
    ],
)
def test_what_is_less_like_real_lies_to_the_right_of_a_band_of_one_width(better, value, right):
    ends = (0.45, 0.55) if better == "half" else (0.05, 0.18)
    made = scale(better=better, value=value, real_low=ends[0], real_high=ends[1])
    assert (made.at(value) > 1) == right
    band = scale(better=better, real_low=0.05, real_high=0.18)
    assert sorted([band.at(0.05), band.at(0.18)]) == pytest.approx([-1, 1])


def test_beyond_the_band_it_is_logarithmic_and_a_band_without_width_is_no_scale():
    made = scale(real_low=-1.0, real_high=1.0)
    assert [made.at(v) for v in (0, 0.5, 1, math.e, math.e**2)] == pytest.approx([0, 0.5, 1, 2, 3])
    for low, high in ((None, 1.0), (1.0, 1.0), (2.0, 1.0)):
        assert scale(real_low=low, real_high=high) is None


SHAPES = {"like real": "diamond", "unlike real": "down", "unclear": "ring"}


def test_a_finding_has_its_own_shape_and_word_and_a_two_sample_test_a_line_at_chance():
    figures = written("full")[0]["figures"]
    rows = [r for r in section("full", "realism").all("tr") if list(r.all("svg"))][1:]
    assert len(rows) == len(figures)
    for index, (told, row) in enumerate(zip(figures, rows, strict=True)):
        (mark,) = (
            mark.attributes["href"]
            for group in row.all("g")
            if group.attributes.get("data-pointer") == f"/figures/{index}/value"
            for mark in group.all("use")
        )
        assert mark == f"#mark-{SHAPES[told['finding']]}"
        assert list(row.all("td"))[-1].text[2:] == told["finding"].replace("unclear", "cannot tell")
        assert any(line.has("mde") for line in row.all("line")) == (told["better"] == "half")


def across(element):
    return float(element.attributes["x"][:-1])


def test_a_figure_without_a_band_has_an_axis_that_says_its_ends():
    row = [r for r in section("small", "realism").all("tr") if list(r.all("svg"))][1]
    assert [t.text for t in row.all("text") if t.has("tick")] == ["0.50", "1.00"]
    left, right = map(across, row.all("text"))
    assert across(next(row.all("use"))) == pytest.approx(left + 0.2 * (right - left))


def test_marks_of_dice_lie_where_their_numbers_are():
    found, document = section("full", "faithfulness"), written("full")[0]
    ticks = [across(t) for t in found.all("text") if t.has("tick")]
    drawn = [(g.attributes["data-pointer"], u) for g in found.all("g") for u in g.all("use")]
    assert len(drawn) == 9
    for pointer, mark in drawn:
        at = ticks[0] + resolve(document, pointer) * (ticks[-1] - ticks[0])
        assert across(mark) == pytest.approx(at, abs=0.02)


def test_a_spectrum_is_broken_where_a_band_is_not_known():
    panels = [s for s in section("full", "curves").all("svg") if "Spectrum" in s.text]
    lines = [sum(e.attributes["class"] == "synthetic" for e in p.all("line")) for p in panels]
    assert lines == [13, 11]


def test_equal_ratios_are_equally_far_on_a_logarithmic_axis():
    axis = LogAxis.over([0.01, None, -3.0, 100.0], 10, 90)
    gaps = [b - a for a, b in pairwise(axis.at(v) for v in (0.01, 0.1, 1.0, 10.0, 100.0))]
    assert gaps == pytest.approx([gaps[0]] * 4)
    assert [axis.words(t) for t in axis.ticks] == ["0.01", "0.1", "1", "10", "100"]
    assert axis.at(-1.0) == 10


@pytest.mark.parametrize("values", [[], [1.0], [0.9, 1.2], [1e-4, 3e5]])
def test_a_logarithmic_axis_has_a_few_ticks_whatever_it_holds(values):
    axis = LogAxis.over(values, 0, 100)
    assert 1 <= len(axis.ticks) <= 5
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_points_of_a_map_keep_their_shape_and_lie_within_it():
    document = written("full")[0]
    points = [g for g in section("full", "maps").all("g") if "/maps/0/" in str(g.attributes)]
    uses = [next(g.all("use")).attributes for g in points]
    places = [(float(u["x"][:-1]) * 4 / 3, -float(u["y"][:-1])) for u in uses]
    assert all(0 <= x <= 400 / 3 and 0 >= y >= -100 for x, y in places)
    told = [resolve(document, g.attributes["data-place"]) for g in points]
    far = [math.dist((p["x"], p["y"]), (told[0]["x"], told[0]["y"])) for p in told]
    drawn = [math.dist(place, places[0]) for place in places]
    unit = drawn[-1] / far[-1]
    assert drawn == pytest.approx([unit * f for f in far], abs=0.05)


def test_pictures_are_embedded_once_and_told_with_the_kind_that_any_map_knows():
    told = next(f for f in section("full", "maps").all("figure") if "id" in f.attributes)
    assert next(told.all("img")).attributes["alt"] == "case_000 #0, real, training, meningioma"
    pictures = [i.attributes["src"] for i in page("full").all("img")]
    points = [g for g in page("full").all("g") if "data-picture" in g.attributes]
    assert len(points) > len(pictures) == len(set(pictures))


@pytest.mark.parametrize(
    ("value", "width", "places"),
    [
        *((0.31, (0.25, 0.37), 2), (161.0, (150.0, 172.0), 0), (0.31, (0.305, 0.312), 4)),
        *((0.312, None, 3), (31.2, None, 1), (4000.0, None, 0), (1e-9, None, 4)),
        *((0.0, (0.0, 0.0), 2), (None, (None, None), 2)),
    ],
)
def test_the_narrowest_interval_says_how_many_decimals_count(value, width, places):
    widths = [(JsonNode(width[0]), JsonNode(width[1]))] if width else []
    assert decimals([JsonNode(value)], widths) == places


def test_pointers_of_awkward_names_are_escaped_in_addresses():
    links = [a for a in section("hostile", "seconds").all("a") if a.has("n")]
    key = next(iter(written("hostile")[0]["seconds"]))
    token = key.replace("~", "~0").replace("/", "~1")
    assert unquote(links[-1].attributes["href"]) == f"evaluation.json#/seconds/{token}"


def histogram(**densities):
    """What is drawn of a distribution: both outlines, and what is written."""
    edges = list(range(len(densities["real"]) + 1))
    node = {"channel": "T1", "label": None, "edges": edges, **densities}
    blocks = intensities(JsonNode({"curves": {"intensities": [node]}}), Drawings())
    ((_, drawing),) = next(b.items for b in blocks if isinstance(b, Panels))
    found = parsed(str(drawing))
    outlines = [e.attributes["points"].split() for e in found.all("polyline")]
    return outlines, [t.text for t in found.all("text")]


def test_a_distribution_leaves_out_what_is_empty_and_a_high_bin_does_not_flatten_it():
    outlines, ticks = histogram(real=[0, 0, 1, 2, 1, 0, 0], synthetic=[0, 0, 0, 2, 2, 1e-6, 0])
    assert [len(outline) for outline in outlines] == [8, 8]
    assert ("0" in ticks, "3" in ticks) == (False, True)
    hill = [*range(1, 9), *range(8, 0, -1)]
    outlines, words = histogram(real=[100, *hill], synthetic=[90, *hill])
    heights = {float(corner.split(",")[1]) for corner in outlines[0]}
    assert min(sorted(heights)[1:]) < 40  # the hill's top, of 118 pixels
    assert "peaks are cut" in words
    assert "peaks are cut" not in histogram(real=hill, synthetic=hill)[1]
