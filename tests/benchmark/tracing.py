"""Numbers of a report, traced to the document they are from; and colours that are told apart."""

import itertools
import re
from collections.abc import Iterable
from statistics import mean
from typing import Any
from urllib.parse import unquote

import pytest

from tests.benchmark.html_tree import Element


def resolve(document: Any, pointer: str) -> Any:
    """What stands at a pointer.

    Raises:
        KeyError: nothing does.
    """
    here = document
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        try:
            here = here[int(key)] if isinstance(here, list) else here[key]
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise KeyError(pointer) from error
    return here


def expand(text: str) -> list[str]:
    choices: Iterable[list[str]] = (
        re.sub(r"[{}]", "", part).split(",") for part in text.split("/")[1:]
    )
    return ["/" + "/".join(map(unquote, chosen)) for chosen in itertools.product(*choices)]


def subjects_of(document, pointers):
    found: dict[str, list[float]] = {}
    for pointer in pointers:
        case = pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        subject = document["subjects"][case]
        found.setdefault(subject, []).append(resolve(document, pointer))
    return {subject: sum(own) / len(own) for subject, own in found.items()}


def better(document, pointers):
    runs = list(dict.fromkeys(pointer.split("/")[2] for pointer in pointers))
    half = set(runs[len(runs) // 2 :])
    before, after = (
        subjects_of(document, [p for p in pointers if (p.split("/")[2] in half) == second])
        for second in (False, True)
    )
    sign = -1 if document["measures"][document["primary"]]["better"] == "lower" else 1
    return sum(sign * (after[subject] - before[subject]) > 0 for subject in before)


def worked_out(document, pointer, how, pattern):
    pointers = expand(pattern)
    if how == "better":
        return better(document, pointers)
    if how == "subjects":
        return len(subjects_of(document, pointers))
    values = [resolve(document, p) for p in pointers]
    if how == "share":
        return max(0, resolve(document, pointer)) / sum(max(0, v) for v in values)
    work: dict[str, Any] = {"mean": mean, "sum": sum, "least": min, "most": max, "count": len}
    return work[how](values)


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


def check_link(document, link, results):
    """A link shows the number that its pointer leads to, of the right file."""
    file, _, fragment = link.attributes["href"].partition("#")
    assert file == results
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


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
