import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gansynth.benchmark.access_log import AccessLog
from gansynth.benchmark.analysis import analysed
from gansynth.benchmark.plan_file import read_plan

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GAINS = BENCHMARKS / "gains"
PUBLISHED = sorted(path.parent.name for path in GAINS.glob("*/results.json"))


def script(name: str) -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


def results(name: str) -> Any:
    return json.loads((GAINS / name / "results.json").read_text())


def test_the_table_of_results_is_made_of_them():
    text = (BENCHMARKS / "results" / "TABLE.md").read_text()
    assert script("table").made() == text, "run: python benchmarks/table.py"


def test_the_page_and_the_projects_page_are_made_of_the_results():
    assert "hippocampus" in PUBLISHED
    pages = script("gain_page")
    for file, make in ((GAINS / "README.md", pages.page), (pages.README, pages.readme)):
        text = file.read_text()
        assert make(text) == text


@pytest.mark.parametrize("name", PUBLISHED)
def test_results_are_of_the_plan_as_it_is(name):
    document, file = results(name), GAINS / f"{name}.yaml"
    kind, _, where = document["plan"]["data"].partition(":")
    elsewhere = read_plan(file, f"{kind}:/elsewhere/{where}")  # as --data named it
    assert document["plan_hash"] in (read_plan(file).hash, elsewhere.hash)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_look_is_in_the_log(name):
    looks = AccessLog(GAINS / f"{name}.yaml")
    look = results(name)["look"]
    assert look["log"] == looks.told()
    last = [entry for entry in looks.entries if entry["split"] == look["split"]][-1]
    assert last["plan_hash"] == results(name)["plan_hash"]


@pytest.mark.parametrize(
    "name", [n if n == "phantoms" else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED]
)
def test_statistics_are_those_of_the_scores(name):
    document = results(name)
    again = json.loads(json.dumps(analysed(document)))
    assert again["comparisons"] == document["comparisons"]
    assert again["verdict"] == document["verdict"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_says_where_it_was_computed(name):
    for path in sorted((GAINS / name).iterdir()):
        text = path.read_text()
        assert not re.search(r"/(work|tmp|home|root)/", text), path
        assert "data:image/png" not in text, path  # no picture of a person
