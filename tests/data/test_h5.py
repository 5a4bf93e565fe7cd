# mypy: disallow-untyped-calls=False

import json
import multiprocessing
import pickle
import resource
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch

from gansynth.core.generator import Stage
from gansynth.core.schema import Boxes, Case
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.data.case_writer import write_prediction
from gansynth.data.h5 import H5Source, check_h5, write_h5
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.sampling.run_source import open_source
from gansynth.testing import ToySource
from tests.data import sets

SPACES = {
    "crop": Space("crop", (8, 10, 8)),
    "padded": Space("crop", (24, 8, 20)),
    "slice": Space("slice", (8, 20)),
    "native": Space(),
}
TOY = ToySource(3)


class Changed(ToySource):
    """Toy cases with other entries."""

    entries: ClassVar[dict[str, Any]] = {}

    def load(self, case_id: str) -> Case:
        case: Any = super().load(case_id)
        made = {k: v(case) if callable(v) else v for k, v in self.entries.items()}
        changed: Case = replace(case, **made)
        return changed


def changed(ndim: int = 2, **entries: Any) -> ToySource:
    """``image=lambda case: ...``"""
    made: ToySource = type("Changed", (Changed,), {"entries": entries})(ndim)
    return made


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


def test_half_precision_keeps_the_original_hashes(tmp_path):
    source, toy = written(ToySource(2), tmp_path, dtype="float16"), ToySource(2)
    read = source.load("toy_00")
    assert read.image.dtype == np.float32
    np.testing.assert_array_equal(read.image, toy.load("toy_00").image.astype(np.float16))
    assert lineage_of(source) == lineage_of(toy)
    assert not findings(tmp_path / "toy.h5")


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_compressed_cases_come_back_to_the_bit(tmp_path, compression):
    source, toy = written(ToySource(2), tmp_path, compression=compression), ToySource(2)
    assert all(same(source.load(case), toy.load(case)) for case in toy.train_ids)


def test_boxes_and_unlabelled_cases_are_kept(tmp_path):
    coords = np.array([[2, 2, 2, 9, 9, 9], [0, 0, 0, 2, 2, 2]], np.float32)
    boxes = Boxes(coords, np.array([1, 2], np.int16))
    source = written(changed(3, labels=None, boxes=boxes), tmp_path)
    case = source.load("toy_00")
    assert (case.labels, source.outline("toy_00").planes) == (None, None)
    np.testing.assert_array_equal(case.boxes.coords[0], coords[0])
    part = source.load_part("toy_00", [slice(4, 8)] * 3)
    np.testing.assert_array_equal(part.boxes.coords, [[0, 0, 0, 4, 4, 4]])
    assert part.boxes.labels.tolist() == [1]


@pytest.mark.fault(7)
def test_cases_without_foreground_are_kept(tmp_path):
    empty = changed(labels=lambda case: np.minimum(case.labels, 0))
    source = written(empty, tmp_path)
    assert same(source.load("toy_00"), empty.load("toy_00"))
    assert source.outline("toy_00").foreground_voxel(np.random.default_rng(0)) is None
    assert not findings(tmp_path / "toy.h5")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fold": "1"}, "the cache holds fold 0, expected --fold 0"),
        ({"plans": "others"}, "--plans others: the cache was made with None"),
        ({"subjects": "(.)"}, "--subjects"),
    ],
)
def test_h5_refuses_options_that_need_another_cache(cached, changes, says):
    with pytest.raises(UsageFault, match=says):
        opened(cached, **changes)


@pytest.mark.parametrize("name", SPACES)
def test_patches_are_those_of_whole_cases(cached, name):
    whole: Any = CaseBatches(CaseCache(TOY), SPACES[name])
    parts: Any = CaseBatches(CaseCache(opened(cached), max_bytes=1), SPACES[name])
    for step in range(12):
        one, two = (side(step, Stage(), range(3)) for side in (whole, parts))
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.labels, two.labels)
        assert (one.padding is None) == (two.padding is None)
        assert one.padding is None or torch.equal(one.padding, two.padding)


