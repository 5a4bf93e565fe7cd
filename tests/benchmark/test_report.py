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

from gansynth.metrics.statistics import NOWHERE
from gansynth_benchmark.report import tables, write_report
from gansynth_benchmark.report.overlays import EDGE, PREDICTED, TRUTH, overlay_png, worst_cases
from gansynth_benchmark.report.study import ReportData
from gansynth_benchmark.report.verdict import verdict
from tests.benchmark import documents
from tests.benchmark.html_tree import (
    check_inert,
    check_same_tables,
    check_speaks_for_itself,
    contrast,
    parsed,
    whole_tables,
)
from tests.expected import raises_fault
from tests.house import ROOT

STYLE = ROOT / "gansynth" / "report" / "templates" / "style.css"


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


SECTIONS = [
    "difference-to-the-control", "worth-how-many-extra-real-cases", "learning-curves",
    "test-subjects-one-by-one", "where-the-differences-spread", "all-measures",
    "synthetic-samples-asked-and-drawn", "costs", "worst-cases", "the-paper-s-numbers-beside-ours",
    "looks-at-the-test-data", "failures", "plan", "how-to-read-this",
]  # fmt: skip


def test_a_full_report_has_all_its_sections_in_order():
    assert [s.attributes["id"] for s in page("full").all("section")] == SECTIONS
    linked = [a.attributes["href"] for a in next(page("full").all("nav")).all("a")]
    assert linked == [f"#{key}" for key in SECTIONS]


@pytest.mark.fault(24)
@pytest.mark.parametrize("name", documents.EVERY)
def test_a_page_is_sound_and_inert_and_has_the_tables_and_the_verdict_of_the_markdown(name):
    document, html, text = written(name)
    shown = parsed(html)
    check_speaks_for_itself(shown)
    check_inert(shown)
    assert whole_tables(text) or name == "minimal"
    assert check_same_tables(shown, text) > (150 if name == "full" else 0)
    for line in verdict(document)["per_arm"].values():
        assert line in shown.text


def warned(name):
    return " ".join(quote.text for quote in page(name).all("blockquote"))


def test_looks_that_prove_little_missing_trainings_and_the_documents_own_warnings():
    assert "development split" in warned("alone")
    assert "more than once: this is look 2" in warned("full")
    assert "look 1 was broken off" in page("full").text
    assert "1 training has no result" in warned("full")
    assert "a spacing that no training subject has" in warned("full")
    assert warned("lower_is_better") == ""


def test_what_inner_folds_chose_is_told_once_for_a_draw():
    labels = {t.parent.attributes["aria-label"]: t for t in page("full").all("table")}
    table = labels["Chosen among arms by inner folds of the training subjects"]
    rows = [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]
    assert rows[0] == ["arm", "N", "draw", "chosen"]
    assert [row[1:] for row in rows[1:3]] == [["6", "0", "unedited"], ["6", "1", "default"]]
    assert len(rows) == 1 + 2 * 3


@pytest.mark.parametrize(
    ("regions", "names", "shown"),
    [({}, "1 foreground", "foreground"), ({"WT": "1 + 2", "ET": "2"}, "1 2 ET WT", "WT 1 ET")],
)
def test_regions_of_the_same_voxels_are_shown_once(regions, names, shown):
    measures = {f"dice/{name}": documents.DICE for name in names.split()}
    expected = [f"dice/{name}" for name in shown.split()]
    document = {"measures": measures, "plan": {"regions": regions}, "primary": expected[0]}
    assert list(ReportData(document).measures) == expected


@pytest.mark.parametrize(
    ("generalises", "said"), [("draws, subjects", "draws, subjects"), (NOWHERE, "")]
)
def test_intervals_that_are_not_there_speak_for_nothing(generalises, said):
    document = json.loads(json.dumps(documents.full()))
    for comparison in document["comparisons"]:
        comparison["generalises"] = generalises
    assert tables.reach(ReportData(document)) == said


