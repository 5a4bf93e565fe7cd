"""The main job as a user types it: fit, sample, augment a real nnU-Net on the fly, in 3D and 2D."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.registry import installed
from gansynth.sampling.run_source import open_source
from gansynth.testing import check_adapter, check_generator

QUICK = ("num_epochs=1", "num_iterations_per_epoch=3", "num_val_iterations_per_epoch=1")


def type_in(*words: object, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as from a shell."""
    command = [str(Path(sys.executable).with_name("gansynth")), *map(str, words)]
    environ = {**os.environ, "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environ, check=False
    )


def augment(toy, run: Path, *more: str) -> tuple[object, ...]:
    settings = [f"--set={s}" for s in QUICK]
    return (
        *("augment", "--target", "nnunet", *toy.options, *more, "--generator", run),
        *("--ratio", "1:1", "--bank-size", "8", *settings, "--json", "--", "-device", "cpu"),
    )


@pytest.mark.slow
def test_an_unmodified_nnunet_trains_with_samples_drawn_on_the_fly(
    toy_copy, fitted, run_cli, monkeypatch
):
    for name in ("nnUNet_n_proc_DA", "nnUNet_def_n_proc"):
        monkeypatch.setenv(name, "1")
    done = run_cli(*augment(toy_copy, fitted))
    assert done.exit_code == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)
    assert document["realised_synthetic_share"] == 0.5
    assert document["fell_back"] == 0
    # nnU-Net's own validation, on the fold's held-out cases and on nothing else.
    predicted = {f.name for f in Path(document["folder"], "validation").glob("*.nii.gz")}
    source = open_source(toy_copy.request())
    assert predicted == {f"{case}.nii.gz" for case in source.held_out_ids}
    assert 0 <= document["metrics_on_real_cases"]["dice"]["foreground"] <= 1


@pytest.mark.slow
def test_the_same_in_2d(toy_copy, tmp_path):
    two = ("-c", "2d")
    small = [f"--set={s}" for s in ("steps=2", "width=4", "d_width=4", "levels=2")]
    fit = type_in("fit", "cgan3d", *toy_copy.options, *two, "-o", tmp_path / "run", *small)
    assert fit.returncode == 0, fit.stderr
    done = type_in(*augment(toy_copy, tmp_path / "run", *two))
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)
    assert document["realised_synthetic_share"] == pytest.approx(0.5, abs=0.02)


SMALL = {
    "dcgan": {"width": 8, "max_width": 32},
    "cpggan": {"width": 4, "max_width": 16, "stage_images": 48, "fade_images": 48},
}
"""Options of generators whose own defaults are for a GPU."""


ELSEWHERE = {"cgan3d", "dcgan"}
"""Generators whose own tests check it, too, quickly."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ELSEWHERE else [])
        for name in installed().names("generators")
    ],
)
def test_every_registered_generator_keeps_its_contract(name):
    check_generator(installed().generator(name), options=SMALL.get(name)).raise_if_failed()


def test_the_nnunet_adapter_keeps_its_contract(toy_nnunet, tmp_path):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    source: Any = open_source(toy_nnunet.request())
    adapter = installed().adapter("nnunet")(source)

    def dataset():
        return nnUNetDatasetBlosc2(str(source.folder), list(source.train_ids))

    def draw(data, slot):
        image, labels, _, _ = data.load_case(data.identifiers[slot % len(data.identifiers)])
        return image[:], labels[:]

    check_adapter(adapter, workspace=tmp_path, dataset=dataset, draw=draw).raise_if_failed()