def test_only_sources_that_do_not_fit_into_memory_are_read_in_patches(cached, monkeypatch):
    source = opened(cached)
    with monkeypatch.context() as patch:
        patch.setattr(type(source), "load", None)
        cache = CaseCache(source, max_bytes=source.train_bytes() - 1)
        shape = CaseBatches(cache, SPACES["crop"])(0, Stage(), range(2)).image.shape
        assert shape[2:] == (8, 10, 8)
    read: Any = []
    monkeypatch.setattr(type(source), "load_part", None)
    monkeypatch.setattr(source, "load", lambda case: read.append(case) or TOY.load(case))
    batches = CaseBatches(CaseCache(source, source.train_bytes()), SPACES["crop"])
    for step in range(20):
        batches(step, Stage(), range(2))
    assert len(read) == len(set(read)) > 1


class Patches(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, path: Path) -> None:
        self.batches = CaseBatches(CaseCache(opened(path), max_bytes=1), SPACES["crop"])

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.batches(index, Stage(), range(1)).image[0]
        return image


@pytest.mark.fault(35)
def test_forked_workers_give_the_same_batches_as_none_and_so_does_a_copy(cached):
    data = Patches(cached)
    alone = list(torch.utils.data.DataLoader(data, 2))  # leaves the file open over the fork
    shared = torch.utils.data.DataLoader(data, 2, num_workers=2, multiprocessing_context="fork")
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert torch.equal(pickle.loads(pickle.dumps(data))[5], data[5])


@pytest.mark.fault(35)
def test_threads_read_the_same(cached):
    source, wrong = opened(cached), []

    def read(first: int) -> None:
        for n in range(40):
            case = source.train_ids[(first + n) % 12]
            if not same(source.load(case), TOY.load(case)):
                wrong.append(case)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def damaged(path: Path, folder: Path, offset: int) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 4
    (folder / "bad.h5").write_bytes(raw)
    return folder / "bad.h5"


def first_chunk(path: Path, name: str) -> int:
    with h5py.File(path) as file:
        return int(file[name].id.get_chunk_info(0).byte_offset)


@pytest.mark.fault(3)
@pytest.mark.parametrize("name", ["image", "labels"])
def test_a_flipped_bit_is_found_and_named(cached, tmp_path, name):
    offset = first_chunk(cached, f"cases/000003/{name}") + 40
    source = opened(damaged(cached, tmp_path, offset))
    assert same(source.load("toy_02"), TOY.load("toy_02"))
    with pytest.raises(DataFault, match=r"bad\.h5: case 'toy_03': damaged"):
        source.load("toy_03")


def test_check_finds_every_damaged_case_in_one_pass(cached, tmp_path):
    bad = damaged(cached, tmp_path, first_chunk(cached, "cases/000003/image") + 40)
    bad = damaged(bad, tmp_path, first_chunk(cached, "cases/000007/planes") + 3)
    assert [finding.case for finding in findings(bad)] == ["toy_03", "toy_07"]


@pytest.mark.fault(3)
def test_a_flipped_bit_anywhere_never_gives_other_data(cached, tmp_path):
    size, rng, clean = cached.stat().st_size, np.random.default_rng(0), 0
    for _ in range(12):
        bad = damaged(cached, tmp_path, int(rng.integers(size)))
        try:  # compares the hash of every case that still reads
            clean += not findings(bad)
        except DataFault:
            continue
    assert clean < 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "not an HDF5 file"),
        (b"", "not an HDF5 file"),
        (None, "no such file"),
        ({}, "without the attribute 'gansynth cache'"),
        ({"gansynth cache": 2}, r"'gansynth cache' is 2, expected 1"),
    ],
)
def test_other_files_are_no_caches(tmp_path, content, says):
    path = tmp_path / "other.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        with h5py.File(path, "w") as file:
            file.attrs.update(content)
    with pytest.raises(DataFault, match=says):
        opened(path)


