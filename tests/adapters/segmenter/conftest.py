"""What the tests of segmenters share: banks of toy cases, trainings of a few steps."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schema import Sample
from gansynth.core.source import lineage_of
from gansynth.hosts.contract.record import TrainingResult
from gansynth.hosts.contract.session import Session
from gansynth.runtime.child import torch_threads
from gansynth.testing import ToySource
from tests.banks import Pairs, write_bank

TINY = {"steps": "4", "width": "4", "levels": "2", "device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums come out the same to the last bit."""
    with torch_threads(1):
        yield


def bank_of(source: Any, folder: Path) -> Path:
    """A frozen bank of six of a source's training cases."""
    pairs: Pairs = []
    for case_id in source.train_ids[:6]:
        case = source.load(case_id)
        inside = source.space.to_generator(case)
        back = source.space.to_host(Sample(inside.image, inside.labels), case.image.shape[1:])
        pairs.append((Sample(back.image, back.labels, provenance={"case": case_id}), {}))
    return write_bank(folder, source.schema, lineage_of(source), pairs)


@pytest.fixture
def train(tmp_path) -> Callable[..., TrainingResult]:
    """Trains on toy cases: ``train("out", ratio="1:1", steps="8")``; None leaves a setting out."""

    def run(
        output: str = "out",
        ratio: str = "1:1",
        source: Any = None,
        schedule: Any = None,
        **own: Any,
    ) -> TrainingResult:
        source, bank = source or ToySource(3), tmp_path / "bank"
        asked: dict[str, Any] = {} if schedule is None else {"schedule": schedule}
        if ratio != "1:0":
            asked["bank"] = bank if bank.exists() else bank_of(source, bank)
        given = {**TINY, "output": str(tmp_path / output), **own}
        asked["set"] = {key: value for key, value in given.items() if value is not None}
        request = AugmentRequest(target="segmenter", ratio=ratio, **asked)
        return Session.of(request, source).start()

    return run
