"""nnU-Net set up to train the toy data set in the test's own process."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gansynth.hosts.contract.job import Job
from gansynth.hosts.contract.record import LOG
from gansynth.runtime import torchvision_compat
from gansynth_nnunet.in_trainer import session_in
from gansynth_nnunet.launch import EXT_TRAINER, TRAINER
from tests.adapters.kits import draw_no_progress


@pytest.fixture
def nnunet(toy_nnunet, tmp_path, monkeypatch):
    """nnU-Net set up to train the toy data set in this process, its results in tmp_path."""
    for name in [n for n in os.environ if n.startswith("GANSYNTH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("nnUNet_raw", str(toy_nnunet.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(toy_nnunet.preprocessed.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_extTrainer", str(EXT_TRAINER))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    draw_no_progress(monkeypatch)
    return toy_nnunet


@pytest.fixture
def build(nnunet) -> Iterator[Callable[..., Any]]:
    """Builds a trainer as nnUNetv2_train does; what it leaves open is closed after the test."""
    torchvision_compat.apply()
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    built = []

    def make(configuration="3d_fullres", fold=0, name=TRAINER):
        place = (nnunet.dataset, configuration, fold, name, nnunet.plans)
        built.append(get_trainer_from_args(*place, device=torch.device("cpu")))
        return built[-1]

    yield make
    for trainer in built:
        if hasattr(trainer, "session"):
            trainer.session.close()


def begin(trainer: Any) -> Any:
    """Open the session of a training as ``run_training`` does, without the training."""
    job = Job(session_in(trainer.gansynth, trainer).training(), None)
    trainer.session = trainer.gansynth_job = job
    job.begin()
    trainer.gansynth_mix(job.plan)
    return trainer


@pytest.fixture
def told(monkeypatch, tmp_path) -> Callable[..., None]:
    """Writes the settings file that GANSYNTH_CONFIG names: told(bank=..., ratio="1:1")."""
    quick = {"num_epochs": 1, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1}

    def tell(settings: dict[str, Any] = quick, **mix: Any) -> None:
        request = {"target": "nnunet", "ratio": "1:1", **mix, "set": settings}
        file = tmp_path / "mix.json"
        file.write_text(json.dumps({"request": request}, default=str))
        monkeypatch.setenv("GANSYNTH_CONFIG", str(file))

    return tell


@pytest.fixture
def ready(build, told, frozen_bank, tmp_path) -> Callable[..., Any]:
    """Builds and initialises a trainer that draws from a bank: ``ready("2d", ratio="0:1")``."""

    def make(configuration="3d_fullres", name=TRAINER, **mix):
        if not {"bank", "generator"} & set(mix):
            bank = tmp_path / configuration
            mix["bank"] = bank if bank.exists() else frozen_bank(bank, configuration=bank.name)
        told(**mix)
        trainer = build(configuration, name=name)
        trainer.initialize()
        return trainer

    return make


def sidecar(trainer: Any) -> Any:
    return json.loads((Path(trainer.output_folder) / "gansynth_session.json").read_text())


def log_of(trainer: Any) -> str:
    files = (Path(trainer.log_file), Path(trainer.output_folder) / LOG)
    return "".join(file.read_text() for file in files if file.is_file())


def run_stock(*words: object, **environ: str) -> str:
    """What a command of nnU-Net's prints, in a process of its own."""
    threads = ("nnUNet_n_proc_DA", "nnUNet_def_n_proc", "OMP_NUM_THREADS")
    environ = {**os.environ, **dict.fromkeys(threads, "1"), **environ}
    command = [*map(str, words), "-device", "cpu"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout
