"""nnU-Net's other trainers with synthetic samples: found by name, composed, used, or refused."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import UsageFault
from gansynth_nnunet import variants
from gansynth_nnunet.launch import EXT_TRAINER
from gansynth_nnunet.mixed import MixedDataset
from tests.adapters.nnunet.conftest import log_of, read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
torchvision_compat.apply()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of the user's own trainers beside ours: own("class Mine(nnUNetTrainer): ...")."""
    folder = tmp_path / "trainers"

    def write(code: str) -> None:
        folder.mkdir()
        head = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        (folder / "users_trainers.py").write_text(head + code)
        monkeypatch.setenv("nnUNet_extTrainer", f"{EXT_TRAINER}:{folder}")

    return write


def base(trainer: Any) -> str:
    return str(type(trainer).__mro__[2].__name__)


@pytest.mark.parametrize(
    ("variant", "attribute", "value"),
    [
        ("nnUNetTrainerDA5", "num_epochs", 1000),
        ("nnUNetTrainer_5epochs", "num_epochs", 5),
        ("nnUNetTrainerNoMirroring", "inference_allowed_mirroring_axes", None),
        ("nnUNetTrainer_probabilisticOversampling", "probabilistic_oversampling", True),
        ("nnUNetTrainerNoDeepSupervision", "enable_deep_supervision", False),
        ("nnUNetTrainer_onlyMirror01_DA5", "inference_allowed_mirroring_axes", (0, 1)),
    ],
)
def test_a_variant_draws_from_the_bank_and_stays_what_it_is(ready, variant, attribute, value):
    trainer = ready(name=f"{variant}GANSynth", SET="num_iterations_per_epoch=2")
    assert base(trainer) == variant
    assert f"{variant}GANSynth__" in trainer.output_folder
    train, _ = trainer.get_dataloaders()
    batches = [next(train) for _ in range(3)]
    counts = trainer.gansynth_session.counts()
    assert all(b["data"].isfinite().all() for b in batches)
    assert (counts.real, counts.synthetic, counts.fell_back) == (4, 4, 0)
    assert getattr(trainer, attribute) == value


def test_a_setting_is_stronger_than_the_variant(ready):
    assert ready(name="nnUNetTrainer_5epochsGANSynth", SET="num_epochs=3").num_epochs == 3


def test_a_variant_trains(ready):
    trainer = ready(name="nnUNetTrainerDA5GANSynth")
    trainer.run_training()
    checkpoint = Path(trainer.output_folder) / "checkpoint_final.pth"
    assert read_checkpoint(checkpoint)["trainer_name"] == "nnUNetTrainerDA5"
    assert "3 of 6 samples drawn were synthetic (50.0%, asked 50.0%)" in log_of(trainer)


def test_a_users_own_trainer_is_composed_too(ready, own):
    own("class Mine(nnUNetTrainer):\n    batches = 7\n")
    trainer = ready(name="MineGANSynth")
    assert (base(trainer), trainer.batches) == ("Mine", 7)
    assert isinstance(trainer.get_tr_and_val_datasets()[0], MixedDataset)


def test_a_composition_that_the_user_wrote_is_left_to_the_user(ready, own):
    own(
        "from gansynth_nnunet.trainer import GANSynthMixin\n"
        "class MineGANSynth(GANSynthMixin, nnUNetTrainer):\n    by_hand = True\n"
    )
    assert ready(name="MineGANSynth").by_hand


def test_a_composed_class_can_be_pickled():
    composed = variants.compose(variants.find("nnUNetTrainerDA5"))
    assert pickle.loads(pickle.dumps(composed)) is composed


@pytest.mark.slow
def test_a_composed_class_is_found_again_in_a_fresh_process():
    from gansynth_nnunet.variants import nnUNetTrainerDA5GANSynth

    text = pickle.dumps(nnUNetTrainerDA5GANSynth)
    code = f"import pickle; print(pickle.loads({text!r}).__mro__[2].__name__)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.split()[-1] == "nnUNetTrainerDA5", ended.stderr


def test_what_is_no_trainer_is_no_attribute():
    assert not hasattr(variants, "nnUNetTrainerDA5")
    assert not hasattr(variants, "GANSynth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nnUNetTrainerDA6GANSynth", r"nnUNetTrainerDA6: nnU-Net has none.*mean 'nnUNetTrainerDA"),
        (
            "nnUNetTrainerBenchmark_5epochs_noDataLoadingGANSynth",
            "its get_dataloaders loads no case, so there is nothing to mix",
        ),
    ],
)
def test_what_cannot_be_composed_is_refused_with_the_reason(build, name, message):
    with pytest.raises(UsageFault, match=message):
        build(name=name)


@pytest.mark.parametrize(
    ("code", "variables"),
    [
        ("    def get_dataloaders(self):\n        return list(), list()\n", {}),
        (
            "    def get_training_transforms(self, *a, **k):\n        raise OSError\n"
            "    def get_dataloaders(self):\n"
            "        return self.get_tr_and_val_datasets()\n",
            {"AUGMENT_SYNTHETIC": 0},
        ),
    ],
    ids=["samples", "augmentation"],
)
def test_loaders_that_samples_or_augmentation_do_not_reach_are_refused(ready, own, code, variables):
    own(f"class Mine(nnUNetTrainer):\n{code}")
    trainer = ready(name="MineGANSynth", **variables)
    with pytest.raises(UsageFault, match="the variant makes its own loaders"):
        trainer.get_dataloaders()
