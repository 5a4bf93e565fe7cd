import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.core.space import Placement
from gansynth.data.label_statistics import LabelPriors
from gansynth.fitting import sample_grids
from gansynth.fitting.label_report import report_label_maps, warn_of_label_maps
from gansynth.fitting.setup import open_folder, resolve
from gansynth.report.figures import read_metrics
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.manifest import Run
from gansynth.sampling.open_run import load_run
from gansynth.testing import ToySource
from gansynth_cgan3d import context
from tests.conftest import fits_that_show
from tests.expected import raises_fault
from tests.offered import offered
from tests.recorder import Recorder


@pytest.fixture(scope="module")
def shared(toy_fit, tmp_path_factory):
    out = tmp_path_factory.mktemp("shared") / "run"
    with fits_that_show(True):
        return out, toy_fit(out)


@pytest.fixture
def run(shared: tuple[Path, Any], tmp_path: Path) -> Path:
    shutil.copytree(shared[0], tmp_path / "run")
    return tmp_path / "run"


def test_a_run_folder_holds_what_the_documentation_says_and_the_report_is_json(shared):
    names = {path.name for path in shared[0].iterdir() if not path.name.startswith(".")}
    reports = {"report.html", "report.json", "card.md"}
    assert (
        names == {"config.yaml", "manifest.json", "metrics.csv", "samples", "checkpoints"} | reports
    )
    sheets = {path.name: path.read_bytes()[:4] for path in (shared[0] / "samples").iterdir()}
    assert sheets == dict.fromkeys(("step-00000004.png", "curves.png"), b"\x89PNG")
    report = json.loads(json.dumps(shared[1], allow_nan=False))
    assert (report["train_cases"], report["held_out_cases"]) == (12, 4)
    assert (report["steps"], report["resumed_at"]) == (4, 0)
    assert [len(row) for row in report["spectrum_ratio"]] == [8, 8]  # of each channel
    assert all(value > 0 for row in report["spectrum_ratio"] for value in row)
    assert report["diversity"] is None  # of what is asked for labels


