"""``h5:``: to every guard the source it was made from; patches without the rest; damage found."""
# mypy: disallow-untyped-calls=False

import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from gansynth.core.foreground import LabelOutline, PlaneOutline, Planes
from gansynth.core.generator import Stage
from gansynth.core.lineage import guard_host
from gansynth.core.schema import Boxes, Case
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.data.h5 import H5Source, check_h5
from gansynth.data.h5_write import chunk_shape, write_h5
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.testing import ToySource

SPACES = {
    "crop": Space("crop", (8, 10, 8)),
    "padded": Space("crop", (24, 8, 20)),
    "slice": Space("slice", (8, 20)),
    "native": Space(),
}


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("h5") / "toy.h5"
    write_h5(ToySource(3), path, chunk=8)
    return path


def opened(path: Path, **changes) -> Any:
    return H5Source(SourceRequest("h5", str(path), **changes))


def silent(done: int, total: int) -> None:
    pass


def same(one: Any, two: Any) -> bool:
    return np.array_equal(one.image, two.image) and np.array_equal(one.labels, two.labels)


# -- it is the source ------------------------------------------------------------------------------


def test_a_cache_is_the_source_it_was_made_from(cached):
    source, toy = opened(cached), ToySource(3)
    assert (source.name, source.fold, source.schema) == (toy.name, toy.fold, toy.schema)
    assert (source.train_ids, source.held_out_ids) == (toy.train_ids, toy.held_out_ids)
    assert source.space == toy.space
    guard_host(source.host, toy.host)


def test_cases_come_back_to_the_bit(cached):
    source, toy = opened(cached), ToySource(3)
    for case in (*toy.train_ids, *toy.held_out_ids):
        assert same(source.load(case), toy.load(case))
        assert source.shape(case) == toy.shape(case)


def test_lineage_is_that_of_the_original_and_reads_no_case(cached, monkeypatch):
    source = opened(cached)
    monkeypatch.setattr(type(source), "load", None)
    assert source.lineage() == ToySource(3).lineage()
    assert source.records(source.held_out_ids) == ToySource(3).records(source.held_out_ids)
    known = [record.sha256 for record in source.records(source.held_out_ids)]
    assert list(map(source.content, source.held_out_ids)) == known


def test_half_precision_keeps_the_original_hashes(tmp_path):
    write_h5(ToySource(2), tmp_path / "half.h5", dtype="float16")
    source, toy = opened(tmp_path / "half.h5"), ToySource(2)
    case = toy.train_ids[0]
    read = source.load(case)
    assert read.image.dtype == np.float32
    np.testing.assert_array_equal(read.image, toy.load(case).image.astype(np.float16))
    assert source.lineage() == toy.lineage()
    assert not check_h5(source.request, silent).findings


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    class Bright(ToySource):
        def load(self, case_id: str) -> Case:
            case = super().load(case_id)
            return replace(case, image=case.image * np.float32(1e6))

    with pytest.raises(DataFault, match=r"float16 cannot hold.*--dtype float32"):
        write_h5(Bright(2), tmp_path / "half.h5", dtype="float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_compressed_cases_come_back_to_the_bit(tmp_path, compression):
    write_h5(ToySource(2), tmp_path / "toy.h5", compression=compression)
    source, toy = opened(tmp_path / "toy.h5"), ToySource(2)
    assert all(same(source.load(case), toy.load(case)) for case in toy.train_ids)


def test_boxes_and_unlabelled_cases_are_kept(tmp_path):
    class Boxed(ToySource):
        def load(self, case_id: str) -> Case:
            coords = np.array([[2, 2, 2, 9, 9, 9], [0, 0, 0, 2, 2, 2]], np.float32)
            boxes = Boxes(coords, np.array([1, 2], np.int16))
            return replace(super().load(case_id), labels=None, boxes=boxes)

    write_h5(Boxed(3), tmp_path / "toy.h5")
    source = opened(tmp_path / "toy.h5")
    case = source.load("toy_00")
    assert case.labels is None
    assert not source.outline("toy_00").labelled
    np.testing.assert_array_equal(case.boxes.coords[0], [2, 2, 2, 9, 9, 9])
    part = source.load_part("toy_00", [slice(4, 8)] * 3)
    np.testing.assert_array_equal(part.boxes.coords, [[0, 0, 0, 4, 4, 4]])
    assert part.boxes.labels.tolist() == [1]


def test_cases_without_foreground_are_kept(tmp_path):
    class Empty(ToySource):
        def load(self, case_id: str) -> Case:
            case = super().load(case_id)
            assert case.labels is not None
            return replace(case, labels=np.minimum(case.labels, 0))

    write_h5(Empty(2), tmp_path / "toy.h5")
    source, rng = opened(tmp_path / "toy.h5"), np.random.default_rng(0)
    assert same(source.load("toy_00"), Empty(2).load("toy_00"))
    assert source.outline("toy_00").foreground_voxel(rng) is None
    assert not check_h5(source.request, silent).findings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fold": "1"}, "the cache holds fold 0, expected --fold 0"),
        ({"plans": "others"}, "--plans others: the cache was made with None"),
        ({"subjects": "(.)"}, "--subjects"),
    ],
)
def test_what_another_cache_would_have_to_hold_is_refused(cached, changes, says):
    with pytest.raises(UsageFault, match=says):
        opened(cached, **changes)


