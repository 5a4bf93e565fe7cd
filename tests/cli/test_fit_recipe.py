"""``fit --recipe``: a folder of ordinary runs, one failing or interrupted set, and what is kept."""
# mypy: disallow-untyped-calls=False

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gansynth.core.registry import installed
from gansynth.core.run_folder import read_manifest
from gansynth.fitting import inventory
from gansynth.fitting.recipe import find_recipe
from gansynth_cli.commands.fit import lines_of_sets

DATA = ("--data", "example:3d", "--device", "cpu")
RECIPE: dict[str, Any] = {
    "summary": "Means of toys",
    "paper": "Nobody 2020",
    "generator": "means",
    "read": {},
    "runs": [{"name": "a"}, {"name": "b", "set": {"grain": 0.3}, "reports": {"hours": 2}}],
    "open": ["Everything."],
}
TINY = ("width=4", "max_width=8", "batch_size=2", "steps=3", "checkpoint_every=1")


@pytest.fixture
def recipe(tmp_path) -> Any:
    """Writes ``RECIPE`` with changes; the options that name it, its data, and ``tmp_path/runs``."""

    def write(generator="means", **changes):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**RECIPE, "generator": generator, **changes}))
        return ("fit", generator, "--recipe", path, *DATA, "-o", tmp_path / "runs")

    return write


def state(runs: Path) -> dict[str, str]:
    sets = json.loads((runs / "recipe.json").read_text())["sets"]
    return {name: entry["state"] for name, entry in sets.items()}


def weights(run: Path) -> str:
    return str(read_manifest(run)["weights"]["sha256"])


# -- what it leaves --------------------------------------------------------------------------------


def test_every_set_is_an_ordinary_run_and_the_folder_says_what_was_asked_for(
    toys, recipe, run_json, tmp_path
):
    document = run_json(*recipe())
    runs = tmp_path / "runs"
    assert [found["run"] for found in document["sets"].values()] == [
        str(runs / name) for name in ("a", "b")
    ]
    assert [read_manifest(runs / n)["options"]["grain"] for n in "ab"] == [0.2, 0.3]
    assert yaml.safe_load((runs / "b" / "config.yaml").read_text())["recipe"] == "mine, set b"
    written = json.loads((runs / "recipe.json").read_text())
    assert (written["recipe"], written["open"]) == ("mine", ["Everything."])
    assert written["data"]["where"] == "3d"
    assert written["sets"]["b"]["run_id"] == read_manifest(runs / "b")["run_id"]
    assert run_json("sample", runs / "b", "-n", 1)


def test_sets_are_picked_and_added_to_those_that_are_there(toys, recipe, run_json, tmp_path):
    assert set(run_json(*recipe(), "--only", "b")["sets"]) == {"b"}
    assert state(tmp_path / "runs") == {"b": "complete"}
    assert set(run_json(*recipe(), "--only", "a")["sets"]) == {"a"}
    assert state(tmp_path / "runs") == {"b": "complete", "a": "complete"}


def test_a_recipe_of_one_run_goes_straight_into_the_folder(toys, recipe, run_json, tmp_path):
    report = run_json(*recipe(runs=[{"name": "one"}]))
    assert (report["recipe"], report["run"]) == ("mine", str(tmp_path / "runs"))
    assert read_manifest(tmp_path / "runs")["config"]["recipe"] == "mine, set one"
    assert state(tmp_path / "runs") == {"one": "complete"}


@pytest.mark.slow
def test_a_set_may_be_a_composite_run(toys, recipe, run_json, tmp_path):
    tiny = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "steps": 1, "batch_size": 1}
    runs = [{"name": "each", "per_channel": "each", "set": tiny}, {"name": "b", "set": tiny}]
    command = recipe("cgan3d", runs=runs)
    run_json(*command, "--data", "example:2d", "--only", "each")
    parts = read_manifest(tmp_path / "runs" / "each")["parts"]
    assert [part["name"] for part in parts] == ["first", "second"]
    config = (tmp_path / "runs" / "each" / parts[0]["folder"] / "config.yaml").read_text()
    assert yaml.safe_load(config)["recipe"] == "mine, set each"


