"""Every number of a report can be traced to the results it is from."""
# mypy: disallow-untyped-calls=False

import re
from urllib.parse import unquote

import pytest

from gansynth.benchmark.report.document import expand, resolve
from tests.benchmark.html_tree import Element
from tests.benchmark.pages import EVERY, page, written


def subjects_of(document, pointers):
    """Subject -> scores, of pointers to scores."""
    found: dict[str, list[float]] = {}
    for pointer in pointers:
        case = pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        subject = document["subjects"][case]
        found.setdefault(subject, []).append(resolve(document, pointer))
    return {subject: sum(own) / len(own) for subject, own in found.items()}


def better(document, pointers):
    """How many subjects are better in the second half of the runs than in the first."""
    runs = list(dict.fromkeys(pointer.split("/")[2] for pointer in pointers))
    halves = [
        subjects_of(document, [p for p in pointers if p.split("/")[2] in half])
        for half in (runs[: len(runs) // 2], runs[len(runs) // 2 :])
    ]
    sign = -1 if document["measures"][document["primary"]]["better"] == "lower" else 1
    return sum(sign * (halves[1][s] - halves[0][s]) > 0 for s in halves[0])


def worked_out(document, pointer, how, pattern):
    """The number that a link names, computed anew."""
    pointers = expand(pattern)
    if how == "better":
        return better(document, pointers)
    if how == "subjects":
        return len(subjects_of(document, pointers))
    values = [resolve(document, p) for p in pointers]
    if how == "share":
        return max(0, resolve(document, pointer)) / sum(max(0, v) for v in values)
    return {
        "mean": lambda: sum(values) / len(values),
        "sum": lambda: sum(values),
        "least": lambda: min(values),
        "most": lambda: max(values),
        "count": lambda: len(values),
    }[how]()


def traced(document, pointer, source):
    """The value that a number's place and title lead to."""
    where, _, said = source.rpartition(" = ")
    derived = re.match(r"([a-z]+) of (/.*)", where)
    if derived:
        resolve(document, pointer)
        value = worked_out(document, pointer, *derived.groups())
        assert float(said) == pytest.approx(value, rel=1e-12)
        return value
    value = resolve(document, pointer)
    assert source == f"{pointer} = {'nothing' if value is None else value}"
    return value


@EVERY
def test_every_number_is_that_of_its_pointer(name):
    document = written(name)[0]
    links = [a for a in page(name).all("a") if a.has("n")]
    assert len(links) > (200 if name in ("full", "many") else 0) or name == "minimal"
    for link in links:
        file, _, fragment = link.attributes["href"].partition("#")
        assert file == "results.json"
        value = traced(document, unquote(fragment), link.attributes["title"])
        if isinstance(value, str):
            assert link.text == value
        elif value is None:
            assert link.text == "–"
        elif link.text == "< 0.001":
            assert value < 0.001
        else:
            shown = link.text.replace("−", "-")
            decimals = len(shown.partition(".")[2])
            expected = value * float(link.attributes.get("data-scale", 1))
            assert float(shown) == pytest.approx(expected, abs=0.5000001 * 10**-decimals)


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


def loose(element: Element):
    """Texts that are no number's and no axis'."""
    if element.name in ("style", "script", "pre", "title", "desc") or element.has("n"):
        return
    if element.has("tick") or "data-pointer" in element.attributes:
        return
    for child in element.children:
        if isinstance(child, str):
            yield child
        else:
            yield from loose(child)


def strings(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *strings(item))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


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
