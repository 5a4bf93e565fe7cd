"""``fit --sites`` and ``evaluate --sites``: which sites a run has seen, and a line for each."""

import json
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.lineage import Lineage
from tests.cli.test_sites import SITES, SUBJECTS, gamma, save

EVALUATE = ("-n", "12", "--preset", "quick", "--device", "cpu", "--no-pictures")


@pytest.fixture(scope="module")
def two_sites(tmp_path_factory) -> Any:
    """What is typed after ``fit elastic`` to train at site ``a`` alone, without its folder."""
    home: Path = tmp_path_factory.mktemp("sites")
    save(home / "both", "a")
    data = save(home / "both", "b", gamma)
    cases = sorted(path.stem for path in (home / "both/images").iterdir())
    sides = [[case for case in cases if case.startswith(site)] for site in "ab"]
    (home / "splits.json").write_text(json.dumps([{"train": sides[0], "val": sides[1]}]))
    read = f"splits={home / 'splits.json'}"
    return "--data", data, "--subjects", SUBJECTS, "--read", read


def test_a_run_records_the_site_of_each_case_that_it_has_seen(
    two_sites, tmp_path, run_json, whole_fits
):
    run_json("fit", "elastic", *two_sites, "--sites", SITES, "-o", tmp_path / "run")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    cases = Lineage.from_json(manifest["lineage"]).cases
    assert {case.site for case in cases} == {"a"}
    assert "- sites: a\n" in (tmp_path / "run/card.md").read_text()


def test_a_run_that_is_told_no_sites_records_none(two_sites, tmp_path, run_json):
    run_json("fit", "elastic", *two_sites, "-o", tmp_path / "run")
    assert '"site' not in (tmp_path / "run/manifest.json").read_text()


@pytest.mark.parametrize("told_to", ["fit", "evaluate"])
def test_samples_are_set_beside_the_cases_of_each_site(two_sites, tmp_path, run_json, told_to):
    run, named = tmp_path / "run", ("--sites", SITES)
    run_json("fit", "elastic", *two_sites, *(named if told_to == "fit" else ()), "-o", run)
    asked = (*EVALUATE, "--only", "memorisation", *(named if told_to == "evaluate" else ()))
    rows = {row["site"]: row for row in run_json("evaluate", run, *asked)["sites"]}
    seen = {site: (row["subjects"], row["trained_on"]) for site, row in rows.items()}
    assert seen == {"a": (8, 8), "b": (8, 0)}
    # Samples have the grey values of the site that they were learnt of, not of the other.
    assert "grey values" not in rows["a"]["differs_in"]
    assert "grey values" in rows["b"]["differs_in"]


def test_each_site_has_a_line_with_the_dice_in_its_cases(two_sites, tmp_path, succeed):
    succeed("fit", "elastic", *two_sites, "--sites", SITES, "-o", tmp_path / "run")
    words = ("evaluate", tmp_path / "run", *EVALUATE, "--only", "faithfulness")
    lines = [line for line in succeed(*words).stdout.splitlines() if line.startswith("Site ")]
    assert [line.partition(":")[0] for line in lines] == [
        "Site a (8 subjects, 8 trained on)",
        "Site b (8 subjects, 0 trained on)",
    ]
    assert all("Dice of the fold's segmenter there 0." in line for line in lines)


@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_sites_that_part_a_person_are_refused(two_sites, tmp_path, run_cli, command):
    run, halves = tmp_path / "run", ("--sites", r"_([01])$")
    fit = ("fit", "elastic", *two_sites, "-o", run)
    if command == "evaluate":
        run_cli(*fit)
    refused = run_cli(*(fit if command == "fit" else ("evaluate", run, *EVALUATE)), *halves)
    assert refused.exit_code == 3
    [line] = [text for text in refused.stderr.splitlines() if text.startswith("error")]
    assert "folds.subject-of-two-sites" in line
