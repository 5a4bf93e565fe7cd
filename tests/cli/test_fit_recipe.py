import json
from typing import Any

import pytest
import yaml

from gansynth.core.registry import installed
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.fitting import fit as fitting
from gansynth.fitting import inventory
from gansynth_cli.commands.fit import lines_of_sets
from tests.offered import offered

SETS = [{"name": "a"}, {"name": "b", "set": {"grain": 0.3}, "reports": {"hours": 2}}]
RECIPE: dict[str, Any] = {
    **{"summary": "Means of toys", "paper": "Nobody 2020", "generator": "means", "read": {}},
    **{"runs": SETS, "open": ["Everything."]},
}


@pytest.fixture
def runs(tmp_path) -> Any:
    return tmp_path / "runs"


@pytest.fixture
def recipe(toys, tmp_path, runs) -> Any:
    """Writes ``RECIPE`` with changes; the options that name it, its data, and ``runs``."""

    def write(generator="means", name="mine", **changes):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**RECIPE, **changes}))
        data = ("--data", "example:3d", "--device", "cpu")
        return ("fit", generator, "--recipe", path, *data, "-o", runs)

    return write


def read(runs: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((runs / "recipe.json").read_text())
    return document


def state(runs: Any) -> dict[str, str]:
    return {name: entry["state"] for name, entry in read(runs)["sets"].items()}


def test_every_set_is_an_ordinary_run_and_the_folder_says_what_was_asked_for(
    recipe, run_json, refuse, runs, monkeypatch
):
    document = run_json(*recipe())
    assert [found["run"] for found in document["sets"].values()] == [str(runs / n) for n in "ab"]
    assert [read_manifest(runs / n)["options"]["grain"] for n in "ab"] == [0.2, 0.3]
    assert yaml.safe_load((runs / "b" / "config.yaml").read_text())["recipe"] == "mine, set b"
    written = read(runs)
    assert (written["recipe"], written["open"]) == ("mine", ["Everything."])
    assert written["data"]["where"] == "3d"
    assert written["sets"]["b"]["run_id"] == read_manifest(runs / "b")["run_id"]
    # A changed setting is refused, and what was finished stays so.
    says = [
        "set 'a':",
        "holds another run (options.grain is 0.4, was 0.2)",
        f"choose another: -o {runs}/a-2",
    ]
    refuse(*recipe(), "--set", "grain=0.4", code=2, says=says)
    assert state(runs) == {"a": "complete", "b": "complete"}
    # Finished sets are kept without a look at their cases.
    before = (runs / "a" / "manifest.json").stat()
    monkeypatch.setattr("gansynth.testing.ToySource.load", None)
    assert [found["kept"] for found in run_json(*recipe())["sets"].values()] == [True, True]
    assert (runs / "a" / "manifest.json").stat() == before


def test_a_recipe_of_one_run_goes_straight_into_the_folder(recipe, succeed, run_json, runs):
    report = run_json(*recipe(runs=[{"name": "one"}]))
    again = succeed(*recipe(runs=[{"name": "one"}]))
    assert f"{runs}: fitted already; 12 training cases" in again.stdout
    assert (report["recipe"], report["run"]) == ("mine", str(runs))
    assert read_manifest(runs)["config"]["recipe"] == "mine, set one"
    assert state(runs) == {"one": "complete"}


def test_a_dry_run_tells_of_every_set_beside_the_paper_and_writes_nothing(
    recipe, run_json, tmp_path
):
    document = run_json(*recipe(), "--dry-run")
    assert document["sets"]["b"]["paper"] == {"hours": 2}
    assert document["sets"]["a"]["train_cases"] == 12
    lines = lines_of_sets(document)
    assert lines[0].split() == ["set", "train_cases", "steps", "estimated_hours", "paper_hours"]
    assert [lines[2].split()[n] for n in (0, 1, 4)] == ["b", "12", "2"]
    assert lines[-1] == "left open by the paper: Everything."
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_set_that_may_not_be_what_it_was_goes_through_fit(recipe, run_json, runs):
    run_json(*recipe())
    for change in ("split", "state", "manifest"):
        if change == "manifest":
            manifest = read_manifest(runs / "a")
            manifest["versions"]["torch"] = "9"
            write_manifest(runs / "a", manifest)
        else:
            document = read(runs)
            document["sets"]["a"][change] = "other"
            (runs / "recipe.json").write_text(json.dumps(document))
        sets = run_json(*recipe())["sets"]
        assert [found.get("kept", False) for found in sets.values()] == [False, True], change


@pytest.mark.fault(30)
def test_a_set_that_fails_does_not_lose_the_rest_and_a_stop_ends_all(
    recipe, run_cli, run_json, one_line, runs, monkeypatch
):
    torn = recipe(source="slices", runs=[{"name": "torn", "read": {"channels": "third"}}, *SETS])
    result = run_cli(*torn, "--only", "torn", "--only", "b")
    says = ["set 'torn':", "has no channel 'third'", "1 of 2 sets are finished"]
    one_line(result.exit_code, result.stderr, 2, says)
    assert state(runs) == {"torn": "failed", "b": "complete"}
    assert "'third'" in read(runs)["sets"]["torn"]["error"]

    def broken(error: BaseException) -> Any:
        def fit(*_: Any, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(fitting, "fit", fit)
        return run_cli(*torn, "--only", "a", "--only", "b")

    result = broken(ZeroDivisionError("by zero"))
    assert result.exit_code == 1
    assert "warning: set 'a' (1 of 2): ZeroDivisionError: by zero" in result.stderr
    assert state(runs) == {"torn": "failed", "b": "complete", "a": "failed"}
    assert broken(KeyboardInterrupt()).exit_code != 0
    assert state(runs) == {"torn": "failed", "b": "complete", "a": "stopped"}
    monkeypatch.undo()
    assert set(run_json(*torn, "--only", "a")["sets"]) == {"a"}
    assert state(runs) == {"torn": "failed", "b": "complete", "a": "complete"}


@pytest.mark.parametrize(
    ("generator", "more", "says"),
    [
        ("means", "--per-channel", "leave out --per-channel"),
        ("means", "--only z", "has no such set here, expected among: a, b"),
        ("means", "--scale z", "expected one of: none"),
        ("means", "--init-from elsewhere", "has 2 sets here"),
        ("means", "--set grains=1", "Did you mean 'grain'?"),
        ("constant", "", "its generator is means, got constant"),
    ],
)
def test_fit_of_a_recipe_refuses_before_anything_is_written(
    recipe, refuse, tmp_path, generator, more, says
):
    refuse(*recipe(generator), *more.split(), code=2, says=[says], keep=[tmp_path])


def test_a_folder_of_something_else_is_left_alone(run, recipe, run_json, refuse, runs):
    mine = (*recipe()[:-1], run)
    refuse(*mine, code=2, says=["holds a run, expected a folder for"], keep=[run])
    run_json(*recipe(), "--only", "a")
    says = ["of recipe 'mine', expected 'other'"]
    refuse(*recipe(name="other"), code=2, says=says, keep=[runs])
    refuse(*recipe(), "--no-resume", code=2, says=["holds sets of recipe mine"], keep=[runs])


def test_a_recipe_that_does_not_load_is_unusable(tmp_path):
    (tmp_path / "odd.yaml").write_text("summary: odd")
    with offered("odd", recipes={"odd": tmp_path / "odd.yaml"}):
        assert "odd.yaml: paper is" in inventory.unusable(installed())["recipes"]["odd"]
        assert "odd" not in inventory.recipes(installed())
