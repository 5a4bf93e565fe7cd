"""Banks of samples that can be told apart, made without a generator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.schema import Boxes, FloatArray, Sample, Schema
from gansynth.sampling.deidentify import REPEATED
from tests.banks import Pairs, write_bank

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
