# mypy: disallow-untyped-calls=False

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.core.generator import Batch, Generator, GeneratorOptions, Phase, Stage, TrainingStep
from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest
from gansynth.fitting import cost, step_times
from gansynth.fitting.cost import fit_into, measure, parse_bytes
from gansynth.fitting.cost_estimate import (
    estimate,
    fake_batch,
    forecast,
    kinds,
    parameters,
    simulate_steps,
    stretches,
)
from gansynth.fitting.fake_tensors import CountingMode
from gansynth.fitting.setup import resolve
from gansynth.nn.networks import blocks, lean_norm
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.training.loop import FitOptions
from gansynth_cgan3d.model import CGAN3D
from gansynth_cli.commands.fit import lines_of_cost
from tests.adapters.yolo.conftest import shared_yolo  # noqa: F401  # a fixture

SMALL = (16, 32, 32)
SCHEMA = Schema(("T1", "T2"), {"background": 0, "one": 1}, (1.0, 1.0, 1.0), "DHW")
PLAIN = {"width": 8, "d_width": 8, "levels": 3}
TOY = SourceRequest("toy", "3")
TINY = {"width": "8", "d_width": "8", "levels": "2", "d_levels": "2", "batch_size": "2"}


def cgan(size: tuple[int, ...] = SMALL, **own: Any) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CGAN3D(SCHEMA, size, CGAN3D.Options.model_validate({**PLAIN, **own}))


def blank(size: tuple[int, ...]) -> Any:
    """Batches of nothing, which take no memory."""

    def batches(step: int, stage: Stage, which: range) -> Batch:
        image = torch.zeros(()).expand(len(which), 2, *size)
        return Batch(image, torch.zeros((), dtype=torch.int64).expand(len(which), *size))

    return batches


def loop(**changes: Any) -> FitOptions:
    return FitOptions.model_validate({"steps": 100, "batch_size": 2, **changes})


def imagined(half: bool = False, size: tuple[int, ...] = SMALL, **own: Any) -> Any:
    return fake_batch(cgan(size, **own), blank(size), loop(), half)


class OneLayer(Generator):
    """One convolution, whose FLOPs can be counted by hand."""

    name: ClassVar[str] = "one_layer"

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": nn.Conv2d(2, 5, 3, padding=1)}

    def phases(self) -> list[Phase]:
        return [Phase("generator", self.loss, interval=2)]

    def loss(self, step: TrainingStep) -> dict[str, Tensor]:
        return {"mean": self.nets["generator"](step.batch.image).mean()}

    def sample(self, conditions: Any, seeds: Any) -> Any:
        raise NotImplementedError


def test_flops_and_bytes_are_those_counted_by_hand():
    flat = Schema(("T1", "T2"), {"background": 0}, (1.0, 1.0), "HW")
    generator = OneLayer(flat, (64, 64), GeneratorOptions())
    assert parameters(generator) == {"generator": 5 * 2 * 9 + 5}
    found = fake_batch(generator, blank((64, 64)), loop(steps=10), False)
    forward = 2 * (2 * 5 * 9) * 2 * 64 * 64
    # Forward and the weights' gradient, every other step.
    assert (found.flops, found.total) == (forward, 10 * forward)
    made, image, labels = (2 * n * 64 * 64 for n in (5 * 4, 2 * 4, 8))
    # The layer's output and its gradient; weights, averages, gradients and Adam's state are small.
    assert image + labels + made < found.peak < image + labels + 2 * made + 16 * 512


@pytest.mark.parametrize(
    ("own", "half"),
    [
        ({}, True),
        ({"norm": "group", "d_norm": "group", "down": "maxpool"}, True),
        ({"r1": 1, "r1_every": 2, "checkpointing": True, "perceptual": 1, "pool": 2}, False),
        *(
            pytest.param(own, half, marks=pytest.mark.slow)
            for half in (False, True)
            for own in (
                {"checkpointing": True},
                {"d_norm": "instance", "skip": "concat", "up": "nearest", "down": "maxpool"},
                {"gp": 1, "up": "cubic"},
                {"perceptual": 1, "pool": 2, "alternate": True},
                {"r1": 1, "r1_every": 2, "checkpointing": True},
            )
        ),
    ],
    ids=str,
)
def test_the_simulated_peak_is_that_of_real_steps(own, half, monkeypatch):
    """Of real steps that are counted alike, without what only a CPU does."""
    monkeypatch.setattr(lean_norm, "_lean", lambda x, norm: False)
    monkeypatch.setattr(blocks.Conv3d, "_enough", lambda self, x: 0)
    watched = CountingMode(torch.device("cpu"))
    real = simulate_steps(cgan(**own), blank(SMALL), loop(), watched, half)
    found = imagined(half, **own)
    assert found.flops == real.flops
    assert found.peak == pytest.approx(real.peak, rel=0.01)


