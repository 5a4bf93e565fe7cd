"""A training of the torch engine that was cut goes on as if it had not been."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.training.checkpoint import save
from gansynth_deepmedic.engine.train import VALIDATION, Task, Training
from gansynth_deepmedic.order import PROGRESS, Progress
from tests.adapters.deepmedic.engine_orders import (
    assert_same,
    order_of,
    told,
    train,
    weights,
    written,
)
from tests.deepmedic_sets import write_config

pytestmark = pytest.mark.usefixtures("one_thread")


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
    with pytest.raises(AssertionError):
        weights(tmp_path / "cut", 3)
    end = train(replace(cut, done=2))
    assert_same(weights(tmp_path / "whole", 3), weights(tmp_path / "cut", 3))
    assert end == told(tmp_path / "whole", "end")[0]


def test_nobody_waits_for_segments_where_a_training_ends(make, tmp_path):
    order = order_of(make(val=0), tmp_path / "out")
    training = Training(Task.of(order), print, Stops(order.output / PROGRESS, 3))
    draw, never = training._draw, threading.Event()

    def drawn(k: int) -> Any:
        if k == 1:
            never.wait()
        return draw(k)

    training._draw = drawn  # type: ignore[method-assign]
    with pytest.raises(Cut):  # at the end of subepoch 0
        training.run()
    never.set()


def test_a_damaged_checkpoint_is_passed_over(make, tmp_path):
    toy = make(val=0)
    whole, cut = (order_of(toy, tmp_path / name) for name in ("whole", "cut"))
    train(whole)
    with pytest.raises(Cut):
        Training(Task.of(cut), print, Stops(cut.output / PROGRESS, 2 * 2 * 3 + 4)).run()
    newest = tmp_path / "cut" / "checkpoints" / "step-00000012" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    train(replace(cut, done=2), said)
    assert any("step-00000012 is damaged and was passed over" in line for line in said)
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
    with pytest.raises(UsageFault, match=r"holds step-00000006.*resume=yes"):
        train(order)


def test_a_training_goes_on_with_batches_of_another_size(make, tmp_path):
    """Epochs count: those that are done have had other steps."""
    toy, output = make(val=0, numberOfEpochs=2), tmp_path / "out"
    train(order_of(toy, output))
    values = {**Task.of(order_of(toy, output)).config.values, "batchsize_train": 3}
    write_config(toy.train, {**values, "numberOfEpochs": 3})
    train(order_of(toy, output, done=2))
    assert len(told(output, "step")) == 2 * 2 * 12 // 4 + 2 * 12 // 3
    assert told(output, "trained") == list(range(6))
    names = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert names == ["step-00000016", "step-00000024"]


def test_a_checkpoint_of_an_older_gansynth_is_refused(make, tmp_path):
    order = order_of(make(val=0, numberOfEpochs=1), tmp_path / "out")
    folder = order.output / "checkpoints"
    save(folder, 1, {"net/network/bias.bias": torch.zeros(3)}, {}, {"epochs": 1, "rates": {}})
    with pytest.raises(UsageFault, match=r"step-00000001: is a checkpoint of an older.*anew"):
        train(replace(order, done=1))


def test_what_has_ended_is_only_looked_at_again(make, tmp_path):
    order = order_of(make(numberOfEpochs=1), tmp_path / "out")
    end = train(order)
    count = len(told(tmp_path / "out", "step"))
    assert train(replace(order, done=1)) == end
    assert len(told(tmp_path / "out", "step")) == count


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_weights(make, tmp_path):
    toy, each = make(numberOfEpochs=3, numberOfSubepochs=6), 6 * 12 // 4
    whole, cut = (order_of(toy, tmp_path / name) for name in ("whole", "cut"))
    words = [sys.executable, "-m", "gansynth_deepmedic.engine.launch"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*words, str(written(whole))], env=environ, check=True, capture_output=True)
    with subprocess.Popen(
        [*words, str(written(cut))], env=environ, stderr=subprocess.PIPE
    ) as child:
        end = time.monotonic() + 120
        while time.monotonic() < end and child.poll() is None:
            if (tmp_path / "cut" / "checkpoints" / f"step-{each:08d}").exists():
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    done = max(int(p.name[-8:]) for p in (tmp_path / "cut" / "checkpoints").glob("step-*")) // each
    assert done < 3
    path = written(replace(cut, done=done))
    subprocess.run([*words, str(path)], env=environ, check=True, capture_output=True)
    assert_same(weights(tmp_path / "whole", 3), weights(tmp_path / "cut", 3))
    assert (tmp_path / "whole" / VALIDATION).read_text() == (
        (tmp_path / "cut" / VALIDATION).read_text().replace("/cut/", "/whole/")
    )
