"""``fit``: the run folder it leaves, what it resumes, and what it refuses."""
# mypy: disallow-untyped-calls=False

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import yaml

from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.core.run_folder import read_manifest
from gansynth.core.schema import Sample
from gansynth.report.figures import read_metrics
from gansynth.runtime.errors import EnvironmentFault, GansynthError, IntegrityFault, UsageFault
from gansynth.sampling.open_run import load_run
from gansynth.testing import ToySource
from tests.recorder import Recorder


class ShiftOptions(GeneratorOptions):
    shift: tuple[float, float] = (0.0, 0.0)


class Shift(Generator):
    """Nothing to train, an option of two numbers, images in [-1, 1]."""

    name = "shift"
    Options: ClassVar[type[GeneratorOptions]] = ShiftOptions
    intensity = "tanh"

    def networks(self):
        return {}

    def phases(self):
        return ()

    def sample(self, conditions, seeds):
        import numpy as np

        rngs = [np.random.default_rng(seed) for seed in seeds]
        images = [r.uniform(-1, 1, (2, *self.size)).astype(np.float32) for r in rngs]
        return [
            Sample(i, c.labels, None, c.provenance) for i, c in zip(images, conditions, strict=True)
        ]


@pytest.fixture
def shift(toy_source):
    @hookimpl
    def register_generators(register):
        register("shift", lambda: Shift)

    installed().add(SimpleNamespace(register_generators=register_generators), "shift")
    try:
        yield Shift
    finally:
        installed().remove("shift")


@pytest.fixture(scope="module")
def shared(toy_fit, tmp_path_factory):
    out = tmp_path_factory.mktemp("shared") / "run"
    reporter = Recorder()
    return out, toy_fit(out, reporter=reporter), reporter


@pytest.fixture
def run(shared: tuple[Path, Any, Any], tmp_path: Path) -> Path:
    shutil.copytree(shared[0], tmp_path / "run")
    return tmp_path / "run"


def steps(run: Path) -> list[float]:
    return read_metrics(run / "metrics.csv")["step"]


# -- what it leaves --------------------------------------------------------------------------------


def test_a_run_folder_holds_what_the_documentation_says(shared):
    names = {path.name for path in shared[0].iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "manifest.json", "metrics.csv", "samples", "checkpoints"}
    sheets = {path.name for path in (shared[0] / "samples").iterdir()}
    assert sheets == {"step-00000004.png", "curves.png"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (shared[0] / "samples").iterdir())


def test_the_resolved_options_are_written_down(shared):
    config = yaml.safe_load((shared[0] / "config.yaml").read_text())
    assert config["generator"] == "cgan3d"
    assert config["data"]["kind"] == "toy"
    assert (config["fit"]["steps"], config["fit"]["ema_half_life"]) == (4, 1000)
    assert (config["options"]["width"], config["options"]["output"]) == (4, "linear")


def test_the_manifest_names_cases_weights_and_completion(shared):
    manifest = read_manifest(shared[0])
    ids = [case["id"] for case in manifest["lineage"]["cases"]]
    assert ids == list(ToySource(2).train_ids)
    assert (manifest["steps"], manifest["complete"]) == (4, True)
    assert manifest["weights"]["path"] == "checkpoints/step-00000004/ema.safetensors"


def test_no_path_of_this_machine_is_in_the_folder(shared):
    texts = [(shared[0] / name).read_text() for name in ("config.yaml", "manifest.json")]
    assert not any(str(shared[0].parent) in text for text in texts)


def test_the_report_is_json_with_a_spectrum_per_channel(shared):
    report = json.loads(json.dumps(shared[1], allow_nan=False))
    assert (report["train_cases"], report["held_out_cases"]) == (12, 4)
    assert (report["steps"], report["resumed_at"]) == (4, 0)
    assert [len(row) for row in report["spectrum_ratio"]] == [8, 8]
    assert all(value > 0 for row in report["spectrum_ratio"] for value in row)
    assert report["diversity"] is None  # of what is asked for labels