def test_an_automatic_option_is_recorded_as_a_number_and_explained(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(context, "EXPLAINED", 1.1)
    reporter = Recorder()
    for steps in (1, 2):  # the second one resumes
        toy_fit(tmp_path / "run", steps=steps, reporter=reporter, output="tanh")
    assert read_manifest(tmp_path / "run")["options"]["context"] == 4
    assert sum("context=4: labels explain" in line for line in reporter.said) == 2
    window = load_run(tmp_path / "run", "cpu").space.window  # of values that tanh stands for
    assert window is not None
    assert all(low < -0.5 < 0.5 < high for low, high in window)


def test_more_steps_go_on_from_the_last_and_are_written_down(shared, run, toy_fit):
    report = toy_fit(run, steps=6)
    assert (report["resumed_at"], report["steps"]) == (4, 6)
    assert read_metrics(run / "metrics.csv")["step"] == [1, 2, 3, 4, 5, 6]
    assert report["run_id"] == shared[1]["run_id"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["fit"]["steps"] == read_manifest(run)["config"]["fit"]["steps"] == 6


@pytest.mark.fault(28)
def test_a_finished_run_is_left_as_it_is_but_for_what_a_killed_writer_left(run, toy_fit):
    whole = read_manifest(run)
    # Killed between the last checkpoint and the manifest, and while that was written.
    old = {"path": "checkpoints/step-00000002/ema.safetensors", "sha256": "0" * 64}
    write_manifest(run, {**whole, "weights": old, "steps": 2, "complete": False})
    (run / ".manifest.json.tmp-1").write_text("{")
    report = toy_fit(run)
    assert (report["resumed_at"], report["steps"]) == (4, 4)
    assert read_manifest(run) == whole
    assert not (run / ".manifest.json.tmp-1").exists()


@pytest.mark.fault(25)
def test_a_damaged_checkpoint_is_told_and_repaired(run, toy_fit):
    before = read_manifest(run)["weights"]
    (run / before["path"]).write_bytes(b"damaged")
    reporter = Recorder()
    report = toy_fit(run, reporter=reporter)
    assert report["resumed_at"] == 2
    assert "step-00000004" in reporter.warned[0]
    assert read_manifest(run)["weights"] == before
    load_run(run, "cpu")


def other_image(self, case_id):
    case = LOAD(self, case_id)
    return replace(case, image=case.image + 1)


LOAD = ToySource.load
FEWER = property(lambda self: tuple(self._cases)[:11])


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("change", "cases", "expected"),
    [
        ({"width": 8}, {}, "fitting.folder-holds-other-run"),
        ({"seed": 1}, {}, "fitting.folder-holds-other-run"),
        ({"edits": ("shift",)}, {}, "fitting.folder-holds-other-run"),
        ({"data": "3"}, {}, "fitting.folder-holds-other-run"),
        ({"resume": False}, {}, "fitting.folder-holds-run"),
        ({"d_widht": 4}, {}, "options.setting-unknown"),
        ({}, {"train_ids": FEWER}, "fitting.training-cases-changed"),
        ({}, {"load": other_image}, "fitting.training-cases-changed"),
    ],
)
def test_what_is_not_the_same_run_is_refused_by_name(
    run, toy_fit, monkeypatch, change, cases, expected
):
    for name, other in cases.items():
        monkeypatch.setattr(ToySource, name, other)
    for dry_run in (True, False):
        with raises_fault(expected) as caught:
            toy_fit(run, dry_run=dry_run, **change)
        if "data" in change:
            assert "another run (data.where is '3', was '2'; " in str(caught.value)
            assert str(caught.value).endswith(f"choose another: -o {run}-2")


def test_all_that_differs_is_named(run, toy_fit):
    changed = {"width": 8, "d_width": 8, "d_levels": 2, "seed": 1}
    with raises_fault("fitting.folder-holds-other-run") as caught:
        toy_fit(run, **changed)
    assert all(f"{name} is {value}" in str(caught.value) for name, value in changed.items())


@pytest.mark.parametrize(
    ("dry_run", "expected"),
    [(True, "files.folder-not-writable"), (False, "sampling.run-folder-not-made")],
)
def test_no_fit_goes_on_in_a_folder_without_a_manifest_or_in_a_file(
    run, toy_fit, dry_run, expected
):
    (run / "manifest.json").unlink()
    # They may have seen anything, and a lineage would say otherwise.
    with raises_fault("fitting.checkpoints-without-manifest"):
        toy_fit(run, dry_run=dry_run)
    with raises_fault(expected, names="config.yaml"):
        toy_fit(run / "config.yaml", dry_run=dry_run)


@pytest.mark.fault(36)
def test_two_processes_do_not_share_a_folder(held, toy_fit):
    folder, holder = held
    for dry_run in (False, True):
        with raises_fault("sampling.run-folder-locked", names=f"pid {holder.pid}"):
            toy_fit(folder, dry_run=dry_run)


def test_a_dry_run_leaves_a_run_alone(run, toy_fit):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    report = toy_fit(run, dry_run=True, steps=600)
    assert report["parameters"]["generator"] > report["parameters"]["discriminator"] > 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_every_sheet_shows_the_same_conditions_beside_the_cases_they_came_from(
    toy_fit, whole_fits, tmp_path, monkeypatch
):
    drawn: list[tuple[Any, Any]] = []

    def keep(path, samples, real, schema, **told):
        drawn.append((samples, real))

    monkeypatch.setattr(sample_grids, "write_sample_grid", keep)
    toy_fit(tmp_path, steps=4, sample_every=2, edits=())
    first, last, source = drawn[0][0], drawn[-1][0], ToySource(2)
    seeds = [[s.provenance["latent_seed"] for s in sheet] for sheet in (first, last)]
    assert seeds[0] == seeds[1]
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(first, last, strict=True))
    assert not np.array_equal(first[0].image, last[0].image)
    for sample, case in (pair for sheet in drawn for pair in zip(*sheet, strict=True)):
        assert case.id == sample.provenance["case"]
        at = Placement.from_json(sample.provenance["placement"])
        placed = source.space.to_generator(source.load(case.id), at)
        assert np.array_equal(case.image, placed.image)
        assert np.array_equal(sample.labels, np.asarray(placed.labels))


