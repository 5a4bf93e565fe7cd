import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def fitted(toy_fit, tmp_path_factory) -> Path:
    """A run that no test writes to."""
    folder: Path = tmp_path_factory.mktemp("filters") / "run"
    toy_fit(folder, steps=1, edits=())
    return folder


@pytest.fixture
def run(fitted, tmp_path) -> Path:
    """A copy of the run, in which nothing has been learnt."""
    return Path(shutil.copytree(fitted, tmp_path / "run", ignore=shutil.ignore_patterns("filters")))
