"""What the tests of YOLO share: a tiny data set, and a generator fitted on it."""

import os
from pathlib import Path

import filelock
import pytest

from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from tests.yolo_sets import toy_yolo


@pytest.fixture(scope="session")
def shared_yolo(tmp_path_factory) -> Path:
    """``data.yaml`` of a tiny data set, 64 x 64, one class, that no test may change."""
    base = tmp_path_factory.getbasetemp()
    folder = Path(base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "toy_yolo"
    with filelock.FileLock(folder.with_suffix(".lock")):
        return folder / "data.yaml" if folder.exists() else toy_yolo(folder)


@pytest.fixture
def yolo_copy(tmp_path) -> Path:
    """``data.yaml`` of the same data set in a folder that a test may change."""
    return toy_yolo(tmp_path / "set")


@pytest.fixture(scope="session")
def box_run(shared_yolo) -> Path:
    """A tiny ``cpggan``, 32 x 32, fitted on ``shared_yolo`` for two steps. Do not change it."""
    folder: Path = shared_yolo.parent.with_name("box_run")
    asked = SourceRequest("yolo", str(shared_yolo), read={"size": "32x32"})
    settings = {"steps": "2", "batch_size": "2", "sample_every": "2"}
    quiet = {"edits": (), "device": "cpu", "reporter": NullReporter()}
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            fit("cpggan", asked, folder, settings=settings, **quiet)  # type: ignore[arg-type]
    return folder
