import io
import json
import re
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from gansynth.benchmark.report import write_report
from gansynth.benchmark.report.overlays import EDGE, PREDICTED, TRUTH, overlay_png, worst_cases
from gansynth.benchmark.report.page import compose
from gansynth.benchmark.report.study import ReportData
from gansynth.report.rendering import render
from gansynth.runtime.errors import DataFault
from tests.benchmark import documents
from tests.benchmark.browsing import SIZES, chromium, opened_quietly
from tests.benchmark.html_tree import (
    Element,
    check_inert,
    check_speaks_for_itself,
    parsed,
    whole_tables,
)
from tests.benchmark.tracing import check_link, contrast, loose, resolve, strings, traced

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "gansynth" / "report" / "templates"
EVERY = pytest.mark.parametrize("name", documents.EVERY)


@cache
def written(name):
    document = documents.EVERY[name]()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_report(document, Path(folder) / "made" / "here", documents.overlays(document))
        assert set(paths) == {"report.html", "report.md"}
        texts = [paths[key].read_text("utf-8") for key in ("report.html", "report.md")]
    return json.loads(json.dumps(document)), texts[0], texts[1]


@cache
def page(name):
    return parsed(written(name)[1])


def of_class(element: Element, name: str, class_: str) -> list[Element]:
    return [found for found in element.all(name) if found.has(class_)]


SECTIONS = [
    "arms", "differences", "worth", "curves", "subjects", "spread", "measures", "ratios", "costs",
    "worst", "paper", "looks", "failures", "plan", "reading",
]  # fmt: skip


def test_a_full_report_has_all_its_sections_in_order():
    keys = [s.attributes["id"] for s in page("full").all("section")]
    assert keys == SECTIONS
    linked = {a.attributes["href"] for a in next(page("full").all("nav")).all("a")}
    assert linked == {"#main", *(f"#{key}" for key in SECTIONS[1:])}


@EVERY
def test_a_page_is_sound_and_its_tables_and_drawings_speak_for_themselves(name):
    check_speaks_for_itself(page(name))
    assert all("href" in element.attributes for element in page(name).all("a", "use"))


def test_the_verdict_stands_first_and_large():
    main = next(page("full").all("main"))
    first = next(p for p in main.all("p"))
    assert first.has("verdict")
    assert "nnU-Net 3d_fullres" in first.text
    assert "trained on 6 and 12 subjects" in first.text


def warnings(document):
    return " ".join(d.text for d in of_class(parsed(render(compose(document))), "div", "warnings"))


def test_looks_that_prove_little_missing_trainings_and_the_documents_own_warnings_are_shown():
    assert "development split" in warnings(documents.development())
    document = documents.lower_is_better()
    assert warnings(document) == ""
    again = {**document["look"]["log"][0], "look": 2, "reason": "a bug in the loader"}
    document["look"] |= {"number": 2, "log": [*document["look"]["log"], again]}
    assert "more than once: this is look 2" in warnings(document)
    assert "a bug in the loader" in render(compose(document))
    text = warnings(documents.full())
    assert "1 training has no result" in text
    assert "a spacing that no training subject has" in text


def test_what_inner_folds_chose_is_told_once_for_a_draw():
    table = next(t for t in page("full").all("table") if "inner folds" in t.text)
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]
    assert rows[0] == ["N", "draw", "chosen"]
    assert rows[1] == ["tuned"]
    assert rows[2:4] == [["6", "0", "unedited"], ["6", "1", "none"]]
    assert len(rows) == 2 + 2 * 3


@pytest.mark.parametrize(
    ("regions", "names", "shown"),
    [({}, "1 foreground", "foreground"), ({"WT": "1 + 2", "ET": "2"}, "1 2 ET WT", "WT 1 ET")],
)
def test_regions_of_the_same_voxels_are_shown_once(regions, names, shown):
    measures = {f"dice/{name}": documents.DICE for name in names.split()}
    expected = [f"dice/{name}" for name in shown.split()]
    document = {"measures": measures, "plan": {"regions": regions}, "primary": expected[0]}
    assert list(ReportData(document).measures) == expected


@pytest.mark.fault(24)
@EVERY
def test_no_text_becomes_markup_and_a_browser_may_load_this_very_code_only(name):
    check_inert(page(name), (TEMPLATES / "script.js").read_text(), "results.json")
    if name == "hostile":
        assert written(name)[1].count("&lt;script&gt;alert(1)") > 10
        assert "{{7*7}}" in written(name)[1]


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


@EVERY
def test_markdown_tables_are_whole(name):
    assert whole_tables(written(name)[2]) or name == "minimal"


