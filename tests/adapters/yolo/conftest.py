"""What the tests of YOLO share: a tiny data set, a generator fitted on it, banks without one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.schema import Boxes, FloatArray, Sample, Schema
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.deidentify import REPEATED
from tests.adapters.deepmedic.conftest import once
from tests.banks import Pairs, write_bank
from tests.yolo_sets import toy_yolo


@pytest.fixture(scope="session")
def shared_yolo(tmp_path_factory) -> Path:
    """``data.yaml`` of a tiny data set, 64 x 64, one class, that no test may change."""
    return once(tmp_path_factory, "toy_yolo", toy_yolo) / "data.yaml"


@pytest.fixture(scope="session")
def box_run(shared_yolo, tmp_path_factory) -> Path:
    """A tiny ``cpggan``, 32 x 32, grown on ``shared_yolo`` in three steps. Do not change it."""
    asked = SourceRequest("yolo", str(shared_yolo), read={"size": "32x32"})
    how: dict[str, Any] = {"edits": (), "device": "cpu", "reporter": NullReporter()}
    how["settings"] = {"steps": "3", "batch_size": "2", "sample_every": "2"}
    how["settings"] |= {"stage_images": "1", "fade_images": "0"}
    return once(tmp_path_factory, "box_run", lambda folder: fit("cpggan", asked, folder, **how))


SEEN = Lineage("toy:3", "0", (CaseRecord("case_1", "person_1", "1" * 64),))
GREY = Schema(("grey",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("lesion",))


def fill_bank(
    folder: Path,
    drawn: Sequence[tuple[FloatArray, FloatArray]],
    *,
    schema: Schema = GREY,
    seen: Lineage = SEEN,
    **more: Any,
) -> Path:
    """Write a bank of images and their boxes, all of class 0; ``more`` is of ``BankSpec``."""
    pairs: Pairs = []
    for image, coords in drawn:
        boxes = Boxes(coords, np.zeros(len(coords), np.int16))
        pairs.append((Sample(image, None, boxes, {"case": seen.cases[0].id, REPEATED: 0.0}), {}))
    return write_bank(folder, schema, seen, pairs, real=(), **more)
