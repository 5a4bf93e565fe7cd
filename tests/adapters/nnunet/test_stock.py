"""Checkpoints that nnU-Net uses where gansynth is not installed."""

import os
import subprocess
import sys
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


def checkpoint(trainer: Any, name: str = "checkpoint_latest.pth") -> Path:
    return Path(trainer.output_folder) / name


def test_a_trainer_with_a_network_of_its_own_keeps_its_own_name():
    def network() -> int:
        return 1

    build = "build_network_architecture"
    from gansynth_nnunet.trainer import GANSynthMixin, stock_name

    host = type("Host", (), {build: network})
    same = type("Same", (GANSynthMixin, host), {})
    other = type("Other", (GANSynthMixin, host), {build: lambda: 2})
    assert (stock_name(same), stock_name(other)) == ("Host", "Other")


def test_a_checkpoint_carries_the_variants_name_and_training_goes_on_from_it(trainer, build):
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


@pytest.mark.parametrize(("name", "value"), [("disable_checkpointing", True), ("local_rank", 1)])
def test_without_checkpoints_and_in_other_ranks_nothing_is_written(trainer, name, value):
    setattr(trainer, name, value)
    trainer.save_checkpoint(str(checkpoint(trainer)))
    assert not checkpoint(trainer).exists()


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


PREDICT = """
import sys
sys.modules["gansynth"] = sys.modules["gansynth_nnunet"] = None  # any import of them fails
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
sys.argv[0] = "nnUNetv2_predict"
predict_entry_point()
"""


@pytest.mark.slow
def test_nnunet_predicts_without_gansynth_what_our_trainer_predicts(nnunet, trainer, tmp_path):
    import nibabel as nib
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer.run_training()
    case, images = "p1_left", tmp_path / "in"
    images.mkdir()
    paths = [nnunet.raw / "imagesTr" / f"{case}_000{i}.nii.gz" for i in (0, 1)]
    for path in paths:
        (images / path.name).symlink_to(path)
    command = [
        *(sys.executable, "-c", PREDICT, "-i", str(images), "-o", str(tmp_path / "out")),
        *("-d", "501", "-tr", TRAINER, "-p", nnunet.plans, "-c", "3d_fullres", "-f", "0"),
        *("-device", "cpu", "-npp", "0", "-nps", "0"),
    ]
    environ = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "out" / f"{case}.nii.gz").dataobj)

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    made = [trainer.network, trainer.plans_manager, trainer.configuration_manager]
    made += [[trainer.network.state_dict()], trainer.dataset_json, "any"]
    predictor.manual_initialization(*made, trainer.inference_allowed_mirroring_axes)
    data, properties = SimpleITKIO().read_images([str(p) for p in paths])
    expected = predictor.predict_single_npy_array(data, properties)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(found, expected.T)
