"""What the tests of YOLO share: a tiny data set, and a generator fitted on it."""

from pathlib import Path
from typing import Any

import pytest

from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from tests.adapters.deepmedic.conftest import once
from tests.yolo_sets import toy_yolo


@pytest.fixture(scope="session")
def shared_yolo(tmp_path_factory) -> Path:
    """``data.yaml`` of a tiny data set, 64 x 64, one class, that no test may change."""
    return once(tmp_path_factory, "toy_yolo", toy_yolo) / "data.yaml"


@pytest.fixture(scope="session")
def box_run(shared_yolo, tmp_path_factory) -> Path:
    """A tiny ``cpggan``, 32 x 32, fitted on ``shared_yolo`` for two steps. Do not change it."""
    asked = SourceRequest("yolo", str(shared_yolo), read={"size": "32x32"})
    how: dict[str, Any] = {"edits": (), "device": "cpu", "reporter": NullReporter()}
    how["settings"] = {"steps": "2", "batch_size": "2", "sample_every": "2"}
    return once(tmp_path_factory, "box_run", lambda folder: fit("cpggan", asked, folder, **how))
