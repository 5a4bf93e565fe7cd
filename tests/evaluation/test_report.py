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
from tests.evaluation.pages import EVERY, PICTURED, page, section, written

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "gansynth" / "evaluation" / "report" / "templates"
SHARED = ROOT / "gansynth" / "report" / "templates"
SECTIONS = [
    "arms", "realism", "curves", "maps", "faithfulness", "memorisation", "identity",
    "seconds", "reading",
]  # fmt: skip


# -- what stands where ---------------------------------------------------------------------------


@EVERY
def test_a_report_has_all_its_sections_in_order_whatever_is_known(name):
    assert [s.attributes["id"] for s in page(name).all("section")] == SECTIONS
    contents = next(n for n in page(name).all("nav"))
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
        for key in ("aria-labelledby", "aria-describedby", "data-picture"):
            assert element.attributes.get(key, ids[0]) in ids
        if element.name in ("a", "use") and "href" in element.attributes:
            href = element.attributes["href"]
            assert href[1:] in ids or not href.startswith("#")


@EVERY
def test_tables_drawings_and_maps_speak_for_themselves(name):
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


def about(name):
    """What stands behind the answers."""
    return next(d for d in page(name).all("div") if d.attributes.get("id") == "about")


def paragraphs(name):
    return list(about(name).all("p"))


def test_three_answers_stand_first_then_pictures_then_all_else():
    text = page("full").text
    first, then = findings("full")["Realism"][0], about("full").text
    assert text.index(first) < text.index(then)
    assert list(findings("full")) == ["Realism", "Labels", "Memorisation"]
    assert next(page("full").all("header")).text.split() == ["Evaluation", "of", "cgan3d-1a2b"]


def test_a_strip_has_a_row_of_each_side(tmp_path):
    strip = {"real": [b"1", b"2"], "synthetic": [b"3"]}
    files = write_report(documents.full(), tmp_path, strip=strip)
    shown = parsed(files["report.html"].read_text())
    own = next(d for d in shown.all("div") if d.attributes.get("id") == "about")
    (made,) = (d for d in own.all("div") if d.has("strip"))
    assert [(next(row.all("p")).text, len(list(row.all("img")))) for row in made.all("div") if
            row.has("row")] == [("real", 2), ("synthetic", 1)]  # fmt: skip
    assert "must not be passed on" in own.text
    assert own.text.index("real") < own.text.index("must not be passed on")


def test_what_is_shown_and_what_not_is_in_the_documents_words():
    words = written("full")[0]["words"]
    items = [item.text for item in about("full").all("li")]
    assert items == [*words["shown"], *words["not_shown"]]


def test_without_words_the_report_makes_none_up():
    assert "not put in words" in paragraphs("minimal")[-1].text
    assert "Not shown" not in about("minimal").text


def test_the_scope_says_what_was_evaluated():
    scope = next(p for p in paragraphs("full") if p.has("scope")).text
    assert scope == (
        "Run cgan3d-1a2b, drawn by cgan3d · nifti:phantoms, fold 0 · 64 samples beside 64 real "
        "images · real: training cases of 20 people, 5 held out · 32 × 32 × 32 voxels of "
        "1 × 1 × 1.5 mm · T1, FLAIR · labels: lesion, edema · seed 0."
    )


def warnings(name):
    return [d.text for d in about(name).all("div") if d.has("warnings")]


def test_alarms_stand_as_warnings():
    assert "Warning FLAIR: above 0.2/mm" in warnings("full")[0]
    assert warnings("whys") == []


@EVERY
def test_a_page_with_pictures_of_patients_says_that_it_must_not_be_passed_on(name):
    shown = bool(list(page(name).all("img")))
    assert shown == (name in PICTURED)
    assert ("must not be passed on" in " ".join(warnings(name))) == shown


def findings(name):
    items = list(next(u for u in page(name).all("ul") if u.has("arms")).all("li"))
    return {next(i.all("h3")).text: [p.text for p in list(i.all("div"))[1].all("p")] for i in items}


def test_in_short_it_says_what_was_found_of_each_part():
    short = findings("full")
    assert short["Realism"] == [
        "◆ Like real in 3 of 10 figures: Intensities (distance T1), Precision and recall "
        "(precision) and Classifier two-sample test (nearest neighbour).",
        "▼ Unlike real in 6 of 10 figures: Radial power spectrum, Diversity, Fréchet distance of "
        "features, Precision and recall (recall) and Classifier two-sample test (logistic "
        "regression).",
        "○ Unclear in 1 of 10 figures: Intensities (distance FLAIR).",
    ]
    assert short["Labels"][0].startswith("○ Samples show some of what their labels say: Dice 0.59")
    assert short["Memorisation"] == [
        "▼ Samples repeat training cases: 2 of 64 are near-copies and 61\u00a0% lie nearer to "
        "training than to held-out people."
    ]


def test_no_memorisation_shown_is_not_none():
    assert findings("small")["Memorisation"][0].startswith(
        "○ Memorisation is not shown, which does not rule it out"
    )


