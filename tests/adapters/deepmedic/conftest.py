"""What the tests of DeepMedic share: a data set, a generator of its crops, a bank of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest, lineage_of
from tests.banks import Pairs, write_bank
from tests.deepmedic_sets import Toy, toy_deepmedic

CROP = (16, 16, 16)
"""Voxels of the samples of ``crop_run`` and ``write_crops``."""


@pytest.fixture(autouse=True)
def no_checkout(request, monkeypatch) -> None:
    """No test depends on what this machine's environment names, but for those of the program."""
    if not request.node.get_closest_marker("deepmedic"):
        monkeypatch.delenv("GANSYNTH_DEEPMEDIC", raising=False)
        monkeypatch.delenv("GANSYNTH_DEEPMEDIC_PYTHON", raising=False)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is made once, whichever process is first."""
    base = factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            make(folder)
    return folder


@pytest.fixture(scope="session")
def shared_deepmedic(tmp_path_factory) -> Toy:
    """A tiny data set of four training and two validation cases that no test may change."""
    return Toy(once(tmp_path_factory, "toy_deepmedic", toy_deepmedic))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    """Small volumes, three cases to train on and two to validate on, that no test may change."""
    return toy_deepmedic(tmp_path_factory.mktemp("sets") / "toy", train=3, shape=(14, 12, 10))


@pytest.fixture
def mine(toy, tmp_path) -> Any:
    """The same, that a test may change."""
    return toy.copied(tmp_path / "mine")


@pytest.fixture(scope="session")
def crop_run(shared_deepmedic, tmp_path_factory) -> Path:
    """A tiny ``cgan3d``, fitted on ``shared_deepmedic`` for two steps. Do not change it."""
    from gansynth.fitting.fit import fit
    from gansynth.runtime.progress import NullReporter

    small = {"steps": 2, "batch_size": 1, "width": 4, "d_width": 4, "levels": 2}
    how: dict[str, Any] = {"edits": None, "device": "cpu", "reporter": NullReporter()}
    how["settings"] = {key: str(value) for key, value in small.items()}
    asked = SourceRequest("deepmedic", str(shared_deepmedic.train), read={"size": str(CROP[0])})
    return once(tmp_path_factory, "crop_run", lambda folder: fit("cgan3d", asked, folder, **how))


def write_crops(
    folder: Path, data: Toy, count: int = 6, size: Any = CROP, *, bare: int = 0, **provenance: Any
) -> Path:
    """Sample i is 1 + i / 4 all over, of label 1, in the middle of training case i, in turn.

    The first ``bare`` ones are of label 0.
    """
    source, pairs = data.source(), Pairs()
    for number in range(count):
        case = source.train_ids[number % len(source.train_ids)]
        shape = source.header(case).shape
        corner = [(n - length) // 2 for n, length in zip(shape, size, strict=True)]
        place = {"corner": corner, "slice_index": None}
        told = {"case": case, "shape": list(shape), "placement": place, **provenance}
        image = np.full((len(source.schema.channels), *size), 1 + number / 4, np.float32)
        image[:, 0, 0, 0] = 0  # for a constant would mean a generator that has collapsed
        pairs.append((Sample(image, np.full(size, number >= bare, np.int16), None, told), {}))
    return write_bank(folder, source.schema, lineage_of(source), pairs)
