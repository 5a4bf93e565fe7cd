import json
import pickle
import shutil
import signal
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from gansynth.core.generator import Stage
from gansynth.core.schema import Boxes, Case
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.data.h5 import H5Source, check_h5, write_h5
from gansynth.runtime.errors import DataFault, EnvironmentFault
from gansynth.testing import ToySource
from tests.disks import files_of_at_most
from tests.expected import raises_fault
from tests.processes import forked

SPACES = {
    "crop": Space("crop", (8, 10, 8)),
    "padded": Space("crop", (24, 8, 20)),
    "slice": Space("slice", (8, 20)),
    "native": Space(),
}
TOY = ToySource(3)


class Changed(ToySource):
    """Toy cases with other entries: ``image=lambda case: ...``"""

    def __init__(self, ndim: int = 2, **entries: Any) -> None:
        super().__init__(ndim)
        self.entries = entries

    def load(self, case_id: str) -> Case:
        case: Any = super().load(case_id)
        made = {k: v(case) if callable(v) else v for k, v in self.entries.items()}
        changed: Case = replace(case, **made)
        return changed


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("h5") / "toy.h5"
    write_h5(TOY, path, chunk=8)
    return path


def opened(path: Path, **changes) -> Any:
    return H5Source(SourceRequest("h5", str(path), **changes))


def written(source: ToySource, folder: Path, **options: Any) -> Any:
    write_h5(source, folder / "toy.h5", **options)
    return opened(folder / "toy.h5")


def findings(path: Path) -> list[Any]:
    return list(check_h5(SourceRequest("h5", str(path)), lambda done, total: None).findings)


def same(one: Any, two: Any) -> bool:
    return np.array_equal(one.image, two.image) and np.array_equal(one.labels, two.labels)


def test_half_precision_and_compression_keep_the_original_hashes(tmp_path):
    toy = ToySource(2)
    source = written(toy, tmp_path, dtype="float16", compression="gzip")
    read = source.load("toy_00")
    assert read.image.dtype == np.float32
    np.testing.assert_array_equal(read.image, toy.load("toy_00").image.astype(np.float16))
    assert lineage_of(source) == lineage_of(toy)
    assert not findings(tmp_path / "toy.h5")


def test_boxes_and_unlabelled_cases_are_kept(tmp_path):
    coords = np.array([[2, 2, 2, 9, 9, 9], [0, 0, 0, 2, 2, 2]], np.float32)
    boxes = Boxes(coords, np.array([1, 2], np.int16))
    source = written(Changed(3, labels=None, boxes=boxes), tmp_path)
    assert (source.load("toy_00").labels, source.outline("toy_00").planes) == (None, None)
    np.testing.assert_array_equal(source.load("toy_00").boxes.coords[0], coords[0])
    part = source.load_part("toy_00", [slice(4, 8)] * 3)
    np.testing.assert_array_equal(part.boxes.coords, [[0, 0, 0, 4, 4, 4]])
    assert part.boxes.labels.tolist() == [1]


@pytest.mark.parametrize("changes", [{"plans": "others"}, {"subjects": "(.)"}], ids=str)
def test_h5_refuses_options_that_need_another_cache(cached, changes):
    with raises_fault("h5.option-differs"):
        opened(cached, **changes)


@pytest.mark.parametrize("name", SPACES)
def test_patches_are_those_of_whole_cases(cached, name):
    whole: Any = CaseBatches(CaseCache(TOY), SPACES[name])
    parts: Any = CaseBatches(CaseCache(opened(cached), max_bytes=1), SPACES[name])
    for step in range(4):
        one, two = (side(step, Stage(), range(3)) for side in (whole, parts))
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.labels, two.labels)
        assert (one.padding is None) == (two.padding is None)
        assert one.padding is None or torch.equal(one.padding, two.padding)


@pytest.mark.fault(35)
def test_forks_threads_and_copies_read_the_same(cached):
    source = opened(cached)

    def read(case: str) -> None:
        assert same(source.load(case), TOY.load(case))

    read("toy_00")  # leaves the file open over the fork
    assert forked(lambda n: list(map(read, source.train_ids[n:])), 2) == [0, 0]
    with ThreadPool(4) as threads:
        threads.map(read, source.train_ids * 6)
    assert same(pickle.loads(pickle.dumps(CaseCache(source)))("toy_05"), TOY.load("toy_05"))


def damaged(path: Path, folder: Path, *offsets: int) -> Path:
    raw = bytearray(path.read_bytes())
    for offset in offsets:
        raw[offset] ^= 4
    (folder / "bad.h5").write_bytes(raw)
    return folder / "bad.h5"