def test_the_spectrum_is_in_the_report_by_channel(shared):
    bands = shared[1]["spectrum_ratio"]
    assert len(bands) == 2
    assert all(value is None or value > 0 for row in bands for value in row)
    assert not [text for text in shared[2].said if "spectrum" in text]


def test_the_same_fit_twice_gives_the_same_weights(shared, toy_fit, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(99)  # whatever state the process is in
        toy_fit(tmp_path / "again")
    hashes = [read_manifest(p)["weights"]["sha256"] for p in (shared[0], tmp_path / "again")]
    assert hashes[0] == hashes[1]


# -- resuming --------------------------------------------------------------------------------------


def test_more_steps_go_on_from_the_last(shared, run, toy_fit, tmp_path):
    report = toy_fit(run, steps=6)
    assert (report["resumed_at"], report["steps"], steps(run)) == (4, 6, [1, 2, 3, 4, 5, 6])
    assert report["run_id"] == shared[1]["run_id"]
    toy_fit(tmp_path / "whole", steps=6)
    hashes = [read_manifest(p)["weights"]["sha256"] for p in (run, tmp_path / "whole")]
    assert hashes[0] == hashes[1]


def test_more_steps_are_written_down(run, toy_fit):
    toy_fit(run, steps=5)
    assert yaml.safe_load((run / "config.yaml").read_text())["fit"]["steps"] == 5
    assert read_manifest(run)["config"]["fit"]["steps"] == 5


def test_a_finished_run_is_left_as_it_is(run, toy_fit):
    before = read_manifest(run)
    report = toy_fit(run)
    assert (report["resumed_at"], report["steps"]) == (4, 4)
    assert read_manifest(run) == before


def test_a_damaged_checkpoint_is_told_and_repaired(run, toy_fit):
    before = read_manifest(run)["weights"]
    (run / before["path"]).write_bytes(b"damaged")
    reporter = Recorder()
    report = toy_fit(run, reporter=reporter)
    assert report["resumed_at"] == 2
    assert "step-00000004" in reporter.warned[0]
    assert read_manifest(run)["weights"] == before
    load_run(run, "cpu")


def test_a_manifest_behind_its_checkpoints_catches_up(run, toy_fit):
    """Killed between the last checkpoint and the manifest."""
    whole = read_manifest(run)
    old = {"path": "checkpoints/step-00000002/ema.safetensors", "sha256": "0" * 64}
    late = {**whole, "weights": old, "steps": 2, "complete": False}
    (run / "manifest.json").write_text(json.dumps(late))
    toy_fit(run)
    assert read_manifest(run) == whole


def test_what_a_killed_writer_left_is_removed(run, toy_fit):
    (run / ".manifest.json.tmp-1").write_text("{")
    toy_fit(run)
    assert not (run / ".manifest.json.tmp-1").exists()


# -- refusing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 8}, r"options\.width is 8, was 4"),
        ({"seed": 1}, r"fit\.seed is 1, was 0"),
        ({"batch_size": 2}, r"fit\.batch_size is 2, was 1"),
        ({"edits": ("shift",)}, r"edits is \['shift'\], was \['flip'\]"),
        ({"data": "3"}, r"size is \[16, 16, 16\], was \[32, 32\]"),
    ],
)
def test_other_options_are_refused_by_name(run, toy_fit, change, message):
    with pytest.raises(UsageFault, match=message):
        toy_fit(run, **change)


def test_other_cases_are_refused(run, toy_fit, monkeypatch):
    monkeypatch.setattr(ToySource, "train_ids", property(lambda self: tuple(self._cases)[:11]))
    with pytest.raises(UsageFault, match="training cases have changed"):
        toy_fit(run)


def test_other_images_of_the_same_names_are_refused(run, toy_fit, monkeypatch):
    load = ToySource.load

    def other(self, case_id):
        case = load(self, case_id)
        return replace(case, image=case.image + 1)

    monkeypatch.setattr(ToySource, "load", other)
    with pytest.raises(UsageFault, match="training cases have changed"):
        toy_fit(run)


