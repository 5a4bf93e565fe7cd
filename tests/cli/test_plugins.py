import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

from gansynth import (
    ReadOptions,
    ToySource,
    UsageFault,
    __version__,
    parse_read,
    register_read_options,
)
from gansynth.core.hookspecs import API_VERSION, hookimpl
from tests.offered import metric_of, offered, registered

ARMS = ["coarse-paste", "interpolated", "pretrain", "synthetic-only", "unedited", "whole"]
CGANS = ["cgan3d", "cgan3d-labels", "cgan3d-lesion"]
RECIPES = ["doncenco2022", "mmgan2020", "mmgan2020-liver", "shin2018"]


@pytest.mark.fault(42)
def test_the_list_names_every_plugin_and_what_is_broken_with_its_reason(toys, run_cli, run_json):
    @hookimpl
    def unlucky(register):
        raise RuntimeError("no\nlicence")

    with (
        registered(SimpleNamespace(register_edits=unlucky), "unlucky"),
        offered("vague", metrics={"hollow": None}),
        registered(SimpleNamespace(), "idle"),
    ):
        shown = run_cli("plugins").stdout
        assert run_cli("plugins", "list").stdout == shown
        loaded = run_cli("plugins", "list", "--load")
        document = run_json("plugins", "list", "--load")
    lines = [line.split() for line in shown.splitlines()]
    assert ["broken", "unlucky", "-", "RuntimeError:", "no", "licence"] in lines
    assert ["nothing", "-", "from", "idle", "-"] in lines
    assert ["edits", "elastic", "from", "conditions", "gansynth", __version__] in lines
    assert ["generators", "means", "from", "toys", "-"] in lines
    assert "unusable" not in shown
    assert loaded.exit_code == 0
    (line,) = [row for row in loaded.stdout.splitlines() if row.startswith("unusable")]
    assert "hollow" in line
    assert "load() returned None, expected a subclass of gansynth.Metric" in line
    assert {kind: set(names) for kind, names in document["unusable"].items()} == {
        "metrics": {"hollow"}
    }
    assert set(document["broken"]) == {"unlucky"}  # everything of ours loads
    assert document["found"]["hosts"]["toyhost"] == "toys"
    assert document["api"] == API_VERSION
    offers = {"generators": CGANS, "recipes": RECIPES, "arms": ARMS}
    told = {"distribution": "gansynth", "version": __version__, "offers": offers}
    assert document["plugins"]["cgan3d"] == told


@pytest.mark.parametrize("words", [("plugins", "list"), ("doctor", "--quick")])
def test_the_rows_of_a_table_fit_a_terminal(words, run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = run_cli(*words)
    assert [row for row in result.stdout.partition("\n\n")[0].splitlines() if len(row) > 80] == []


def test_a_generator_that_breaks_its_contract_is_exit_6_with_a_line_for_each_check(toys, run_cli):
    result = run_cli("plugins", "check", "constant")
    assert result.exit_code == 6
    assert "failed  3d: not constant" in result.stdout
    assert "passed  3d: labels kept" in result.stdout
    assert "error: constant: " in result.stderr
    settled = run_cli("plugins", "check", "means", "--set", "grain=0")
    assert "failed  3d: seeds matter" in settled.stdout


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["means"], "3d: builds"),
        (["range", "--set", "crops=8"], "3d: learns"),
        (["elastic", "--kind", "edit"], "3d: edits"),
        (["counts"], "3d: gives named numbers"),
        (["hdf5"], "3d: writes, with the mark"),
        (["example", "--data", "example:2d"], "opens"),
    ],
)
def test_a_plugin_that_keeps_its_contract_passes(toys, words, first, run_json):
    report = run_json("plugins", "check", *words)
    assert (report["passed"], report["checks"][0]["name"]) == (True, first)
    assert {check["verdict"] for check in report["checks"]} == {"passed"}


def test_new_writes_a_project_and_names_its_files(run_json, run_cli, refuse, tmp_path, monkeypatch):
    home = tmp_path / "spots"
    told = run_json("plugins", "new", "spots", "-o", home, "--dry-run")
    assert told["dry_run"] is True
    assert "gansynth_spots/generator.py" in told["files"]
    assert list(tmp_path.iterdir()) == []
    document = run_json("plugins", "new", "spots", "-o", home)
    assert (document["kind"], document["package"]) == ("generator", "gansynth_spots")
    written = [str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()]
    assert sorted(written) == sorted(document["files"]) == sorted(told["files"])
    project = tomllib.loads((home / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"gansynth": {"spots": "gansynth_spots"}}
    monkeypatch.chdir(home)
    result = run_cli("plugins", "new", "two_words", "--kind", "metric")
    assert (result.exit_code, result.stderr) == (0, "next: pip install -e gansynth-two-words\n")
    assert (home / "gansynth-two-words").is_dir()
    out = home / "pyproject.toml" / "project"
    refuse("plugins", "new", "spots", "-o", out, code=4, says=["cannot be written"])


def test_metrics_get_samples_beside_the_cases_their_labels_came_from(run, run_json, refuse):
    def sizes(samples, real, schema):
        same = [np.array_equal(s.labels, c.labels) for s, c in zip(samples, real, strict=True)]
        return {"samples": len(samples), "same_labels": sum(same), "axes": schema.ndim}

    def bad(samples, real, schema):
        raise ZeroDivisionError("by\nzero")

    functions = {"sizes": sizes, "odd": lambda *_: {"value": float("nan")}, "bad": bad}
    pairs = {name: metric_of(name, f, needs={"pairs"}) for name, f in functions.items()}
    with offered("metrics", metrics=pairs):
        asked = ("--metric", "sizes", "--metric", "spectrum", "--metric", "odd")
        found = run_json("sample", run, "-n", 3, *asked, "--edit", "identity")["metrics"]
        says = ["metric 'bad' fails on 2 sample(s): ZeroDivisionError: by zero"]
        refuse("sample", run, "-n", 2, "--metric", "bad", code=2, says=says)
    assert found["sizes"] == {"samples": 3.0, "same_labels": 3.0, "axes": 3.0}
    assert list(found["spectrum"])[:4] == ["distance", "high", "first band 1", "first band 2"]
    assert len(found["spectrum"]) == 18
    assert all(0.02 < value < 50 for value in found["spectrum"].values())
    assert found["odd"] == {"value": None}


def test_a_source_without_a_check_of_files_has_its_cases_read(run_json, run_cli, tmp_path):
    class Doubled(ToySource):
        def __init__(self, request):
            super().__init__(2)
            self.request, self.wrong = request, parse_read(Wrong, request).wrong
            if request.where != "here":
                raise UsageFault("test.fault", f"{request.where}: expected here")

        def load(self, case_id):
            return ToySource.load(self, "toy_00" if self.wrong else case_id)

    class Wrong(ReadOptions):
        wrong: bool = False

    with offered("doubles", sources={"doubles": register_read_options(Wrong)(Doubled)}):
        assert run_json("check", "doubles:here")["errors"] == 0
        checked = run_cli("check", "doubles:here", "--read", "wrong=yes")
        assert checked.exit_code == 3
        assert "doubles: cases are read: load('toy_01') returns case 'toy_00'" in checked.stdout
        words = ("plugins", "check", "doubles", "--data", "doubles:here", "--read", "wrong=yes")
        assert "failed  cases are read" in run_cli(*words).stdout