@pytest.mark.slow
def test_checkpointing_and_bf16_lower_the_peak_and_checkpointing_computes_more():
    deep: dict[str, Any] = {"double": True, "d_norm": "instance"}
    plain, half = imagined(**deep), imagined(True, **deep)
    again = imagined(checkpointing=True, **deep)
    assert again.peak < 0.85 * plain.peak
    assert half.peak < 0.85 * plain.peak
    assert plain.flops == half.flops < again.flops < 1.5 * plain.flops
    # bf16 is cast where CUDA casts: group normalisation's output is fp32 there.
    saved = imagined(norm="group").peak - imagined(True, norm="group").peak
    assert saved < 0.5 * (plain.peak - half.peak)


def test_a_full_pool_is_counted():
    some, many = imagined(pool=1), imagined(pool=50)
    sample = (2 + 2) * 16 * 32 * 32 * 4
    assert many.peak - some.peak == pytest.approx(49 * sample, rel=0.05)


def nothing(step: TrainingStep) -> dict[str, Tensor]:
    return {}


def test_steps_are_weighted_by_how_many_there_are_of_each_kind_and_stage():
    phases = [Phase("g", nothing, 2, 1), Phase("d", nothing, 2, 0), Phase("d", nothing, 16, 0)]
    assert kinds(phases, 0, 100) == [(0, 1 / 16), (1, 1 / 2), (2, 7 / 16)]
    stages = [Stage(images=9, batch_size=4), Stage(images=4), Stage()]
    found = [(s.first, s.images, s.steps) for s in stretches(loop(steps=10), stages)]
    assert found == [(0, 0, 3), (3, 12, 1), (4, 14, 6)]


@pytest.mark.slow
def test_a_volume_that_fits_nowhere_here_takes_no_memory():
    size = (64, 240, 240)
    imagined()  # whatever is loaded but once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = imagined(size=size, width=64, d_width=64, double=True, skip="concat", levels=4)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert found.peak > 10 * 2**30
    assert grown / (2**20 if sys.platform == "darwin" else 2**10) < 600  # the weights, twice


def test_estimating_leaves_everything_as_it_was(toy_source):
    job = resolve("cgan3d", TOY, {**TINY, "pool": "2"}, None, "cpu")
    nets = job.generator.nets.items()
    own = {f"{n}/{k}": v for n, net in nets for k, v in net.state_dict().items()}
    weights = {k: v.clone() for k, v in own.items()}
    before, volume = torch.get_rng_state(), torch.ones(1, 1, 2, 2, 2)
    estimate(job)
    assert all(torch.equal(own[k], v) for k, v in weights.items())
    assert torch.equal(torch.get_rng_state(), before)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as the CPU has it, not CUDA
        half = volume.bfloat16()
        assert F.max_pool3d(half, 2).dtype == torch.float32
        assert F.group_norm(half, 1).dtype == torch.bfloat16
    assert int(job.generator.memories["pool"].state()["count"]) == 0
    assert job.generator.device == torch.device("cpu")


def test_a_dry_run_has_a_forecast_or_says_why_not(toy_source, monkeypatch):
    job = resolve("cgan3d", TOY, {**TINY, "precision": "fp32"}, None, "cpu")
    _, told = forecast(job)
    rows = {(r["precision"], r["checkpointing"]): r for r in told["memory_variants"]}
    assert list(rows) == [("bf16", False), ("bf16", True), ("fp32", False), ("fp32", True)]
    assert [k for k, row in rows.items() if row["asked"]] == [("fp32", False)]
    assert rows["fp32", False]["memory_mib"] == told["memory_predicted_mib"]
    assert told["flops_total"] == 20_000 * told["flops_per_step"]
    monkeypatch.setattr(CGAN3D, "load_state", None)
    found, told = forecast(job)
    assert (found, told["memory_predicted_mib"]) == (None, None)
    assert "cannot be simulated: TypeError" in told["why"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "own"),
    [
        ("2", {**TINY, "insert": "lesion"}),
        ("2", {**TINY, "augment": "flip,cutout", "augment_p": "adaptive"}),
    ],
    ids=["lesion", "augmented"],
)
def test_others_ways_have_a_forecast_too(toy_source, where, own):
    job = resolve("cgan3d", SourceRequest("toy", where), own, None, "cpu")
    job.generator.observe(job.shown(job.source.train_ids, np.random.default_rng(0), 0))
    found, told = forecast(job)
    assert found is not None, told
    assert found.peak > 0 < found.flops


