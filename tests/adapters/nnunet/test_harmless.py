"""With every sample rejected nnU-Net trains as if gansynth were not there, to the last bit."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")
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


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_an_empty_bank_changes_no_bit(build, told, empty_bank, configuration):
    stock = trained(build(configuration, name="nnUNetTrainer"))
    told(BANK=empty_bank(configuration), KEEP_GOING=1)
    ours = build(configuration)
    assert_equal(trained(ours), stock)
    counts = ours.gansynth_session.counts()
    assert (counts.synthetic, counts.fell_back) == (0, counts.real // 2)
    assert counts.real == 5 * ours.batch_size


@pytest.mark.slow
def test_another_sample_would_show(build, told, frozen_bank):
    stock = trained(build(name="nnUNetTrainer"))
    told(BANK=frozen_bank())
    assert trained(build())[0] != stock[0]


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_a_generator_of_which_every_sample_is_rejected_changes_no_bit(
    build, told, nan_run, run_cli, nnunet, tmp_path, configuration
):
    run = nan_run(configuration)
    stock = trained(build(configuration, name="nnUNetTrainer"))
    told(GENERATOR=run, DEVICE="cpu", BANK_SIZE=8, KEEP_GOING=1, RESTARTS=0)
    ours = build(configuration)
    assert_equal(trained(ours), stock)
    assert "were rejected" in Path(ours.log_file).read_text()
    assert ours.gansynth_session.counts().synthetic == 0
