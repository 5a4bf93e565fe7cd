"""The torch engine of DeepMedic on a GPU: what it computes, and a training there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gansynth.core.generator import Stage, TrainingStep, move
from gansynth.runtime.devices import autocast
from gansynth_deepmedic.engine.geometry import SegmentGeometry
from gansynth_deepmedic.engine.network import default_model
from gansynth_deepmedic.engine.segmenter import NETWORK, SegmentBatch
from gansynth_deepmedic.engine.train import TorchTraining, TrainingTask
from tests.adapters.deepmedic.engine_orders import order_of
from tests.deepmedic_sets import toy_deepmedic
from tests.pretend_cuda.environment import PRETENDS

TINY: dict[str, Any] = {
    "numberOfEpochs": 2,
    "numberOfSubepochs": 1 if PRETENDS else 4,
    "learningRate": 3e-3,
    "numberOfEpochsBetweenFullInferenceOnValImages": 2,
}


def training(
    folder: Path, device: torch.device, precision: str = "fp32", **model: Any
) -> TorchTraining:
    """A training that has not begun; without dropout, so that devices can be compared."""
    toy = toy_deepmedic(folder / "toy", values=TINY, model={"dropoutRatesFc": [0.0, 0.0], **model})
    settings = {"device": device.type, "precision": precision}
    return TorchTraining(TrainingTask.of(order_of(toy, folder / "out", settings)), print)


def segments(task: TrainingTask, count: int = 4) -> dict[str, Tensor]:
    geometry = SegmentGeometry.from_model(task.model)
    generator = torch.Generator().manual_seed(1)

    def noise(*size: int) -> Tensor:
        return torch.randn(count, task.model.channels, *size, generator=generator)

    labels = torch.randint(0, task.model.classes, (count, *geometry.output), generator=generator)
    low = {f"low_{number}": noise(*size) for number, size in enumerate(geometry.low)}
    return {"high": noise(*geometry.segment), **low, "labels": labels}


def step(one: TorchTraining, items: dict[str, Tensor]) -> float:
    """One step of the loop, as far as networks and losses go."""
    segmenter = one.segmenter
    if not hasattr(segmenter, "optimiser"):
        move(segmenter, one.device)
        segmenter.optimizer(NETWORK, segmenter.network.parameters())
    segmenter.network.train()
    segmenter.optimiser.zero_grad()
    batch = SegmentBatch.of(items).to(one.device)
    with autocast(one.device, one.bf16):
        (loss,) = one.loss(TrainingStep(batch, Stage(), 0, 0, torch.Generator(one.device))).values()
    torch.autograd.backward(loss)
    segmenter.optimiser.step()
    return float(loss.detach())


def test_a_step_is_that_of_the_cpu(device, tmp_path):
    ours, theirs = (
        training(tmp_path / name, where)
        for name, where in (("cpu", torch.device("cpu")), ("device", device))
    )
    assert theirs.device.type == device.type
    theirs.segmenter.network.load_state_dict(ours.segmenter.network.state_dict())
    batch = segments(ours.task)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        losses = [[step(one, batch) for _ in range(2)] for one in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    state, other = (one.segmenter.network.state_dict() for one in (ours, theirs))
    for name, tensor in state.items():
        torch.testing.assert_close(other[name].cpu(), tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns(device, tmp_path, precision):
    if PRETENDS:
        pytest.skip("takes long there")
    one = training(tmp_path, device, precision)
    end = one.run()
    assert end["dice"]["foreground"] > 0.5
    lines = [
        json.loads(line)
        for line in (tmp_path / "out" / "gansynth_progress.jsonl").read_text().splitlines()
    ]
    losses = [line["metrics"]["loss"] for line in lines if "loss" in line.get("metrics", {})]
    assert losses[1] < losses[0]


def test_what_was_begun_here_goes_on_there(device, tmp_path):
    """A checkpoint has no device."""
    one = training(tmp_path, device)
    one.run()
    task = training(tmp_path, torch.device("cpu")).task
    other = TorchTraining(replace(task, order=replace(task.order, done=2)), print)
    other.run()
    there, here = one.segmenter, other.segmenter
    pairs = zip(there.network.parameters(), here.network.parameters(), strict=True)
    for ours, theirs in pairs:
        assert torch.equal(ours.cpu(), theirs)
        mine, its = (t.optimiser.state[p] for t, p in ((there, ours), (here, theirs)))
        assert torch.equal(mine["velocity"].cpu(), its["velocity"])


@pytest.mark.usefixtures("real_cuda")
def test_the_default_network_takes_a_step(cuda, tmp_path):
    """DeepMedic's example at its own size: ten segments of 37^3."""
    task = replace(training(tmp_path, cuda, "bf16").task, model=default_model(3, 2))
    one = TorchTraining(task, print)
    torch.cuda.reset_peak_memory_stats(cuda)
    losses = [step(one, segments(task, 10)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert torch.cuda.max_memory_allocated(cuda) < 16e9
