"""The measurements for a GPU, rehearsed."""

import os
import subprocess
import sys

import pytest

from tests.pretend_cuda.environment import ROOT

pytestmark = pytest.mark.pretend_cuda


@pytest.mark.parametrize("part", ["gan_2d_64", "kernels", "volume"])
def test_a_part_is_measured_once_and_has_a_table(tmp_path, part):
    script = ROOT / "benchmarks" / "gpu" / "run.sh"
    words = ["bash", str(script), str(tmp_path), "--tiny", "--only", part]
    env = {**os.environ, "PYTHON": sys.executable}
    first, again = (
        subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert (f"{part}: " in first, f"{part}: " in again) == (True, False)
    assert "failed" not in first
    assert "A rehearsal" in again
    assert "| cgan3d" in again or "| tiles, bf16 |" in again
    assert "Error" not in again