# -- patches ---------------------------------------------------------------------------------------


def whole_and_parts(path: Path, space: Space, **options) -> tuple[Any, Any]:
    parts = CaseCache(opened(path), max_bytes=1)
    return CaseBatches(CaseCache(ToySource(3)), space, **options), CaseBatches(parts, space)


@pytest.mark.parametrize("name", SPACES)
def test_patches_are_those_of_whole_cases(cached, name):
    whole, parts = whole_and_parts(cached, SPACES[name])
    for step in range(12):
        one, two = (side(step, Stage(), range(3)) for side in (whole, parts))
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.labels, two.labels)
        assert (one.padding is None) == (two.padding is None)
        assert one.padding is None or torch.equal(one.padding, two.padding)


def test_sources_that_do_not_fit_into_memory_are_read_in_patches(cached, monkeypatch):
    source = opened(cached)
    monkeypatch.setattr(type(source), "load", None)
    cache = CaseCache(source, max_bytes=source.train_bytes() - 1)
    assert CaseBatches(cache, SPACES["crop"])(0, Stage(), range(2)).image.shape[2:] == (8, 10, 8)


def test_sources_that_fit_are_read_once(cached, monkeypatch):
    source = opened(cached)
    monkeypatch.setattr(type(source), "load_part", None)
    read = []

    def load(case_id: str) -> Case:
        read.append(case_id)
        return ToySource(3).load(case_id)

    monkeypatch.setattr(source, "load", load)
    batches = CaseBatches(CaseCache(source, source.train_bytes()), SPACES["crop"])
    for step in range(20):
        batches(step, Stage(), range(2))
    assert len(read) == len(set(read))


def test_a_place_reads_one_plane_of_the_labels():
    labels = ToySource(3).load("toy_00").labels
    assert labels is not None
    read = []

    def note(box):
        read.append(labels[box].size)
        return labels[box]

    outline = PlaneOutline(labels.shape, Planes.of(labels), note)
    whole: Any = LabelOutline(labels.shape, labels)
    for seed in range(50):
        drawn = outline.foreground_voxel(np.random.default_rng(seed))
        assert drawn is not None
        assert drawn.tolist() == whole.foreground_voxel(np.random.default_rng(seed)).tolist()
    assert max(read) <= labels[0].size


def test_chunks_part_each_axis_evenly():
    assert chunk_shape((35, 51, 24), 24) == (18, 17, 24)


# -- processes and threads -------------------------------------------------------------------------


class Patches(torch.utils.data.Dataset[torch.Tensor]):
    """Twelve patches of an ``h5:`` source."""

    def __init__(self, path: Path) -> None:
        self.batches = CaseBatches(CaseCache(opened(path), max_bytes=1), SPACES["crop"])

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.batches(index, Stage(), range(1)).image[0]
        return image


def test_two_forked_workers_give_the_same_batches_as_none(cached):
    data = Patches(cached)
    alone = list(torch.utils.data.DataLoader(data, 2))  # leaves the file open over the fork
    shared = torch.utils.data.DataLoader(data, 2, num_workers=2, multiprocessing_context="fork")
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_a_forked_process_opens_the_file_itself(cached):
    source = opened(cached)
    source.load("toy_00")

    def handle_is_new() -> None:
        inherited = source._open[1]
        source.load("toy_01")
        sys.exit(0 if source._open[1] is not inherited else 3)

    child = multiprocessing.get_context("fork").Process(target=handle_is_new)
    child.start()
    child.join()
    assert child.exitcode == 0


def test_a_spawned_process_reads_the_same(cached):
    source = opened(cached)
    source.load("toy_00")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert same(pool.apply(source.load, ("toy_03",)), source.load("toy_03"))


def test_batches_can_be_sent_to_a_spawned_worker(cached):
    data = Patches(cached)
    data[0]
    sent = pickle.loads(pickle.dumps(data))
    assert torch.equal(sent[5], data[5])


def test_threads_read_the_same(cached):
    source, toy, wrong = opened(cached), ToySource(3), []

    def read(first: int) -> None:
        for n in range(40):
            case = source.train_ids[(first + n) % 12]
            if not same(source.load(case), toy.load(case)):
                wrong.append(case)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# -- damage ----------------------------------------------------------------------------------------


def place_of(path: Path, name: str) -> int:
    """Byte offset of the first chunk of a data set."""
    with h5py.File(path) as file:
        return int(file[name].id.get_chunk_info(0).byte_offset)


def damaged_copy(path: Path, folder: Path, offset: int) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 4
    (folder / "bad.h5").write_bytes(raw)
    return folder / "bad.h5"


