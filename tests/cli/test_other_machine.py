"""A run of resized pictures is used on a machine that it was not fitted on, as a user types it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.test_identity import MACHINES
from tests.flat_sets import pictures

OLD, NEW = MACHINES
READ = ("--data", "pictures:ill", "--subjects", r"(p\d)_", "--read", "resize=24x32")


def typed(home: Path, machine: Mapping[str, str], *words: str) -> Any:
    """Type a command of gansynth on a machine."""
    line = [sys.executable, "-m", "gansynth_cli", *words]
    environ = {**os.environ, **machine}
    return subprocess.run(line, cwd=home, env=environ, capture_output=True, text=True)


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder with pictures ``ill``, and a run ``g`` that was fitted on the newer machine."""
    pictures(tmp_path / "ill")
    fitted = typed(tmp_path, NEW, "fit", "copypaste", *READ, "-o", "g")
    assert fitted.returncode == 0, fitted.stderr
    return Path(tmp_path)


def test_a_training_on_another_machine_takes_samples_until_a_mask_has_changed(home):
    asked = ("--target", "segmenter", "--generator", "g", "--ratio", "1:1", "--bank-size", "4")
    small = ("--set", "steps=4", "--set", "width=4", "--set", "levels=2")
    trained = typed(home, OLD, "augment", *READ, *asked, *small, "-o", "trained")
    assert trained.returncode == 0, trained.stderr
    assert "50.0%, asked for 50.0%" in trained.stdout + trained.stderr
    for path in (home / "ill/masks").iterdir():
        mask = np.array(Image.open(path))
        mask[9, 10] = 255 - mask[9, 10]
        Image.fromarray(mask).save(path)
    for machine in MACHINES:
        refused = typed(home, machine, "sample", "g", "-n", "1", "-o", "drawn")
        assert refused.returncode == 6
        assert "[sampling.case-content-changed]" in refused.stderr
