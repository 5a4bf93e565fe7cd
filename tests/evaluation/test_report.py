"""The report of an evaluation: what stands in it, and that nothing in it does anything."""
# mypy: disallow-untyped-calls=False

import base64
import hashlib
import json
import re
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gansynth.evaluation.report import write_report
from gansynth.evaluation.report.page import compose
from gansynth.report.rendering import markdown, render
from tests.benchmark.html_tree import Element, parsed
from tests.benchmark.tracing import contrast
from tests.evaluation import documents
from tests.evaluation.pages import EVERY, PICTURED, SECTIONS, page, section, written

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "gansynth" / "evaluation" / "report" / "templates"
SHARED = ROOT / "gansynth" / "report" / "templates"


@EVERY
def test_a_report_has_all_its_sections_and_headings_in_order_whatever_is_known(name):
    assert [s.attributes["id"] for s in page(name).all("section")] == SECTIONS
    contents = next(n for n in page(name).all("nav"))
    linked = {a.attributes["href"] for a in contents.all("a")}
    assert linked == {"#main", *(f"#{key}" for key in SECTIONS[1:])}
    levels = [int(h.name[1]) for h in page(name).all("h1", "h2", "h3", "h4")]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(b - a <= 1 for a, b in pairwise(levels))


@EVERY
def test_names_are_unique_and_lead_somewhere_and_everything_speaks_for_itself(name):
    ids = [e.attributes["id"] for e in page(name).all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in page(name).all():
        for key in ("aria-labelledby", "aria-describedby", "data-picture"):
            assert element.attributes.get(key, ids[0]) in ids
        if element.name in ("a", "use") and "href" in element.attributes:
            href = element.attributes["href"]
            assert href[1:] in ids or not href.startswith("#")
    for table in page(name).all("table"):
        assert next(table.all("caption")).text.strip()
        assert all("scope" in head.attributes for head in table.all("th"))
    for drawing in page(name).all("svg"):
        if drawing.attributes.get("role") == "img":
            assert next(drawing.all("title")).text.strip()
            assert next(drawing.all("desc")).text.strip()
        if drawing.attributes.get("role") == "listbox":
            assert "aria-label" in drawing.attributes
    assert all(image.attributes["alt"] for image in page(name).all("img"))


def about(shown):
    """What stands behind the answers."""
    return next(d for d in shown.all("div") if d.attributes.get("id") == "about")


def findings(name):
    items = list(next(u for u in page(name).all("ul") if u.has("arms")).all("li"))
    return {next(i.all("h3")).text: [p.text for p in list(i.all("div"))[1].all("p")] for i in items}


def test_three_answers_stand_first_then_what_is_shown_and_what_not_in_the_documents_words():
    own, short = about(page("full")), findings("full")
    text = page("full").text
    assert text.index(short["Realism"][0]) < text.index(own.text)
    assert next(page("full").all("header")).text.split() == ["Evaluation", "of", "cgan3d-1a2b"]
    words = written("full")[0]["words"]
    assert [item.text for item in own.all("li")] == [*words["shown"], *words["not_shown"]]
    assert "not put in words" in list(about(page("minimal")).all("p"))[-1].text
    assert "Not shown" not in about(page("minimal")).text
    assert next(p for p in own.all("p") if p.has("scope")).text == (
        "Run cgan3d-1a2b, drawn by cgan3d · nifti:phantoms, fold 0 · 64 samples beside 64 real "
        "images · real: training cases of 20 people, 5 held out · 32 × 32 × 32 voxels of "
        "1 × 1 × 1.5 mm · T1, FLAIR · labels: lesion, edema · seed 0."
    )


def test_in_short_it_says_what_was_found_of_each_part():
    assert findings("full") == {
        "Realism": [
            "◆ Like real in 3 of 10 figures: Intensities (distance T1), Precision and recall "
            "(precision) and Classifier two-sample test (nearest neighbour).",
            "▼ Unlike real in 6 of 10 figures: Radial power spectrum, Diversity, Fréchet distance "
            "of features, Precision and recall (recall) and Classifier two-sample test (logistic "
            "regression).",
            "○ Unclear in 1 of 10 figures: Intensities (distance FLAIR).",
        ],
        "Labels": findings("full")["Labels"],
        "Memorisation": [
            "▼ Samples repeat training cases: 2 of 64 are near-copies and 61\u00a0% lie nearer to "
            "training than to held-out people."
        ],
    }
    labels = findings("full")["Labels"][0]
    assert labels.startswith("○ Samples show some of what their labels say: Dice 0.59")
    none = findings("small")["Memorisation"][0]
    assert none.startswith("○ Memorisation is not shown, which does not rule it out")


def test_a_strip_has_a_row_of_each_side(tmp_path):
    strip = {"real": [b"1", b"2"], "synthetic": [b"3"]}
    files = write_report(documents.full(), tmp_path, strip=strip)
    own = about(parsed(files["report.html"].read_text()))
    (made,) = (d for d in own.all("div") if d.has("strip"))
    rows = [row for row in made.all("div") if row.has("row")]
    counts = [(next(row.all("p")).text, len(list(row.all("img")))) for row in rows]
    assert counts == [("real", 2), ("synthetic", 1)]
    assert 0 < own.text.index("real") < own.text.index("must not be passed on")


@EVERY
def test_alarms_are_warnings_and_so_are_pictures_of_patients_which_nothing_calls_anonymous(name):
    said = " ".join(d.text for d in about(page(name)).all("div") if d.has("warnings"))
    shown = bool(list(page(name).all("img")))
    assert shown == (name in PICTURED) == ("must not be passed on" in said)
    assert ("Warning FLAIR: above 0.2/mm" in said) == (name in ("full", "small", "hostile"))
    assert said == "" or name not in ("whys", "minimal")
    assert "anonymous" not in "".join(written(name)[1:]).lower()


@pytest.mark.parametrize(
    ("name", "key", "says"),
    [
        ("whys", "faithfulness", "not worked out: the samples have no labels."),
        ("whys", "memorisation", "not looked into: nothing was held out."),
        ("whys", "realism", "1 real image, expected 2 or more"),
        *[(name, "identity", "No exported files were looked at.") for name in ("minimal", "nulls")],
        *[(name, "memorisation", "not looked into") for name in ("minimal", "nulls")],
        ("full", "maps", "mean nothing in t-SNE"),
        ("full", "memorisation", "for whoever owns the run, and must not be passed on"),
    ],
)
def test_what_is_missing_and_what_means_nothing_is_said(name, key, says):
    text = section(name, key).text
    assert says in text
    assert "near-cop" not in text or name not in ("minimal", "nulls")


def test_near_copies_are_listed_and_many_or_many_panels_are_folded():
    table = next(t for t in section("full", "memorisation").all("table") if "Near-copies" in t.text)
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]
    assert rows[1:] == [["3", "case_007", "0.10", "yes"], ["41", "case_012", "0.46", "no"]]
    document = documents.full()
    document["memorisation"]["copies"]["pairs"] *= 25
    document["curves"]["intensities"] *= 8
    shown = parsed(render(compose(document, {})))
    own = {s.attributes["id"]: s for s in shown.all("section")}
    assert len(list(next(own["memorisation"].all("details")).all("tr"))) == 51
    (labels,) = (d for d in own["curves"].all("details") if "Within labels" in d.text)
    assert len([d for d in labels.all("svg") if d.attributes.get("role") == "img"]) == 16


