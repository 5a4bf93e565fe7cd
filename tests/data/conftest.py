"""Pairs of files that tests read and spoil."""

import shutil
from pathlib import Path

import pytest

from tests.data import sets


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """images/CASE_0000.nii.gz, CASE_0001.nii.gz and labels/CASE.nii.gz. Do not change it."""
    folder: Path = tmp_path_factory.mktemp("pairs") / "set"
    for case in sets.SIDES:
        sets.save_pair(folder, case, *sets.pair(case))
    return folder


@pytest.fixture
def pairs(shared: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(shared, tmp_path / "set"))