def test_markdown_has_the_same_verdict_and_numbers_and_no_json_pointers():
    document, _, text = written("full")
    (sentence,) = of_class(page("full"), "p", "verdict")
    assert sentence.text.replace("\u00a0", " ") in text.replace("\\", "")
    for first in document["comparisons"]:
        if first["measure"] == document["primary"]:
            assert f"| {100 * first['difference']:+.2f} |".replace("-", "−") in text
    assert "`/" not in text
    assert "JSON" not in text


@pytest.mark.fault(24)
def test_markdown_of_hostile_names_has_no_markup():
    text = written("hostile")[2]
    outside = re.sub(r"^(`{3,})yaml\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "&lt;script&gt;" in outside
    assert "<" not in outside.replace("&lt;", "")


@EVERY
def test_every_number_is_that_of_its_pointer_and_what_is_drawn_names_its_place(name):
    document = written(name)[0]
    links = of_class(page(name), "a", "n")
    assert len(links) > (200 if name in ("full", "many") else 0) or name == "minimal"
    for link in links:
        check_link(document, link, "results.json")
    drawn = [g for g in page(name).all("g") if "data-pointer" in g.attributes]
    assert len(drawn) > (100 if name == "full" else 0) or name in ("minimal", "all_failed")
    for group in drawn:
        traced(document, group.attributes["data-pointer"], next(group.all("title")).text)


SAID = {"95", "80", "0.05", "0.84", "84", "100"}
"""What the template's own words need: levels, power, an example, and what alarms are counted in."""


@pytest.mark.parametrize("name", ["full", "many", "detection", "all_failed", "lower_is_better"])
def test_no_number_stands_without_a_link(name):
    document = written(name)[0]
    text = " ".join(loose(next(page(name).all("body")))).replace("\u00a0", " ")
    for known in sorted(set(strings(document)), key=len, reverse=True):
        if re.search(r"\d", known) and re.search(r"[A-Za-z.]", known):
            text = text.replace(known, " ")
    for measure in document["measures"].values():  # "HD95 (1)"
        text = text.replace(f"({measure['region']})", " ")
    assert set(re.findall(r"\d[\d.,]*\d|\d", text)) <= SAID


def test_a_mark_lies_where_its_number_is_on_the_axis():
    document = written("full")[0]
    chart = of_class(page("full"), "div", "forest")[0]
    ticks = of_class(chart, "text", "tick")
    ends = [(float(t.text.replace("−", "-")), float(t.attributes["x"][:-1])) for t in ticks]
    (low, left), (high, right) = ends[0], ends[-1]
    places = [(g.attributes["data-pointer"], m) for g in chart.all("g") for m in g.all("use")]
    marks = {pointer: mark for pointer, mark in places if pointer.endswith("/difference")}
    for pointer, mark in marks.items():
        x = left + (100 * resolve(document, pointer) - low) / (high - low) * (right - left)
        assert float(mark.attributes["x"][:-1]) == pytest.approx(x, abs=0.02)
    assert len(marks) == sum(c["measure"] == "dice/foreground" for c in document["comparisons"])


SHOWN = ("full", "hostile", "minimal")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name in SHOWN:
        (folder / name).mkdir()
        (folder / name / "report.html").write_text(written(name)[1], "utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_is_quiet_and_asks_nobody(browser, folder, size, scheme):
    wide, high = SIZES[size]
    missing = {"minimal": {"arms", "paper"}, "hostile": {"paper"}, "full": set()}
    window = browser.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme)
    for name in SHOWN:
        page = opened_quietly(window, folder / name / "report.html", wide, scheme)
        shown = page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)")
        assert shown == [key for key in SECTIONS if key not in missing[name]]
    window.close()