@pytest.mark.parametrize("soon", [None, 0.0])
def test_what_would_take_too_long_is_worked_out_from_smaller_crops(
    soon, toy_fit, tmp_path, monkeypatch
):
    if soon is not None:
        monkeypatch.setattr(step_times, "SOON", soon)
        monkeypatch.setattr(step_times, "PATIENCE", soon)
        monkeypatch.setattr(step_times, "SMALLEST_EDGE", 16)
    report = toy_fit(tmp_path / "run", dry_run=True, steps=600)
    assert report["time_from"] == ("measured" if soon is None else "extrapolated from 16x16")
    same = report["memory_mib"] == report["memory_predicted_mib"] > 0
    assert same == (soon is not None)
    assert report["estimated_seconds"] > 600 * report["seconds_per_step"] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("patience", "smaller"), [(1e9, 0), (0.0, 3)])
def test_every_stage_of_a_growing_gan_is_timed(shared_yolo, patience, smaller, monkeypatch):  # noqa: F811
    monkeypatch.setattr(step_times, "SOON", 0.0)
    monkeypatch.setattr(step_times, "PATIENCE", patience)
    settings = {"steps": "30", "batch_size": "4", "stage_images": "20", "fade_images": "0"}
    request = SourceRequest("yolo", str(shared_yolo), read={"size": "32x32"})
    job = resolve("cpggan", request, {**settings, "width": "2", "max_width": "4"}, None, "cpu")
    seen = []

    def measured(job, stage):  # a sample takes as many seconds as its edge has voxels
        seen.append(stage.size[0])
        return stage.size[0] * (stage.batch_size or 4), 0.5, 0.25

    found = step_times.timed(job, forecast(job)[0], measured)
    assert seen == [4, 8, 16, 32]
    # 20 images of each size are 5 steps of 4; the last size has the other 15 steps.
    assert found.step == 4 * (5 * (4 + 8 + 16) + 15 * 32) / 30
    assert ("smaller batches" in found.source) == found.extrapolated == bool(smaller)


@pytest.mark.slow
def test_a_dry_run_of_a_growing_gan_takes_steps_at_full_size(shared_yolo, monkeypatch):  # noqa: F811
    sizes = []
    request = SourceRequest("yolo", str(shared_yolo), read={"size": "16x16"})
    own = {"steps": "9", "batch_size": "2", "stage_images": "4", "fade_images": "0", "width": "2"}
    job = resolve("cpggan", request, own, None, "cpu")
    real = job.generator.prepare

    def prepare(batch, stage):
        sizes.append(stage.size)
        return real(batch, stage)

    monkeypatch.setattr(job.generator, "prepare", prepare)
    assert measure(job, Path("-"))["time_from"] == "measured in each of 3 stages"
    assert set(sizes) == {(4, 4), (8, 8), (16, 16)}


def test_a_reader_sees_the_paper_beside_it():
    row = {"precision": "bf16", "checkpointing": True, "asked": True}
    lines = lines_of_cost(
        {
            "parameters": {"generator": 7_100_000},
            "flops_per_step": 1.23e13,
            "flops_total": 2.46e18,
            "memory_predicted_mib": 5632,
            "memory_variants": [{**row, "memory_mib": 5632, "flops_per_step": 1.23e13}],
            "memory_mib": 5632,
            "device": "cpu",
            "seconds_per_step": 1.5,
            "estimated_minutes": 5000.0,
            "time_from": "extrapolated from 16x64x64",
            "paper": {"hours": 240, "memory_gb": 30, "card_gb": 11},
        }
    )
    text = "\n".join(lines)
    for said in ("7.1 M", "12.3 TFLOP a step", "2.46 EFLOP", "83.3 h", "240 h", "30 GB", "50%"):
        assert said in text


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * 10**9), ("1.5 GiB", 3 << 29), ("800m", 800 * 10**6), ("4096", 4096)],
)
def test_sizes_are_read_as_they_are_written(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "", "-1GB", "0", "16 apples", "1.2.3GB"])
def test_what_is_no_size_is_refused(text, refuse, tmp_path):
    with pytest.raises(UsageFault, match=r"--fit-memory .*expected a size, for example 16GB"):
        parse_bytes(text)
    asked = ("fit", "cgan3d", "--data", "nnunet:1", "-o", tmp_path / "r", "--fit-memory", text)
    refuse(*asked, code=2, says=[f"--fit-memory {text!r}", "16GB"])


