import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.schema import Condition
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.sampling.describe import describe_run
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run import locked

FIRST, LAST = ("checkpoints/step-00000002", "checkpoints/step-00000004")


@pytest.fixture(scope="module")
def shared(toy_fit, whole_fits, tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("shared") / "run"
    toy_fit(out, steps=4, sample_every=2)
    return out


@pytest.fixture
def run(shared: Path, tmp_path: Path) -> Path:
    """A run of its own for each test, moved from where it was made."""
    shutil.copytree(shared, tmp_path / "moved")
    return tmp_path / "moved"


def change(run: Path, **entries: object) -> None:
    write_manifest(run, {**json.loads((run / "manifest.json").read_text()), **entries})


def draw(folder: Path) -> np.ndarray:
    condition = Condition(labels=np.zeros((32, 32), np.int16))
    return load_run(folder, "cpu").generator.sample([condition], [5])[0].image


def test_a_moved_run_draws_the_same_and_leaves_the_random_state_alone(shared, run):
    before = torch.get_rng_state()
    assert np.array_equal(draw(run), draw(shared))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_weights_are_the_averaged_ones(shared):
    net = load_run(shared, "cpu").generator.nets["generator"].state_dict()
    saved = load_file(shared / LAST / "ema.safetensors")
    assert all(torch.equal(net[k.partition("/")[2]], v) for k, v in saved.items())
    assert len(saved) == len(net)


def of_options(**options: object) -> Any:
    return lambda run: change(run, options={**read_manifest(run)["options"], **options})


def lead_out(run: Path) -> None:
    weights = read_manifest(run)["weights"]
    change(run, weights={**weights, "path": f"../other/{weights['path']}"})


def tamper(run: Path) -> None:
    path = run / LAST / "ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "fault", "message"),
    [
        (tamper, IntegrityFault, r"ema\.safetensors: SHA-256 is"),
        (lambda run: shutil.rmtree(run / "checkpoints"), IntegrityFault, "of no file"),
        (of_options(width=8), IntegrityFault, r"do not fit .* generator/down\.0"),
        (of_options(grain=1), IntegrityFault, "manifest.json: key 'options'.*grain is 1: Extra in"),
        (of_options(width="wide"), IntegrityFault, "key 'options'.*width is 'wide': .*integer"),
        (lead_out, IntegrityFault, "leads out of"),
        (lambda run: change(run, weights=None), UsageFault, "no checkpoint yet"),
        (lambda run: change(run, version=99), IntegrityFault, "'version' is 99, expected 3"),
        (lambda run: (run / "manifest.json").unlink(), DataFault,
         r"no manifest\.json here.*gansynth fit"),
    ],
    ids=["tampered", "lost", "width", "unknown", "wide", "outside", "begun", "version", "none"],
)  # fmt: skip
def test_a_run_that_is_not_what_it_claims_is_refused_in_one_line(run, damage, fault, message):
    damage(run)
    with pytest.raises(fault, match=message) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(steps=9), "was changed after it was written"),
        (lambda m: m["lineage"]["cases"].pop(), "was changed after it was written"),
        (lambda m: (m.pop("digest"), m.update(steps="9")), "key 'steps' holds"),
        (lambda m: (m.pop("digest"), m["lineage"].update(cases=[7])), "key 'lineage' holds"),
        (lambda m: (m.pop("digest"), m.update(weights={"path": 3})), "key 'weights' holds"),
        (lambda m: (m.pop("digest"), m.pop("space")), "key 'space' is missing"),
    ],
    ids=["steps", "case", "type", "record", "weights", "missing"],
)
def test_a_manifest_that_was_changed_is_refused(run, change, says):
    manifest = json.loads((run / "manifest.json").read_text())
    change(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityFault, match=says):
        read_manifest(run)


