import json
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from gansynth.core.generator import Batch, Generator, TrainingStep
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.runtime.devices import producer_device, set_seed
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ToySource
from gansynth.training import checkpoint
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.cuda_graphs import StepReplay
from gansynth.training.loading import BatchLoader
from gansynth.training.loop import FitOptions, TrainReport, train
from gansynth_cgan3d.whole import CGAN3D
from gansynth_dcgan.model import DCGANObjective
from tests.pretend_cuda.environment import PRETENDS
from tests.recorder import Recorder
from tests.training.zoo.members import ZOO, loop, member, newest, toy_batches

SIZE = 8 if PRETENDS else 16
WHERE = pytest.mark.parametrize("where", ["device", "second"])
TINY = {"width": 8, "levels": 2, "d_width": 8, "d_levels": 2}


def cgan(size: int = SIZE, **own: Any) -> tuple[Generator, CaseBatches]:
    """The real plugin on toy cases in 3D."""
    source = ToySource(3)
    torch.manual_seed(0)
    options = CGAN3D.Options.model_validate({**TINY, **own})
    space = Space("crop", (size,) * 3)
    return CGAN3D(source.schema, space.size, options), CaseBatches(CaseCache(source), space)


def options(**changes: Any) -> FitOptions:
    plain = {"steps": 6, "batch_size": 2, "precision": "fp32", "checkpoint_every": 3}
    return FitOptions.model_validate({**plain, "log_every": 1, **changes})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@WHERE
def test_it_trains_in_every_precision_and_goes_on(request, tmp_path, precision, where):
    device = request.getfixturevalue(where)
    for steps in (3, 6):
        chosen = options(steps=steps, precision=precision)
        report = train(*cgan(), chosen, device=device, folder=tmp_path)
    assert (report.resumed_at, report.notes) == (3, [])
    assert all(v.isfinite().all() for v in newest(tmp_path).values())


def test_the_loss_scale_of_fp16_is_not_begun_anew(device, tmp_path):
    train(*cgan(), options(precision="fp16"), device=device, folder=tmp_path / "whole")
    for steps in (3, 6):
        chosen = options(steps=steps, precision="fp16")
        train(*cgan(), chosen, device=device, folder=tmp_path / "cut")
    scales = [
        json.loads((tmp_path / name / "checkpoints" / "step-00000006" / "state.json").read_text())
        for name in ("whole", "cut")
    ]
    assert scales[0]["scaler"] == scales[1]["scaler"]
    # Something has been counted, or an overflow has changed the scale: it is not that of a start.
    fresh = torch.amp.GradScaler("cuda").state_dict()
    assert scales[0]["scaler"] != fresh


def test_channels_last_changes_no_more_than_rounding(device):
    fast = {"channels_last": True}
    plain, quick = (train(*cgan(), options(steps=2, **o), device=device) for o in ({}, fast))
    assert quick.losses == pytest.approx(plain.losses, rel=1e-3)


def test_batches_arrive_whole_while_the_gpu_computes(device):
    def numbered(number: int) -> list[Batch]:
        labels = torch.full((1, 64, 64), number - 1)
        return [Batch(torch.full((1, 1, 64, 64), float(number)), labels)]

    busy, differing = torch.ones(256, 256, device=device), []
    with BatchLoader(device) as loader:
        reads = [loader.read(partial(numbered, number)) for number in range(20)]
        for number, read in enumerate(reads):
            busy = busy @ busy.softmax(0)
            (part,) = loader.wait(read)
            assert part.labels is not None
            assert part.labels.dtype == torch.int64
            differing += [(part.image != number).any(), (part.labels != number - 1).any()]
    assert not torch.stack(differing).any()


def test_fp16_is_refused_where_there_is_no_gpu():
    with pytest.raises(UsageFault, match="expected a CUDA device"):
        train(*cgan(), options(precision="fp16"))


def test_a_checkpoint_goes_from_one_device_to_the_other_and_back(device, tmp_path):
    reports: list[TrainReport] = []
    for steps, where in ((2, device), (4, torch.device("cpu")), (6, device)):
        chosen = options(steps=steps, checkpoint_every=2)
        reports.append(train(*cgan(), chosen, device=where, folder=tmp_path))
    assert [report.resumed_at for report in reports] == [0, 2, 4]
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    assert {v.device.type for v in found.tensors.values()} == {"cpu"}
    assert all(v.isfinite().all() for v in found.tensors.values())


def test_the_first_losses_are_those_of_the_cpu(device):
    """Noise comes from the device's own generator, so those without are compared: L1 of labels."""
    first = [
        train(*cgan(style={"noise": False}), options(steps=1), device=where).losses["generator/l1"]
        for where in (torch.device("cpu"), device)
    ]
    assert first[0] == pytest.approx(first[1], rel=1e-2)


@pytest.mark.parametrize("name", ZOO)
@WHERE
def test_every_gan_of_the_zoo_trains_and_goes_on(request, tmp_path, name, where):
    device = request.getfixturevalue(where)
    for steps in (3, 5):
        made, chosen = member(name), loop(name, steps=steps, decay="none")
        report = train(made, toy_batches(name), chosen, device=device, folder=tmp_path)
    assert (report.resumed_at, report.rollbacks) == (3, 0)
    assert (made.device.type, made.device.index or 0) == (device.type, device.index or 0)
    assert all(v.isfinite().all() for v in newest(tmp_path).values())


def test_the_producer_takes_the_device_that_the_training_leaves_free(second):
    assert producer_device("auto", (0,)) == str(second)


