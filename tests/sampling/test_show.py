"""show: where everything of a run is, and what is wrong with it, whatever is left of it."""

import json
import shutil
from pathlib import Path

import pytest

from gansynth.runtime.errors import DataFault
from gansynth.sampling.show import describe_run


@pytest.fixture(scope="module")
def fitted_once(toy_fit, tmp_path_factory) -> Path:
    run: Path = tmp_path_factory.mktemp("show") / "run"
    toy_fit(run, steps=4, sample_every=2)
    return run


@pytest.fixture
def run(fitted_once, tmp_path) -> Path:
    """A run that a test may damage."""
    folder: Path = tmp_path / "run"
    shutil.copytree(fitted_once, folder)
    return folder


def change(run: Path, **changes: object) -> None:
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_run_is_shown_with_all_there_is(run):
    found = describe_run(run)
    assert (found["state"], found["wrong"], found["generator"]) == ("complete", [], "cgan3d")
    assert found["steps"] == {"done": 4, "asked": 4}
    assert (found["precision"], found["device"]) == ("fp32", "cpu")
    assert found["images"] == 4
    assert found["lineage"] == {
        **{"dataset": "toy:2", "fold": "0", "cases": 12, "subjects": 12, "ancestors": []}
    }
    assert {"gansynth", "torch", "numpy", "python"} <= set(found["versions"])
    assert all(value == value for value in found["losses"].values())
    assert any(name.startswith("discriminator/") for name in found["losses"])


def test_every_file_it_names_is_there(run):
    files = describe_run(run)["files"]
    names = ("config", "manifest", "weights", "metrics", "curves")
    assert all(Path(files[name]).is_file() for name in names)
    assert [Path(path).name for path in files["sheets"]] == [
        *("step-00000002.png", "step-00000004.png")
    ]
    assert files["bytes"] == sum(p.stat().st_size for p in run.rglob("*") if p.is_file())


def test_an_evaluation_and_turing_tests_are_shown_where_they_are(run):
    assert describe_run(run)["files"]["evaluation"] is None
    (run / "evaluation").mkdir()
    (run / "evaluation" / "report.html").write_text("", encoding="utf-8")
    (run / "turing" / "session").mkdir(parents=True)
    files = describe_run(run)["files"]
    assert files["evaluation"] == str(run / "evaluation" / "report.html")
    assert files["turing"] == [str(run / "turing" / "session")]


def test_checkpoints_have_their_step_and_size(run):
    found = describe_run(run)["checkpoints"]
    assert [(c["step"], c["whole"]) for c in found] == [(2, True), (4, True)]
    assert all(c["bytes"] > 1000 for c in found)


def test_a_moved_run_is_shown_where_it_is(run, tmp_path):
    run.rename(tmp_path / "moved")
    assert describe_run(tmp_path / "moved")["files"]["config"].startswith(str(tmp_path / "moved"))


def test_an_unfinished_run_is_not_damaged(run):
    change(run, complete=False, weights=None)
    found = describe_run(run)
    assert (found["state"], found["wrong"]) == ("unfinished", [])


def test_a_loss_that_did_not_come_in_last_keeps_its_last_value(run):
    path = run / "metrics.csv"
    before = describe_run(run)["losses"]
    columns = len(path.read_text().splitlines()[0].split(","))
    path.write_text(path.read_text() + ",".join(["5", *["nan"] * (columns - 1)]) + "\n")
    assert describe_run(run)["losses"] == before


def test_ancestors_are_counted(run):
    lineage = json.loads((run / "manifest.json").read_text())["lineage"]
    ancestor = {**lineage, "dataset": "other", "cases": lineage["cases"][:3]}
    change(run, lineage={**lineage, "ancestors": [ancestor]})
    assert describe_run(run)["lineage"]["ancestors"][0]["cases"] == 3


def no_manifest(run: Path) -> None:
    (run / "manifest.json").unlink()


def torn_manifest(run: Path) -> None:
    path = run / "manifest.json"
    path.write_bytes(path.read_bytes()[:300])


def manifest_of_nothing(run: Path) -> None:
    (run / "manifest.json").write_text("[1, 2]")


