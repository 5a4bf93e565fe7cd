import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gansynth.core.generator import Phase, Stage, TrainingStep
from gansynth.core.source import SourceRequest
from gansynth.fitting import cost
from gansynth.fitting.cost import FlopCounter, fit_into, measure, stage_steps
from gansynth.fitting.setup import resolve
from gansynth.runtime.measuring import OutOfTime
from gansynth.runtime.progress import NullReporter
from gansynth.runtime.sizes import bytes_of
from gansynth.testing import ToySource
from gansynth.training.loop import FitOptions
from gansynth_cli.commands.fit import lines_of_cost
from tests.expected import raises_fault
from tests.offered import offered

TOY = SourceRequest("toy", "3")
TINY = {"width": "8", "d_width": "8", "levels": "2", "d_levels": "2", "batch_size": "2"}


def test_flops_are_those_counted_by_hand_second_derivatives_too():
    layer, image = torch.nn.Conv2d(2, 5, 3, padding=1), torch.ones(2, 2, 64, 64, requires_grad=True)
    forward = 2 * (2 * 5 * 9) * 2 * 64 * 64
    with FlopCounter() as counter:
        (slope,) = torch.autograd.grad(layer(image).square().sum(), image, create_graph=True)
        assert counter.flops == 2 * forward
        slope.square().sum().backward()  # as a gradient penalty
    assert counter.flops > 4 * forward


@pytest.mark.parametrize(
    ("steps", "expected"), [(10, [3, 1, 6]), (3, [3]), (4, [3, 1]), (0, [])], ids=str
)
def test_steps_are_those_of_the_stages_that_a_fit_reaches(steps, expected):
    stages = [Stage(images=9, batch_size=4), Stage(images=4), Stage()]
    options = FitOptions(steps=steps, batch_size=2)
    assert [count for _, count in stage_steps(options, stages)] == expected


@pytest.mark.parametrize(("patience", "steps"), [(1e9, {0, 1, 2, 3, 4, 5}), (0.0, {0, 1})])
def test_steps_are_measured_in_whole_turns_of_the_players_or_two_of_them_if_slow(
    toy_source, patience, steps, monkeypatch
):
    job = resolve("cgan3d", SourceRequest("toy", "2"), TINY, None, "cpu")
    weight = next(job.generator.nets["discriminator"].parameters())
    seen = set[int]()

    def loss(step: TrainingStep) -> Any:
        seen.add(step.index)
        return {"mean": weight.sum()}

    phases = [Phase("discriminator", loss), Phase("discriminator", loss, 3, 2)]
    monkeypatch.setattr(job.generator, "phases", lambda: phases)
    monkeypatch.setattr(cost, "PATIENCE", patience)
    assert measure(job, Path("-"))["seconds_per_step"] > 0
    assert seen == steps


def test_a_step_takes_no_less_than_the_reading_of_its_batch(toy_source, monkeypatch):
    job = resolve("cgan3d", SourceRequest("toy", "2"), TINY, None, "cpu")
    read = job.batches

    def slow(*which: Any) -> Any:
        time.sleep(0.5)
        return read(*which)

    monkeypatch.setattr(job, "batches", slow)
    found = measure(job, Path("-"))
    assert found["loading_threads"] == 1
    assert found["seconds_per_step"] >= found["loading_seconds_per_step"] >= 0.5
    assert found["waited_share"] > 0
    assert "ms a step in 1 thread" in "\n".join(lines_of_cost(found))


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit of private memory")
def test_a_step_that_does_not_fit_the_free_memory_fails_in_place_of_the_process(
    toy_source, monkeypatch
):
    job = resolve("cgan3d", TOY, {**TINY, "batch_size": "2048"}, None, "cpu")
    monkeypatch.setattr(cost, "free_bytes", lambda device: 100 << 20)
    with pytest.raises((RuntimeError, MemoryError), match="allocate"):
        measure(job, Path("-"))


def test_a_dry_run_of_a_growing_gan_takes_steps_in_every_stage(monkeypatch):
    sizes, late = [], []
    own = {"stage_images": "4", "fade_images": "0", "width": "2", "max_width": "4"}
    with offered("boxed", sources={"boxed": lambda request: ToySource(2, boxes=True)}):
        own |= {"steps": "12", "batch_size": "2", "minibatch": "2"}
        job = resolve("cpggan", SourceRequest("boxed", ""), own, None, "cpu")
    first, *others = job.generator.phases()

    def loss(step: TrainingStep) -> Any:
        sizes.append(step.stage.size)
        if step.stage.size in late:
            raise OutOfTime
        return first.loss(step)

    monkeypatch.setattr(job.generator, "phases", lambda: (replace(first, loss=loss), *others))
    assert measure(job, Path("-"))["time_from"] == "measured in each of 4 stages"
    assert set(sizes) == {(4, 4), (8, 8), (16, 16), (32, 32)}
    late.append((4, 4))
    assert measure(job, Path("-"))["time_from"] == "measured in 3 of 4 stages"


