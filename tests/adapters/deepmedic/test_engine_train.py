import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gansynth.core.batch_counter import BatchCounter
from gansynth.core.generator import TrainingStep
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.runtime import child
from gansynth.runtime.errors import DataFault, IntegrityFault, TrainingFault
from gansynth_deepmedic.engine import launch
from gansynth_deepmedic.engine.cutting import read_volume
from gansynth_deepmedic.engine.infer import RULE
from gansynth_deepmedic.engine.order import PROGRESS, ProgressWriter, TrainingOrder
from gansynth_deepmedic.engine.predict import predict
from gansynth_deepmedic.engine.train import VALIDATION, TorchTraining, TrainingTask
from tests.adapters.deepmedic.engine_orders import (
    SMALL,
    assert_same,
    lines,
    order_of,
    told,
    train,
    weights,
    written,
)
from tests.deepmedic_sets import toy_deepmedic, write_config

pytestmark = pytest.mark.usefixtures("one_thread")
LEARNS = {
    "numberOfEpochs": 2,
    "numberOfSubepochs": 5,
    "learningRate": 4e-3,
    "numberOfEpochsBetweenFullInferenceOnValImages": 2,
    "numberValidationSegmentsLoadedOnGpuPerSubep": 10,
}


def metrics(output: Path, name: str) -> list[float]:
    return [line[name] for line in told(output, "metrics") if name in line]


def test_it_learns_what_the_lesion_looks_like(tmp_path):
    """In whole volumes that it never saw."""
    toy, output = toy_deepmedic(tmp_path, shape=(28, 26, 24), values=LEARNS), tmp_path / "out"
    end = train(order_of(toy, output, {"regions": "all:1+2"}))
    assert end["dice"]["foreground"] > 0.8
    assert end["dice"]["all"] == end["dice"]["foreground"]
    losses = metrics(output, "loss")
    assert losses[1] < 0.8 * losses[0]
    assert metrics(output, "val accuracy")[1] > 0.9
    steps = told(output, "step")
    assert len(steps) == 2 * 5 * 60 // 5
    assert all(begin < end for begin, end in steps)
    assert steps == sorted(steps)
    assert told(output, "trained") == list(range(10))
    document = json.loads((output / VALIDATION).read_text())
    assert (document["epochs"], document["rule"]) == (2, RULE)
    assert document["mean"] == end["dice"]
    assert len(list((output / "predictions").glob("*.nii.gz"))) == 2


def test_what_is_told_of_an_epoch(make, tmp_path):
    output = tmp_path / "out"
    end = train(order_of(make(), output))
    said = [line for line in lines(output) if "epoch" in line]
    assert [line["epoch"] for line in said] == [1, 2, 3, 3]
    assert set(said[0]["metrics"]) == {"loss", "val accuracy", "val dice"}
    assert said[3]["metrics"] == end == told(output, "end")[0]
    jobs = told(output, "job")
    assert [job["subepoch"] for job in jobs] == [k for k in range(6) for _ in range(4)]
    assert {job["kind"] for job in jobs} == {"real"}
    assert sum(job["segments"] for job in jobs) == 6 * 12


def test_drawing_ahead_changes_nothing(make, tmp_path):
    toy = make(numberOfEpochs=1)
    order = order_of(toy, tmp_path / "ahead")
    train(order)
    write_config(toy.train, {**TrainingTask.of(order).config.values, "num_processes_sampling": -1})
    train(order_of(toy, tmp_path / "now"))
    assert_same(weights(tmp_path / "ahead", 1), weights(tmp_path / "now", 1))


def test_a_subepoch_may_be_one_step(make, tmp_path):
    """The next one is read while it is trained on, and validated on."""
    train(order_of(make(numberOfEpochs=2, batchsize_train=12), tmp_path / "out"))
    assert told(tmp_path / "out", "trained") == list(range(4))
    assert len(metrics(tmp_path / "out", "val accuracy")) == 2


