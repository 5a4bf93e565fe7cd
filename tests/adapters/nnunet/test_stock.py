"""Checkpoints that nnU-Net uses where gansynth is not installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.runtime.errors import EnvironmentFault
from gansynth_nnunet.launch import TRAINER

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def trainer(ready):
    """One that could go on training; nothing has been saved yet."""
    made = ready()
    for key in ("mean_fg_dice", "ema_fg_dice", "train_losses"):
        made.logger.log(key, np.float32(0.5), 0)
    return made


def checkpoint(trainer: Any) -> Path:
    return Path(trainer.output_folder) / "checkpoint_latest.pth"


def test_a_checkpoint_carries_the_variants_name_and_training_goes_on_from_it(trainer, build):
    for name, value in (("disable_checkpointing", True), ("local_rank", 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, name, value)
            trainer.save_checkpoint(str(checkpoint(trainer)))
        assert not checkpoint(trainer).exists()
    trainer.current_epoch = 4
    trainer.save_checkpoint(str(checkpoint(trainer)))
    saved = torch.load(checkpoint(trainer), map_location="cpu", weights_only=False)
    assert saved["trainer_name"] == "nnUNetTrainer"
    assert type(trainer).__name__ == TRAINER
    assert list(checkpoint(trainer).parent.glob(".checkpoint*")) == []
    again = build()
    again.load_checkpoint(str(checkpoint(trainer)))
    assert again.current_epoch == 5
    assert again.output_folder == trainer.output_folder
    mine, theirs = trainer.network.state_dict(), again.network.state_dict()
    assert all((mine[key] == theirs[key]).all() for key in mine)


def test_a_trainer_with_a_network_of_its_own_keeps_its_own_name():
    from gansynth_nnunet.trainer import GANSynthMixin, stock_name

    build = "build_network_architecture"
    host = type("Host", (), {build: lambda: 1})
    same = type("Same", (GANSynthMixin, host), {})
    other = type("Other", (GANSynthMixin, host), {build: lambda: 2})
    assert (stock_name(same), stock_name(other)) == ("Host", "Other")


@pytest.mark.fault(28)
def test_what_is_interrupted_leaves_the_checkpoint_before(trainer, monkeypatch):
    trainer.save_checkpoint(str(checkpoint(trainer)))
    before = checkpoint(trainer).read_bytes()

    def stop(document: Any, path: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "no space")

    monkeypatch.setattr(torch, "save", stop)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        trainer.save_checkpoint(str(checkpoint(trainer)))
    assert checkpoint(trainer).read_bytes() == before
    assert type(trainer).__name__ == TRAINER