@pytest.mark.parametrize(("edge", "shown"), [(16, 8), (112, 5), (160, 4)])
def test_a_sheet_shows_fewer_samples_of_large_volumes(edge, shown, toy_source, monkeypatch):
    monkeypatch.setattr(sample_grids, "COLUMNS", 8)  # which these tests otherwise lower
    job = resolve("copypaste", SourceRequest("toy", "3"), {}, None, "cpu")
    job.space = replace(job.space, size=(edge,) * 3)
    assert sample_grids.columns_of(job) == shown


OPENED = """
import sys, torch
from pathlib import Path
compiler = {"torch._dynamo", "torch.fx.experimental.symbolic_shapes", "sympy"} - set(sys.modules)
from gansynth.sampling.open_run import load_run
load_run(Path(sys.argv[1]), "cpu")
print(*compiler & set(sys.modules))
"""


def test_to_open_a_run_does_not_import_torchs_compiler(shared):
    command = [sys.executable, "-c", OPENED, str(shared[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout.split(), done.stderr) == ([], "")


def label_maps(folder: Path, drawn: Any, *, draws: str = "both") -> tuple[dict[str, Any], Recorder]:
    """What a fit reports of a generator that draws its training cases' label maps, changed."""

    class Copier(Generator):
        name = "copier"
        capabilities = Capabilities(takes=frozenset(), draws=draws) if draws else Capabilities()  # type: ignore[arg-type]

        def observe(self, cases):
            self.maps = [case.labels for case in cases]
            self.priors = LabelPriors.fit(self.maps, self.schema)
            return {}

        def reject_reason(self, sample):
            return self.priors.reject_reason(sample.labels)

        def sample(self, conditions, seeds):
            labels = [drawn(self.maps[seed % len(self.maps)]) for seed in seeds]
            return [Sample(np.zeros((2, *self.size), np.float32), one) for one in labels]

    with offered("copier", generators={"copier": Copier}):
        job = resolve("copier", SourceRequest("toy", "2"), {}, None, "cpu")
    manifest = open_folder(job, folder, False, NullReporter())
    recorder, again = Recorder(), Recorder()
    found = report_label_maps(job, Run(folder.parent, job.generator, manifest), recorder)
    warn_of_label_maps(folder.parent, again)  # as who uses the run is
    assert again.warned == recorder.warned
    return json.loads(json.dumps(found)), recorder


@pytest.fixture
def folder(toy_source, tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_label_maps_as_those_of_training_raise_no_warning_and_have_a_line_each(folder):
    report, recorder = label_maps(folder, lambda labels: labels)
    found = report["label_maps"]
    assert (found["warnings"], found["rejected"], recorder.warned) == ([], 0.0, [])
    cases = map(ToySource(2).load, ToySource(2).train_ids)
    areas = [np.count_nonzero(case.labels == 1) for case in cases]
    assert found["labels"]["one"]["training"]["area"] == np.median(areas)
    names = [text.partition(":")[0].removeprefix("label maps, ") for text in recorder.said]
    assert names == ["one", "two", "outside"]
    assert recorder.said[0].startswith("label maps, one: samples in 100%, ")


def test_labels_that_are_never_drawn_and_many_flawed_samples_are_warned_of(folder):
    report, recorder = label_maps(folder, np.ones_like)
    assert any(
        text.startswith("label maps: label 2 (two) is in 0% of 8 samples, expected about")
        for text in recorder.warned
    )
    assert report["label_maps"]["reject_reasons"] == {"label (one) has an unusual size": 8}
    assert "100% of 8 samples would be rejected" in recorder.warned[-1]
    assert "8 times label (one) has an unusual size" in recorder.warned[-1]


def test_a_generator_that_is_asked_for_labels_has_no_such_report(folder):
    assert label_maps(folder, np.ones_like, draws="")[0] == {}