@pytest.mark.parametrize("name", ["image", "labels"])
def test_a_flipped_bit_is_found_and_named(cached, tmp_path, name):
    bad = damaged_copy(cached, tmp_path, place_of(cached, f"cases/000003/{name}") + 40)
    source = opened(bad)
    assert same(source.load("toy_02"), ToySource(3).load("toy_02"))
    with pytest.raises(DataFault, match=r"bad\.h5: case 'toy_03': damaged"):
        source.load("toy_03")


def test_check_finds_every_damaged_case_in_one_pass(cached, tmp_path):
    bad = damaged_copy(cached, tmp_path, place_of(cached, "cases/000003/image") + 40)
    bad = damaged_copy(bad, tmp_path, place_of(cached, "cases/000007/planes") + 3)
    checked = check_h5(SourceRequest("h5", str(bad)), silent)
    assert [finding.case for finding in checked.findings] == ["toy_03", "toy_07"]
    assert checked.cases == 16


def test_a_flipped_bit_anywhere_never_gives_other_data(cached, tmp_path):
    raw, rng, clean = cached.read_bytes(), np.random.default_rng(0), 0
    for _ in range(30):
        offset = int(rng.integers(len(raw)))
        bad = damaged_copy(cached, tmp_path, offset)
        try:  # compares the hash of every case that still reads
            clean += not check_h5(SourceRequest("h5", str(bad)), silent).findings
        except DataFault:
            continue
    assert clean < 4


def test_other_files_are_no_caches(tmp_path):
    for name, content in {"text.h5": b"hello", "empty.h5": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataFault, match="not an HDF5 file"):
            opened(tmp_path / name)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DataFault, match="without the attribute 'gansynth cache'"):
        opened(tmp_path / "other.h5")
    with pytest.raises(DataFault, match="no such file"):
        opened(tmp_path / "none.h5")


def changed(path: Path, folder: Path) -> Path:
    copy = folder / "changed.h5"
    copy.write_bytes(path.read_bytes())
    return copy


def test_another_format_is_refused(cached, tmp_path):
    copy = changed(cached, tmp_path)
    with h5py.File(copy, "r+") as file:
        file.attrs["gansynth cache"] = 2
    with pytest.raises(DataFault, match=r"'gansynth cache' is 2, expected 1"):
        opened(copy)


def test_a_changed_index_is_refused(cached, tmp_path):
    copy = changed(cached, tmp_path)
    with h5py.File(copy, "r+") as file:
        doc = json.loads(file["index"][()].tobytes())
        doc["held_out"] = []
        del file["index"]
        file["index"] = np.frombuffer(json.dumps(doc).encode(), np.uint8)
    with pytest.raises(DataFault, match="its index is not the one that was written"):
        opened(copy)


@pytest.mark.parametrize("link", ["external", "virtual", "outside"])
def test_nothing_outside_of_the_file_is_read(cached, tmp_path, link):
    copy = changed(cached, tmp_path)
    shape = (2, 16, 16, 16)
    with h5py.File(copy, "r+") as file:
        name = "cases/000000/image"
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


# -- writing ---------------------------------------------------------------------------------------

FULL = """
import resource, sys
from pathlib import Path
from gansynth.runtime.errors import EnvironmentFault
from gansynth.data.h5_write import write_h5
from gansynth.testing import ToySource

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
source, folder = ToySource(3), Path(sys.argv[1])
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        write_h5(source, folder / "toy.h5")
    except EnvironmentFault as fault:
        print(limit, str(fault).count("bytes needed"), len(list(folder.iterdir())))
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    limits = ["100", "500000", "1100000", "1200000", "1600000"]  # before, and amid the cases
    command = [sys.executable, "-c", FULL, str(tmp_path), *limits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # HDF5 would crash at exit
    assert done.stdout.split("\n")[:-1] == [f"{limit} 1 0" for limit in limits]


def test_a_case_that_cannot_be_read_leaves_nothing(tmp_path):
    class Broken(ToySource):
        def load(self, case_id: str) -> Case:
            if case_id == "toy_05":
                raise DataFault("toy_05 is broken")
            return super().load(case_id)

    with pytest.raises(DataFault, match="toy_05 is broken"):
        write_h5(Broken(3), tmp_path / "toy.h5")
    assert not list(tmp_path.iterdir())


def test_nan_is_refused(tmp_path):
    class Poisoned(ToySource):
        def load(self, case_id: str) -> Case:
            case = super().load(case_id)
            return replace(case, image=np.full_like(case.image, np.nan))

    with pytest.raises(DataFault, match=r"toy_00.*NaN"):
        write_h5(Poisoned(3), tmp_path / "toy.h5")


def test_only_one_case_is_in_memory(tmp_path):
    class Counting(ToySource):
        alive = 0
        most = 0

        def load(self, case_id: str) -> Case:
            import weakref

            image = super().load(case_id).image.copy()
            Counting.alive += 1
            Counting.most = max(Counting.most, Counting.alive)
            weakref.finalize(image, Counting.gone)
            return replace(super().load(case_id), image=image)

        @classmethod
        def gone(cls) -> None:
            cls.alive -= 1

    write_h5(Counting(3), tmp_path / "toy.h5")
    assert Counting.most <= 2  # one, while the next is made
