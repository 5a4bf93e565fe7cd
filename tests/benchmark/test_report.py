"""The report of a benchmark: what stands in it, and that nothing in it does anything."""
# mypy: disallow-untyped-calls=False

import base64
import hashlib
import re
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gansynth.benchmark.report import write_report
from gansynth.benchmark.report.page import compose
from gansynth.report.rendering import render
from tests.benchmark import documents
from tests.benchmark.html_tree import Element, parsed
from tests.benchmark.pages import EVERY, page, written
from tests.benchmark.tracing import contrast

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "gansynth" / "report" / "templates"


# -- what stands where ---------------------------------------------------------------------------

SECTIONS = [
    "arms", "differences", "worth", "curves", "subjects", "spread", "measures", "ratios", "costs",
    "worst", "paper", "looks", "failures", "plan", "reading",
]  # fmt: skip


def test_a_full_report_has_all_its_sections_in_order():
    keys = [s.attributes["id"] for s in page("full").all("section")]
    assert keys == SECTIONS
    contents = next(n for n in page("full").all("nav"))
    linked = {a.attributes["href"] for a in contents.all("a")}
    assert linked == {"#main", *(f"#{key}" for key in SECTIONS[1:])}


@EVERY
def test_headings_go_down_one_level_at_a_time(name):
    levels = [int(h.name[1]) for h in page(name).all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


@EVERY
def test_names_in_the_page_are_unique_and_lead_somewhere(name):
    ids = [e.attributes["id"] for e in page(name).all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in page(name).all():
        for key in ("aria-labelledby", "aria-describedby"):
            assert element.attributes.get(key, ids[0]) in ids
        if element.name in ("a", "use") and element.attributes["href"].startswith("#"):
            assert element.attributes["href"][1:] in ids


@EVERY
def test_tables_and_drawings_speak_for_themselves(name):
    for table in page(name).all("table"):
        assert next(table.all("caption")).text.strip()
        assert all("scope" in head.attributes for head in table.all("th"))
    for drawing in page(name).all("svg"):
        if drawing.attributes.get("role") == "img":
            assert next(drawing.all("title")).text.strip()
            assert next(drawing.all("desc")).text.strip()
    assert all(image.attributes["alt"] for image in page(name).all("img"))


def test_the_verdict_stands_first_and_large():
    main = next(page("full").all("main"))
    first = next(p for p in main.all("p"))
    assert first.has("verdict")
    assert "nnU-Net 3d_fullres" in first.text
    assert "trained on 6 and 12 subjects" in first.text


def test_a_verdict_that_says_something_else_is_shown_as_it_stands(tmp_path):
    document = documents.development()
    document["verdict"] = {"sentence": "Something else, 7.", "per_arm": {"unedited": "And this."}}
    write_report(document, tmp_path)
    found = parsed((tmp_path / "report.html").read_text("utf-8"))
    verdict = next(p for p in found.all("p") if p.has("verdict"))
    assert verdict.text == "Something else, 7."
    assert next(verdict.all("a")).attributes["href"] == "results.json#/verdict/sentence"
    assert "And this." in next(found.all("ul")).text


def warnings(document, folder):
    write_report(document, folder)
    found = parsed((folder / "report.html").read_text("utf-8"))
    return " ".join(d.text for d in found.all("div") if d.has("warnings"))


def test_a_development_look_is_warned_of(tmp_path):
    assert "development split" in warnings(documents.development(), tmp_path)


def test_a_second_look_at_the_sealed_split_is_warned_of(tmp_path):
    document = documents.lower_is_better()
    assert warnings(document, tmp_path) == ""
    again = {**document["look"]["log"][0], "look": 2, "reason": "a bug in the loader"}
    document["look"]["log"].append(again)
    document["look"]["number"] = 2
    assert "more than once: this is look 2" in warnings(document, tmp_path)
    assert "a bug in the loader" in (tmp_path / "report.html").read_text("utf-8")


def test_what_inner_folds_chose_is_told_once_for_a_draw():
    table = next(t for t in page("full").all("table") if "inner folds" in t.text)
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]
    assert rows[0] == ["N", "draw", "chosen"]
    assert rows[1] == ["tuned"]
    assert rows[2:4] == [["6", "0", "unedited"], ["6", "1", "none"]]
    assert len(rows) == 2 + 2 * 3


def test_missing_trainings_and_the_documents_own_warnings_are_shown():
    text = next(d for d in page("full").all("div") if d.has("warnings")).text
    assert "1 training has no result" in text
    assert "a spacing that no training subject has" in text


SMALL = documents.small()


@pytest.mark.parametrize("left", ["nothing", "null", "empty"])
@pytest.mark.parametrize("part", SMALL)
def test_any_part_may_be_missing(part, left):
    document: dict[str, Any] = deepcopy(SMALL)
    if left == "nothing":
        del document[part]
    else:
        empty: dict[type, Any] = {dict: {}, list: []}
        document[part] = None if left == "null" else empty.get(type(document[part]), "")
    assert "How to read this" in render(compose(document))


@pytest.mark.parametrize("part", ["runs", "comparisons", "means", "worth", "costs", "failures"])
def test_entries_may_lack_anything(part):
    document: dict[str, Any] = deepcopy(SMALL)
    for index, entry in enumerate(document[part]):
        for key in list(entry)[index % 3 :: 3]:
            entry[key] = None
    assert "How to read this" in render(compose(document))


# -- nothing in it does anything -----------------------------------------------------------------


@EVERY
def test_no_text_of_the_document_becomes_markup(name):
    _, html, _ = written(name)
    found = page(name)
    assert [s.text for s in found.all("script")] == [(TEMPLATES / "script.js").read_text()]
    assert not [k for e in found.all() for k in e.attributes if k.startswith("on") or k == "style"]
    links = [e.attributes[k] for e in found.all() for k in ("href", "src") if k in e.attributes]
    assert {re.match(r"#|results\.json(#|$)|data:", link) is None for link in links} == {False}
    if name == "hostile":
        assert html.count("&lt;script&gt;alert(1)") > 10
        assert "{{7*7}}" in html


@EVERY
def test_a_browser_may_load_this_very_style_and_script_only(name):
    found = page(name)
    head = next(found.all("head"))
    policy = head.children[3]  # after the character set, before all that it is about
    assert isinstance(policy, Element)
    parts = dict(p.split(" ", 1) for p in policy.attributes["content"].split("; "))
    assert parts["default-src"] == "'none'"
    for kind in ("style", "script"):
        text = next(found.all(kind)).text
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert parts[f"{kind}-src"] == f"'sha256-{digest}'"


def test_the_wheel_has_the_templates():
    from hatchling.builders.wheel import WheelBuilder

    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    templates = {path.relative_to(ROOT).as_posix() for path in TEMPLATES.iterdir()}
    assert templates
    assert templates <= packed


# -- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_of_what_is_behind_them(scheme):
    roots = re.findall(r":root \{(.*?)\}", (TEMPLATES / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([a-z_-]+): (#[0-9a-f]{6})", roots[scheme]))
    words = ("ink", "soft", "link", "gain", "loss", "same", "unclear")
    pairs = [(word, ground) for word in words for ground in ("ground", "raised")]
    pairs += [("warn", "warn-ground"), ("ink", "warn-ground"), ("soft", "band"), ("gain", "band")]
    pairs += [("ink", key) for key in colours if key.startswith("part-")]
    assert len(pairs) > 20
    for word, ground in pairs:
        assert contrast(colours[word], colours[ground]) >= 4.5, (word, ground)


# -- Markdown ------------------------------------------------------------------------------------


@EVERY
def test_markdown_tables_are_whole(name):
    rows = [line for line in written(name)[2].splitlines() if line.startswith("|")]
    assert rows or name == "minimal"
    tables = re.findall(r"(?:^\|.*\n)+", written(name)[2], re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_has_the_same_verdict_and_numbers():
    document, _, text = written("full")
    sentence = next(p for p in page("full").all("p") if p.has("verdict")).text
    assert sentence.replace("\u00a0", " ") in text.replace("\\", "")
    first = document["comparisons"][0]
    assert f"| {100 * first['difference']:+.2f} |" in text


def test_markdown_has_no_json_pointers():
    text = written("full")[2]
    assert "`/" not in text
    assert "JSON" not in text


def test_markdown_of_hostile_names_has_no_markup():
    text = written("hostile")[2]
    outside = re.sub(r"^(`{3,})yaml\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "&lt;script&gt;" in outside
    assert "<" not in outside.replace("&lt;", "")
