"""Lesions put into real cases, and nnU-Net: it trains on them from one command."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SMALL = ("steps=4", "width=4", "d_width=4", "levels=2", "local_size=8")
GENERATORS = {
    "copypaste": ("copypaste",),
    "lesion": ("cgan3d", "--recipe", "lesion", "--scale", "tiny", *(f"--set={s}" for s in SMALL)),
}
QUICK = ("num_epochs=1", "num_iterations_per_epoch=4", "num_val_iterations_per_epoch=1")


@pytest.mark.parametrize("name", GENERATORS)
def test_nnunet_trains_at_one_to_one(name, toy_copy, tmp_path, run_cli, monkeypatch):
    run, generator = tmp_path / "run", GENERATORS[name]
    fit = ("fit", *generator, *toy_copy.options, "-o", run, "--device", "cpu", "-q")
    done = run_cli(*fit)
    assert done.exit_code == 0, done.stderr
    monkeypatch.setenv("nnUNet_compile", "f")
    command = ["augment", "--target", "nnunet", *toy_copy.options, "--generator", run]
    command += ["--ratio", "1:1", "--bank-size", 8, "--device", "cpu", "--json", "-q"]
    command += [f"--set={setting}" for setting in QUICK]
    done = run_cli(*command, "--", "-device", "cpu")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["drawn_real"] == found["drawn_synthetic"] > 0
    assert found["fell_back"] == 0
    assert 0 <= found["metrics_on_real_cases"]["dice"]["foreground"] <= 1
