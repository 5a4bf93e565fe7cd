"""The trainer inside unmodified nnU-Net: what it mixes, refuses, reports and leaves behind."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.reader import BankReader
from gansynth.runtime import torchvision_compat
from gansynth.runtime.errors import DataFault, IntegrityFault, TrainingFault, UsageFault
from gansynth_nnunet.launch import EXT_TRAINER, TRAINER
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.session import NnunetSession

# nnU-Net, timm and torch warn of each other's deprecations; which ones is not ours to say.
pytestmark = pytest.mark.filterwarnings("ignore")


def sidecar(trainer: Any) -> Any:
    return json.loads((Path(trainer.output_folder) / "gansynth.json").read_text())


def log_of(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


# -- mixing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_nnunets_own_loaders_draw_from_the_bank(build, told, frozen_bank, configuration):
    told(BANK=frozen_bank(configuration=configuration))
    trainer = build(configuration)
    trainer.initialize()
    train, validation = trainer.get_dataloaders()
    batches = [next(train) for _ in range(5)]
    patch = trainer.configuration_manager.patch_size
    assert all(tuple(b["data"].shape) == (2, 2, *patch) for b in batches)
    assert all(np.isfinite(b["data"].numpy()).all() for b in batches)
    counts = trainer.gansynth_session.counts()  # with nnU-Net's own first batch
    assert (counts.real, counts.synthetic, counts.fell_back) == (6, 6, 0)
    assert not isinstance(validation.data_loader._data, MixedDataset)
    assert (next(validation)["target"][0] >= 0).all()


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_one_epoch_of_training(build, told, frozen_bank, configuration):
    told(BANK=frozen_bank(configuration=configuration), RATIO="1:1")
    trainer = build(configuration)
    trainer.run_training()
    folder = Path(trainer.output_folder)
    record = sidecar(trainer)
    session = record["sessions"][0]
    assert (folder / "checkpoint_final.pth").exists()
    assert record["complete"]
    assert session["drawn"]["real"] == session["drawn"]["synthetic"] == 3
    assert [case["id"] for case in session["lineage"]["cases"]] == sorted(
        trainer.dataloader_train.data_loader._data.identifiers
    )
    assert "3 of 6 samples drawn were synthetic (50.0%, asked 50.0%)" in log_of(trainer)


def test_a_ratio_of_none_needs_no_bank(build, told):
    told(RATIO="1:0")
    trainer = build()
    trainer.initialize()
    trainer.get_dataloaders()
    counts = trainer.gansynth_session.counts()
    assert (counts.real, counts.synthetic) == (2, 0)


def test_a_generator_that_is_none_is_named(build, told, tmp_path):
    told(GENERATOR=tmp_path / "nowhere")
    trainer = build()
    trainer.initialize()
    with pytest.raises(DataFault, match=r"nowhere: no manifest\.json here"):
        trainer.get_tr_and_val_datasets()


# -- a generator at work -------------------------------------------------------------------------


def test_a_frozen_bank_is_filled_before_training_and_removed_after_it(build, told, fitted):
    told(GENERATOR=fitted, DEVICE="cpu", FROZEN=1, BANK_SIZE=4)
    trainer = build()
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    session = trainer.gansynth_session
    bank = session.supply.bank
    assert BankReader(bank).count() == 4
    assert "waiting for 4 synthetic samples" in log_of(trainer)
    for _ in range(7):
        next(train)
    assert 2 <= session.counts().distinct <= 4
    session.close()
    assert not session.supply.keeper.alive()
    assert not bank.exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_strict_training_stops_at_a_missing_sample_and_says_why(
    build, told, frozen_bank, monkeypatch, workers
):
    bank = frozen_bank()
    told(BANK=bank, STRICT=1)
    monkeypatch.setenv("nnUNet_n_proc_DA", workers)
    trainer = build()
    wrap = NnunetSession.wrap

    def wrap_then_empty(session, real):
        mixed = wrap(session, real)
        for segment in bank.glob("segment-*.h5"):
            segment.unlink()
        return mixed

    monkeypatch.setattr(NnunetSession, "wrap", wrap_then_empty)
    with pytest.raises(TrainingFault, match=r"no synthetic sample after 0 s .the bank is empty"):
        trainer.run_training()


def test_the_record_names_the_generator_and_all_it_has_seen(build, told, fitted):
    from gansynth.core.run_folder import manifest_sha256

    told(GENERATOR=fitted, DEVICE="cpu", FROZEN=1, BANK_SIZE=2)
    trainer = build()
    trainer.initialize()
    real = trainer.get_tr_and_val_datasets()[0]
    trainer.gansynth_session.close()
    session = sidecar(trainer)["sessions"][0]
    assert session["generator"]["manifest_sha256"] == manifest_sha256(fitted)
    assert {case["id"] for case in session["lineage"]["cases"]} == set(real.identifiers)


# -- refusing ------------------------------------------------------------------------------------


def test_a_bank_of_another_fold_is_refused(build, told, frozen_bank):
    told(BANK=frozen_bank(fold="1"))
    trainer = build(fold=0)
    trainer.initialize()
    with pytest.raises(IntegrityFault, match="has seen 2 held-out case") as caught:
        trainer.get_tr_and_val_datasets()
    assert caught.value.exit_code == 6


def test_a_bank_of_another_configuration_is_refused(build, told, frozen_bank):
    told(BANK=frozen_bank(configuration="2d"))
    trainer = build()
    trainer.initialize()
    with pytest.raises(IntegrityFault, match="configuration: '2d' != '3d_fullres'"):
        trainer.get_tr_and_val_datasets()


def test_with_fold_all_the_log_says_that_nothing_is_held_out(build, told, frozen_bank):
    told(BANK=frozen_bank(fold="all"))
    trainer = build(fold="all")
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    assert "nothing is held out" in log_of(trainer)


def test_nobody_said_what_to_mix(build):
    trainer = build()  # for inference, say
    with pytest.raises(UsageFault, match=r"GANSYNTH_GENERATOR=.* or start it by: gansynth augment"):
        trainer.run_training()


# -- nnU-Net's ways ------------------------------------------------------------------------------


def test_the_constructor_is_nnunets():
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from gansynth_nnunet.trainer import nnUNetTrainerGANSynth

    assert list(inspect.signature(nnUNetTrainerGANSynth).parameters) == list(
        inspect.signature(nnUNetTrainer).parameters
    )


def test_settings_are_applied(build, told, frozen_bank):
    told(BANK=frozen_bank(), SET="num_epochs=7, initial_lr=0.5,save_every=3")
    trainer = build()
    trainer.initialize()
    assert (trainer.num_epochs, trainer.save_every) == (7, 3)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5


def test_it_composes_with_a_variant(build, told, frozen_bank):
    told(BANK=frozen_bank(), SET="num_epochs=3")
    from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
        nnUNetTrainer_5epochs,
    )

    from gansynth_nnunet.trainer import GANSynthMixin

    Both: Any = type("Both", (GANSynthMixin, nnUNetTrainer_5epochs), {})

    plain = build()
    trainer = Both(
        {**plain.plans_manager.plans, "continue_training": False},
        "3d_fullres",
        0,
        plain.dataset_json,
        plain.device,
    )
    trainer.initialize()
    assert trainer.num_epochs == 3
    assert isinstance(trainer.get_tr_and_val_datasets()[0], MixedDataset)
    trainer.gansynth_session.close()


def test_a_continued_training_keeps_the_record_of_its_past(build, told, frozen_bank):
    told(BANK=frozen_bank())
    build().run_training()
    told(BANK=frozen_bank("other"), RATIO="3:1", SET="num_epochs=2,num_iterations_per_epoch=1")
    trainer = build()
    trainer.num_val_iterations_per_epoch = 1
    trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    trainer.run_training()
    sessions = sidecar(trainer)["sessions"]
    assert [(s["epochs"], s["ratio"]) for s in sessions] == [([0, 1], "1:1"), ([1, 2], "3:1")]
    assert "WARNING: since the last session: ratio: 1:1 before, 3:1 now \n" in log_of(trainer)


def test_a_generator_deleted_meanwhile_stops_nothing(build, told, fitted, tmp_path):
    shutil.copytree(fitted, tmp_path / "run")
    told(GENERATOR=tmp_path / "run", DEVICE="cpu", FROZEN=1, BANK_SIZE=2)
    trainer = build()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    shutil.rmtree(tmp_path / "run")
    trainer.gansynth_session.epoch(1)
    assert sidecar(trainer)["sessions"][0]["epochs"] == [0, 1]


def test_the_folder_for_nnunet_holds_one_module_only():
    import pkgutil

    assert [module.name for module in pkgutil.iter_modules([str(EXT_TRAINER)])] == [
        "nnunet_trainer_gansynth"
    ]


# -- the stock command ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_stock_command_trains(nnunet, told, frozen_bank, tmp_path):
    told(BANK=frozen_bank())
    command = [
        str(Path(sys.executable).with_name("nnUNetv2_train")),
        *("501", "3d_fullres", "0", "-tr", TRAINER, "-p", nnunet.plans, "-device", "cpu"),
    ]
    environ = {
        **os.environ,
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(torchvision_compat.CPU_TORCH),
    }
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "Mean Validation Dice" in ended.stdout
    record = json.loads(next((tmp_path / "results").rglob("gansynth.json")).read_text())
    assert record["complete"]
    assert record["sessions"][0]["drawn"]["realised"] == 0.5