@pytest.fixture
def copy(cached, tmp_path) -> Path:
    path: Path = tmp_path / "changed.h5"
    path.write_bytes(cached.read_bytes())
    return path


def test_a_changed_index_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        doc = json.loads(file["index"][()].tobytes())
        doc["held_out"] = []
        del file["index"]
        file["index"] = np.frombuffer(json.dumps(doc).encode(), np.uint8)
    with pytest.raises(DataFault, match="its index is not the one that was written"):
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
    with pytest.raises(DataFault, match=r"case 'toy_00': damaged .*not (in the file|an array)"):
        opened(copy).load("toy_00")


def in_a_child(work: Callable[..., None], *words: Any) -> int | None:
    """Its exit code; the child is forked."""
    child = multiprocessing.get_context("fork").Process(target=work, args=words)
    child.start()
    child.join()
    return child.exitcode


def write_on_full_disks(folder: Path, limits: Sequence[int]) -> None:
    hard, told = resource.getrlimit(resource.RLIMIT_FSIZE)[1], []
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            write_h5(TOY, folder / "toy.h5")
        except EnvironmentFault as fault:
            told.append([limit, str(fault).count("bytes needed"), len(list(folder.iterdir()))])
    (folder / "told.json").write_text(json.dumps(told))


@pytest.mark.fault(31)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    limits = [100, 500_000, 1_100_000, 1_200_000, 1_600_000]  # before, and amid the cases
    assert in_a_child(write_on_full_disks, tmp_path, limits) == 0  # HDF5 would crash at exit
    assert json.loads((tmp_path / "told.json").read_text()) == [[limit, 1, 0] for limit in limits]


def write_and_die(path: Path) -> None:
    def die(done: int, total: int) -> None:
        if done > 2:
            signal.raise_signal(signal.SIGKILL)

    write_h5(TOY, path, progress=die)


@pytest.mark.fault(29)
def test_the_next_cache_removes_what_a_killed_one_left(tmp_path):
    assert in_a_child(write_and_die, tmp_path / "toy.h5") == -signal.SIGKILL
    assert [path.name[:11] for path in tmp_path.iterdir()] == [".toy.h5.tmp"]
    written(ToySource(3), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.h5"]


def broken(case: Case) -> Any:
    if case.id == "toy_05":
        raise DataFault("toy_05 is broken")
    return case.image


@pytest.mark.parametrize(
    ("image", "options", "says"),
    [
        (broken, {}, "toy_05 is broken"),
        (lambda case: np.full_like(case.image, np.nan), {}, r"toy_00.*NaN"),
        (lambda case: case.image * np.float32(1e6), {"dtype": "float16"},
         r"float16 cannot hold.*--dtype float32"),
    ],
)  # fmt: skip
def test_a_case_that_cannot_be_read_or_held_leaves_nothing(tmp_path, image, options, says):
    with pytest.raises(DataFault, match=says):
        written(changed(image=image), tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_only_one_case_is_in_memory(tmp_path):
    alive: set[int] = set()
    most = []

    def watched(case: Case) -> Any:
        image = case.image.copy()
        alive.add(id(image))
        most.append(len(alive))
        weakref.finalize(image, alive.discard, id(image))
        return image

    written(changed(3, image=watched), tmp_path)
    assert max(most) <= 2  # one, while the next is made


def test_label_maps_of_a_cache_are_written_as_the_original_files_lie(tmp_path):
    source: Any = open_source(sets.pairs(tmp_path / "set"))
    case = source.train_ids[0]
    labels = source.load(case).labels
    both = {"own": source, "cached": written(source, tmp_path)}
    for name, each in both.items():
        write_prediction(each, case, labels, tmp_path / name)
    own, cached = (tmp_path / name / f"{case}.nii.gz" for name in both)
    assert own.read_bytes() == cached.read_bytes()
