"""Every number of a report can be traced to the results it is from."""
# mypy: disallow-untyped-calls=False

import re

import pytest

from tests.benchmark.pages import EVERY, page, written
from tests.benchmark.tracing import check_link, loose, resolve, strings, traced


@EVERY
def test_every_number_is_that_of_its_pointer(name):
    document = written(name)[0]
    links = [a for a in page(name).all("a") if a.has("n")]
    assert len(links) > (200 if name in ("full", "many") else 0) or name == "minimal"
    for link in links:
        check_link(document, link, "results.json")


@EVERY
def test_everything_drawn_of_a_number_names_its_place(name):
    document = written(name)[0]
    drawn = [g for g in page(name).all("g") if "data-pointer" in g.attributes]
    assert len(drawn) > (100 if name == "full" else 0) or name in ("minimal", "all_failed")
    for group in drawn:
        title = next(group.all("title"))
        traced(document, group.attributes["data-pointer"], title.text)


SAID = {"95", "80", "0.05", "0.84", "84"}
"""What the template's own words need: levels, power, and an example."""


@pytest.mark.parametrize("name", ["full", "many", "detection", "all_failed", "lower_is_better"])
def test_no_number_stands_without_a_link(name):
    document = written(name)[0]
    text = " ".join(loose(next(page(name).all("body"))))
    for known in sorted(set(strings(document)), key=len, reverse=True):
        if re.search(r"\d", known) and re.search(r"[A-Za-z.]", known):
            text = text.replace(known, " ")
    for measure in document["measures"].values():  # "HD95 (1)"
        text = text.replace(f"({measure['region']})", " ")
    assert set(re.findall(r"\d[\d.,]*\d|\d", text)) <= SAID


def test_a_mark_lies_where_its_number_is_on_the_axis():
    document = written("full")[0]
    chart = next(d for d in page("full").all("div") if d.has("forest"))
    ticks = [t for t in chart.all("text") if t.has("tick")]
    ends = [(float(t.text.replace("−", "-")), float(t.attributes["x"][:-1])) for t in ticks]
    (low, left), (high, right) = ends[0], ends[-1]
    checked = 0
    for group in chart.all("g"):
        for mark in group.all("use"):
            pointer = group.attributes["data-pointer"]
            if pointer.endswith("/difference"):
                at = 100 * resolve(document, pointer)
                x = left + (at - low) / (high - low) * (right - left)
                assert float(mark.attributes["x"][:-1]) == pytest.approx(x, abs=0.02)
                checked += 1
    assert checked == len([c for c in document["comparisons"] if c["measure"] == "dice/foreground"])
