# mypy: disallow-untyped-calls=False

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml

from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.core.space import Placement
from gansynth.data.label_statistics import LabelPriors
from gansynth.fitting import sample_grids
from gansynth.fitting.label_report import report_label_maps, warn_of_label_maps
from gansynth.fitting.setup import OBSERVED, open_folder, resolve
from gansynth.report.figures import read_metrics
from gansynth.runtime.errors import EnvironmentFault, GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run import Run
from gansynth.testing import ToySource
from gansynth.training import loop
from gansynth_cgan3d import conditions
from tests.offered import offered
from tests.recorder import Recorder


@pytest.fixture(scope="module")
def shared(toy_fit, whole_fits, tmp_path_factory):
    out = tmp_path_factory.mktemp("shared") / "run"
    reporter = Recorder()
    return out, toy_fit(out, reporter=reporter), reporter


@pytest.fixture
def run(shared: tuple[Path, Any, Any], tmp_path: Path) -> Path:
    shutil.copytree(shared[0], tmp_path / "run")
    return tmp_path / "run"


def steps(run: Path) -> list[float]:
    return read_metrics(run / "metrics.csv")["step"]


def digest(run: Path) -> str:
    found: str = read_manifest(run)["weights"]["sha256"]
    return found


def test_a_run_folder_holds_what_the_documentation_says(shared):
    names = {path.name for path in shared[0].iterdir() if not path.name.startswith(".")}
    reports = {"report.html", "report.json", "card.md"}
    kept = {"config.yaml", "manifest.json", "metrics.csv", "samples", "checkpoints"}
    assert names == kept | reports
    sheets = {path.name for path in (shared[0] / "samples").iterdir()}
    assert sheets == {"step-00000004.png", "curves.png"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (shared[0] / "samples").iterdir())


