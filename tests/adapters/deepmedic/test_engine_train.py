"""Training of the torch engine: what it learns, tells and keeps, and how it goes on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gansynth.core.adapter import Injection
from gansynth.core.clock import Clock
from gansynth.core.generator import Step
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.core.source import SourceRequest
from gansynth.runtime import child
from gansynth.runtime.errors import DataFault, TrainingFault
from gansynth_deepmedic.engine import launch
from gansynth_deepmedic.engine.cutting import read_volume
from gansynth_deepmedic.engine.infer import RULE
from gansynth_deepmedic.engine.predict import predict
from gansynth_deepmedic.engine.train import VALIDATION, Task, Training
from gansynth_deepmedic.insertion import HostCase
from gansynth_deepmedic.order import PROGRESS
from gansynth_deepmedic.source import open_deepmedic
from tests.adapters.deepmedic.engine_orders import (
    SMALL,
    assert_same,
    order_of,
    told,
    train,
    weights,
    written,
)
from tests.deepmedic_sets import Toy, toy_deepmedic, write_config

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_subepoch_may_be_one_step(make, tmp_path):
    """The next one is read while it is trained on, and validated on."""
    toy = make(numberOfEpochs=2, batchsize_train=12)
    train(order_of(toy, tmp_path / "out"))
    assert told(tmp_path / "out", "trained") == list(range(4))
    assert all("val accuracy" in line["metrics"] for line in epochs_told(tmp_path / "out")[:2])


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


def with_lists(shared: Toy, folder: Path, **values: Any) -> tuple[Toy, tuple[HostCase, ...]]:
    """The shared phantoms by another configuration, and their cases."""
    source = open_deepmedic(SourceRequest("deepmedic", str(shared.train)))
    toy = Toy(folder, folder / "train.cfg", shared.model)
    told = {**source.config.values, **SMALL, **values}
    lists = {
        key: [str(shared.folder / name) for name in value]
        if isinstance(value, list)
        else str(shared.folder / value)
        for key, value in told.items()
        if key.startswith(("channels", "gtLabels", "roiMasks", "names"))
    }
    write_config(toy.train, {**told, **lists})
    return toy, tuple(source.host_case(case) for case in source.train_ids)


def test_synthetic_cases_are_trained_on_as_told(shared_deepmedic, crop_bank, tmp_path):
    toy, cases = with_lists(shared_deepmedic, tmp_path, numberOfEpochs=1)
    train(order_of(toy, tmp_path / "out", plan=MixPlan(crop_bank(), Ratio(1, 1)), cases=cases))
    kinds = [(job["subepoch"], job["kind"]) for job in told(tmp_path / "out", "job")]
    for subepoch in range(2):
        assert sorted(kind for k, kind in kinds if k == subepoch) == (
            ["real"] * 2 + ["synthetic"] * 2
        )


def test_fine_tuning_has_a_learning_rate_of_its_own(
    shared_deepmedic, crop_bank, tmp_path, monkeypatch
):
    epochs = {"numberOfEpochs": 8, "numberOfSubepochs": 1}
    toy, cases = with_lists(shared_deepmedic, tmp_path, **epochs)
    plan = MixPlan[int](
        crop_bank(),
        Ratio(0, 1),
        Schedule.parse("finetune:50%@50%"),
        Clock(tmp_path / "never", 8),
        chosen=(0,),
    )
    rates: list[float] = []

    def loss(training: Training, step: Step) -> dict[str, torch.Tensor]:
        rates.append(training.segmenter.optimiser.param_groups[0]["lr"])
        return {"loss": training.segmenter.network.bias.bias.sum() * 0}

    monkeypatch.setattr(Training, "loss", loss)
    train(order_of(toy, tmp_path / "out", plan=plan, cases=cases))
    first, second = rates[: len(rates) // 2], rates[len(rates) // 2 :]
    assert first == second
    assert first[-1] < 0.5 * first[0]


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_it(make, tmp_path):
    order = order_of(make(learningRate=1e30, sgd0orAdam1orRms2=0), tmp_path / "out")
    with pytest.raises(TrainingFault, match="lower learningRate"):
        train(order)


def test_weights_that_are_no_numbers_are_not_kept(make, tmp_path):
    training = Training(Task.of(order_of(make(), tmp_path / "out")), print)
    with torch.no_grad():
        training.segmenter.network.bias.bias[0] = math.nan
    with pytest.raises(TrainingFault, match="bias holds NaN or infinite values after step 0"):
        training.run()
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


# -- the process -----------------------------------------------------------------------------------


def test_the_process_says_what_is_wrong(make, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(child, "obey", lambda: None)
    assert launch.main([]) == 2
    assert launch.main([str(tmp_path / "none.json")]) == 6
    order = order_of(make(numberOfEpochs=1, batchsize_train=99), tmp_path / "out")
    assert launch.main([str(written(order))]) == 3
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 3
    assert "at least a batch (99)" in said[2]


def test_the_process_trains_and_its_network_predicts(make, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(child, "obey", lambda: None)
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
def test_a_training_with_a_bank_from_the_command(shared_deepmedic, crop_bank, tmp_path):
    """As ``gansynth augment --engine torch`` starts it: a process of its own, a record."""
    from gansynth.hosts.record import FILE
    from gansynth_deepmedic.adapter import DeepMedicAdapter

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
    assert outcome.metrics["hd95"].keys() == outcome.metrics["dice"].keys()
    (end,) = told(tmp_path / "out", "end")
    assert outcome.metrics["dice"] == pytest.approx(end["dice"])
    assert json.loads((tmp_path / "out" / FILE).read_text())["complete"]
    kinds = [job["kind"] for job in told(tmp_path / "out", "job")]
    assert kinds.count("synthetic") == kinds.count("real") == 8 * 3
