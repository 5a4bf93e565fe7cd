"""Every configuration of nnU-Net, on labels that overlap and are not all known: 2d, full, low."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import filelock
import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.runtime import torchvision_compat
from gansynth.runtime.files import write_json_atomic
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.launch import EXT_TRAINER, TRAINER
from gansynth_nnunet.plans import SmallPlans
from gansynth_nnunet.prepare import prepare
from gansynth_nnunet.source import open_nnunet
from tests.conftest import FIT, Toy, crop_samples, shortcuts

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIGURATIONS = ("3d_fullres", "2d", "3d_lowres")
IGNORE = 3


def add_low_resolution(plans: Path) -> None:
    """The configuration that nnU-Net's planner makes for larger cases."""
    doc = json.loads(plans.read_text())
    low = deepcopy(doc["configurations"]["3d_fullres"])
    low["data_identifier"] = "nnUNetPlans_3d_lowres"
    low["spacing"] = [1.5 * s for s in low["spacing"]]
    doc["configurations"]["3d_lowres"] = low
    write_json_atomic(plans, doc)


def make(toy: Toy, plain: Toy) -> None:
    """The toy data set with a region, and an ignore label where nobody has looked."""
    shutil.copytree(plain.raw, toy.raw)
    for path in sorted((toy.raw / "labelsTr").iterdir()):
        labels = np.asarray(nib.Nifti1Image.from_filename(path).dataobj).astype(np.uint8)
        labels[..., :4] = IGNORE
        nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    doc = json.loads((toy.raw / "dataset.json").read_text())
    doc["labels"] = {"background": 0, "whole": [1, 2], "core": 2, "ignore": IGNORE}
    doc["regions_class_order"] = [1, 2]
    write_json_atomic(toy.raw / "dataset.json", doc)
    small = SmallPlans(features=(4, 8, 8))
    with shortcuts():
        for names in (CONFIGURATIONS[:2], CONFIGURATIONS[2:]):
            request = toy.request(plans=None)
            prepare(request, names, small=small, num_processes=1)
            if names == CONFIGURATIONS[:2]:
                add_low_resolution(toy.preprocessed / "nnUNetPlans.json")


@pytest.fixture(scope="session")
def regional(toy_nnunet) -> Toy:
    """A data set of regions with an ignore label, preprocessed three times. Do not change it."""
    toy = Toy(toy_nnunet.root.with_name("regional_nnunet"))
    with filelock.FileLock(toy.root.with_suffix(".lock")):
        if not (toy.root / "done").exists():
            make(toy, toy_nnunet)
            (toy.root / "done").touch()
    return toy


@pytest.fixture
def nnunet(regional, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(regional.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(regional.preprocessed.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_extTrainer", str(EXT_TRAINER))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("GANSYNTH_RATIO", "1:1")
    monkeypatch.setenv(
        "GANSYNTH_SET", "num_epochs=1,num_iterations_per_epoch=2,num_val_iterations_per_epoch=1"
    )
    torchvision_compat.apply()
    return regional


def bank_of(toy: Toy, configuration: str, folder: Path) -> Path:
    """Training crops, as a generator would have filled it."""
    adapter = NnunetAdapter(open_nnunet(toy.request(configuration=configuration)))
    spec = BankSpec(
        adapter.schema, adapter.source.lineage(), "toy", "0" * 64, frozen=True, capacity=6
    )
    with BankWriter.create(folder, spec) as writer:
        writer.publish(crop_samples(adapter, 6))
        writer.finish()
    return folder


def trainer_of(toy: Toy, configuration: str) -> Any:
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    place = (toy.dataset, configuration, 0, TRAINER, toy.plans)
    return get_trainer_from_args(*place, device=torch.device("cpu"))


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_it_trains_on_regions_with_an_ignore_label(nnunet, monkeypatch, tmp_path, configuration):
    bank = bank_of(nnunet, configuration, tmp_path / "bank")
    monkeypatch.setenv("GANSYNTH_BANK", str(bank))
    trainer = trainer_of(nnunet, configuration)
    trainer.run_training()
    record = json.loads((Path(trainer.output_folder) / "gansynth.json").read_text())
    assert record["complete"]
    drawn = record["sessions"][0]["drawn"]
    assert (drawn["real"], drawn["synthetic"], drawn["fell_back"]) == (3, 3, 0)
    losses = trainer.logger.get_value("train_losses", 0)
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_targets_of_samples_have_a_channel_a_region_and_one_for_what_is_unknown(
    nnunet, monkeypatch, tmp_path, configuration
):
    monkeypatch.setenv("GANSYNTH_RATIO", "0:1")
    monkeypatch.setenv("GANSYNTH_BANK", str(bank_of(nnunet, configuration, tmp_path / "bank")))
    trainer = trainer_of(nnunet, configuration)
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    batches = [next(train) for _ in range(6)]
    trainer.gansynth_session.close()
    target = np.concatenate([b["target"][0].numpy() for b in batches])  # (B, 3, [D,] H, W)
    assert target.shape[1] == 3
    assert set(np.unique(target)) <= {0, 1}
    whole, core, unknown = target.swapaxes(0, 1).astype(bool)
    assert whole.any()
    assert core.any()
    assert not (core & ~whole & ~unknown).any()


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_generator_is_fitted_and_mixed_in_on_the_fly(
    nnunet, monkeypatch, run_cli, tmp_path, configuration
):
    options = [o if o != "3d_fullres" else configuration for o in nnunet.options]
    fit = run_cli("fit", "cgan3d", *options, "-o", tmp_path / "run", *FIT, "--set=steps=2", "-q")
    assert fit.exit_code == 0, fit.stderr
    for name, value in {"GENERATOR": tmp_path / "run", "BANK_SIZE": 4, "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"GANSYNTH_{name}", str(value))
    trainer = trainer_of(nnunet, configuration)
    trainer.run_training()
    record = json.loads((Path(trainer.output_folder) / "gansynth.json").read_text())
    drawn = record["sessions"][0]["drawn"]
    assert (drawn["synthetic"], drawn["fell_back"]) == (3, 0)


@pytest.mark.slow
def test_label_maps_that_are_drawn_know_no_ignore_label(nnunet, monkeypatch, run_cli, tmp_path):
    options = [o if o != "3d_fullres" else "2d" for o in nnunet.options]
    small = [f"--set={o}" for o in ("steps=400", "objective=gan", "width=16", "batch_size=16")]
    more = ("--with-mask", "-o", tmp_path / "run", "--device", "cpu", *small, "-q")
    fit = run_cli("fit", "dcgan", *options, *more)
    assert fit.exit_code == 0, fit.stderr
    monkeypatch.setenv("GANSYNTH_GENERATOR", str(tmp_path / "run"))
    monkeypatch.setenv("GANSYNTH_BANK_SIZE", "8")
    monkeypatch.setenv("GANSYNTH_FILTER", "none")
    monkeypatch.setenv("GANSYNTH_DEVICE", "cpu")
    trainer = trainer_of(nnunet, "2d")
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    reader = BankReader(trainer.gansynth_session.supply.bank)
    maps = [np.asarray(reader.read(sample).labels) for sample in reader.ids()]
    values = set(np.unique(np.stack(maps)).tolist())
    next(train)
    trainer.gansynth_session.close()
    assert {1, 2} <= values <= {-1, 0, 1, 2}
