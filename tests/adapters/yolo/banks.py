"""Banks of samples that can be told apart, made without a generator."""

from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.schema import Boxes, Sample, Schema


def write_bank(
    folder: Path,
    *,
    samples: int = 8,
    size: int = 64,
    channels: tuple[str, ...] = ("grey",),
    depth: bool = False,
    empty: int = 0,
    frozen: bool = True,
) -> Path:
    """Write a bank: sample i is 200 + i of 255 all over, its box is 4, 8, 20, 9 + i (min, max).

    Args:
        folder: of the bank.
        samples: how many, 55 at most.
        size: rows and columns.
        channels: of the images.
        depth: as slices of volumes, (C, 1, H, W) with boxes (N, 6).
        empty: how many of them, the first ones, have no box.
        frozen: or live.
    """
    axes, spacing = ("DHW", (1.0,) * 3) if depth else ("HW", (1.0,) * 2)
    schema = Schema(channels, {"background": 0}, spacing, axes, box_classes=("lesion",))
    lineage = Lineage("toy:3", "0", (CaseRecord("case_1", "person_1", "1" * 64),))
    spec = BankSpec(schema, lineage, "toy", "0" * 64, frozen=frozen, capacity=max(1, samples))
    pairs: list[tuple[Sample, dict[str, Any]]] = []
    for number in range(samples):
        shape = (len(channels), *([1] if depth else []), size, size)
        image = np.full(shape, (200 + number) / 255, np.float32)
        box = [4.0, 8.0, 20.0, 9.0 + number]
        box = [0.0, *box[:2], 1.0, *box[2:]] if depth else box
        count = 0 if number < empty else 1
        boxes = Boxes(np.array([box] * count, np.float32).reshape(-1, len(box)),
                      np.zeros(count, np.int16))  # fmt: skip
        pairs.append((Sample(image, None, boxes, {"case": "case_1"}), {}))
    with BankWriter.create(folder, spec) as writer:
        if pairs:
            writer.publish(pairs)
            if frozen:
                writer.finish()
    return folder
