"""Starts the tests that need a CUDA device in processes that pretend to have two."""

import subprocess
import sys

import pytest

from tests.pretend_cuda.environment import PRETENDS, ROOT, environment

pytestmark = pytest.mark.skipif(PRETENDS, reason="this is such a process")
PYTEST = ("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow", "--tb=short")


def test_the_tests_for_a_gpu_pass_on_a_pretend_one(tmp_path):
    words = [sys.executable, *PYTEST, f"--basetemp={tmp_path / 'child'}"]
    words += ["tests/pretend_cuda", "tests/gpu"]
    done = subprocess.run(words, cwd=ROOT, env=environment(2), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