@pytest.mark.slow
def test_numbers_and_what_is_folded_away_are_reached_by_keyboard(browser, folder):
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto((folder / "full" / "report.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    number = page.locator(".forest a.n").nth(1)
    number.focus()
    page.keyboard.press("Enter")
    assert page.locator("#source").is_visible()
    assert page.locator("#source-place").inner_text() == number.get_attribute("title")
    assert page.locator("#source-open").get_attribute("href") == number.get_attribute("href")
    page.keyboard.press("Escape")
    assert page.locator("#source").is_hidden()
    assert number.evaluate("element => element === document.activeElement")
    page.close()


@pytest.mark.slow
def test_it_reads_without_scripts(browser, folder):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((folder / "full" / "report.html").as_uri())
    assert page.locator(".verdict").is_visible()
    assert page.locator(".forest svg").first.is_visible()
    href = page.locator(".forest a.n").nth(1).get_attribute("href")
    assert re.fullmatch(r"results\.json#/comparisons/\d+/difference", href)


def scored(measure=documents.DICE, **scores):
    place = {"n": 6, "draw": 0, "seed": 0, "status": "done"}
    return {
        "primary": "m",
        "control": "default",
        "measures": {"m": measure},
        "sizes": [6],
        "arms": {arm: {"title": arm} for arm in scores},
        "plan": {"arms": [{"name": arm} for arm in scores]},
        "runs": [{"arm": arm, **place, "scores": {"m": own}} for arm, own in scores.items()],
    }


DISTANCES = {"default": {"a": 1.0, "b": 9.0}, "gan": {"a": 5.0, "b": 9.5}}


@pytest.mark.parametrize(
    ("made", "chosen"),
    [
        (  # the control's lowest case, then the greatest losses
            scored(
                default={"a": 0.9, "b": 0.5, "c": 0.8},
                small={"a": 0.89, "b": 0.5, "c": 0.8},
                large={"a": 0.9, "b": 0.6, "c": 0.4},
            ),
            [("default", "b"), ("large", "c"), ("small", "a")],
        ),
        (scored(default={"a": 0.5}, gan={"a": 0.6}), [("default", "a")]),  # it loses nowhere
        (scored(documents.HD95, **DISTANCES), [("default", "b"), ("gan", "a")]),
        (documents.minimal(), []),
        (documents.all_failed(), []),
    ],
)
def test_the_controls_worst_case_comes_first_then_the_greatest_losses(made, chosen):
    assert [(w.run["arm"].text, w.case) for w in worst_cases(made)][: len(chosen) or None] == chosen


def test_a_case_stands_with_its_value_the_controls_and_their_places():
    worst = worst_cases(scored(default={"b": 0.5, "c": 0.8}, gan={"b": 0.6, "c": 0.4}))[1]
    assert (worst.score.number, worst.reference.number) == (0.4, 0.8)
    assert worst.score.pointer == "/runs/1/scores/m/c"
    assert worst.reference.pointer == "/runs/0/scores/m/c"


def test_losses_are_against_the_same_draw_and_seed():
    made = scored(default={"a": 0.5}, gan={"a": 0.4})
    made["runs"][1]["seed"] = 1
    assert [w.run["arm"].text for w in worst_cases(made)] == ["default"]


def test_no_more_than_asked_and_no_case_twice_for_an_arm():
    for most in (0, 1, 6):
        chosen = worst_cases(documents.full(), most)
        assert len({(w.run["arm"].text, w.case) for w in chosen}) == len(chosen) == most


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) / 255


def near(picture, colour):
    return np.abs(picture - to_rgb(colour)).max(axis=2) < 0.12


def volume():
    """Image (1, D, H, W), truth and prediction: in plane 4 they differ most."""
    image = np.linspace(0, 0.2, 6, dtype=np.float32)[None, :, None, None] + np.zeros((30, 40))
    truth = np.zeros((6, 30, 40), np.int16)
    truth[1:5, 8:20, 5:15] = 1
    predicted = truth.copy()
    predicted[4] = np.roll(truth[4], 20, axis=1)
    return image.astype(np.float32), truth, predicted


def test_truth_and_prediction_are_outlined_in_their_colours_where_they_differ_most():
    picture = pixels(overlay_png(*volume()))
    assert picture.shape[:2] == (EDGE * 30 // 40, EDGE)
    scale = EDGE / 40
    for colour, left in ((TRUTH, 5), (PREDICTED, 25)):
        rows, columns = np.nonzero(near(picture, colour))
        assert (left - 1) * scale < columns.min() < columns.max() < (left + 11) * scale
        assert 7 * scale < rows.min() < rows.max() < 21 * scale


def test_the_predictions_outline_is_told_apart_without_colour():
    image, truth, _ = volume()
    whole = near(pixels(overlay_png(image, truth, np.zeros_like(truth))), TRUTH).sum()
    dashed = near(pixels(overlay_png(image, np.zeros_like(truth), truth)), PREDICTED).sum()
    assert 0.4 * whole < dashed < 0.85 * whole


def test_where_all_agree_the_fullest_slice_is_shown():
    image, truth, _ = volume()
    truth[2, 0:30, 0:20] = 1
    rows = np.nonzero(near(pixels(overlay_png(image, truth, truth)), PREDICTED))[0]
    assert np.ptp(rows) > 0.9 * EDGE * 30 / 40


def test_a_constant_picture_is_drawn_and_what_is_outside_counts_as_background():
    _, truth, predicted = volume()
    truth, predicted = truth[4], predicted[4]
    flat = np.ones((2, 30, 40), np.float32)
    outside = np.where(truth == 0, -1, truth)
    drawn = overlay_png(flat, outside, predicted, channel=1)
    assert drawn == overlay_png(flat, truth, predicted, channel=1)
    assert near(pixels(drawn), TRUTH).any()


def test_shapes_that_do_not_fit_are_refused():
    image, truth, predicted = volume()
    with pytest.raises(DataFault, match=r"expected \(C, D, H, W\)"):
        overlay_png(image, truth, predicted[1:])
    with pytest.raises(DataFault, match="channel 1, expected one below 1"):
        overlay_png(image, truth, predicted, channel=1)