def odd_manifest(run: Path) -> None:
    change(run, lineage=7, config=[], weights="here", steps=None)


def other_weights(run: Path) -> None:
    (run / "checkpoints" / "step-00000004" / "ema.safetensors").write_bytes(b"other")


def torn_state(run: Path) -> None:
    (run / "checkpoints" / "step-00000002" / "state.json").write_text("{")


def lost_tensors(run: Path) -> None:
    (run / "checkpoints" / "step-00000002" / "tensors.safetensors").unlink()


def torn_metrics(run: Path) -> None:
    with (run / "metrics.csv").open("a") as file:
        file.write("5,torn")


def lost_weights(run: Path) -> None:
    change(run, weights=None)


DAMAGES = {
    no_manifest: "manifest.json: missing, so nobody knows which cases",
    torn_manifest: "manifest.json: damaged",
    manifest_of_nothing: "manifest.json: holds a list",
    odd_manifest: "manifest.json: damaged: TypeError",
    other_weights: "ema.safetensors: SHA-256 is",
    torn_state: "state.json: not valid JSON",
    lost_tensors: "tensors.safetensors: missing",
    torn_metrics: "metrics.csv: cannot be read to its end",
    lost_weights: "no checkpoint yet",
}


@pytest.mark.parametrize(
    ("damage", "says"), DAMAGES.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_a_damaged_run_is_shown_with_what_is_wrong(run, damage, says):
    damage(run)
    found = describe_run(run)
    assert found["state"] == "damaged"
    assert any(says in line for line in found["wrong"]), found["wrong"]
    assert found["files"]["config"] is not None
    assert len(found["checkpoints"]) == 2
    json.dumps(found, allow_nan=False)


def test_what_is_no_run_at_all_is_a_slip(tmp_path):
    with pytest.raises(DataFault, match=r"no manifest\.json here"):
        describe_run(tmp_path)


# -- composite runs --------------------------------------------------------------------------------


def composite(run: Path, **parts: Path | None) -> Path:
    """A composite of copies of a run; None for a part that is not begun."""
    manifest = json.loads((run / "manifest.json").read_text())
    folder = run.with_name("composite")
    folder.mkdir()
    manifest["parts"] = [
        {"name": name, "folder": f"parts/{name}", "manifest_sha256": None if part is None else "0"}
        for name, part in parts.items()
    ]
    for name, part in parts.items():
        if part is not None:
            shutil.copytree(part, folder / "parts" / name)
    manifest["complete"] = False
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_composite_run_shows_its_parts(run):
    found = describe_run(composite(run, first=run, second=None))
    assert (found["state"], found["wrong"]) == ("unfinished", [])
    assert [(p["name"], p["state"]) for p in found["parts"]] == [
        *(("first", "complete"), ("second", "missing"))
    ]


def test_what_is_wrong_with_a_part_is_wrong_with_the_whole(run):
    folder = composite(run, first=run, second=None)
    other_weights(folder / "parts" / "first")
    assert describe_run(folder)["state"] == "damaged"


def test_a_part_that_leads_out_of_the_run_is_not_followed(run):
    folder = composite(run, first=run)
    change(folder, parts=[{"name": "first", "folder": "../run", "manifest_sha256": "0"}])
    found = describe_run(folder)
    assert [part["state"] for part in found["parts"]] == ["missing"]
    assert "leads out of" in found["wrong"][0]


# -- the command -----------------------------------------------------------------------------------


def test_the_command_prints_all_of_it(run, run_cli):
    shown = run_cli("show", run)
    assert (shown.exit_code, shown.stderr) == (0, "")
    for words in ("lineage.cases", "checkpoint  step 4", "versions.torch", "step-00000004.png"):
        assert words in shown.stdout
    assert json.loads(run_cli("show", run, "--json").stdout)["run"] == str(run)


def test_damage_is_exit_6_after_all_lines(run, run_cli):
    other_weights(run)
    shown = run_cli("show", run)
    assert shown.exit_code == 6
    assert "wrong  " in shown.stdout
    assert "lineage.cases" in shown.stdout
    assert shown.stderr == f"error: {run}: 2 thing(s) wrong; see the lines above\n"