@pytest.mark.fault(3)
def test_a_flipped_bit_is_found_and_named_in_each_damaged_case(cached, tmp_path):
    with h5py.File(cached, locking=False) as file:
        names = ("000003/image", "000005/labels", "000007/planes")
        chunks = [file[f"cases/{name}"].id.get_chunk_info(0).byte_offset for name in names]
    bad = damaged(cached, tmp_path, *(chunk + 40 for chunk in chunks))
    source = opened(bad)
    assert same(source.load("toy_02"), TOY.load("toy_02"))
    for case in ("toy_03", "toy_05"):
        with raises_fault("h5.damaged", names=case):
            source.load(case)
    assert [finding.case for finding in findings(bad)] == ["toy_03", "toy_05", "toy_07"]


@pytest.mark.fault(3)
def test_a_flipped_bit_anywhere_never_gives_other_data(cached, tmp_path):
    size, rng, clean = cached.stat().st_size, np.random.default_rng(0), 0
    for _ in range(8):
        bad = damaged(cached, tmp_path, int(rng.integers(size)))
        try:  # compares the hash of every case that still reads
            clean += not findings(bad)
        except DataFault:
            continue
    assert clean < 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"hello", "h5.not-hdf5"),
        (b"", "h5.not-hdf5"),
        (None, "nifti.file-missing"),
        ({}, "h5.not-a-cache"),
        ({"gansynth cache": 2}, "version.format-differs"),
    ],
)
def test_other_files_are_no_caches(tmp_path, content, expected):
    path = tmp_path / "other.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        with h5py.File(path, "w") as file:
            file.attrs.update(content)
    with raises_fault(expected):
        opened(path)


@pytest.fixture
def copy(cached, tmp_path) -> Path:
    return Path(shutil.copy(cached, tmp_path / "changed.h5"))


def test_a_changed_index_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        doc = json.loads(file["index"][()].tobytes())
        doc["held_out"] = []
        del file["index"]
        file["index"] = np.frombuffer(json.dumps(doc).encode(), np.uint8)
    with raises_fault("h5.damaged"):
        opened(copy)


@pytest.mark.fault(19)
@pytest.mark.parametrize("link", ["external", "virtual", "outside"])
def test_nothing_outside_of_the_file_is_read(cached, copy, link):
    name, shape = "cases/000000/image", (2, 16, 16, 16)
    with h5py.File(copy, "r+") as file:
        del file[name]
        if link == "external":
            file[name] = h5py.ExternalLink(str(cached), f"/{name}")
        elif link == "virtual":
            layout = h5py.VirtualLayout(shape, np.float32)
            layout[:] = h5py.VirtualSource(str(cached), name, shape)
            file.create_virtual_dataset(name, layout)
        else:
            parts = [(str(cached), 0, 4 * 2 * 16**3)]
            file.create_dataset(name, shape, np.float32, external=parts)
    with raises_fault("h5.damaged"):
        opened(copy).load("toy_00")


@pytest.mark.fault(31)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    def write() -> None:
        for limit in (100, 500_000, 1_600_000):  # before, and amid the cases
            fault = pytest.raises(EnvironmentFault, match="B needed")
            with files_of_at_most(limit), fault:
                write_h5(TOY, tmp_path / "toy.h5")
            assert list(tmp_path.iterdir()) == []

    assert forked(lambda _: write(), 1) == [0]  # HDF5 would crash at exit


@pytest.mark.fault(29)
def test_the_next_cache_removes_what_a_killed_one_left(tmp_path):
    def die(done: int, total: int) -> None:
        if done > 2:
            signal.raise_signal(signal.SIGKILL)

    path = tmp_path / "toy.h5"
    assert forked(lambda _: write_h5(TOY, path, progress=die), 1) == [-signal.SIGKILL]
    assert [left.name[:11] for left in tmp_path.iterdir()] == [".toy.h5.tmp"]
    write_h5(TOY, path)
    assert list(tmp_path.iterdir()) == [path]


def broken(case: Case) -> Any:
    if case.id == "toy_05":
        raise DataFault("test.fault", "toy_05 is broken")
    return case.image


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (broken, {}, "test.fault"),
        (lambda case: np.full_like(case.image, np.nan), {}, "schema.image-not-finite"),
        (lambda case: case.image * np.float32(1e6), {"dtype": "float16"},
         "h5.value-exceeds-type"),
    ],
)  # fmt: skip
def test_a_case_that_cannot_be_read_or_held_leaves_nothing(tmp_path, image, options, expected):
    with raises_fault(expected):
        written(Changed(image=image), tmp_path, **options)
    assert not list(tmp_path.iterdir())
