"""What the tests of DeepMedic share: a data set, a generator of its crops, a bank of them."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from gansynth.core.source import SourceRequest
from tests.deepmedic_sets import Toy, toy_deepmedic

CROP = (16, 16, 16)
"""Voxels of the samples of ``crop_run`` and ``crop_bank``."""


@pytest.fixture(autouse=True)
def no_checkout(request, monkeypatch) -> None:
    """No test depends on what this machine's environment names, but for those of the program."""
    if request.node.get_closest_marker("deepmedic"):
        return
    for name in ("GANSYNTH_DEEPMEDIC", "GANSYNTH_DEEPMEDIC_PYTHON"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shared_deepmedic(tmp_path_factory) -> Toy:
    """A tiny data set of four training and two validation cases that no test may change."""
    folder: Path = tmp_path_factory.getbasetemp() / "toy_deepmedic"
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            toy_deepmedic(folder)
    return Toy(folder, folder / "trainConfig.cfg", folder / "modelConfig.cfg")


@pytest.fixture(scope="session")
def crop_run(shared_deepmedic, tmp_path_factory) -> Path:
    """A tiny ``cgan3d``, fitted on ``shared_deepmedic`` for two steps. Do not change it."""
    from gansynth.fitting.fit import fit
    from gansynth.runtime.progress import NullReporter

    folder: Path = tmp_path_factory.getbasetemp() / "crop_run"
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            small = {"steps": 2, "batch_size": 1, "width": 4, "d_width": 4, "levels": 2}
            fit(
                "cgan3d",
                request_of(shared_deepmedic),
                folder,
                edits=None,
                settings={key: str(value) for key, value in small.items()},
                device="cpu",
                reporter=NullReporter(),
            )
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Any:
    """Data sets for exports, with banks of crops of them; see ``exports.Sets``."""
    from tests.adapters.deepmedic.exports import Sets

    return Sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums come out the same to the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(tmp_path) -> Callable[..., Toy]:
    """Phantoms of a configuration: ``make(numberOfEpochs=2)``."""
    from tests.adapters.deepmedic.engine_orders import small_toy

    return partial(small_toy, tmp_path / "toy")


def request_of(toy: Toy, **more: Any) -> SourceRequest:
    """The data set, its crops as small as a generator of tests draws them."""
    return SourceRequest("deepmedic", str(toy.train), read={"size": str(CROP[0])}, **more)


@pytest.fixture
def changed_run(crop_run, tmp_path) -> Callable[..., Path]:
    """A copy of the run whose manifest is another: ``changed_run(heeds=[])``."""

    def make(**values: Any) -> Path:
        folder = Path(tmp_path / "changed")
        shutil.copytree(crop_run, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))
        return folder

    return make


@pytest.fixture
def crop_bank(shared_deepmedic, tmp_path) -> Callable[..., Path]:
    """Makes a bank without a generator: ``crop_bank(samples=6)``.

    Sample i is 100 + i all over, of label 1; it lies in the middle of training case i (again from
    the first one after the last).
    """
    from gansynth.bank.reader import BankSpec, BankWriter
    from gansynth.core.schema import Sample
    from gansynth_deepmedic.source import open_deepmedic

    source = open_deepmedic(SourceRequest("deepmedic", str(shared_deepmedic.train)))

    def samples(count: int, **provenance: Any) -> Iterator[tuple[Sample, dict[str, Any]]]:
        for number in range(count):
            case = source.train_ids[number % len(source.train_ids)]
            shape = source.shape(case)
            corner = [(n - size) // 2 for n, size in zip(shape, CROP, strict=True)]
            told = {
                "case": case,
                "shape": list(shape),
                "placement": {"corner": corner, "slice_index": None},
            }
            image = np.full((len(source.schema.channels), *CROP), 100 + number, np.float32)
            image[:, 0, 0, 0] = 0  # for a constant would mean a generator that has collapsed
            yield Sample(image, np.ones(CROP, np.int16), None, {**told, **provenance}), {}

    def make(name: str = "bank", count: int = 6, **provenance: Any) -> Path:
        spec = BankSpec(
            *(source.schema, source.lineage(), "toy", "0" * 64),
            frozen=True,
            capacity=max(1, count),
        )
        with BankWriter.create(tmp_path / name, spec) as writer:
            if count:
                writer.publish(list(samples(count, **provenance)))
                writer.finish()
        return Path(tmp_path / name)

    return make