def test_a_dry_run_tells_of_every_set_beside_the_paper_and_writes_nothing(
    toys, recipe, run_json, tmp_path
):
    document = run_json(*recipe(), "--dry-run")
    assert document["sets"]["b"]["paper"] == {"hours": 2}
    assert document["sets"]["a"]["train_cases"] == 12
    assert document["open"] == ["Everything."]
    lines = lines_of_sets(document)
    assert lines[0].split() == ["set", "train_cases", "steps", "estimated_hours", "paper_hours"]
    assert [lines[2].split()[n] for n in (0, 1, 4)] == ["b", "12", "2"]
    assert lines[-1] == "left open by the paper: Everything."
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


# -- again -----------------------------------------------------------------------------------------


def test_finished_sets_are_kept_without_a_look_at_their_cases(
    toys, recipe, run_json, tmp_path, monkeypatch
):
    run_json(*recipe())
    before = (tmp_path / "runs" / "a" / "manifest.json").stat()
    monkeypatch.setattr("gansynth.testing.ToySource.load", None)
    document = run_json(*recipe())
    assert [found["kept"] for found in document["sets"].values()] == [True, True]
    assert (tmp_path / "runs" / "a" / "manifest.json").stat() == before


@pytest.mark.parametrize("change", ["manifest", "split", "state"])
def test_a_set_that_may_not_be_what_it_was_goes_through_fit(
    toys, recipe, run_json, tmp_path, change
):
    run_json(*recipe())
    path = tmp_path / "runs" / ("a/manifest.json" if change == "manifest" else "recipe.json")
    document = json.loads(path.read_text())
    if change == "manifest":
        document["versions"]["torch"] = "9"
    else:
        document["sets"]["a"][change] = "other"
    path.write_text(json.dumps(document))
    sets = run_json(*recipe())["sets"]
    assert [found.get("kept", False) for found in sets.values()] == [False, True]


def test_a_changed_setting_is_refused_and_what_was_finished_stays_so(
    toys, recipe, run_json, refuse, tmp_path
):
    run_json(*recipe())
    says = ["set 'a':", "holds another run (options.grain is 0.4, was 0.2)"]
    refuse(*recipe(), "--set", "grain=0.4", code=2, says=says)
    assert state(tmp_path / "runs") == {"a": "complete", "b": "complete"}
    assert all(found["kept"] for found in run_json(*recipe())["sets"].values())


# -- one that fails, and one that is stopped -------------------------------------------------------


def test_one_failing_set_does_not_lose_the_rest(toys, recipe, run_cli, one_line, tmp_path):
    runs = [{"name": "torn", "read": {"channels": "third"}}, {"name": "b"}]
    result = run_cli(*recipe(source="slices", runs=runs))
    says = ["set 'torn':", "has no channel 'third'", "1 of 2 sets are finished"]
    one_line(result.exit_code, result.stderr, 2, says)
    assert state(tmp_path / "runs") == {"torn": "failed", "b": "complete"}
    written = json.loads((tmp_path / "runs" / "recipe.json").read_text())
    assert "'third'" in written["sets"]["torn"]["error"]


def test_a_bug_in_one_set_does_not_lose_the_rest_either(
    toys, recipe, run_cli, tmp_path, monkeypatch
):
    from gansynth.fitting import fit as fitting

    def bug(generator, request, out, **rest):
        if out.name == "a":
            raise ZeroDivisionError("by zero")
        return fit(generator, request, out, **rest)

    fit = fitting.fit
    monkeypatch.setattr(fitting, "fit", bug)
    result = run_cli(*recipe())
    assert result.exit_code == 1
    assert "warning: set 'a' (1 of 2): ZeroDivisionError: by zero" in result.stderr
    assert state(tmp_path / "runs") == {"a": "failed", "b": "complete"}


