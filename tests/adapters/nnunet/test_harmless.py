"""With every sample rejected nnU-Net trains as if gansynth were not there, to the last bit."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import DrawCounter
from gansynth.hosts.record import TrainingResult, read_sessions
from tests.adapters.nnunet.conftest import log_of

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIGURATIONS = [pytest.param("3d_fullres", marks=pytest.mark.slow), "2d"]
QUICK = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "save_every": 50,
}


def trained(trainer: Any) -> tuple[list[float], dict[str, Any]]:
    """Loss of each training step, and the weights in the end; from the same random state."""
    import torch

    for key, value in QUICK.items():
        setattr(trainer, key, value)
    losses: list[float] = []
    step = trainer.train_step

    def train_step(batch: Any) -> Any:
        result = step(batch)
        losses.append(float(result["loss"]))
        return result

    trainer.train_step = train_step
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - what nnU-Net draws from
    torch.manual_seed(1)
    trainer.run_training()
    state = (random.random(), float(np.random.random()), float(torch.rand(1)))  # noqa: NPY002
    weights = {name: value.numpy() for name, value in trainer.network.state_dict().items()}
    return [*losses, *state], weights


def assert_equal(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert all(np.array_equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.fault(39)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_an_empty_bank_changes_no_bit_and_that_is_said(build, told, empty_bank, configuration):
    stock = trained(build(configuration, name="nnUNetTrainer"))
    told(bank=empty_bank(configuration), allow_empty_bank=True)
    ours = build(configuration)
    assert_equal(trained(ours), stock)
    assert "WARNING: there is no synthetic sample" in log_of(ours)
    folder, real = Path(ours.output_folder), 5 * ours.batch_size
    result = TrainingResult.of(read_sessions(folder), folder)
    drawn = (result.drawn_real, result.drawn_synthetic, result.fell_back)
    assert drawn == (real, 0, real // 2)
    assert "holds no sample" in result.training_bank["ended"]


@pytest.mark.fault(39)
@pytest.mark.slow
def test_a_generator_of_which_every_sample_is_rejected_changes_no_bit(build, told, nan_run):
    stock = trained(build(name="nnUNetTrainer"))
    told(generator=nan_run, device="cpu", bank_size="8", allow_empty_bank=True, restarts=0)
    ours = build()
    assert_equal(trained(ours), stock)
    assert "were rejected" in log_of(ours)
    assert DrawCounter(ours.gansynth_plan.log).update().synthetic == 0