@pytest.mark.parametrize("name", ["full", "lower_is_better"])
def test_every_comparison_stands_with_the_numbers_of_the_document(name):
    document, _, text = written(name)
    scale = 100 if document["measures"][document["primary"]]["unit"] == "" else 1
    for found in document["comparisons"]:
        if found["measure"] == document["primary"] and found["difference"] is not None:
            values = (found["difference"], *found["interval"].values())
            difference, low, high = (f"{scale * v:+.2f}".replace("-", "−") for v in values)
            title = document["arms"][found["arm"]]["title"]
            row = f"| {title} | {found['n']} | {difference} | {low} to {high} | "
            assert row.replace("+0.00", "0.00").replace("−0.00", "0.00") in text


@pytest.mark.fault(24)
def test_hostile_names_are_no_markup():
    _, html, text = written("hostile")
    assert html.count("&lt;script&gt;alert(1)") > 10
    assert "{{7*7}}" in html
    outside = re.sub(r"^(`{3,})yaml\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "&lt;script&gt;" in outside
    assert "<" not in outside.replace("&lt;", "")


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_of_what_is_behind_them(scheme):
    roots = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([a-z_-]+): (#[0-9a-f]{6})", roots[scheme]))
    pairs = [(word, on) for word in ("ink", "soft", "link") for on in ("ground", "raised")]
    for word, ground in [*pairs, ("warn", "warn-ground"), ("ink", "warn-ground")]:
        assert contrast(colours[word], colours[ground]) >= 4.5, (word, ground)


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
OF_OTHER_SEEDS = scored(default={"a": 0.5}, gan={"a": 0.4})
OF_OTHER_SEEDS["runs"][1]["seed"] = 1


@pytest.mark.parametrize(
    ("made", "chosen"),
    [
        (  # the control's lowest case, then the greatest losses
            scored(
                default={"a": 0.9, "b": 0.5, "c": 0.8},
                small={"a": 0.89, "b": 0.5, "c": 0.8},
                large={"a": 0.9, "b": 0.6, "c": 0.4},
            ),
            [("default", "b", 0.5, None), ("large", "c", 0.4, 0.8), ("small", "a", 0.89, 0.9)],
        ),
        (scored(default={"a": 0.5}, gan={"a": 0.6}), [("default", "a", 0.5, None)]),
        (OF_OTHER_SEEDS, [("default", "a", 0.5, None)]),
        (
            scored(documents.HD95, **DISTANCES),
            [("default", "b", 9.0, None), ("gan", "a", 5.0, 1.0)],
        ),
        (documents.minimal(), []),
    ],
)
def test_the_controls_worst_case_comes_first_then_the_greatest_losses(made, chosen):
    found = [(one.run["arm"], one.case, one.score, one.reference) for one in worst_cases(made)]
    assert found[: len(chosen) or None] == chosen


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


def test_slices_of_oriented_volumes_are_shown_front_up_and_left_on_the_right():
    as_it_runs = pixels(overlay_png(*volume()))
    assert np.array_equal(pixels(overlay_png(*volume(), oriented=True)), as_it_runs[::-1, ::-1])


def test_the_predictions_outline_is_told_apart_without_colour():
    image, truth, _ = volume()
    whole = near(pixels(overlay_png(image, truth, np.zeros_like(truth))), TRUTH).sum()
    dashed = near(pixels(overlay_png(image, np.zeros_like(truth), truth)), PREDICTED).sum()
    assert 0.4 * whole < dashed < 0.85 * whole


def test_where_all_agree_the_fullest_slice_is_shown_and_what_is_outside_is_background():
    image, truth, predicted = volume()
    truth[2, 0:30, 0:20] = 1
    rows = np.nonzero(near(pixels(overlay_png(image, truth, truth)), PREDICTED))[0]
    assert np.ptp(rows) > 0.9 * EDGE * 30 / 40
    flat, truth, predicted = np.ones((2, 30, 40), np.float32), truth[4], predicted[4]
    outside = np.where(truth == 0, -1, truth)
    drawn = overlay_png(flat, outside, predicted, channel=1)
    assert drawn == overlay_png(flat, truth, predicted, channel=1)
    assert near(pixels(drawn), TRUTH).any()


def test_shapes_that_do_not_fit_are_refused():
    image, truth, predicted = volume()
    with raises_fault("benchmark.overlay-shapes-differ"):
        overlay_png(image, truth, predicted[1:])
    with raises_fault("benchmark.overlay-channel-unknown"):
        overlay_png(image, truth, predicted, channel=1)
