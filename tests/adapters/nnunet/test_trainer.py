import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth_nnunet.launch import EXT_TRAINER
from gansynth_nnunet.mixed import MixedNnunetDataset
from tests.adapters.nnunet.conftest import begin, log_of
from tests.processes import until

# nnU-Net, timm and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_nnunets_own_loaders_draw_from_the_bank(ready, configuration):
    trainer = ready(configuration, patience=7)
    train, validation = begin(trainer).get_dataloaders()
    assert trainer.gansynth_plan.patience == 7
    batches = [next(train) for _ in range(5)]
    patch = trainer.configuration_manager.patch_size
    assert all(tuple(b["data"].shape) == (2, 2, *patch) for b in batches)
    assert all(np.isfinite(b["data"].numpy()).all() for b in batches)
    counts = trainer.session.counts()  # with nnU-Net's own first batch
    assert (counts.real, counts.synthetic, counts.fell_back) == (6, 6, 0)
    assert not isinstance(validation.data_loader._data, MixedNnunetDataset)
    assert (next(validation)["target"][0] >= 0).all()


def test_training_stops_where_a_sample_is_missing_and_says_why_though_a_worker_knows_only(
    build, told, frozen_bank, monkeypatch
):
    bank = frozen_bank()
    told(bank=bank, strict=True)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer = build()
    mix = trainer.gansynth_mix

    def mix_then_empty(plan):
        mix(plan)
        for sample in bank.glob("sample-*"):
            sample.unlink()

    monkeypatch.setattr(trainer, "gansynth_mix", mix_then_empty)
    with pytest.raises(TrainingFault, match=r"no synthetic sample after 0 s .the bank is empty"):
        trainer.run_training()


def test_nnunets_own_workers_draw_distinct_samples(ready, frozen_bank, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = ready(bank=frozen_bank(samples=12), ratio="0:1")
    loaders = begin(trainer).get_dataloaders()

    def orders() -> list[list[str]]:
        logs = (Path(trainer.output_folder) / "gansynth_draws").rglob("draws-*.csv")
        lines = [[line.split(",") for line in log.read_text().splitlines()] for log in logs]
        return [[row[1] for row in rows if row[0] == "synthetic"] for rows in lines]

    until(lambda: next(loaders[0]) and len([one for one in orders() if len(one) >= 8]) == 2)
    for loader in loaders:
        loader._finish()
    one, two = orders()
    assert one[:8] != two[:8]
    assert len({*one, *two}) > 6


def test_with_fold_all_the_log_says_that_nothing_is_held_out(build, told, frozen_bank):
    told(bank=frozen_bank(fold="all"))
    trainer = build(fold="all")
    trainer.initialize()
    trainer.run_training()
    assert "nothing is held out" in log_of(trainer)


def test_a_trainer_without_a_mix_or_of_no_variant_is_refused(build):
    trainer = build()  # for inference, say
    with pytest.raises(UsageFault, match=r"GANSYNTH_GENERATOR=.* start it by: gansynth augment"):
        trainer.run_training()
    message = r"nnUNetTrainerDA6: nnU-Net has none.*mean 'nnUNetTrainerDA"
    with pytest.raises(UsageFault, match=message):
        build(name="nnUNetTrainerDA6GANSynth")


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
        ("nnUNetTrainer_5epochs", "initial_lr", 0.5),
        ("nnUNetTrainer_onlyMirror01_DA5", "inference_allowed_mirroring_axes", (0, 1)),
    ],
)
def test_a_variant_draws_from_the_bank_and_stays_what_it_is_but_for_settings(
    ready, variant, attribute, value
):
    own = {"num_epochs": 7, "initial_lr": 0.5} if "5epochs" in variant else {}
    trainer = ready(name=f"{variant}GANSynth", settings={"num_iterations_per_epoch": 2, **own})
    assert base(trainer) == variant
    assert not own or trainer.num_epochs == 7
    assert f"{variant}GANSynth__" in trainer.output_folder
    train, _ = begin(trainer).get_dataloaders()
    batches = [next(train) for _ in range(3)]
    counts = trainer.session.counts()
    assert all(b["data"].isfinite().all() for b in batches)
    assert (counts.real, counts.synthetic, counts.fell_back) == (4, 4, 0)
    assert getattr(trainer, attribute) == value


def test_a_users_own_trainer_is_composed_unless_the_user_did(ready, own):
    own(
        "from gansynth_nnunet.trainer import GANSynthMixin\n"
        "class Mine(nnUNetTrainer):\n    batches = 7\n"
        "class OtherGANSynth(GANSynthMixin, nnUNetTrainer):\n    by_hand = True\n"
    )
    trainer = ready(name="MineGANSynth")
    assert (base(trainer), trainer.batches) == ("Mine", 7)
    assert isinstance(begin(trainer).get_tr_and_val_datasets()[0], MixedNnunetDataset)
    assert ready(name="OtherGANSynth").by_hand


def test_a_composed_class_is_found_again_where_nobody_has_composed_it(monkeypatch):
    from gansynth_nnunet import trainer

    text = pickle.dumps(trainer.nnUNetTrainerDA5GANSynth)
    assert pickle.loads(text) is trainer.nnUNetTrainerDA5GANSynth
    assert not hasattr(trainer, "nnUNetTrainerDA5")
    monkeypatch.setattr(trainer, "_composed", {})  # as in another process
    assert pickle.loads(text).__mro__[2].__name__ == "nnUNetTrainerDA5"


@pytest.mark.parametrize(
    ("code", "mix"),
    [
        ("    def get_dataloaders(self):\n        return None, None\n", {}),
        (
            "    def get_training_transforms(self, *a, **k):\n        raise OSError\n"
            "    def get_dataloaders(self):\n"
            "        return self.get_tr_and_val_datasets()\n",
            {"augment_synthetic": False},
        ),
    ],
    ids=["samples", "augmentation"],
)
def test_loaders_that_samples_or_augmentation_do_not_reach_are_refused(ready, own, code, mix):
    own(f"class Mine(nnUNetTrainer):\n{code}")
    trainer = ready(name="MineGANSynth", **mix)
    with pytest.raises(UsageFault, match="the variant makes its own loaders"):
        begin(trainer).get_dataloaders()
