import json
import shutil

import pytest

from gansynth.core.run_folder import RunFolder, read_manifest
from gansynth.fitting.run_report import CARD, PAGE, RESULTS, write_run_report
from gansynth.testing import ToySource
from tests.benchmark.browsing import SIZES, chromium, opened_quietly
from tests.recorder import Recorder

WARNING = "discriminator at chance: a loss of 0.25"


@pytest.fixture(scope="module")
def fitted(toy_fit, whole_fits, tmp_path_factory):
    out = tmp_path_factory.mktemp("private") / "run"
    toy_fit(out, sample_every=1, steps=7)
    return out


@pytest.fixture
def run(fitted, tmp_path):
    return RunFolder(shutil.copytree(fitted, tmp_path / "run"))


def texts(run: RunFolder) -> list[str]:
    return [(run.folder / name).read_text() for name in (RESULTS, PAGE, CARD)]


def test_a_fit_reports_cases_settings_grids_over_time_and_that_they_show_patients(fitted):
    kept, page, card = texts(RunFolder(fitted))
    assert json.loads(kept)["held_out_cases"] == len(ToySource(2).held_out_ids)
    assert page.count("<img") == 5 + 1  # grids, and the curves
    assert "4 of 6 earlier ones" in page
    assert "holds pictures of training cases" in page
    assert "step 7 of 7, fitted on 12 cases" in card
    assert "| steps | 7 | 20000 |" in card


def test_the_card_names_no_case_no_path_and_shows_no_picture(fitted, run):
    assert not any(str(fitted.parent) in text for text in texts(RunFolder(fitted)))
    case = read_manifest(run.folder)["lineage"]["cases"][0]["id"]
    source, held_out = ToySource(2), ToySource(2).held_out_ids[0]
    warnings = [f"/data/a.nii: {case} is flat", f"begin alike: {held_out}"]
    write_run_report(run, Recorder(), {"warnings": warnings}, source)
    write_run_report(run, Recorder())  # as after an evaluation
    kept, page, card = texts(run)
    assert not any(held_out in text for text in (kept, page, card))
    assert (case in page, "data:image" in page) == (True, True)
    assert "**Warning** ?: ? is flat" in card
    assert (case in card, "data:image" in card) == (False, False)


def test_an_evaluation_adds_its_words_and_what_the_fit_has_warned_of_stays(run):
    write_run_report(run, Recorder(), {"warnings": [f"{run}/samples: {WARNING}"]})
    (run.folder / "evaluation").mkdir()
    found = {"words": {"shown": ["samples are faithful"], "not_shown": []}, "alarms": []}
    (run.folder / "evaluation" / "evaluation.json").write_text(json.dumps(found))
    write_run_report(run, Recorder())
    told = ("samples are faithful", f"RUN/samples: {WARNING}")
    assert all(words in text for words in told for text in texts(run))


def test_a_report_that_cannot_be_written_is_a_warning(run):
    (run.folder / PAGE).unlink()
    (run.folder / PAGE).mkdir()
    reporter = Recorder()
    write_run_report(run, reporter)
    assert [PAGE in line for line in reporter.warned] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_is_quiet_and_asks_nobody(fitted, size):
    width, height = SIZES[size]
    with chromium() as browser:
        window = browser.new_context(viewport={"width": width, "height": height})
        opened_quietly(window, fitted / PAGE, width, "light")