def test_seeding_one_device_leaves_the_other_alone(device, second):
    set_seed(1, torch.device("cuda:0"))
    expected = torch.randn(3, device=device).cpu()
    set_seed(1, torch.device("cuda:0"))
    set_seed(2, second)
    assert torch.equal(torch.randn(3, device=device).cpu(), expected)


REPLAYED = ["dcgan", "wgan_gp", "wgan_gp_mask", "cpggan", "progressive"]
NOT_TO_THE_BIT = ["pix2pix3d", "cgan3d"]
"""On a GPU two trainings of these differ, replayed or not: some kernels add in any order."""


def weights_of(name: str, device: torch.device, **changes: Any) -> tuple[list[Tensor], list[str]]:
    """Weights after a training, and what it said."""
    made, said = member(name), Recorder()
    callbacks = TrainingCallbacks(reporter=said)
    chosen = loop(name, steps=24, **changes)
    train(made, toy_batches(name), chosen, device=device, callbacks=callbacks)
    return [
        v.cpu() for net in made.nets.values() for v in net.state_dict().values()
    ], said.said + said.warned


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each replayed step."""
    plain, counted = StepReplay._replay, list[int]()

    def replay(*args: Any) -> Any:
        counted.append(1)
        return plain(*args)

    monkeypatch.setattr(StepReplay, "_replay", staticmethod(replay))
    return counted


@pytest.fixture
def same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's kernels add in the same order in each training."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.usefixtures("same_order")
@pytest.mark.parametrize("name", REPLAYED + (NOT_TO_THE_BIT if PRETENDS else []))
def test_replayed_steps_give_the_weights_of_plain_ones_to_the_bit(device, replays, name):
    plain, _ = weights_of(name, device, compile="off")
    assert not replays
    graphs, said = weights_of(name, device, compile="auto")
    assert len(replays) > 6
    assert not said
    assert all(map(torch.equal, plain, graphs))


@pytest.mark.usefixtures("same_order")
@pytest.mark.parametrize("name", ["wgan_gp", "cpggan"])
def test_replayed_steps_are_resumed_to_the_bit(device, tmp_path, name):
    for steps, folder in ((24, "whole"), (13, "cut"), (24, "cut")):
        chosen = loop(name, steps=steps, checkpoint_every=1000, decay="none")
        train(member(name), toy_batches(name), chosen, device=device, folder=tmp_path / folder)
    whole, cut = newest(tmp_path / "whole"), newest(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


@pytest.mark.usefixtures("same_order")
@pytest.mark.parametrize("while_captured", [False, True])
def test_steps_that_cannot_be_replayed_run_as_they_are(
    device, monkeypatch, replays, while_captured
):
    plain_weights, _ = weights_of("wgan_gp", device, compile="off")
    plain = DCGANObjective.discriminator

    def waiting(self: DCGANObjective, step: TrainingStep) -> Any:
        if torch.cuda.is_current_stream_capturing() or not while_captured:
            float(step.batch.image.sum())
        return plain(self, step)

    monkeypatch.setattr(DCGANObjective, "discriminator", waiting)
    weights, said = weights_of("wgan_gp", device, compile="graphs")
    assert not replays
    why = "CUDA refuses it" if while_captured else "a step waits for the GPU"
    assert [line.split(" (")[0] for line in said] == [f"compile=graphs: {why}"]
    assert all(map(torch.equal, plain_weights, weights))


@pytest.mark.usefixtures("same_order")
def test_an_error_of_cuda_while_steps_are_replayed_costs_no_more_than_the_graphs(
    device, monkeypatch, tmp_path
):
    plain = StepReplay._replay
    calls = list[int]()

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("CUDA error: invalid argument\nmore")
        return plain(*args)

    monkeypatch.setattr(StepReplay, "_replay", staticmethod(failing))
    said = Recorder()
    for choice, folder in (("off", "plain"), ("auto", "failed")):
        chosen = loop("wgan_gp", steps=24, checkpoint_every=5, compile=choice)
        callbacks = TrainingCallbacks(reporter=said)
        made = member("wgan_gp"), toy_batches("wgan_gp")
        train(*made, chosen, device=device, folder=tmp_path / folder, callbacks=callbacks)
    assert said.warned == [
        "compile: CUDA failed (CUDA error: invalid argument); back to the last checkpoint, "
        "without CUDA graphs"
    ]
    whole, failed = newest(tmp_path / "plain"), newest(tmp_path / "failed")
    assert all(torch.equal(whole[key], failed[key]) for key in whole)


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("mmgan", {}, "change state in Python"),
        ("wgan", {}, "an optimiser is not fused"),
        ("cgan3d", {"precision": "fp16"}, "fp16 skips updates"),
    ],
)
def test_who_asks_for_graphs_is_told_why_there_are_none(device, replays, name, changes, why):
    (line,) = weights_of(name, device, compile="graphs", **changes)[1]
    assert line.startswith("compile=graphs: ")
    assert why in line
    assert not replays


def peak(device: torch.device, own: dict[str, Any], **changes: Any) -> int:
    """Most bytes a short training holds."""
    made, batches = cgan(48, width=16, d_width=16, levels=3, **own)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    train(made, batches, options(steps=2, batch_size=4, **changes), device=device)
    return torch.cuda.max_memory_allocated(device)


@pytest.mark.usefixtures("real_cuda")
@pytest.mark.parametrize(
    ("own", "changes", "share"),
    [
        ({}, {"accumulate": 4}, 0.6),
        ({"checkpointing": True}, {}, 0.9),
        ({}, {"precision": "bf16"}, 0.8),
    ],
    ids=["accumulation", "checkpointing", "half precision"],
)
def test_what_saves_memory_takes_less(device, own, changes, share):
    assert peak(device, own, **changes) < share * peak(device, {})
