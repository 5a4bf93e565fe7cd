"""Banks of samples that can be told apart, made without a generator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.schema import Boxes, FloatArray, Sample, Schema
from gansynth.sampling.deidentify import REPEATED
from tests import banks

SEEN = Lineage("toy:3", "0", (CaseRecord("case_1", "person_1", "1" * 64),))


def fill_bank(
    folder: Path,
    drawn: Sequence[tuple[FloatArray, FloatArray]],
    *,
    schema: Schema | None = None,
    seen: Lineage = SEEN,
    **more: Any,
) -> Path:
    """Write a bank of images and their boxes, all of class 0; ``more`` is of ``BankSpec``."""
    schema = schema or Schema(("grey",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("x",))
    pairs: banks.Pairs = []
    for image, coords in drawn:
        boxes = Boxes(coords, np.zeros(len(coords), np.int16))
        pairs.append((Sample(image, None, boxes, {"case": seen.cases[0].id, REPEATED: 0.0}), {}))
    return banks.write_bank(folder, schema, seen, pairs, real=(), **more)


def write_bank(
    folder: Path,
    *,
    samples: int = 8,
    channels: tuple[str, ...] = ("grey",),
    depth: bool = False,
    empty: int = 0,
    frozen: bool = True,
) -> Path:
    """Sample i, 64 x 64, is 200 + i of 255 all over; its box is 4, 8, 20, 9 + i (min, max).

    The first ``empty`` ones have none; ``depth``: as slices of volumes, with boxes (N, 6).
    """
    axes, spacing = ("DHW", (1.0,) * 3) if depth else ("HW", (1.0,) * 2)
    schema = Schema(channels, {"background": 0}, spacing, axes, box_classes=("lesion",))
    drawn = []
    for number in range(samples):
        shape = (len(channels), *([1] if depth else []), 64, 64)
        box = [4.0, 8.0, 20.0, 9.0 + number]
        box = [0.0, *box[:2], 1.0, *box[2:]] if depth else box
        boxes = np.array([box] * (number >= empty), np.float32).reshape(-1, len(box))
        drawn.append((np.full(shape, (200 + number) / 255, np.float32), boxes))
    return fill_bank(folder, drawn, schema=schema, frozen=frozen)
