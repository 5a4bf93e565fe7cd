"""A run of resized pictures is used on a machine that it was not fitted on, as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.test_identity import MACHINES
from tests.flat_sets import pictures

READ = ("--data", "pictures:ill", "--subjects", r"(p\d)_", "--read", "resize=24x32")
SMALL = ("--set", "steps=4", "--set", "width=4", "--set", "levels=2", "--bank-size", "4")


def test_a_training_on_an_older_machine_takes_samples_until_a_mask_has_changed(
    tmp_path, monkeypatch, succeed, run_cli
):
    pictures(tmp_path / "ill")
    monkeypatch.chdir(tmp_path)
    succeed("fit", "copypaste", *READ, "-o", "g")
    asked = (*READ, "--target", "segmenter", "--generator", "g", "--ratio", "1:1", *SMALL)
    line = [sys.executable, "-m", "gansynth_cli", "augment", *asked, "-o", "trained"]
    trained = subprocess.run(
        line, env={**os.environ, **MACHINES[0]}, capture_output=True, text=True
    )
    assert trained.returncode == 0, trained.stderr
    assert "50.0%, asked for 50.0%" in trained.stdout + trained.stderr
    for path in Path("ill/masks").iterdir():
        mask = np.array(Image.open(path))
        mask[9, 10] = 255 - mask[9, 10]
        Image.fromarray(mask).save(path)
    refused = run_cli("sample", "g", "-n", "1", "-o", "drawn")
    assert refused.exit_code == 6
    assert "[sampling.case-content-changed]" in refused.stderr
