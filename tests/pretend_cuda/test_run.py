"""Starts the tests that need a CUDA device in a process that pretends to have two."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretend_cuda.environment import PRETENDS, ROOT, environment

marks = [
    pytest.mark.ci,
    pytest.mark.slow,
    pytest.mark.skipif(PRETENDS, reason="this is such a process"),
    pytest.mark.timeout(1800),  # for all tests of a part; each has the usual limit there
]
pytestmark = marks
PYTEST = ("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow", "--tb=short")
HERE, GPU = Path(__file__).parent, ROOT / "tests" / "gpu"
HOSTS = {GPU / "test_hosts_gpu.py"}


def run(files: set[Path], folder: Path) -> None:
    """Run tests in such a process; fail with its report."""
    words = [sys.executable, *PYTEST, f"--basetemp={folder}", *map(str, sorted(files))]
    done = subprocess.run(words, cwd=ROOT, env=environment(2), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_generators_and_metrics_run_on_a_pretend_device(tmp_path):
    run({*HERE.glob("test_*.py"), *GPU.glob("test_*.py")} - HOSTS, tmp_path / "child")
