"""``gansynth card --methods``: how a training was composed, from what it left behind."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import gansynth
from tests.flat_sets import pictures
from tests.house import ROOT
from tests.producers import forked_producers

SHORT: dict[str, Any] = {"steps": 3, "width": 4, "levels": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training on samples in the people's own pictures."""
    home = tmp_path_factory.mktemp("card")
    words: dict[str, Any] = {"data": f"pictures:{home / 'own'}"}
    words["subjects"] = pictures(home / "own").subjects
    run = gansynth.fit("parametric", **words, out=home / "run", quiet=True)
    with forked_producers():
        gansynth.augment(
            **{"target": "segmenter", "generator": run, "ratio": "1:1", "bank_size": 4},
            **{"out": home / "out", "quiet": True, "seed": 5, **SHORT},
        )
    return home


def test_the_methods_are_those_of_the_record_and_the_log_of_draws(trained, run_cli):
    done = run_cli("card", trained / "out", "--methods", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    drawn: dict[str, Counter[str]] = {"real": Counter(), "synthetic": Counter()}
    for path in (trained / "out").glob("gansynth_draws/*/*.csv"):
        for row in csv.reader(path.read_text().splitlines()):
            if row[0] in drawn and int(row[-1].split(".")[0]) < SHORT["steps"]:
                drawn[row[0]][row[1 if row[0] == "real" else 2]] += 1
    assert document["draws"] == drawn
    assert {each.total() for each in drawn.values()} == {6}
    table = document["table"]
    assert f"fold 0 of pictures:{Path('own')}" in table["real cases"]
    assert table["draws of real cases"].startswith(f"6 draws of {len(drawn['real'])} case")
    based = table["based on the training fold"]
    assert based.startswith(f"6 draws of {len(drawn['synthetic'])} case")
    assert table["generator"].startswith("parametric, run ")
    assert table["held-out cases"].startswith("none found: compared by ")
    assert table["seeds"] == "training 5, samples 5"
    assert "50.0% were synthetic" in document["paragraph"]
    lines = run_cli("card", trained / "out", "--methods").stdout.splitlines()
    assert max(map(len, lines)) <= 80


def test_what_is_not_there_any_more_is_said_to_be_unknown(trained, run_cli):
    record = trained / "out" / "gansynth_session.json"
    document = json.loads(record.read_text())
    [session] = document["sessions"]
    del session["guard"], session["lineage"]
    session["generator"]["folder"] = "gone"
    other = trained / "older"
    other.mkdir()
    (other / record.name).write_text(json.dumps(document))
    table = json.loads(run_cli("card", other, "--methods", "--json").stdout)["table"]
    assert "its fit is unknown" in table["generator"]
    for title in ("real cases", "draws of real cases", "held-out cases"):
        assert "not recorded" in table[title], title


def test_a_benchmark_tells_what_its_trainings_drew_and_a_fit_has_its_card(trained, run_cli, refuse):
    published = ROOT / "benchmarks" / "gains" / "lgg_unlabelled" / "development.json"
    table = json.loads(run_cli("card", published, "--methods", "--json").stdout)["table"]
    assert "1600 real and 1600 synthetic draws a training by parametric" in table["arm others"]
    assert "also in unlabelled scans (pictures:free)" in table["arm others"]
    assert "not recorded" in table["draws of cases"]
    (trained / "run" / "card.md").write_text("# Model card of run\n")
    assert run_cli("card", trained / "run").stdout == "# Model card of run\n"
    refuse("card", trained / "run", "--methods", code=2, says=["is a fit"])
    refuse("card", trained / "out", code=2, says=["--methods"])
    suite = ROOT / "benchmarks" / "gains" / "small_lesions"
    refuse("card", suite, "--methods", code=2, says=["has no runs"])


def test_of_two_trainings_in_a_folder_one_is_to_be_named(trained, refuse, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(trained / "out", tmp_path / name)
    says = ["holds 2 trainings", "by the newest: gansynth card "]
    refuse("card", tmp_path, "--methods", code=2, says=says)
