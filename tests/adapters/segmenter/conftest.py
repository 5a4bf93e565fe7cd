"""What the tests of segmenters share: toy cases, banks of them, trainings of a few steps."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import lineage_of
from gansynth.hosts.record import TrainingResult
from gansynth.runtime.progress import RichReporter
from gansynth.testing import ToySource
from tests.banks import Pairs, write_bank

TINY = {"steps": "4", "width": "4", "levels": "2", "device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come out the same to the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bank_of(tmp_path) -> Callable[..., Path]:
    """Makes a frozen bank of a source's training cases: ``bank_of(source, samples=6)``.

    Sample i is training case i; its image is marked by 100 + i in one voxel.
    """
    from gansynth.core.schema import Sample

    def make(source: Any, name: str = "bank", samples: int = 6, lineage: Any = None) -> Path:
        seen = lineage_of(source) if lineage is None else lineage
        pairs: Pairs = []
        for number, case_id in enumerate(source.train_ids[:samples]):
            case = source.load(case_id)
            inside = source.space.to_generator(case)
            back = source.space.to_host(Sample(inside.image, inside.labels), case.image.shape[1:])
            image = np.array(back.image)
            image[(0,) * image.ndim] = 100 + number
            pairs.append((Sample(image, back.labels, provenance={"case": case_id}), {}))
        return write_bank(tmp_path / name, source.schema, seen, pairs, capacity=samples)

    return make


@pytest.fixture
def train(bank_of, tmp_path) -> Callable[..., TrainingResult]:
    """Trains on toy cases: ``train("out", {"steps": "8"}, ratio="1:1")``."""
    from gansynth_segmenter.host import SegmenterHost

    def run(
        output: str, settings: Mapping[str, str | None] | None = None, **changes: Any
    ) -> TrainingResult:
        source = changes.pop("source", None) or ToySource(3)
        bank, usual = tmp_path / "bank", {"ratio": "1:1", **changes}
        if usual["ratio"] != "1:0":
            usual["bank"] = bank if bank.exists() else bank_of(source)
        given = {**TINY, "output": str(tmp_path / output), **(settings or {})}
        asked = {key: value for key, value in given.items() if value is not None}
        host = SegmenterHost(source)
        host.reporter = RichReporter()
        return host.start(AugmentRequest(target="segmenter", set=asked, **usual))

    return run
