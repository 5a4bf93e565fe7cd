"""Samples of a bank beside real cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.reader import BankReader
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, describe_error
from gansynth.runtime.progress import Reporter
from gansynth.sampling.sample_check import check_alike, compare_with_training

STORED = 64  # samples of a bank that are compared with training cases


def check_bank(folder: Path, source: CaseSource, reporter: Reporter) -> dict[str, Any]:
    """Compare samples of a bank with training cases; see ``compare_with_training``."""
    reader = BankReader(folder)
    with describe_error("--real-read", "--read"), describe_error("--real ", ""):
        check_alike(source, reader.spec.schema, str(folder))
    samples, space = read_stored(reader, source, STORED, reporter)
    return compare_with_training(folder, samples, source, space, reader.spec.lineage, reporter)


def read_stored(
    reader: BankReader, source: CaseSource, number: int, reporter: Reporter
) -> tuple[list[Sample], Space]:
    """Read samples, evenly over a bank, and return them with the space of crops like them."""
    ids = reader.ids()
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(number, len(ids))).astype(int))
    samples = []
    with reporter.task(len(chosen), "samples") as bar:
        for index in chosen.tolist():
            held = reader.read(ids[index])
            image = held.image.astype(np.float32)
            samples.append(Sample(image, held.labels, held.boxes, held.provenance))
            bar.advance(1)
    if not samples:
        raise DataFault(f"{reader.folder}: holds no sample, expected some; wait for its producer")
    pad = OUTSIDE if source.schema.has_outside else source.space.pad_label
    return samples, Space("crop", tuple(samples[0].image.shape[1:]), pad_label=pad)