def test_a_manifest_of_before_has_no_digest_and_is_read(run):
    manifest = read_manifest(run)
    del manifest["digest"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert read_manifest(run) == manifest


@pytest.mark.fault(27)
@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}'])
def test_a_damaged_manifest_is_an_integrity_fault(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(IntegrityFault, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.fault(44)
def test_a_device_that_is_not_there_is_an_environment_fault(shared):
    with pytest.raises(EnvironmentFault, match="cuda:99"):
        load_run(shared, "cuda:99")


@pytest.mark.fault(36)
def test_a_held_folder_names_its_holder_and_a_killed_one_holds_nothing(held):
    folder, holder = held
    with (
        pytest.raises(EnvironmentFault, match=rf"locked by pid {holder.pid} since"),
        locked(folder),
    ):
        pass
    holder.kill()
    holder.wait()
    with locked(folder):
        assert f"pid {holder.pid} " not in (folder / ".holder").read_text()
    assert not (folder / ".holder").exists()


@pytest.mark.fault(32)
def test_a_folder_that_cannot_be_made_is_an_environment_fault(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentFault, match="cannot be made"), locked(tmp_path / "file" / "run"):
        pass


def test_a_run_is_shown_with_all_there_is(shared):
    found = describe_run(shared)
    assert (found["state"], found["wrong"], found["generator"]) == ("complete", [], "cgan3d")
    assert found["steps"] == {"done": 4, "asked": 4}
    assert (found["precision"], found["device"], found["images"]) == ("fp32", "cpu", 4)
    lineage = {"dataset": "toy:2", "fold": "0", "cases": 12, "subjects": 12, "ancestors": []}
    assert found["lineage"] == lineage
    assert {"gansynth", "torch", "numpy", "python"} <= set(found["versions"])
    assert all(value == value for value in found["losses"].values())
    assert any(name.startswith("discriminator/") for name in found["losses"])
    assert [(c["step"], c["whole"]) for c in found["checkpoints"]] == [(2, True), (4, True)]
    assert all(c["bytes"] > 1000 for c in found["checkpoints"])


def test_every_file_it_names_is_there(run):
    files = describe_run(run)["files"]
    names = ("config", "manifest", "weights", "metrics", "curves")
    assert all(Path(files[name]).is_relative_to(run) for name in names)
    assert all(Path(files[name]).is_file() for name in names)
    sheets = [Path(path).name for path in files["sheets"]]
    assert sheets == ["step-00000002.png", "step-00000004.png"]
    assert files["bytes"] == sum(p.stat().st_size for p in run.rglob("*") if p.is_file())
    assert files["evaluation"] is None
    (run / "evaluation").mkdir()
    (run / "evaluation" / "report.html").write_text("", encoding="utf-8")
    (run / "turing" / "study").mkdir(parents=True)
    files = describe_run(run)["files"]
    assert files["evaluation"] == str(run / "evaluation" / "report.html")
    assert files["turing"] == [str(run / "turing" / "study")]


def test_an_unfinished_run_is_not_damaged_and_ancestors_are_counted(run):
    lineage = json.loads((run / "manifest.json").read_text())["lineage"]
    parent_run = {**lineage, "dataset": "other", "cases": lineage["cases"][:3]}
    change(run, complete=False, weights=None, lineage={**lineage, "ancestors": [parent_run]})
    found = describe_run(run)
    assert (found["state"], found["wrong"]) == ("unfinished", [])
    assert found["lineage"]["ancestors"][0]["cases"] == 3


def test_a_loss_that_did_not_come_in_last_keeps_its_last_value(run):
    path = run / "metrics.csv"
    before = describe_run(run)["losses"]
    columns = len(path.read_text().splitlines()[0].split(","))
    path.write_text(path.read_text() + ",".join(["5", *["nan"] * (columns - 1)]) + "\n")
    assert describe_run(run)["losses"] == before


def tear_metrics(run: Path) -> None:
    with (run / "metrics.csv").open("a") as file:
        file.write("5,torn")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "manifest.json").unlink(), "manifest.json: missing, so the cases"),
        (lambda run: (run / "manifest.json").write_text('{"versi'), "not valid JSON"),
        (lambda run: (run / "manifest.json").write_text("[1, 2]"), "top level is a list"),
        (lambda run: change(run, lineage=7, config=[], weights="here", steps=None),
         "manifest.json: damaged, key 'lineage' holds"),
        (tamper, "ema.safetensors: SHA-256 is"),
        (lambda run: (run / FIRST / "state.json").write_text("{"), "state.json: not valid JSON"),
        (lambda run: (run / FIRST / "tensors.safetensors").unlink(),
         "tensors.safetensors: missing"),
        (tear_metrics, "metrics.csv: cannot be read to its end"),
        (lambda run: change(run, weights=None), "no checkpoint yet"),
    ],
    ids=["none", "torn", "list", "odd", "weights", "state", "tensors", "metrics", "no weights"],
)  # fmt: skip
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
    write_manifest(folder, manifest)
    return folder


def test_a_composite_run_shows_its_parts_and_what_is_wrong_with_them(run):
    folder = composite(run, first=run, second=None)
    found = describe_run(folder)
    assert (found["state"], found["wrong"]) == ("unfinished", [])
    parts = [(part["name"], part["state"]) for part in found["parts"]]
    assert parts == [("first", "complete"), ("second", "missing")]
    tamper(folder / "parts" / "first")
    assert describe_run(folder)["state"] == "damaged"
    change(folder, parts=[{"name": "first", "folder": "../moved", "manifest_sha256": "0"}])
    found = describe_run(folder)
    assert [part["state"] for part in found["parts"]] == ["missing"]
    assert "leads out of" in found["wrong"][0]


def test_the_command_prints_all_of_it_and_damage_is_exit_6(run, run_cli):
    shown = run_cli("show", run)
    assert (shown.exit_code, shown.stderr) == (0, f"next: gansynth evaluate {run}\n")
    for words in ("lineage.cases", "checkpoint  step 4", "versions.torch", "step-00000004.png"):
        assert words in shown.stdout
    assert json.loads(run_cli("show", run, "--json").stdout)["run"] == str(run)
    tamper(run)
    shown = run_cli("show", run)
    assert shown.exit_code == 6
    assert "wrong  " in shown.stdout
    assert "lineage.cases" in shown.stdout
    assert shown.stderr == f"error: {run}: 2 thing(s) wrong; see the lines above\n"
