"""What steps would allocate and compute, without running them; and dry runs that say so."""

import resource
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.core.generator import Batch, Generator, GeneratorOptions, Phase, Stage, Step
from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest
from gansynth.fitting import scaling
from gansynth.fitting.cost import measure
from gansynth.fitting.cost_estimate import (
    estimate,
    forecast,
    imagine,
    kinds,
    parameters,
    simulate,
    stretches,
)
from gansynth.fitting.fake_tensors import Watched
from gansynth.fitting.setup import resolve
from gansynth.nn.networks import blocks, lean_norm
from gansynth.training.loop import FitOptions
from gansynth_cgan3d.model import CGAN3D
from gansynth_cli.commands.fit import lines_of_cost
from tests.adapters.yolo.conftest import shared_yolo  # noqa: F401  # a fixture

SMALL = (16, 32, 32)
SCHEMA = Schema(("T1", "T2"), {"background": 0, "one": 1}, (1.0, 1.0, 1.0), "DHW")
PLAIN = {"width": 8, "d_width": 8, "levels": 3}
NORMS = ("instance", "group")
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
    return imagine(cgan(size, **own), blank(size), loop(), half)


# -- against what is known -------------------------------------------------------------------------


class OneLayer(Generator):
    """One convolution, whose FLOPs can be counted by hand."""

    name: ClassVar[str] = "one_layer"

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": nn.Conv2d(2, 5, 3, padding=1)}

    def phases(self) -> list[Phase]:
        return [Phase("generator", self.loss, interval=2)]

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {"mean": self.nets["generator"](step.batch.image).mean()}

    def sample(self, conditions: Any, seeds: Any) -> Any:
        raise NotImplementedError


def test_flops_and_bytes_are_those_counted_by_hand():
    flat = Schema(("T1", "T2"), {"background": 0}, (1.0, 1.0), "HW")
    generator = OneLayer(flat, (64, 64), GeneratorOptions())
    assert parameters(generator) == {"generator": 5 * 2 * 9 + 5}
    cost = imagine(generator, blank((64, 64)), loop(steps=10), False)
    forward = 2 * (2 * 5 * 9) * 2 * 64 * 64
    # Forward and the weights' gradient, every other step.
    assert (cost.flops, cost.total) == (forward, 10 * forward)
    made, image = 2 * 5 * 64 * 64 * 4, 2 * 2 * 64 * 64 * 4
    labels = 2 * 64 * 64 * 8
    # The layer's output and its gradient; weights, averages, gradients and Adam's state are small.
    assert image + labels + made < cost.peak < image + labels + 2 * made + 16 * 512


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"checkpointing": True},
        {"d_norm": "instance", "skip": "concat", "up": "nearest", "down": "maxpool"},
        {"norm": "group", "d_norm": "group"},
        {"r1": 1, "r1_every": 2, "checkpointing": True},
        {"gp": 1, "up": "cubic"},
        {"perceptual": 1, "pool": 2, "alternate": True},
    ],
    ids=str,
)
def test_the_simulated_peak_is_that_of_real_steps(own, half, monkeypatch):
    """Of real steps that are counted alike, without what only a CPU does."""
    monkeypatch.setattr(lean_norm, "_lean", lambda x, norm: False)
    monkeypatch.setattr(blocks.Conv3d, "_enough", lambda self, x: 0)
    watched = Watched(torch.device("cpu"))
    real = simulate(cgan(**own), blank(SMALL), loop(), watched, half)
    found = imagined(half, **own)
    assert found.flops == real.flops
    assert found.peak == pytest.approx(real.peak, rel=0.01)


def test_checkpointing_and_bf16_lower_the_peak_and_checkpointing_computes_more():
    deep: dict[str, Any] = {"double": True, "d_norm": "instance"}
    plain, again, half = (
        imagined(**deep),
        imagined(checkpointing=True, **deep),
        imagined(True, **deep),
    )
    assert again.peak < 0.85 * plain.peak
    assert half.peak < 0.85 * plain.peak
    assert plain.flops == half.flops < again.flops < 1.5 * plain.flops


def test_bf16_is_cast_where_cuda_casts():
    """Group normalisation, whose output is fp32 there."""
    saved = {norm: imagined(norm=norm).peak - imagined(True, norm=norm).peak for norm in NORMS}
    assert saved["group"] < 0.5 * saved["instance"]


def test_a_full_pool_is_counted():
    some, many = imagined(pool=1), imagined(pool=50)
    sample = (2 + 2) * 16 * 32 * 32 * 4
    assert many.peak - some.peak == pytest.approx(49 * sample, rel=0.05)


def nothing(step: Step) -> dict[str, Tensor]:
    return {}


def test_a_step_of_each_kind_is_weighted_by_how_many_there_are():
    phases = [Phase("g", nothing, 2, 1), Phase("d", nothing, 2, 0), Phase("d", nothing, 16, 0)]
    assert kinds(phases, 0, 100) == [(0, 1 / 16), (1, 1 / 2), (2, 7 / 16)]