def test_an_automatic_option_is_recorded_as_a_number_and_explained(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(conditions, "EXPLAINED", 1.1)
    reporter = Recorder()
    for steps in (1, 2):  # the second one resumes
        toy_fit(tmp_path / "run", steps=steps, reporter=reporter)
    assert read_manifest(tmp_path / "run")["options"]["context"] == 4
    assert sum("context=4: labels explain" in line for line in reporter.said) == 2


def test_the_report_is_json_with_a_spectrum_per_channel(shared):
    report = json.loads(json.dumps(shared[1], allow_nan=False))
    assert (report["train_cases"], report["held_out_cases"]) == (12, 4)
    assert (report["steps"], report["resumed_at"]) == (4, 0)
    assert [len(row) for row in report["spectrum_ratio"]] == [8, 8]
    assert all(value > 0 for row in report["spectrum_ratio"] for value in row)
    assert report["diversity"] is None  # of what is asked for labels
    assert not [text for text in shared[2].said if "spectrum" in text]


def test_more_steps_go_on_from_the_last_are_written_down_and_are_the_same(
    shared, run, toy_fit, tmp_path
):
    report = toy_fit(run, steps=6)
    assert (report["resumed_at"], report["steps"], steps(run)) == (4, 6, [1, 2, 3, 4, 5, 6])
    assert report["run_id"] == shared[1]["run_id"]
    assert yaml.safe_load((run / "config.yaml").read_text())["fit"]["steps"] == 6
    assert read_manifest(run)["config"]["fit"]["steps"] == 6
    with torch.random.fork_rng():
        torch.manual_seed(99)  # whatever state the process is in
        toy_fit(tmp_path / "whole", steps=6)
    assert digest(run) == digest(tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is_but_for_what_a_killed_writer_left(run, toy_fit):
    before = read_manifest(run)
    (run / ".manifest.json.tmp-1").write_text("{")
    report = toy_fit(run)
    assert (report["resumed_at"], report["steps"]) == (4, 4)
    assert read_manifest(run) == before
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


@pytest.mark.fault(28)
def test_a_manifest_behind_its_checkpoints_catches_up(run, toy_fit):
    """Killed between the last checkpoint and the manifest."""
    whole = read_manifest(run)
    old = {"path": "checkpoints/step-00000002/ema.safetensors", "sha256": "0" * 64}
    late = {**whole, "weights": old, "steps": 2, "complete": False}
    write_manifest(run, late)
    toy_fit(run)
    assert read_manifest(run) == whole


def fewer_cases(patch, run):
    patch.setattr(ToySource, "train_ids", property(lambda self: tuple(self._cases)[:11]))


def other_images(patch, run):
    load = ToySource.load

    def other(self, case_id):
        case = load(self, case_id)
        return replace(case, image=case.image + 1)

    patch.setattr(ToySource, "load", other)


def no_manifest(patch, run):
    (run / "manifest.json").unlink()


def in_the_way(patch, run):
    shutil.rmtree(run)
    run.write_text("")


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("change", "happens", "fault", "message"),
    [
        ({"width": 8}, None, UsageFault, r"options\.width is 8, was 4"),
        ({"seed": 1}, None, UsageFault, r"fit\.seed is 1, was 0"),
        ({"batch_size": 2}, None, UsageFault, r"fit\.batch_size is 2, was 1"),
        ({"edits": ("shift",)}, None, UsageFault, r"edits is \['shift'\], was \['flip'\]"),
        ({"data": "3"}, None, UsageFault, r"size is \[16, 16, 16\], was \[32, 32\]"),
        ({"resume": False}, None, UsageFault, "holds a run already"),
        ({"d_widht": 4}, None, UsageFault, "Did you mean 'd_width'"),
        ({}, fewer_cases, UsageFault, "training cases have changed"),
        ({}, other_images, UsageFault, "training cases have changed"),
        # They may have seen anything, and a lineage would say otherwise.
        ({}, no_manifest, IntegrityFault, r"checkpoints but no manifest\.json"),
        ({}, in_the_way, GansynthError, "run"),
    ],
)
def test_what_is_not_the_same_run_is_refused_by_name(
    run, toy_fit, monkeypatch, change, happens, fault, message
):
    said = []
    if happens is not None:
        happens(monkeypatch, run)
    for dry_run in (True, False):
        with pytest.raises(fault, match=message) as refused:
            toy_fit(run, dry_run=dry_run, **change)
        said.append((type(refused.value), str(refused.value).partition("(")[0]))
    assert said[0] == said[1]


@pytest.mark.fault(36)
def test_two_processes_do_not_share_a_folder(held, toy_fit):
    folder, holder = held
    for dry_run in (False, True):
        with pytest.raises(
            EnvironmentFault, match=rf"locked by pid {holder.pid} since .*another -o"
        ):
            toy_fit(folder, dry_run=dry_run)


def test_a_dry_run_leaves_a_run_alone(run, toy_fit):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    report = toy_fit(run, dry_run=True, steps=600)
    assert report["parameters"]["generator"] > report["parameters"]["discriminator"] > 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


class ShiftOptions(GeneratorOptions):
    shift: tuple[float, float] = (0.0, 0.0)


class Shift(Generator):
    """Nothing to train, an option of two numbers, images in [-1, 1]."""

    name = "shift"
    Options: ClassVar[type[GeneratorOptions]] = ShiftOptions
    capabilities = Capabilities(range="tanh")

    def sample(self, conditions, seeds):
        rngs = [np.random.default_rng(seed) for seed in seeds]
        images = [r.uniform(-1, 1, (2, *self.size)).astype(np.float32) for r in rngs]
        return [
            Sample(i, c.labels, None, c.provenance) for i, c in zip(images, conditions, strict=True)
        ]


def test_a_generator_without_training_is_complete_at_once_and_resumed(toy_fit, tmp_path):
    with offered("shift", generators={"shift": Shift}):
        for _ in range(2):
            report = toy_fit(tmp_path / "run", generator="shift", own={"shift": [1, 2]})
        assert report["steps"] is None
        manifest = read_manifest(tmp_path / "run")
        assert (manifest["complete"], manifest["options"]) == (True, {"shift": [1.0, 2.0]})
        window = load_run(tmp_path / "run", "cpu").space.window
    assert window is not None
    assert all(low < -0.5 < 0.5 < high for low, high in window)


def test_a_case_is_read_once_by_batches_sheets_and_spectrum_together(
    toy_fit, tmp_path, monkeypatch
):
    read, load = Counter[str](), ToySource.load

    def counted(self, case_id):
        read[case_id] += 1
        return load(self, case_id)

    monkeypatch.setattr(ToySource, "load", counted)
    toy_fit(tmp_path / "run", steps=2)
    assert set(read.values()) == {1}


def test_the_first_sheet_does_not_wait_for_its_turn(toy_fit, whole_fits, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "FIRST_PREVIEW", 0.0)
    toy_fit(tmp_path, steps=3, sample_every=1000)
    names = sorted(p.name for p in (tmp_path / "samples").glob("step-*.png"))
    assert names == ["step-00000001.png", "step-00000003.png"]


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


class Copier(Generator):
    """Draws noise, and with it label maps of its training cases as they are."""

    name = "copier"
    capabilities = Capabilities(takes=frozenset(), draws="both")

    def observe(self, cases):
        self.maps = [case.labels for case in cases]
        self.priors = LabelPriors.fit(self.maps, self.schema)
        return {}

    def drawn(self, labels):
        return labels

    def reject_reason(self, sample):
        return self.priors.reject_reason(sample.labels)

    def sample(self, conditions, seeds):
        made = []
        for condition, seed in zip(conditions, seeds, strict=True):
            rng = np.random.default_rng(seed)
            labels = self.drawn(self.maps[int(rng.integers(len(self.maps)))])
            image = rng.normal(size=(2, *self.size)).astype(np.float32)
            made.append(Sample(image, labels, None, condition.provenance))
        return made


def other(name: str, **changes: Any) -> type[Copier]:
    """One that differs from ``Copier``."""
    return type(name, (Copier,), {"name": name, **changes})


@pytest.fixture
def reported(toy_source, tmp_path):
    """What is reported of a generator after it has observed, and what was said: by its class.

    Who uses the run is warned in the same words.
    """

    def report(cls):
        with offered(cls.name, generators={cls.name: cls}):
            job = resolve(cls.name, SourceRequest("toy", "2"), {}, None, "cpu")
        (tmp_path / "run").mkdir()
        manifest = open_folder(job, tmp_path / "run", False, NullReporter())
        recorder, again = Recorder(), Recorder()
        found = report_label_maps(job, Run(tmp_path, job.generator, manifest), recorder)
        warn_of_label_maps(tmp_path, again)
        assert again.warned == recorder.warned
        return found, recorder

    return report


def test_label_maps_as_those_of_training_raise_no_warning_and_have_a_line_each(reported):
    report, recorder = reported(Copier)
    found = json.loads(json.dumps(report["label_maps"]))
    assert (found["warnings"], found["rejected"], recorder.warned) == ([], 0.0, [])
    cases = map(ToySource(2).load, ToySource(2).train_ids)
    areas = [np.count_nonzero(case.labels == 1) for case in cases]
    assert found["labels"]["one"]["training"]["area"] == np.median(areas)
    names = [text.partition(":")[0].removeprefix("label maps, ") for text in recorder.said]
    assert names == ["one", "two", "outside"]
    assert recorder.said[0].startswith("label maps, one: samples in 100%, ")


def test_a_label_that_is_never_drawn_is_warned_of(reported):
    warned = reported(
        other("forgetter", drawn=lambda self, labels: np.where(labels == 2, np.int16(0), labels))
    )[1].warned
    assert warned[0].startswith("label maps: label 2 (two) is in 0% of 8 samples, expected about")


def test_many_flawed_samples_are_warned_of_with_the_reason(reported):
    report, recorder = reported(other("filler", drawn=lambda self, labels: np.ones_like(labels)))
    assert report["label_maps"]["reject_reasons"] == {"label (one) has an unusual size": 8}
    assert "100% of 8 samples would be rejected" in recorder.warned[-1]
    assert "8 times label (one) has an unusual size" in recorder.warned[-1]


def test_a_generator_that_is_asked_for_labels_has_no_such_report(reported):
    assert reported(other("condition", capabilities=Capabilities()))[0] == {}


def test_many_slices_of_few_volumes_are_observed_and_equal_crops_once(toy_nnunet, toy_source):
    for request in (toy_nnunet.request(configuration="2d"), SourceRequest("toy", "2")):
        job = resolve("dcgan", request, {"with_mask": "yes"}, None, "cpu")
        found = list(job.observed(np.random.default_rng(0)))
        if request.kind == "toy":
            assert len(found) == len(job.source.train_ids)
        else:
            assert len(found) == OBSERVED > len(job.source.train_ids)
            assert len({c.labels.tobytes() for c in found if c.labels is not None}) > 20