def test_why_a_part_is_missing_is_said():
    assert "not worked out: the samples have no labels." in section("whys", "faithfulness").text
    assert "not looked into: nothing was held out." in section("whys", "memorisation").text
    assert "1 real image, expected 2 or more" in section("whys", "realism").text


@pytest.mark.parametrize("name", ["minimal", "nulls"])
def test_nothing_is_claimed_where_nothing_is_known(name):
    assert "No exported files were looked at." in section(name, "identity").text
    assert "not looked into" in section(name, "memorisation").text
    assert "near-cop" not in section(name, "memorisation").text


@EVERY
def test_nothing_is_called_anonymous_unless_the_document_does(name):
    assert "anonymous" not in written(name)[1].lower()
    assert "anonymous" not in written(name)[2].lower()


def test_near_copies_are_listed_for_the_owner_of_the_run_alone():
    found = section("full", "memorisation")
    assert "for whoever owns the run, and must not be passed on" in found.text
    table = next(t for t in found.all("table") if "Near-copies" in t.text)
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]
    assert rows[1:] == [["3", "case_007", "0.10", "yes"], ["41", "case_012", "0.46", "no"]]
    folded = next(d for d in section("many", "memorisation").all("details"))
    assert len(list(folded.all("tr"))) == 51


def test_distances_between_clusters_are_said_to_mean_nothing():
    assert "mean nothing in t-SNE" in section("full", "maps").text


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
    report = compose(document, {})
    assert "How to read this" in render(report)
    assert "How to read this" in markdown(report)


def holes(value, which):
    """The same with every third place null; ``which`` says where to begin."""
    count = -1

    def inner(value):
        nonlocal count
        count += 1
        if count % 3 == which:
            return None
        if isinstance(value, dict):
            return {key: inner(item) for key, item in value.items()}
        return [inner(item) for item in value] if isinstance(value, list) else value

    return {key: inner(item) for key, item in value.items()}


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_place_may_be_null(which):
    report = compose(holes(SMALL, which), {})
    assert "How to read this" in render(report)
    assert "How to read this" in markdown(report)


# -- nothing in it does anything -----------------------------------------------------------------


@EVERY
def test_no_text_of_the_document_becomes_markup(name):
    _, html, _ = written(name)
    found = page(name)
    scripts = (SHARED / "script.js").read_text() + (TEMPLATES / "maps.js").read_text()
    assert [s.text for s in found.all("script")] == [scripts]
    assert not [k for e in found.all() for k in e.attributes if k.startswith("on") or k == "style"]
    if name == "hostile":
        assert html.count("&lt;script&gt;alert(1)") > 100
        assert "{{7*7}}" in html


@EVERY
def test_links_lead_into_the_page_or_the_document_beside_it(name):
    keys = ("href", "src")
    links = [e.attributes[k] for e in page(name).all() for k in keys if k in e.attributes]
    files = {link.split("#")[0] for link in links if not link.startswith("data:")}
    assert files == {"", "evaluation.json"}
    assert not re.search(r"(?:src|href|url)\W{0,3}(?:https?:)?//", written(name)[1])


@EVERY
def test_a_browser_may_load_this_very_style_and_script_only(name):
    found = page(name)
    policy = next(found.all("head")).children[3]  # before all that it is about
    assert isinstance(policy, Element)
    parts = dict(p.split(" ", 1) for p in policy.attributes["content"].split("; "))
    assert parts["default-src"] == "'none'"
    assert parts["img-src"] == "data:"
    for kind in ("style", "script"):
        text = next(found.all(kind)).text
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert parts[f"{kind}-src"] == f"'sha256-{digest}'"


def test_the_wheel_has_the_templates():
    from hatchling.builders.wheel import WheelBuilder

    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    templates = {path.relative_to(ROOT).as_posix() for path in TEMPLATES.iterdir()}
    assert len(templates) == 2
    assert templates <= packed


def test_the_document_is_left_as_it_was(tmp_path):
    document = documents.full()
    before = json.dumps(document)
    write_report(document, tmp_path)
    assert json.dumps(document) == before
    assert parsed((tmp_path / "report.html").read_text("utf-8"))


# -- colours -------------------------------------------------------------------------------------


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


# -- Markdown ------------------------------------------------------------------------------------


@EVERY
def test_markdown_tables_are_whole(name):
    tables = re.findall(r"(?:^\|.*\n)+", written(name)[2], re.MULTILINE)
    assert tables or name in ("minimal", "nulls")
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_has_the_same_verdict_warnings_and_numbers():
    document, _, text = written("full")
    assert "\n".join(f"- {words}" for words in document["words"]["shown"]) in text
    assert text.index("- **Realism**") < text.index("> **Warning** FLAIR")
    assert "> **Warning** FLAIR" in text
    assert "> **Warning** The list of near-copies" in text
    assert "| 0.31 (0.26 to 0.37) | 0.08 (0.04 to 0.15) |" in text
    assert "64 real, training, 16 real, held-out and 64 synthetic; perplexity 15." in text
    assert "| metric | figure |" in text


@EVERY
def test_markdown_has_no_pictures_and_no_markup(name):
    text = written(name)[2]
    assert "base64" not in text
    assert "<" not in text.replace("&lt;", "")
