"""What the tests of YOLO share: tiny data sets."""

from pathlib import Path

import filelock
import pytest

from tests.yolo_sets import toy_yolo


@pytest.fixture(scope="session")
def shared_yolo(tmp_path_factory) -> Path:
    """``data.yaml`` of a tiny data set, 64 x 64, one class, that no test may change."""
    folder: Path = tmp_path_factory.getbasetemp() / "toy_yolo"
    with filelock.FileLock(folder.with_suffix(".lock")):
        return folder / "data.yaml" if folder.exists() else toy_yolo(folder)


@pytest.fixture
def yolo_copy(tmp_path) -> Path:
    """``data.yaml`` of the same data set in a folder that a test may change."""
    return toy_yolo(tmp_path / "set")


@pytest.fixture(scope="session")
def box_run(shared_yolo, tmp_path_factory) -> Path:
    """A tiny ``cpggan``, 32 x 32, fitted on ``shared_yolo`` for two steps. Do not change it."""
    from gansynth.core.source import SourceRequest
    from gansynth.fitting.fit import fit
    from gansynth.runtime.progress import NullReporter

    folder: Path = tmp_path_factory.getbasetemp() / "box_run"
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            fit(
                "cpggan",
                SourceRequest("yolo", str(shared_yolo), read={"size": "32x32"}),
                folder,
                edits=(),
                settings={"steps": "2", "batch_size": "2", "sample_every": "2"},
                device="cpu",
                reporter=NullReporter(),
            )
    return folder
