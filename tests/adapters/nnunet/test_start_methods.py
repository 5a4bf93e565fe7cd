"""nnU-Net's own workers, started in every way there is: each draws samples of its own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gansynth.runtime import torchvision_compat
from gansynth_nnunet.launch import EXT_TRAINER, TRAINER

SCRIPT = """
import multiprocessing, sys
import torch
from nnunetv2.run.run_training import get_trainer_from_args

if __name__ == "__main__":
    method, dataset, plans, name, folder = sys.argv[1:]
    multiprocessing.set_start_method(method)
    trainer = get_trainer_from_args(
        dataset, "3d_fullres", 0, name, plans, device=torch.device("cpu")
    )
    trainer.initialize()
    train, validation = trainer.get_dataloaders()
    for _ in range(30):
        next(train)
    for loader in (train, validation):
        loader._finish()
    trainer.gansynth_session.close()
    print(trainer.output_folder)
"""


def draws_of(file: Path) -> list[str]:
    """Ids of the synthetic samples one process drew, in order."""
    with file.open() as lines:
        return [row[1] for row in csv.reader(lines) if row[0] == "synthetic"]


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        pytest.param("spawn", marks=pytest.mark.slow),
        pytest.param("forkserver", marks=pytest.mark.slow),
    ],
)
def test_workers_draw_distinct_samples(toy_nnunet, frozen_bank, tmp_path, method):
    (tmp_path / "draw.py").write_text(SCRIPT)
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GANSYNTH_")},
        "nnUNet_raw": str(toy_nnunet.raw.parent),
        "nnUNet_preprocessed": str(toy_nnunet.preprocessed.parent),
        "nnUNet_results": str(tmp_path / "results"),
        "nnUNet_extTrainer": str(EXT_TRAINER),
        "nnUNet_n_proc_DA": "2",
        "PYTHONPATH": os.pathsep.join(
            (str(torchvision_compat.CPU_TORCH), os.environ.get("PYTHONPATH", ""))
        ).rstrip(os.pathsep),
        "GANSYNTH_RATIO": "0:1",
        "GANSYNTH_BANK": str(frozen_bank(samples=12)),
    }
    command = [sys.executable, "draw.py", method, toy_nnunet.dataset, toy_nnunet.plans, TRAINER]
    ended = subprocess.run(
        [*command, str(tmp_path)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    folder = Path(ended.stdout.splitlines()[-1])
    orders = [draws_of(file) for file in (folder / "gansynth_draws").rglob("draws-*.csv")]
    assert len(orders) == 2
    shortest = min(map(len, orders))
    assert shortest >= 6
    assert orders[0][:shortest] != orders[1][:shortest]
    assert len({*orders[0], *orders[1]}) > 6