@pytest.fixture
def choose(toy_source, monkeypatch, tmp_path):
    """``choose(memory, settings)`` where a step's memory is what the settings would make it."""

    def memory(generator, request, settings, edits, device) -> dict[str, Any]:
        edge = json.loads(settings.get("patch", "[16]"))[0] / 16
        width = int(settings.get("width", 16)) / 16
        share = edge**3 * width * (0.6 if settings.get("checkpointing") == "true" else 1.0)
        return {"memory_mib": round(100 + 1000 * share), "memory_before_mib": 100}

    monkeypatch.setattr(cost, "_measure_apart", memory)
    monkeypatch.setattr(cost, "SMALLEST_PATCH", 8)

    def run(mib: float, settings: dict[str, str] | None = None) -> dict[str, str]:
        asked = ("cgan3d", TOY, settings or {}, None, "cpu")
        return fit_into(*asked, int(mib * 2**20), tmp_path / "run", NullReporter())

    return run


CHECKED, HALVED = {"checkpointing": "true"}, {"patch": "[8, 8, 8]"}
NARROW, WHOLE = {"width": "8", "d_width": "8"}, {"patch": "[16, 16, 16]"}


@pytest.mark.parametrize(
    ("mib", "typed", "chosen"),
    [
        (1100, {}, {}),
        (1099, {}, CHECKED),
        (700, {}, CHECKED),
        (600, {}, {**CHECKED, **HALVED}),
        (150, {}, {**CHECKED, **HALVED, **NARROW}),
        (600, WHOLE, {**WHOLE, **CHECKED, **NARROW}),  # what the user has set stays
    ],
)
def test_the_gentlest_change_that_fits_is_taken(choose, mib, typed, chosen):
    assert choose(mib, typed) == chosen


@pytest.mark.fault(37)
def test_nothing_that_fits_is_said_with_what_was_tried(choose):
    with pytest.raises(
        EnvironmentFault, match=r"nothing fits 99 MiB \(as asked: 1100 MiB.*100 MiB"
    ):
        choose(99)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("[17, 16, 16]", "patch=17,16,16: expected 3 whole numbers .* none above 16,16,16"),
        ("[16, 16]", "patch=16,16: expected 3 whole numbers .* none above 16,16,16"),
        ("[0, 8, 8]", r"patch=\[0, 8, 8\]: expected a number greater than or equal to 1"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(toy_source, patch, says):
    with pytest.raises(UsageFault, match=f"--set {says}"):
        resolve("cgan3d", TOY, {"patch": patch}, None, "cpu")


def test_training_crops_are_as_large_as_asked_and_samples_are_whole(toy_source):
    settings = {"patch": "[8, 8, 8]", "width": "4", "d_width": "4"}
    job = resolve("cgan3d", TOY, settings, None, "cpu")
    assert job.batches(0, Stage(), range(2)).image.shape == (2, 2, 8, 8, 8)
    assert job.crops(0, Stage(), range(2)).image.shape == (2, 2, 16, 16, 16)


def fit(toy: Any, *more: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "gansynth_cli", "fit", "cgan3d", *toy.options]
    command += ["--json", "-q", "--device", "cpu", *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.slow
def test_a_dry_run_comes_within_a_third_of_what_happens(toy_nnunet, tmp_path):
    asked = ("-o", tmp_path / "run", "--set=steps=150", "--set=batch_size=2", "--set=width=32")
    expected = fit(toy_nnunet, *asked, "--dry-run")
    assert not (tmp_path / "run").exists()
    happened = fit(toy_nnunet, *asked)
    for key, real in (("estimated_seconds", "total_seconds"), ("memory_mib", "memory_mib")):
        assert expected[key] == pytest.approx(happened[real], rel=0.3), key


@pytest.mark.fault(37)
@pytest.mark.slow
def test_a_memory_is_kept_to(toy_nnunet, tmp_path):
    asked = ("-o", tmp_path / "run", "--set=steps=4", "--set=batch_size=8")
    free = fit(toy_nnunet, *asked, "--dry-run")
    budget = (free["memory_mib"] + free["memory_before_mib"]) // 2
    bound = fit(toy_nnunet, *asked, "--fit-memory", f"{budget}MiB")
    assert bound["memory_mib"] <= budget * 1.05
    again = fit(toy_nnunet, *asked, "--fit-memory", f"{budget}MiB")  # the same run, resumed
    assert again["resumed_at"] == 4