def test_another_seed_is_another_training(make, tmp_path):
    toy = make(val=0, numberOfEpochs=1, numberOfSubepochs=1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(order_of(toy, tmp_path / name, seed=seed))
    one, same, other = (weights(tmp_path / name, 1) for name in "abc")
    assert_same(one, same)
    key = "net/network/normal.blocks.0.3.weight"
    assert not torch.equal(one[key], other[key])


def test_without_validation_cases_there_is_no_dice(make, tmp_path):
    said: list[str] = []
    order = order_of(make(val=0, numberOfEpochs=1, batchsize_train=5), tmp_path / "out")
    assert train(order, said) == {}
    assert len(told(tmp_path / "out", "step")) == 2 * (12 // 5)  # the last batch is not whole
    assert any("has no validation cases, so no Dice" in line for line in said)
    assert not (tmp_path / "out" / VALIDATION).exists()
    assert list(told(tmp_path / "out", "metrics")[0]) == ["loss"]


def test_whole_volumes_come_at_the_end_if_not_before(make, tmp_path):
    off = {"performFullInferenceOnValidationImagesEveryFewEpochs": False}
    order = order_of(make(**off, numberOfEpochs=1), tmp_path / "out", {"save_predictions": "no"})
    assert train(order)["dice"].keys() == {"foreground", "1", "2"}
    assert not (tmp_path / "out" / "predictions").exists()
    assert (tmp_path / "out" / VALIDATION).exists()


def test_fine_tuning_has_a_learning_rate_of_its_own(
    shared_deepmedic, crop_bank, tmp_path, monkeypatch
):
    toy = shared_deepmedic.copied(tmp_path / "toy")
    toy.change(**{**SMALL, "numberOfEpochs": 8, "numberOfSubepochs": 1})
    source = toy.source()
    cases = tuple(source.host_case(case) for case in source.train_ids)
    schedule, batch_counter = (
        Schedule.parse("finetune:50%@50%"),
        BatchCounter(tmp_path / "never", 8),
    )
    plan = MixerConfig[int](crop_bank(), Ratio(0, 1), schedule, batch_counter, chosen=(0,))
    rates: list[float] = []

    def loss(training: TorchTraining, step: TrainingStep) -> dict[str, torch.Tensor]:
        rates.append(training.segmenter.optimiser.param_groups[0]["lr"])
        return {"loss": training.segmenter.network.bias.bias.sum() * 0}

    monkeypatch.setattr(TorchTraining, "loss", loss)
    train(order_of(toy, tmp_path / "out", plan=plan, cases=cases))
    first, second = rates[: len(rates) // 2], rates[len(rates) // 2 :]
    assert first == second
    assert first[-1] < 0.5 * first[0]


@pytest.mark.parametrize(
    ("values", "fault", "says"),
    [
        ({"learningRate": 1e30, "sgd0orAdam1orRms2": 0}, TrainingFault, "lower learningRate"),
        ({"batchsize_train": 13}, DataFault, r"12 segment.*at least a batch \(13\)"),
    ],
    ids=["loss", "batch"],
)
def test_what_cannot_be_trained_is_named(make, tmp_path, values, fault, says):
    with pytest.raises(fault, match=says):
        train(order_of(make(**values), tmp_path / "out"))


@pytest.mark.fault(38)
def test_weights_that_are_no_numbers_are_not_kept(make, tmp_path):
    training = TorchTraining(TrainingTask.of(order_of(make(), tmp_path / "out")), print)
    with torch.no_grad():
        training.segmenter.network.bias.bias[0] = math.nan
    with pytest.raises(TrainingFault, match="bias holds NaN or infinite values after step 0"):
        training.run()
    assert not (tmp_path / "out" / "checkpoints").exists()


class Cut(Exception):
    """Ends a training in the middle."""


class Stops(ProgressWriter):
    """Ends a training after so many steps."""

    def __init__(self, order: TrainingOrder, steps: int) -> None:
        super().__init__(order.output / PROGRESS)
        self.left = steps

    def tell(self, **document: Any) -> None:
        super().tell(**document)
        self.left -= "step" in document
        if self.left == 0:
            raise Cut


def cut_in_the_third_epoch(order: TrainingOrder) -> None:
    with pytest.raises(Cut):
        TorchTraining(TrainingTask.of(order), print, Stops(order, 2 * 2 * 3 + 4)).run()


def test_what_goes_wrong_while_drawing_ahead_is_raised(make, tmp_path):
    training = TorchTraining(TrainingTask.of(order_of(make(val=0), tmp_path / "out")), print)
    draw = training._draw

    def failing(k: int) -> Any:
        if k == 2:
            raise DataFault("case 2 is odd")
        return draw(k)

    training._draw = failing  # type: ignore[method-assign]
    with pytest.raises(DataFault, match="case 2 is odd"):
        training.run()
    assert told(tmp_path / "out", "trained") == [0, 1]


def test_nobody_waits_for_segments_where_a_training_ends(make, tmp_path):
    order = order_of(make(val=0), tmp_path / "out")
    training = TorchTraining(TrainingTask.of(order), print, Stops(order, 3))
    draw, never = training._draw, threading.Event()

    def drawn(k: int) -> Any:
        if k == 1:
            never.wait()
        return draw(k)

    training._draw = drawn  # type: ignore[method-assign]
    with pytest.raises(Cut):  # at the end of subepoch 0
        training.run()
    never.set()


@pytest.mark.parametrize("schedule", ["poly", "auto"])
def test_a_training_that_was_cut_goes_on_as_if_it_had_not_been(make, tmp_path, schedule):
    auto = {"numEpochsToWaitBeforeLoweringLr": 1, "min_incr_of_val_acc_considered": 0.9}
    toy = make(typeOfLearningRateSchedule=schedule, **(auto if schedule == "auto" else {}))
    whole, cut = (order_of(toy, tmp_path / name) for name in ("whole", "cut"))
    train(whole)
    cut_in_the_third_epoch(cut)
    with pytest.raises(AssertionError):
        weights(cut.output, 3)
    end = train(replace(cut, done=2))
    assert_same(weights(whole.output, 3), weights(cut.output, 3))
    assert end == told(whole.output, "end")[0]
    # What has ended is only looked at again.
    count = len(told(cut.output, "step"))
    assert train(replace(cut, done=3)) == end
    assert len(told(cut.output, "step")) == count


@pytest.mark.fault(25)
def test_a_damaged_checkpoint_is_passed_over(make, tmp_path):
    toy = make(val=0)
    whole, cut = (order_of(toy, tmp_path / name) for name in ("whole", "cut"))
    train(whole)
    cut_in_the_third_epoch(cut)
    newest = cut.output / "checkpoints" / "step-00000012" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    train(replace(cut, done=2), said)
    assert any("step-00000012 is damaged and was skipped" in line for line in said)
    assert_same(weights(whole.output, 3), weights(cut.output, 3))
    # A checkpoint that the record does not count comes again.
    train(replace(whole, done=2))
    assert_same(weights(cut.output, 3), weights(whole.output, 3))
    assert told(whole.output, "epoch") == [1, 2, 3, 3]
    for path in (cut.output / "checkpoints").glob("*/tensors.safetensors"):
        path.write_bytes(b"nothing")
    with pytest.raises(IntegrityFault, match="no whole checkpoint of 3"):
        train(replace(cut, done=3))


def test_the_process_says_what_is_wrong(make, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(child, "obey", lambda: None)
    order = order_of(make(numberOfEpochs=1, batchsize_train=99), tmp_path / "out")
    assert launch.main([]) == 2
    assert launch.main([str(tmp_path / "none.json")]) == 6
    assert launch.main([str(written(order))]) == 3
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 3
    assert "at least a batch (99)" in said[2]


def test_the_process_trains_and_its_network_predicts(make, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(child, "obey", lambda: None)
    output = tmp_path / "out"
    order = order_of(make(numberOfEpochs=1, numberOfSubepochs=1), output)
    assert launch.main([str(written(order))]) == 0
    assert "a network of" in capfd.readouterr().err
    listed, how = (
        TrainingTask.of(order).config.validation[0],
        {"device": "cpu", "precision": "fp32"},
    )
    found = predict(output, listed.channels, listed.roi, **how)  # type: ignore[arg-type]
    assert (found == read_volume(str(output / "predictions" / "pred_03.nii.gz"))).all()
    bare = predict(output, [None, listed.channels[1]], **how)  # type: ignore[arg-type]
    assert bare.shape == found.shape
    with pytest.raises(DataFault, match=r"1 channel\(s\).*expected 2"):
        predict(output, [listed.channels[0]], device="cpu")
