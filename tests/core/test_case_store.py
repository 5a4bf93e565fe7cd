"""What is kept of cases on disk: made once, anew where files differ, and nothing is ever lost."""

import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from gansynth.core.case_store import SETTLED, CaseStore
from gansynth.core.generator import Stage
from gansynth.core.source import FoldSplit, SourceRequest, case_record, case_records, keep_records
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.data.h5 import write_h5
from gansynth.runtime.files import folder_bytes
from gansynth.sampling.run_source import open_source
from gansynth.testing import ToySource
from gansynth_nnunet.cases import PreprocessedArrays
from gansynth_nnunet.source import NnunetSource
from tests.flat_sets import pictures
from tests.yolo_sets import toy_yolo


@pytest.fixture
def case_file(tmp_path, monkeypatch):
    """A file of a case, which counts as settled at once."""
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", 0.0)
    monkeypatch.setenv("GANSYNTH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "data" / "case.nii"
    file.parent.mkdir()
    file.write_bytes(b"voxels")
    return file


def store(file: Path, *, beside: bool = False) -> CaseStore:
    return CaseStore.of("case", [file], file.parent, beside=beside)


def made(number: int = 1):
    return lambda: {"number": np.array(number), "words": np.array(["a", "b"])}


def never(*_, **__):
    raise AssertionError("it is made again")


def number_of(store: CaseStore, make=never) -> int:
    return int(store.arrays("entry", make)["number"])


def test_an_entry_is_made_once_and_gives_back_what_was_made(case_file):
    store(case_file).arrays("entry", made())
    kept = store(case_file).arrays("entry", never)
    assert {name: array.tolist() for name, array in kept.items()} == {
        "number": 1,
        "words": ["a", "b"],
    }


def _overwritten(file: Path) -> None:
    """Another content of the same size and date."""
    before = file.stat()
    file.write_bytes(b"VOXELS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(file: Path) -> None:
    other = file.with_name("other")
    shutil.copy2(file, other)
    other.replace(file)


@pytest.mark.parametrize("change", [_overwritten, _replaced, lambda file: file.unlink()])
def test_a_changed_file_has_its_entry_made_anew(case_file, change):
    number_of(store(case_file), made(1))
    change(case_file)
    assert number_of(store(case_file), made(2)) == 2


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", bytes.upper])
def test_a_damaged_entry_is_made_anew(case_file, damage):
    number_of(store(case_file), made(1))
    [entry] = store(case_file).folder.iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    assert number_of(store(case_file), made(2)) == 2
    assert number_of(store(case_file)) == 2


def test_what_is_read_in_another_way_has_its_entry_made_anew(case_file):
    number_of(store(case_file).read_as("one way"), made(1))
    assert number_of(store(case_file).read_as("another"), made(2)) == 2


def test_nothing_is_kept_of_a_file_that_may_just_be_changing(case_file, monkeypatch):
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", SETTLED)
    number_of(store(case_file), made(1))
    assert number_of(store(case_file), made(2)) == 2
    assert not store(case_file).folder.exists()


def test_entries_are_beside_the_data_else_where_the_user_keeps_caches(case_file, tmp_path):
    assert store(case_file, beside=True).folder.parent == tmp_path / "gansynth_data"
    assert store(case_file).folder.is_relative_to(tmp_path / "cache")


def test_data_that_may_only_be_read_have_entries_elsewhere(case_file, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    number_of(store(case_file, beside=True), made(1))
    assert store(case_file, beside=True).folder.is_relative_to(tmp_path / "cache")
    assert number_of(store(case_file, beside=True)) == 1


def test_a_disk_that_takes_nothing_costs_time_alone(case_file, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert number_of(store(case_file), made(1)) == 1
    assert store(case_file).mapped("loaded", made()) is None


def _make(file: Path) -> int:
    large = {"number": np.arange(50_000)}
    for _ in range(20):
        found = store(file).arrays("entry", lambda: large)["number"]
        mapped = store(file).mapped("loaded", lambda: large)
        assert mapped is None or (mapped["number"] == found).all()  # None: removed meanwhile
        store(file).clear()
    return int(found.sum())


def test_processes_may_make_read_and_remove_entries_at_once(case_file):
    with ProcessPoolExecutor(4) as processes:
        sums = list(processes.map(_make, [case_file] * 4))
    assert sums == [sum(range(50_000))] * 4


def test_large_arrays_are_maps_of_one_file(case_file):
    maps = [store(case_file).mapped("loaded", made()) for _ in range(2)]
    for arrays in maps:
        assert arrays is not None
        assert isinstance(arrays["number"].base, np.memmap)


# -- of sources ------------------------------------------------------------------------------------


@pytest.fixture(params=["nnunet", "nnunet-raw", "h5", "pictures", "yolo"])
def request_of_settled(request, monkeypatch, tmp_path, toy_copy) -> SourceRequest:
    """Cases whose files count as settled; what is kept of them, no other test has made."""
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", 0.0)
    if request.param == "nnunet":
        request_of_toy: SourceRequest = toy_copy.request()
        return request_of_toy
    if request.param == "nnunet-raw":
        return SourceRequest("nnunet-raw", str(toy_copy.raw))
    if request.param == "pictures":
        return pictures(tmp_path / "pictures")
    if request.param == "yolo":
        return SourceRequest("yolo", str(toy_yolo(tmp_path / "boxes", size=16)))
    write_h5(ToySource(3), tmp_path / "cases.h5")
    return SourceRequest("h5", str(tmp_path / "cases.h5"))


@pytest.mark.parametrize("name", ["crop", "own"])
def test_batches_of_cases_beyond_memory_are_those_of_cases_in_memory(request_of_settled, name):
    source = open_source(request_of_settled)
    space = Space("crop", (8,) * source.schema.ndim) if name == "crop" else source.space
    inside, beyond = (CaseBatches(CaseCache(source, most), space) for most in (1 << 30, 1))
    for step in range(8):
        one, two = (batches(step, Stage(), range(3)) for batches in (inside, beyond))
        assert torch.equal(one.image, two.image)
        for seen, again in ((one.labels, two.labels), (one.boxes, two.boxes)):
            if seen is None:
                assert again is None
            else:
                assert again is not None
                assert torch.equal(seen, again)


def test_whole_cases_beyond_memory_are_read_twice_and_then_mapped(request_of_settled, monkeypatch):
    source = open_source(request_of_settled)
    cases, beyond = source.train_ids[:2], CaseCache(source, max_bytes=1)
    first = [beyond(case) for case in (*cases, *cases)]
    monkeypatch.setattr(type(source), "load", never)
    for case, before in zip(cases * 2, first, strict=True):
        again = beyond(case)
        np.testing.assert_array_equal(again.image, before.image)
        np.testing.assert_array_equal(again.labels, before.labels)
        assert (again.id, again.subject) == (before.id, before.subject)


def test_a_record_is_made_once_for_all_commands(request_of_settled, monkeypatch):
    source = open_source(request_of_settled)
    before = [case_record(source, case) for case in source.train_ids]
    for reading in ("decode", "load", "load_part"):
        monkeypatch.setattr(type(source), reading, never, raising=False)
    again = open_source(request_of_settled)
    assert [case_record(again, case) for case in again.train_ids] == before


@pytest.mark.parametrize("request_of_settled", ["nnunet-raw", "pictures", "yolo"], indirect=True)
def test_nor_is_it_made_anew_in_other_folds(request_of_settled, monkeypatch, tmp_path):
    source = open_source(request_of_settled)
    ids = (*source.train_ids, *source.held_out_ids)
    before = {case: case_record(source, case).sha256 for case in ids}
    someone = source.header(ids[0]).subject
    held_out = [case for case in ids if source.header(case).subject == someone]
    others = [case for case in ids if case not in held_out]
    split = FoldSplit(train=others, val=held_out)
    divided = open_source(source.divided([split], tmp_path / "folds"))
    monkeypatch.setattr(type(source), "decode", never)
    assert {case: case_record(divided, case).sha256 for case in ids} == before


def test_a_picture_of_another_class_has_another_record(monkeypatch, tmp_path):
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", 0.0)
    asked = pictures(tmp_path / "set", classes="table.csv")
    records = []
    for name in ("ill", "well"):
        cases = sorted([path.stem for path in (tmp_path / "set" / "images").iterdir()])
        rows = ["case,class", f"{cases[0]},{name}", *[f"{case},other" for case in cases[1:]]]
        (tmp_path / "set" / "table.csv").write_text("\n".join(rows))
        source = open_source(asked)
        records.append(case_record(source, cases[0]))
    assert records[0] != records[1]


def test_records_of_large_cases_are_made_in_processes(toy_copy, monkeypatch):
    source = open_source(toy_copy.request())
    time.sleep(SETTLED)
    monkeypatch.setattr("gansynth.core.source.processes_for", lambda *_: 2)
    keep_records(source, source.train_ids)
    monkeypatch.setattr(NnunetSource, "decode", never)
    assert [case.id for case in case_records(source, source.train_ids)] == [*source.train_ids]


def test_nnunets_cases_are_not_read_to_open_them(toy_copy, monkeypatch):
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", 0.0)
    before = open_source(toy_copy.request())
    facts = before.space.size, before.schema, before.header(before.train_ids[0])
    monkeypatch.setattr(PreprocessedArrays, "read", never)
    again = open_source(toy_copy.request())
    assert (again.space.size, again.schema, again.header(again.train_ids[0])) == facts


def test_cache_tells_what_is_kept_and_removes_it(toy_copy, monkeypatch, run_cli):
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", 0.0)
    source = open_source(toy_copy.request())
    for case in source.train_ids:
        case_record(source, case)
    words = ("cache", *toy_copy.options[1:], "--json")
    told = json.loads(run_cli(*words).stdout)
    [folder] = told["folders"]
    assert {"outline", "outside", "record"} <= set(told["kept"])
    assert told["bytes"] == folder_bytes(Path(folder))
    assert json.loads(run_cli(*words, "--clear").stdout)["cleared"]
    assert not Path(folder).exists()
