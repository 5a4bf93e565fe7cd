"""Tests that need an extra skip without it, and say so; none of their modules needs one."""

import re
import subprocess
import sys
from importlib.metadata import metadata, packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.conftest import packages_of

ROOT = Path(__file__).parents[1]
TOOLS = {"hypothesis", "pytest", "pytest-cov", "pytest-timeout", "pytest-xdist"}
"""What tests run with, whatever they test."""
WITHOUT = """
import sys
from importlib.machinery import PathFinder
import pytest

class Present(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in {blocked}
        return None if absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Present
sys.exit(pytest.main(["--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider"]))
"""


@pytest.mark.ci
@pytest.mark.slow
def test_every_test_module_is_collected_without_any_extra():
    extras = metadata("gansynth").get_all("Provides-Extra", [])
    core = {canonicalize_name(name) for name in packages_of("")}
    absent = {canonicalize_name(name) for extra in extras for name in packages_of(extra)}
    absent -= core | TOOLS
    names = packages_distributions().items()
    blocked = {name for name, of in names if {canonicalize_name(one) for one in of} <= absent}
    assert "tensorboard" in blocked
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(blocked=blocked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert re.search(r"^\d+ tests collected", done.stdout, re.MULTILINE)