def test_not_to_resume_refuses_a_run(run, toy_fit):
    with pytest.raises(UsageFault, match="holds a run already"):
        toy_fit(run, resume=False)


def test_checkpoints_without_a_manifest_are_refused(run, toy_fit):
    """They may have seen anything, and a lineage would say otherwise."""
    (run / "manifest.json").unlink()
    with pytest.raises(IntegrityFault, match=r"checkpoints but no manifest\.json"):
        toy_fit(run)


def test_an_unknown_setting_has_a_nearest_name(toy_fit, tmp_path):
    with pytest.raises(UsageFault, match="Did you mean 'd_width'"):
        toy_fit(tmp_path / "run", d_widht=4)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_share_a_folder(held, toy_fit):
    folder, holder = held
    with pytest.raises(EnvironmentFault, match=rf"locked by pid {holder.pid} since"):
        toy_fit(folder)


# -- dry runs --------------------------------------------------------------------------------------


def test_a_dry_run_measures_and_writes_nothing(toy_fit, tmp_path):
    report = toy_fit(tmp_path / "run", dry_run=True, steps=600)
    assert list(tmp_path.iterdir()) == []
    assert report["parameters"]["generator"] > report["parameters"]["discriminator"] > 0
    assert report["seconds_per_step"] > 0
    assert report["estimated_seconds"] > 600 * report["seconds_per_step"] - 0.1
    assert report["memory_mib"] > 0


def test_a_dry_run_leaves_a_run_alone(run, toy_fit):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    toy_fit(run, dry_run=True, steps=600)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def in_the_way(run: Path) -> dict[str, object]:
    (run.parent / "file").write_text("")
    return {"out": run.parent / "file" / "run"}


def without_manifest(run: Path) -> dict[str, object]:
    (run / "manifest.json").unlink()
    return {}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda run: {"width": 8},
        lambda run: {"data": "3"},
        lambda run: {"resume": False},
        without_manifest,
        in_the_way,
    ],
    ids=["options", "data", "no resume", "no manifest", "a file"],
)
def test_a_dry_run_refuses_the_folder_that_the_fit_would(run, toy_fit, wrong):
    changes = {"out": run, **wrong(run)}
    out, said = changes.pop("out"), []
    for dry_run in (True, False):
        with pytest.raises(GansynthError) as refused:
            toy_fit(out, dry_run=dry_run, **changes)
        said.append((type(refused.value), str(refused.value).partition("(")[0]))
    assert said[0] == said[1]


def test_a_dry_run_refuses_a_folder_that_another_process_holds(held, toy_fit):
    with pytest.raises(EnvironmentFault, match="locked by pid"):
        toy_fit(held[0], dry_run=True)


# -- other generators ------------------------------------------------------------------------------


def test_a_generator_without_phases_is_complete_at_once(shift, toy_fit, tmp_path):
    report = toy_fit(tmp_path / "run", generator="shift", own={})
    assert report["steps"] == 0
    assert read_manifest(tmp_path / "run")["complete"] is True
    load_run(tmp_path / "run", "cpu")


def test_an_option_of_several_numbers_is_written_and_resumed(shift, toy_fit, tmp_path):
    for _ in range(2):
        toy_fit(tmp_path / "run", generator="shift", own={"shift": [1, 2]})
    assert read_manifest(tmp_path / "run")["options"] == {"shift": [1.0, 2.0]}


def test_whoever_draws_in_a_window_gets_one(shift, toy_fit, tmp_path):
    toy_fit(tmp_path / "run", generator="shift", own={})
    window = load_run(tmp_path / "run", "cpu").space.window
    assert window is not None
    assert all(low < -0.5 < 0.5 < high for low, high in window)


def test_a_linear_generator_keeps_the_sources_units(shared):
    assert read_manifest(shared[0])["space"]["window"] is None