def test_a_stop_ends_all_and_the_same_command_goes_on_to_the_bit(
    recipe, run_cli, run_json, tmp_path, monkeypatch
):
    from gansynth_dcgan.model import DCGAN

    read = {"slices": "7", "resize": "32x32", "channels": "first"}
    sets = [{"name": "a"}, {"name": "b", "set": {"n_critic": 1}}, {"name": "c"}]
    command = recipe("dcgan", source="slices", read=read, runs=sets)
    command += tuple(f"--set={pair}" for pair in TINY)
    prepare, calls = DCGAN.prepare, []

    def stopped(self, batch, stage):
        calls.append(batch)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return prepare(self, batch, stage)

    with monkeypatch.context() as patch:
        patch.setattr(DCGAN, "prepare", stopped)
        assert run_cli(*command).exit_code != 0
    assert state(tmp_path / "runs") == {"a": "complete", "b": "stopped", "c": "waiting"}
    document = run_json(*command, "--only", "a", "--only", "b")
    assert document["sets"]["a"]["kept"]
    assert document["sets"]["b"]["resumed_at"] >= 1
    fresh = [tmp_path / "fresh" if part == tmp_path / "runs" else part for part in command]
    run_json(*fresh, "--only", "b")
    assert weights(tmp_path / "runs" / "b") == weights(tmp_path / "fresh" / "b")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--per-channel",), "leave out --per-channel"),
        (("--only", "z"), "has no such set here, expected among: a, b"),
        (("--scale", "z"), "expected one of: none"),
        (("--init-from", "elsewhere"), "has 2 sets here"),
        (("--set", "grains=1"), "Did you mean 'grain'?"),
    ],
)
def test_what_makes_no_sense_is_one_line_before_anything_is_written(
    toys, recipe, refuse, tmp_path, more, says
):
    command = recipe()
    refuse(*command, *more, code=2, says=[says], keep=[tmp_path])


def test_another_generator_than_the_recipes_is_one_line(toys, recipe, refuse):
    command = list(recipe())
    command[1] = "constant"
    refuse(*command, code=2, says=["its generator is means, got constant", "gansynth fit means"])


@pytest.mark.parametrize("option", ["--only", "--scale"])
def test_what_belongs_to_a_recipe_needs_one(toys, refuse, tmp_path, option):
    command = ("fit", "means", *DATA, "-o", tmp_path / "run", option, "a")
    refuse(*command, code=2, says=["has no effect without --recipe"], keep=[tmp_path])


def test_a_folder_of_something_else_is_left_alone(toys, recipe, run_json, refuse, tmp_path):
    run_json("fit", "means", *DATA, "-o", tmp_path / "runs")
    refuse(*recipe(), code=2, says=["holds a run, expected a folder for"], keep=[tmp_path / "runs"])
    shutil.rmtree(tmp_path / "runs")
    run_json(*recipe(), "--only", "a")
    (tmp_path / "mine.yaml").rename(tmp_path / "other.yaml")
    command = ["other.yaml" if part == tmp_path / "mine.yaml" else part for part in recipe()]
    command[3] = tmp_path / "other.yaml"
    keep = [tmp_path / "runs"]
    refuse(*command, code=2, says=["of recipe 'mine', expected 'other'"], keep=keep)
    refuse(*recipe(), "--no-resume", code=2, says=["holds sets of recipe mine"], keep=keep)


# -- plugins ---------------------------------------------------------------------------------------


def test_recipes_are_listed_with_what_they_are(run_cli, run_json):
    line = next(
        line for line in run_cli("plugins", "list").stdout.splitlines() if "han2018-wgan" in line
    )
    assert line.startswith("recipes ")
    assert line.endswith(find_recipe("han2018-wgan").spec.summary)
    told = run_json("plugins", "list")["recipes"]["han2018-wgan"]
    assert (told["generator"], told["scales"]) == ("dcgan", ["tiny"])
    assert told["sets"] == ["{channel}-128", "Concat-128", "Concat-64"]


def test_a_recipe_that_does_not_load_is_unusable(tmp_path):
    from types import SimpleNamespace

    from gansynth.core.hookspecs import hookimpl

    (tmp_path / "odd.yaml").write_text("summary: odd")

    @hookimpl
    def hook(register):
        register("odd", lambda: tmp_path / "odd.yaml")

    installed().add(SimpleNamespace(register_recipes=hook), "odd")
    try:
        assert "odd.yaml: paper is" in inventory.unusable(installed())["recipes"]["odd"]
        assert "odd" not in inventory.recipes(installed())
    finally:
        installed().remove("odd")