def test_a_reader_sees_the_paper_beside_it():
    cost = {
        **{"parameters": {"generator": 7_100_000}, "flops_per_step": 1.23e13},
        **{"flops_total": 2.46e18, "memory_mib": 5632, "device": "cuda:0"},
        **{"seconds_per_step": 1.5, "estimated_minutes": 5000.0, "time_from": "measured"},
        "paper": {"hours": 240, "memory_gb": 30, "card_gb": 11},
    }
    text = "\n".join(lines_of_cost(cost))
    told = ("7.1 M", "12.3 TFLOP a step", "2.46 EFLOP", "83.3 h", "240 h", "30 GB")
    for said in (*told, "5632 MiB on cuda:0"):
        assert said in text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("16GB", 16 * 10**9), ("1.5 GiB", 3 << 29), ("800m", 800 * 10**6), ("4096", 4096)),
        *((text, None) for text in ("much", "", "-1GB", "0", "16 apples", "1.2.3GB")),
    ],
)
def test_sizes_are_read_as_they_are_written_and_others_refused(text, size):
    if size is not None:
        assert bytes_of(text, "--max-memory") == size
        return
    with raises_fault("sizes.not-a-size"):
        bytes_of(text, "--max-memory")


@pytest.fixture
def choose(toy_source, monkeypatch, tmp_path):
    """``choose(memory, settings)``: a step takes what settings make it; above 2000 MiB it fails."""

    def memory(generator, request, settings, edits, device) -> dict[str, Any]:
        edge = json.loads(settings.get("patch", "[16]"))[0] / 16
        width = int(settings.get("width", 16)) / 16
        peak = round(100 + 1000 * edge**3 * width / int(settings.get("accumulate", 1)))
        return {"memory_mib": peak if peak < 2000 else None, "memory_before_mib": 100}

    monkeypatch.setattr(cost, "_measure_in_own_process", memory)
    monkeypatch.setattr(cost, "SMALLEST_PATCH", 8)

    def run(mib: float, settings: dict[str, str] | None = None) -> dict[str, str]:
        asked = ("cgan3d", TOY, settings or {}, None, "cpu")
        return fit_into(*asked, int(mib * 2**20), tmp_path / "run", NullReporter())

    return run


HALF, TYPED, PARTS = {"patch": "[8, 8, 8]"}, {"patch": "[16, 16, 16]"}, {"accumulate": "2"}


@pytest.mark.parametrize(
    ("mib", "typed", "chosen"),
    [
        (1100, {}, {}),
        (1099, {}, PARTS),
        (500, {}, {**PARTS, **HALF}),
        (1100, {"width": "64"}, {"width": "64", **PARTS, **HALF}),  # two run out of memory
        (600, TYPED, {**TYPED, **PARTS}),
        (500, {"accumulate": "1"}, {"accumulate": "1", **HALF}),
    ],
)
def test_what_is_computed_at_once_is_halved_until_it_fits(choose, mib, typed, chosen):
    assert choose(mib, typed) == chosen


@pytest.mark.fault(37)
def test_where_nothing_fits_or_the_typed_patch_does_not_it_is_said(choose):
    for mib, typed in ((99, {}), (500, TYPED)):
        with raises_fault("fitting.nothing-fits-max-memory"):
            choose(mib, typed)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ("[17, 16, 16]", "fitting.patch-size-wrong"),
        ("[16, 16]", "fitting.patch-size-wrong"),
        ("[0, 8, 8]", "options.value-invalid"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(toy_source, patch, expected):
    with raises_fault(expected):
        resolve("cgan3d", TOY, {"patch": patch}, None, "cpu")


def test_training_crops_are_as_large_as_asked_and_samples_are_whole(toy_source):
    job = resolve("cgan3d", TOY, {"patch": "[8, 8, 8]", "width": "4"}, None, "cpu")
    assert job.batches(0, Stage(), range(2)).image.shape == (2, 2, 8, 8, 8)
    assert job.crops(0, Stage(), range(2)).image.shape == (2, 2, 16, 16, 16)


@pytest.fixture
def fit(toy_nnunet, tmp_path):
    """``gansynth fit`` in a process of its own, of the memory that it takes alone: its report."""

    def run(*more: object) -> Any:
        command = [sys.executable, "-m", "gansynth_cli", "fit", "cgan3d", *toy_nnunet.options]
        command += ["--json", "-q", "--device", "cpu", "-o", str(tmp_path / "run"), *map(str, more)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.slow
def test_a_dry_run_comes_within_a_third_of_what_happens(fit):
    asked = ("--set=steps=150", "--set=batch_size=2", "--set=width=32")
    expected, happened = fit(*asked, "--dry-run"), fit(*asked)
    for key, real in (("estimated_seconds", "total_seconds"), ("memory_mib", "memory_mib")):
        assert expected[key] == pytest.approx(happened[real], rel=0.3), key


@pytest.mark.fault(37)
@pytest.mark.slow
def test_a_memory_is_kept_to(fit):
    asked = ("--set=steps=4", "--set=batch_size=8")
    free = fit(*asked, "--dry-run")
    budget = (free["memory_mib"] + free["memory_before_mib"]) // 2
    assert fit(*asked, "--max-memory", f"{budget}MiB")["memory_mib"] <= budget * 1.05
    again = fit(*asked, "--max-memory", f"{budget}MiB")  # the same run, resumed
    assert again["resumed_at"] == 4