SMALL = documents.small()


def composed(document: dict[str, Any]) -> None:
    report = compose(document, {})
    assert "How to read this" in render(report)
    assert "How to read this" in markdown(report)


@pytest.mark.parametrize("left", ["nothing", "null", "empty"])
@pytest.mark.parametrize("part", SMALL)
def test_any_part_may_be_missing(part, left):
    document = deepcopy(SMALL)
    empty: dict[type, Any] = {dict: {}, list: []}
    document[part] = None if left == "null" else empty.get(type(document[part]), "")
    if left == "nothing":
        del document[part]
    composed(document)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_place_may_be_null(which):
    """Every third is, from ``which`` on."""
    count = -1

    def holes(value):
        nonlocal count
        count += 1
        if count % 3 == which:
            return None
        if isinstance(value, dict):
            return {key: holes(item) for key, item in value.items()}
        return [holes(item) for item in value] if isinstance(value, list) else value

    composed({key: holes(item) for key, item in SMALL.items()})


@EVERY
def test_no_text_becomes_markup_links_stay_and_a_browser_may_load_this_very_code_only(name):
    found, html = page(name), written(name)[1]
    scripts = (SHARED / "script.js").read_text() + (TEMPLATES / "maps.js").read_text()
    assert [s.text for s in found.all("script")] == [scripts]
    assert not [k for e in found.all() for k in e.attributes if k.startswith("on") or k == "style"]
    if name == "hostile":
        assert html.count("&lt;script&gt;alert(1)") > 100
        assert "{{7*7}}" in html
    keys = ("href", "src")
    links = [e.attributes[k] for e in found.all() for k in keys if k in e.attributes]
    files = {link.split("#")[0] for link in links if not link.startswith("data:")}
    assert files == {"", "evaluation.json"}
    assert not re.search(r"(?:src|href|url)\W{0,3}(?:https?:)?//", html)
    policy = next(found.all("head")).children[3]  # before all that it is about
    assert isinstance(policy, Element)
    parts = dict(p.split(" ", 1) for p in policy.attributes["content"].split("; "))
    assert (parts["default-src"], parts["img-src"]) == ("'none'", "data:")
    for kind in ("style", "script"):
        digest = hashlib.sha256(next(found.all(kind)).text.encode()).digest()
        assert parts[f"{kind}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_sides_stand_out_of_what_is_behind_them(scheme):
    colours: dict[str, str] = {}
    for style in (SHARED / "style.css", TEMPLATES / "evaluation.css"):
        root = re.findall(r":root \{(.*?)\}", style.read_text(), re.DOTALL)[scheme]
        colours |= dict(re.findall(r"--([a-z_-]+): (#[0-9a-f]{6})", root))
    marks = ("synthetic", "training", "held-out", "real")
    pairs = [(mark, ground) for mark in marks for ground in ("ground", "raised")]
    pairs += [("ink", "real-area"), ("soft", "real-area"), ("synthetic", "real-area")]
    for mark, ground in pairs:
        least = 4.5 if mark in ("ink", "soft") else 3.0
        assert contrast(colours[mark], colours[ground]) >= least, (mark, ground)


@EVERY
def test_markdown_has_whole_tables_no_pictures_and_no_markup(name):
    text = written(name)[2]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert tables or name in ("minimal", "nulls")
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "base64" not in text
    assert "<" not in text.replace("&lt;", "")


def test_markdown_has_the_same_verdict_warnings_and_numbers(tmp_path):
    document = documents.full()
    before = json.dumps(document)
    text = write_report(document, tmp_path)["report.md"].read_text()
    assert json.dumps(document) == before
    for said in (
        "\n".join(f"- {words}" for words in document["words"]["shown"]),
        "> **Warning** FLAIR",
        "> **Warning** The list of near-copies",
        "| 0.31 (0.26 to 0.37) | 0.08 (0.04 to 0.15) |",
        "64 real, training, 16 real, held-out and 64 synthetic; perplexity 15.",
        "| metric | figure |",
    ):
        assert said in text
    assert text.index("- **Realism**") < text.index("> **Warning** FLAIR")