def test_stages_share_the_steps_out():
    stages = [Stage(images=9, batch_size=4), Stage(images=4), Stage()]
    found = [(s.first, s.images, s.steps) for s in stretches(loop(steps=10), stages)]
    assert found == [(0, 0, 3), (3, 12, 1), (4, 14, 6)]


def test_a_volume_that_fits_nowhere_here_takes_no_memory():
    size = (64, 240, 240)
    imagined()  # whatever is loaded but once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = imagined(size=size, width=64, d_width=64, double=True, skip="concat", levels=4)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert cost.peak > 10 * 2**30
    assert grown / (2**20 if sys.platform == "darwin" else 2**10) < 600  # the weights, twice


# -- of a job --------------------------------------------------------------------------------------


def test_estimating_leaves_everything_as_it_was(toy_source):
    job = resolve("cgan3d", TOY, {**TINY, "pool": "2"}, None, "cpu")
    own = {
        f"{n}/{k}": v for n, net in job.generator.nets.items() for k, v in net.state_dict().items()
    }
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


@pytest.mark.parametrize("changes", [{}, {"stray": 1}], ids=["cgan3d", "unknowable"])
def test_a_dry_run_has_a_forecast_or_says_why_not(toy_source, changes, monkeypatch):
    job = resolve("cgan3d", TOY, {**TINY, "precision": "fp32"}, None, "cpu")
    if changes:
        monkeypatch.setattr(CGAN3D, "load_state", None)
    cost, told = forecast(job)
    if changes:
        assert cost is None
        assert told["memory_predicted_mib"] is None
        assert "cannot be simulated: TypeError" in told["why"]
        return
    rows = {(r["precision"], r["checkpointing"]): r for r in told["memory_variants"]}
    assert list(rows) == [("bf16", False), ("bf16", True), ("fp32", False), ("fp32", True)]
    assert [k for k, row in rows.items() if row["asked"]] == [("fp32", False)]
    assert rows["fp32", False]["memory_mib"] == told["memory_predicted_mib"]
    assert told["flops_total"] == 20_000 * told["flops_per_step"]


@pytest.mark.parametrize(
    ("name", "where", "own"),
    [
        ("cgan3d", "3", {**TINY, "insert": "lesion"}),
        ("cgan3d", "2", {**TINY, "augment": "flip,cutout", "augment_p": "adaptive"}),
        ("dcgan", "2", {"width": "8", "n_critic": "2", "batch_size": "2"}),
    ],
    ids=["lesion", "augmented", "dcgan"],
)
def test_other_generators_have_a_forecast_too(toy_source, name, where, own):
    job = resolve(name, SourceRequest("toy", where), own, None, "cpu")
    if name == "cgan3d":
        job.generator.observe(job.shown(job.source.train_ids, np.random.default_rng(0), 0))
    cost, told = forecast(job)
    assert cost is not None, told
    assert cost.peak > 0 < cost.flops


def test_what_would_take_too_long_is_worked_out_from_smaller_crops(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "SOON", 0.0)
    monkeypatch.setattr(scaling, "PATIENCE", 0.0)
    monkeypatch.setattr(scaling, "SMALLEST_EDGE", 8)
    report = toy_fit(tmp_path / "run", data="3", dry_run=True, steps=600)
    assert report["time_from"] == "extrapolated from 8x8x8"
    assert report["memory_mib"] == report["memory_predicted_mib"] > 0
    assert report["estimated_seconds"] > 600 * report["seconds_per_step"] - 0.1


def test_what_is_quick_is_measured_at_full_size(toy_fit, tmp_path):
    report = toy_fit(tmp_path / "run", dry_run=True, steps=600)
    assert report["time_from"] == "measured"
    assert report["memory_mib"] != report["memory_predicted_mib"]


@pytest.mark.parametrize(("patience", "smaller"), [(1e9, 0), (0.0, 3)])
def test_every_stage_of_a_growing_gan_is_timed(shared_yolo, patience, smaller, monkeypatch):  # noqa: F811
    monkeypatch.setattr(scaling, "SOON", 0.0)
    monkeypatch.setattr(scaling, "PATIENCE", patience)
    settings = {"steps": "30", "batch_size": "4", "stage_images": "20", "fade_images": "0"}
    request = SourceRequest("yolo", str(shared_yolo), read={"size": "32x32"})
    job = resolve("cpggan", request, settings, None, "cpu")
    seen = []

    def measured(job, stage):  # a sample takes as many seconds as its edge has voxels
        seen.append(stage.size[0])
        return stage.size[0] * (stage.batch_size or 4), 0.5, 0.25

    found = scaling.timed(job, forecast(job)[0], measured)
    assert seen == [4, 8, 16, 32]
    # 20 images of each size are 5 steps of 4; the last size has the other 15 steps.
    assert found.step == 4 * (5 * (4 + 8 + 16) + 15 * 32) / 30
    assert ("smaller batches" in found.source) == found.extrapolated == bool(smaller)


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
