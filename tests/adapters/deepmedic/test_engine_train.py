"""Training of the torch engine: what it learns, tells and keeps, and how it goes on."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gansynth.adapter import Injection
from gansynth.errors import (
    DataFault,
    IntegrityFault,
    TrainingFault,
    UsageFault,
)
from gansynth.mixing import MixPlan
from gansynth.ratio import Ratio
from gansynth.sources.base import SourceRequest
from gansynth_deepmedic.engine import launch
from gansynth_deepmedic.engine.ahead import Ahead
from gansynth_deepmedic.engine.infer import RULE
from gansynth_deepmedic.engine.predict import predict
from gansynth_deepmedic.engine.reading import read_volume
from gansynth_deepmedic.engine.train import VALIDATION, Task, Training
from gansynth_deepmedic.order import ORDER, PROGRESS, Order, Progress
from gansynth_deepmedic.source import open_deepmedic
from tests.adapters.deepmedic.engine_orders import order_of
from tests.deepmedic_sets import Toy, toy_deepmedic, write_config

SMALL: dict[str, Any] = {
    "numberTrainingSegmentsLoadedOnGpuPerSubep": 12,
    "numOfCasesLoadedPerSubepoch": 4,
    "batchsize_train": 4,
    "numberValidationSegmentsLoadedOnGpuPerSubep": 6,
    "numberOfSubepochs": 2,
    "numberOfEpochs": 3,
    "numberOfEpochsBetweenFullInferenceOnValImages": 3,
    "num_processes_sampling": 0,
}
CLOSE = {"segmentsDimTrain": [11, 11, 11], "segmentsDimVal": [11, 11, 11]}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come out the same to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(tmp_path) -> Callable[..., Toy]:
    """Phantoms of a configuration: ``make(numberOfEpochs=2)``."""

    def write(val: int = 1, **values: Any) -> Toy:
        toy: Toy = toy_deepmedic(
            tmp_path / "toy",
            train=3,
            val=val,
            shape=(22, 20, 18),
            values={**SMALL, **values},
            model={**CLOSE, "numberFMsPerLayerNormal": [3, 3, 4]},
        )
        return toy

    return write


def train(order: Order, said: list[str] | None = None) -> dict[str, Any]:
    lines = said if said is not None else []
    return dict(Training(Task.of(order), lines.append).run())


def told(output: Path, kind: str) -> list[Any]:
    """Everything of a kind that a training told."""
    lines = (json.loads(line) for line in (output / PROGRESS).read_text().splitlines())
    return [line[kind] for line in lines if kind in line]


def weights(output: Path, done: int) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / f"step-{done:08d}" / "tensors.safetensors")


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


# -- one training ----------------------------------------------------------------------------------


LEARNS = {
    "numberOfEpochs": 2,
    "numberOfSubepochs": 5,
    "learningRate": 4e-3,
    "numberOfEpochsBetweenFullInferenceOnValImages": 2,
    "numberValidationSegmentsLoadedOnGpuPerSubep": 10,
}


def test_it_learns_what_the_lesion_looks_like(tmp_path):
    """In whole volumes that it never saw."""
    toy, output = toy_deepmedic(tmp_path, shape=(28, 26, 24), values=LEARNS), tmp_path / "out"
    end = train(order_of(toy, output, {"regions": "all:1+2"}))
    assert end["dice"]["foreground"] > 0.8
    assert end["dice"]["all"] == end["dice"]["foreground"]
    losses = [
        metrics["metrics"]["loss"]
        for metrics in epochs_told(output)
        if "loss" in metrics["metrics"]
    ]
    assert losses[1] < 0.8 * losses[0]
    accuracies = [
        m["metrics"]["val accuracy"] for m in epochs_told(output) if "val accuracy" in m["metrics"]
    ]
    assert accuracies[1] > 0.9
    steps = told(output, "step")
    assert len(steps) == 2 * 5 * 60 // 5
    assert all(begin < end for begin, end in steps)
    assert steps == sorted(steps)
    assert told(output, "trained") == list(range(10))
    document = json.loads((output / VALIDATION).read_text())
    assert (document["epochs"], document["rule"]) == (2, RULE)
    assert document["mean"] == end["dice"]
    assert len(list((output / "predictions").glob("*.nii.gz"))) == 2


@pytest.mark.slow
def test_it_learns_the_lesion_and_its_core_in_bf16(tmp_path):
    values = {**LEARNS, "numberOfEpochs": 5, "numberOfSubepochs": 12}
    order = order_of(
        toy_deepmedic(tmp_path, values=values), tmp_path / "out", {"precision": "bf16"}
    )
    end = train(order)
    assert end["dice"]["foreground"] > 0.95
    assert end["dice"]["2"] > 0.85


def epochs_told(output: Path) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (output / PROGRESS).read_text().splitlines())
    return [line for line in lines if "epoch" in line]


def test_what_is_told_of_an_epoch(make, tmp_path):
    end = train(order_of(make(), tmp_path / "out"))
    lines = epochs_told(tmp_path / "out")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 3]
    assert set(lines[0]["metrics"]) == {"loss", "val accuracy", "val dice"}
    assert lines[3]["metrics"] == end == told(tmp_path / "out", "end")[0]
    jobs = told(tmp_path / "out", "job")
    assert [job["subepoch"] for job in jobs] == [k for k in range(6) for _ in range(4)]
    assert {job["kind"] for job in jobs} == {"real"}
    assert sum(job["segments"] for job in jobs) == 6 * 12


def test_drawing_ahead_changes_nothing(make, tmp_path):
    toy = make(numberOfEpochs=1)
    train(order_of(toy, tmp_path / "ahead"))
    values = {**Task.of(order_of(toy, tmp_path / "x")).config.values, "num_processes_sampling": -1}
    write_config(toy.train, values)
    train(order_of(toy, tmp_path / "now"))
    assert_same(weights(tmp_path / "ahead", 1), weights(tmp_path / "now", 1))


def test_the_last_batch_is_left_out_if_it_is_not_whole(make, tmp_path):
    train(order_of(make(val=0, numberOfEpochs=1, batchsize_train=5), tmp_path / "out"))
    assert len(told(tmp_path / "out", "step")) == 2 * (12 // 5)


def test_another_seed_is_another_training(make, tmp_path):
    toy = make(val=0, numberOfEpochs=1, numberOfSubepochs=1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(order_of(toy, tmp_path / name, seed=seed))
    assert_same(weights(tmp_path / "a", 1), weights(tmp_path / "b", 1))
    one, other = (weights(tmp_path / name, 1) for name in ("a", "c"))
    assert not torch.equal(
        one["net/network/normal.blocks.0.3.weight"], other["net/network/normal.blocks.0.3.weight"]
    )


def test_without_validation_cases_there_is_no_dice(make, tmp_path):
    said: list[str] = []
    order = order_of(make(val=0, numberOfEpochs=1, numberOfSubepochs=1), tmp_path / "out")
    assert train(order, said) == {}
    assert any("validates on no cases: no Dice" in line for line in said)
    assert not (tmp_path / "out" / VALIDATION).exists()
    assert list(epochs_told(tmp_path / "out")[0]["metrics"]) == ["loss"]


def test_whole_volumes_come_at_the_end_if_not_before(make, tmp_path):
    off = {"performFullInferenceOnValidationImagesEveryFewEpochs": False}
    order = order_of(make(**off, numberOfEpochs=1), tmp_path / "out", {"save_predictions": "no"})
    end = train(order)
    assert end["dice"].keys() == {"foreground", "1", "2"}
    assert not (tmp_path / "out" / "predictions").exists()
    assert (tmp_path / "out" / VALIDATION).exists()


def test_synthetic_cases_are_trained_on_as_told(shared_deepmedic, crop_bank, tmp_path):
    source = open_deepmedic(SourceRequest("deepmedic", str(shared_deepmedic.train)))
    toy = Toy(tmp_path, tmp_path / "train.cfg", shared_deepmedic.model)
    values = {**source.config.values, **SMALL, "numberOfEpochs": 1}
    lists = {
        key: [str(shared_deepmedic.folder / name) for name in value]
        if isinstance(value, list)
        else str(shared_deepmedic.folder / value)
        for key, value in values.items()
        if key.startswith(("channels", "gtLabels", "roiMasks", "names"))
    }
    write_config(toy.train, {**values, **lists})
    order = order_of(
        toy,
        tmp_path / "out",
        plan=MixPlan(crop_bank(), Ratio(1, 1)),
        cases=tuple(source.host_case(case) for case in source.train_ids),
    )
    train(order)
    kinds = [(job["subepoch"], job["kind"]) for job in told(tmp_path / "out", "job")]
    for subepoch in range(2):
        assert sorted(kind for k, kind in kinds if k == subepoch) == (
            ["real"] * 2 + ["synthetic"] * 2
        )


# -- going on --------------------------------------------------------------------------------------


class Cut(Exception):
    """Ends a training in the middle."""


class Stops(Progress):
    """Ends a training after so many steps."""

    def __init__(self, file: Path, steps: int) -> None:
        super().__init__(file)
        self.left = steps

    def tell(self, **document: Any) -> None:
        super().tell(**document)
        self.left -= "step" in document
        if self.left == 0:
            raise Cut


@pytest.mark.parametrize("schedule", ["poly", "auto"])
def test_a_training_that_was_cut_goes_on_as_if_it_had_not_been(make, tmp_path, schedule):
    auto = {"numEpochsToWaitBeforeLoweringLr": 1, "min_incr_of_val_acc_considered": 0.9}
    toy = make(typeOfLearningRateSchedule=schedule, **(auto if schedule == "auto" else {}))
    whole, cut = (order_of(toy, tmp_path / name) for name in ("whole", "cut"))
    train(whole)
    with pytest.raises(Cut):  # in the middle of the third epoch
        Training(Task.of(cut), print, Stops(cut.output / PROGRESS, 2 * 2 * 3 + 4)).run()
    assert not (tmp_path / "cut" / "checkpoints" / "step-00000003").exists()
    end = train(replace(cut, done=2))
    assert_same(weights(tmp_path / "whole", 3), weights(tmp_path / "cut", 3))
    assert end == told(tmp_path / "whole", "end")[0]


def test_a_damaged_checkpoint_is_passed_over(make, tmp_path):
    toy = make(val=0)
    whole, cut = (order_of(toy, tmp_path / name) for name in ("whole", "cut"))
    train(whole)
    with pytest.raises(Cut):
        Training(Task.of(cut), print, Stops(cut.output / PROGRESS, 2 * 2 * 3 + 4)).run()
    newest = tmp_path / "cut" / "checkpoints" / "step-00000002" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    train(replace(cut, done=2), said)
    assert any("step-00000002 is damaged and was passed over" in line for line in said)
    assert_same(weights(tmp_path / "whole", 3), weights(tmp_path / "cut", 3))
    for path in (tmp_path / "cut" / "checkpoints").glob("*/tensors.safetensors"):
        path.write_bytes(b"nothing")
    with pytest.raises(IntegrityFault, match="no whole checkpoint of 3"):
        train(replace(cut, done=3))


def test_a_checkpoint_that_the_record_does_not_count_comes_again(make, tmp_path):
    order = order_of(make(val=0), tmp_path / "out")
    train(order)
    before = weights(tmp_path / "out", 3)
    train(replace(order, done=2))
    assert_same(before, weights(tmp_path / "out", 3))
    assert told(tmp_path / "out", "epoch") == [1, 2, 3, 3]


def test_a_training_is_not_begun_over_another(make, tmp_path):
    order = order_of(make(val=0, numberOfEpochs=1), tmp_path / "out")
    train(order)
    with pytest.raises(UsageFault, match=r"holds step-00000001.*resume=yes"):
        train(order)


def test_what_has_ended_is_only_looked_at_again(make, tmp_path):
    order = order_of(make(numberOfEpochs=1), tmp_path / "out")
    end = train(order)
    count = len(told(tmp_path / "out", "step"))
    assert train(replace(order, done=1)) == end
    assert len(told(tmp_path / "out", "step")) == count


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_it(make, tmp_path):
    order = order_of(make(learningRate=1e30, sgd0orAdam1orRms2=0), tmp_path / "out")
    with pytest.raises(TrainingFault, match="lower learningRate"):
        train(order)


def test_weights_that_are_no_numbers_are_not_kept(make, tmp_path):
    training = Training(Task.of(order_of(make(), tmp_path / "out")), print)
    with torch.no_grad():
        training.learner.network.bias.bias[0] = math.nan
    with pytest.raises(TrainingFault, match="not finite"):
        training.learner.save(tmp_path / "out", 1)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_fewer_segments_than_a_batch_are_refused(make, tmp_path):
    order = order_of(make(batchsize_train=13), tmp_path / "out")
    with pytest.raises(DataFault, match=r"12 segment.*at least a batch \(13\)"):
        train(order)


def test_what_goes_wrong_while_drawing_ahead_is_raised(make, tmp_path):
    order = order_of(make(val=0), tmp_path / "out")
    training = Training(Task.of(order), print)
    draw = training._draw

    def failing(k: int) -> Any:
        if k == 2:
            raise DataFault("case 2 is odd")
        return draw(k)

    training._draw = failing  # type: ignore[method-assign]
    with pytest.raises(DataFault, match="case 2 is odd"):
        training.run()
    assert told(tmp_path / "out", "trained") == [0, 1]


def test_ahead_computes_what_was_begun_and_what_was_not():
    numbers: list[int] = []
    ahead = Ahead(lambda n: numbers.append(n) or n * 10)  # type: ignore[func-returns-value]
    assert ahead.take(0) == 0
    ahead.begin(1)
    assert ahead.take(1) == 10
    assert ahead.take(1) == 10
    assert numbers == [0, 1, 1]


# -- the process -----------------------------------------------------------------------------------


def written(order: Order) -> Path:
    path = order.output / ORDER
    path.write_text(json.dumps(order.to_json()))
    return path


def test_the_process_says_what_is_wrong(make, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(launch, "obey", lambda: None)
    assert launch.main([]) == 2
    assert launch.main([str(tmp_path / "none.json")]) == 6
    order = order_of(make(numberOfEpochs=1, batchsize_train=99), tmp_path / "out")
    assert launch.main([str(written(order))]) == 3
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 3
    assert "at least a batch (99)" in said[2]


def test_the_process_trains_and_its_network_predicts(make, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(launch, "obey", lambda: None)
    toy = make(numberOfEpochs=1, numberOfSubepochs=1)
    order = order_of(toy, tmp_path / "out")
    assert launch.main([str(written(order))]) == 0
    assert "a network of" in capfd.readouterr().err
    listed = Task.of(order).config.validation[0]
    found = predict(tmp_path / "out", listed.channels, listed.roi, device="cpu", precision="fp32")
    assert (found == read_volume(str(tmp_path / "out" / "predictions" / "pred_03.nii.gz"))).all()
    bare = predict(tmp_path / "out", [None, listed.channels[1]], device="cpu", precision="fp32")
    assert bare.shape == found.shape
    with pytest.raises(DataFault, match=r"1 channel\(s\).*expected 2"):
        predict(tmp_path / "out", [listed.channels[0]], device="cpu")


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_weights(make, tmp_path):
    toy = make(numberOfEpochs=3, numberOfSubepochs=6)
    whole, cut = (order_of(toy, tmp_path / name) for name in ("whole", "cut"))
    words = [sys.executable, "-m", "gansynth_deepmedic.engine.launch"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*words, str(written(whole))], env=environ, check=True, capture_output=True)
    with subprocess.Popen(
        [*words, str(written(cut))], env=environ, stderr=subprocess.PIPE
    ) as child:
        end = time.monotonic() + 120
        while time.monotonic() < end and child.poll() is None:
            if (tmp_path / "cut" / "checkpoints" / "step-00000001").exists():
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    done = max(int(p.name[-8:]) for p in (tmp_path / "cut" / "checkpoints").glob("step-*"))
    assert done < 3
    path = written(replace(cut, done=done))
    subprocess.run([*words, str(path)], env=environ, check=True, capture_output=True)
    assert_same(weights(tmp_path / "whole", 3), weights(tmp_path / "cut", 3))
    assert (tmp_path / "whole" / VALIDATION).read_text() == (
        (tmp_path / "cut" / VALIDATION).read_text().replace("/cut/", "/whole/")
    )


@pytest.mark.slow
def test_a_training_with_a_bank_from_the_command(shared_deepmedic, crop_bank, tmp_path):
    """As ``gansynth augment --engine torch`` starts it: a process of its own, a record."""
    from gansynth_deepmedic.adapter import DeepMedicAdapter
    from gansynth_deepmedic.record import FILE

    source = open_deepmedic(SourceRequest("deepmedic", str(shared_deepmedic.train)))
    settings = {
        "engine": "torch",
        "model": str(shared_deepmedic.model),
        "epochs": "2",
        "subepochs": "4",
        "output": str(tmp_path / "out"),
        "regions": "all:1+2",
    }
    injection = Injection(None, Ratio(1, 1), bank=crop_bank(), device="cpu")
    outcome = DeepMedicAdapter(source).start(injection, settings, [])
    assert outcome.metrics["dice"].keys() == {"foreground", "1", "2", "all"}
    assert outcome.metrics == told(tmp_path / "out", "end")[0]
    assert json.loads((tmp_path / "out" / FILE).read_text())["complete"]
    kinds = [job["kind"] for job in told(tmp_path / "out", "job")]
    assert kinds.count("synthetic") == kinds.count("real") == 8 * 3
