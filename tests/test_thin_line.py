"""The main job as a user types it: a real nnU-Net, augmented on the fly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gansynth.sampling.run_source import open_source

QUICK = ("num_epochs=1", "num_iterations_per_epoch=3", "num_val_iterations_per_epoch=1")


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
