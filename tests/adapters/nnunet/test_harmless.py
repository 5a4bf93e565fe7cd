"""With every sample rejected nnU-Net trains as if gansynth were not there, to the last bit."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.source import lineage_of
from gansynth.hosts.record import TrainingResult, read_sessions
from gansynth_nnunet.source import NnunetSource
from tests.adapters.nnunet.conftest import log_of
from tests.banks import write_bank

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


@pytest.mark.fault(39)
def test_an_empty_bank_changes_no_bit_and_that_is_said(build, told, toy_nnunet, tmp_path):
    stock = trained(build("2d", name="nnUNetTrainer"))
    source = NnunetSource(toy_nnunet.request(configuration="2d"))
    lineage = lineage_of(source)
    bank = write_bank(tmp_path / "empty", source.schema, lineage, frozen=False)
    told(bank=bank, allow_empty_bank=True)
    ours = build("2d")
    losses, weights = trained(ours)
    assert losses == stock[0]
    assert all(np.array_equal(weights[name], stock[1][name]) for name in weights)
    assert "WARNING: there is no synthetic sample" in log_of(ours)
    folder, real = Path(ours.output_folder), 5 * ours.batch_size
    result = TrainingResult.of(read_sessions(folder), folder)
    drawn = (result.drawn_real, result.drawn_synthetic, result.fell_back)
    assert drawn == (real, 0, real // 2)
    assert "holds no sample" in result.training_bank["ended"]
