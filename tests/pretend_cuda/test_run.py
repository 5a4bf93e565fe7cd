"""Starts the tests that need a CUDA device in processes that pretend to have two."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretend_cuda.environment import PRETENDS, ROOT, environment

pytestmark = [
    pytest.mark.skipif(PRETENDS, reason="this is such a process"),
    pytest.mark.timeout(1800),  # for all tests of a part; each has the usual limit there
]
PYTEST = ("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow", "--tb=short")
FILES = {*Path(__file__).parent.glob("test_*.py"), *(ROOT / "tests" / "gpu").glob("test_*.py")}
HOSTS = {
    ROOT / "tests" / "gpu" / f"test_{name}_gpu.py" for name in ("deepmedic", "hosts", "second")
}
PARTS = {"models": FILES - HOSTS, "frameworks": HOSTS}


@pytest.mark.parametrize("part", PARTS)
def test_the_tests_for_a_gpu_pass_on_a_pretend_one(tmp_path, part):
    words = [sys.executable, *PYTEST, f"--basetemp={tmp_path / 'child'}"]
    words += [str(file) for file in sorted(PARTS[part])]
    done = subprocess.run(words, cwd=ROOT, env=environment(2), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
