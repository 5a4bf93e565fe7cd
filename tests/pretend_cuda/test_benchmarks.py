"""The measurements for a GPU, rehearsed."""

import os
import subprocess
import sys

import pytest

from tests.pretend_cuda.environment import ROOT

pytestmark = pytest.mark.pretend_cuda


def test_a_part_is_measured_once_and_has_a_table(tmp_path):
    script = ROOT / "benchmarks" / "gpu" / "run.sh"
    words = ["bash", str(script), str(tmp_path), "--tiny", "--only", "volume"]
    env = {**os.environ, "PYTHON": sys.executable}
    first, again = (
        subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert "volume: failed" not in first
    assert ("volume: " in first, "volume: " in again) == (True, False)
    assert "A rehearsal" in again
    assert "| 32^3 | tiles, bf16 |" in again
