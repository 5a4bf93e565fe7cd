import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from gansynth.bank.placement import place_bank
from gansynth.bank.reader import BankReader, BankSample, BankSpec, BankWriter, verify_bank
from gansynth.bank.store import content_of
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.files import digest_of
from tests.disks import files_of_at_most
from tests.expected import raises_fault
from tests.processes import until

LIVE = BankSpec(
    samples=SampleRequest(edits=("elastic",)),
    schema=Schema(("T1", "FLAIR"), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0)),
    lineage=Lineage("toy", "0", (CaseRecord("a", "s", "0" * 64),), {"plans": "p"}),
    run_id="run",
    generator="f" * 64,
    frozen=False,
    capacity=8,
)
FROZEN = replace(LIVE, frozen=True)


def make_sample(k: int = 0, size=(3, 4, 5)) -> Sample:
    rng = np.random.default_rng(k)
    labels = rng.integers(-1, 2, size).astype(np.int16)
    image = rng.normal(size=(2, *size)).astype(np.float32)
    return Sample(image, labels, None, {"index": k})


@pytest.fixture
def bank(tmp_path) -> Path:
    return Path(tmp_path / "bank")


def publish(writer: BankWriter, count: int) -> None:
    """Publish so many more samples, each with its number as index."""
    for number in range(writer.total, writer.total + count):
        writer.publish(make_sample(number), {})


def make_bank(folder: Path, spec: BankSpec = FROZEN, samples: int = 8) -> Path:
    with BankWriter.create(folder, spec) as writer:
        publish(writer, samples)
        if spec.frozen:
            writer.finish()
    return folder


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(found, wanted)


def draw(reader: BankReader, rng: np.random.Generator) -> BankSample:
    sample = reader.draw(rng)
    assert sample is not None
    return sample


EXTRAS: dict[str, Any] = {
    "class_locations:[1, 2] / é": np.arange(12, dtype=np.int32).reshape(3, 4) - 2**30,
    "empty": np.zeros((0, 4), np.int64),
    "scalar": np.array(1.5),
    "bool": np.array([True, False]),
    "big-endian": np.arange(3, dtype=">u2"),
}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_sample_comes_out_as_it_went_in(bank, dtype):
    boxes = Boxes(np.array([[0, 0, 0, 2, 2, 2.5]], np.float32), np.array([1], np.int16))
    provenance = {"case": "a", "nested": {"seed": np.int64(3)}}
    sample = replace(make_sample(), boxes=boxes, provenance=provenance)
    other = make_sample(1, (6, 1, 3))  # of another size
    with BankWriter.create(bank, replace(LIVE, dtype=dtype)) as writer:
        writer.publish(sample, EXTRAS)
        writer.publish(other, {})
    stranger = safetensors.numpy.load_file(bank / "sample-000000.safetensors")
    same(stranger["image"], sample.image.astype(dtype))
    assert stranger.keys() >= {"labels", *(f"extra:{name}" for name in EXTRAS)}
    reader = BankReader(bank)
    same(reader.read("000001").labels, other.labels)
    found: Any = reader.read("000000")
    wanted = (sample.image.astype(dtype), sample.labels, boxes.coords, boxes.labels)
    for one, two in zip(
        (found.image, found.labels, found.boxes.coords, found.boxes.labels), wanted, strict=True
    ):
        same(one, two)
        assert one.dtype == two.dtype  # type: ignore[union-attr]
    assert found.provenance == {"case": "a", "nested": {"seed": 3}}
    assert found.extras.keys() == EXTRAS.keys()
    for key, array in EXTRAS.items():
        assert found.extras[key].dtype == array.dtype.newbyteorder("=")
        assert found.extras[key].shape == array.shape
        same(found.extras[key], array)


@pytest.mark.parametrize(
    ("changes", "extras", "expected"),
    [
        ({"image": np.ones((2, 4, 4), np.float32)}, {}, "bank.sample-not-readable-by-host"),
        (
            {"image": np.ones((2, 4), np.float32), "labels": None},
            {},
            "bank.sample-not-readable-by-host",
        ),
        ({"provenance": {"case": object()}}, {}, "bank.provenance-not-json"),
        ({"provenance": {"case": "x" * (16 << 20)}}, {}, "bank.sample-not-readable-by-host"),
        ({}, {"a": np.array(["text"])}, "bank.array-type-not-storable"),
    ],
    ids=["other axes", "no volume", "provenance", "long", "text"],
)
def test_a_sample_that_cannot_be_stored_is_refused_and_leaves_nothing(
    bank, changes, extras, expected
):
    with BankWriter.create(bank, LIVE) as writer:
        with raises_fault(expected):
            writer.publish(replace(make_sample(), **changes), extras)
        assert (list(bank.glob("*sample*")), writer.held) == ([], 0)
        publish(writer, 1)
    assert BankReader(bank).ids() == ["000000"]


def test_draw_is_uniform_over_samples_which_may_be_changed(bank):
    reader, draws = BankReader(make_bank(bank, LIVE, 5)), rng()
    counts = [0] * 5
    for _ in range(1000):
        sample = draw(reader, draws)
        counts[sample.provenance["index"]] += 1
        sample.image[...] = 0
    assert np.abs(np.array(counts) - 200).max() < 3.5 * np.sqrt(1000 * 0.2 * 0.8)
    same(reader.read("000000").image, make_sample().image.astype(np.float16))


def test_draw_meets_samples_retired_since_its_listing_and_gives_none_where_there_are_none(bank):
    reader = BankReader(bank, rescan_seconds=1000)
    assert BankReader(bank).draw(rng()) is None
    with BankWriter.create(bank, LIVE) as writer:
        assert BankReader(bank).draw(rng()) is None
        publish(writer, 4)
        assert draw(reader, rng()).id in ("000000", "000001", "000002", "000003")
        publish(writer, 20)
        assert draw(reader, rng()).id >= "000016"
    for absent in ("000000", "000024", "../000023", "nonsense"):
        with pytest.raises(KeyError):
            reader.read(absent)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("format", 1, "version.format-differs"),
        ("capacity", None, "bank.damaged"),
        ("dtype", "int8", "bank.damaged"),
        ("surplus", 1, "bank.damaged"),
        ("schema", {}, "bank.damaged"),
    ],
)
def test_a_description_that_is_none_is_refused_in_one_line(bank, key, value, expected):
    reader = BankReader(make_bank(bank, LIVE))
    doc = {**json.loads((bank / "bank.json").read_text()), key: value}
    (bank / "bank.json").write_text(json.dumps({**doc, "digest": digest_of(doc)}))
    with raises_fault(expected) as fault:
        _ = reader.spec
    assert "\n" not in str(fault.value)


@pytest.mark.fault(36)
def test_a_bank_has_one_writer_and_its_folder_nothing_else(bank):
    with (
        BankWriter.create(bank, LIVE),
        raises_fault("bank.second-writer", names=f"pid {os.getpid()}"),
    ):
        BankWriter.attach(bank)
    BankWriter.attach(bank).close()
    (bank.parent / "mine").write_text("precious")
    for taken in (bank, bank.parent):
        with raises_fault("bank.folder-not-empty"):
            BankWriter.create(taken, LIVE)
    assert {p.name for p in bank.parent.iterdir()} == {"mine", "bank"}


@pytest.mark.fault(29)
def test_attach_goes_on_and_removes_what_a_killed_writer_left(bank):
    make_bank(bank, LIVE, 4)
    left = bank / ".sample-000004.safetensors.tmp-1"
    left.write_bytes(b"half")
    for number in range(5, 11):  # as many as a writer leaves that dies before it retires them
        shutil.copy(bank / "sample-000000.safetensors", bank / f"sample-{number:06d}.safetensors")
    with BankWriter.attach(bank) as writer:
        assert writer.publish(make_sample(), {}).name == "sample-000011.safetensors"
        assert (writer.published, writer.held, writer.total) == (1, 8, 12)
    assert not left.exists()


def on_disk(folder: Path) -> int:
    """Bytes of samples, and of those being written."""
    files = [p for p in folder.iterdir() if "sample" in p.name]
    return sum(4096 * -(-p.stat().st_size // 4096) for p in files)


def test_the_oldest_go_so_that_a_live_bank_stays_within_its_bytes_at_all_times(bank, monkeypatch):
    sizes, full, replace_file = [], [], os.replace

    def watched(old, new):
        sizes.append(on_disk(bank))
        replace_file(old, new)

    monkeypatch.setattr(os, "replace", watched)
    with BankWriter.create(bank, replace(LIVE, capacity=100, max_bytes=3 * 4096 + 100)) as writer:
        for _ in range(10):
            publish(writer, 1)
            full.append(writer.full)
    assert full == [False] * 2 + [True] * 8
    assert max(sizes) == 3 * 4096
    assert BankReader(bank).ids()[0] == "000007"
    with BankWriter.create(bank.with_name("small"), replace(LIVE, max_bytes=1)) as writer:
        publish(writer, 3)
        assert writer.held == 2  # a whole one stays until the next is


def test_a_full_complete_or_live_bank_refuses_its_writer(bank):
    for number, spec, expected in (
        (0, replace(FROZEN, capacity=2), "bank.full"),
        (1, replace(FROZEN, capacity=3), "bank.full"),
        (2, LIVE, "bank.finish-not-frozen-or-empty"),
    ):
        with BankWriter.create(bank / str(number), spec) as writer:
            publish(writer, 2)
            if spec.capacity == 3:
                writer.finish()
            with raises_fault(expected):
                publish(writer, 1) if spec.frozen else writer.finish()
        assert BankReader(bank / str(number)).count() == 2


def test_a_live_bank_has_an_age_and_a_complete_one_a_hash(bank):
    live = BankReader(make_bank(bank, LIVE, 1))
    complete = BankReader(make_bank(bank.with_name("complete"), FROZEN, 1))
    assert (live.sha256, complete.age()) == (None, None)
    assert (live.age() or 0) < 1800
    assert len(complete.sha256 or "") == 64


@pytest.fixture
def room(monkeypatch, tmp_path):
    """Shared memory with 100 bytes free and a temporary folder with 80, and a disk with 1000."""
    shared, disk = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    disk.mkdir()
    monkeypatch.setattr("gansynth.bank.placement.SHARED_MEMORY", shared)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    free = {shared: 100, disk: 80}
    monkeypatch.setattr("gansynth.bank.placement._free", lambda folder: free.get(folder, 1000))
    return shared, disk


@pytest.mark.fault(31)
def test_a_bank_is_placed_where_asked_or_in_shared_memory_or_on_the_disk_and_says_so(
    room, monkeypatch, tmp_path
):
    shared, disk = room
    (one, silent), (two, said), (three, _) = (place_bank("a/run", n) for n in (50, 51, 51))
    assert [p.parent for p in (one, two, three)] == [shared, disk, disk]
    assert (two != three, silent) == (True, "")
    assert one.name.startswith("gansynth-run-")
    assert f"-{os.getpid()}-" in one.name
    assert f"shared memory ({shared}) has 100 bytes free" in said
    assert f"kept in {disk} instead" in said
    assert "--bank-dir" in said
    folder, said = place_bank("run", 101, tmp_path / "new/scratch")
    assert folder.parent == tmp_path / "new/scratch"
    assert str(folder.parent) in said
    monkeypatch.setattr("gansynth.bank.placement.SHARED_MEMORY", tmp_path / "nowhere")
    folder, said = place_bank("run", 1)
    assert (folder.parent, "there is no shared memory" in said) == (disk, True)


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    ("size", "where", "expected"),
    [
        (81, None, "bank.no-room-on-disk"),
        (1001, "new", "bank.no-room-on-disk"),
        (1, "file", "bank.folder-is-file"),
        (1, "file/below", "files.cannot-be-written"),
    ],
)
def test_a_bank_without_a_place_is_refused(room, tmp_path, size, where, expected):
    (tmp_path / "file").touch()
    with raises_fault(expected):
        place_bank("run", size, where if where is None else tmp_path / where)


@pytest.mark.fault(29)
def test_scratch_banks_of_dead_processes_go_before_the_next_one_looks_for_room(room, monkeypatch):
    mine, _ = place_bank("my-run", 1)
    machine = mine.name.split("-")[3]
    left = room[1] / f"gansynth-run-{machine}-4194999-abc_12de"  # no process has such a number
    others = room[1] / "gansynth-run-0123abcd-4194999-abc_12de"  # of a container beside this one
    named = room[0].with_name("named") / left.name  # in a folder that is not looked into by itself
    for folder in (left, others, room[1] / "gansynth-notes", named):
        folder.mkdir(parents=True)
    free = "gansynth.bank.placement._free"
    monkeypatch.setattr(free, lambda folder: 0 if left.exists() else 80)
    assert place_bank("my-run", 80)[0].parent == room[1]
    assert [folder.exists() for folder in (mine, left, others)] == [True, False, True]
    place_bank("my-run", 1, named.parent)
    assert not named.exists()


@pytest.mark.fault(3)
@pytest.mark.parametrize("name", ["bank.json", "complete.json", "sample-000000.safetensors"])
def test_a_flipped_bit_anywhere_is_found(bank, name):
    path = make_bank(bank, samples=1) / name
    whole, draws, silent = path.read_bytes(), rng(), []
    for place in range(0, len(whole), 5):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(draws.integers(8))
        path.write_bytes(spoilt)
        with contextlib.suppress(IntegrityFault):
            verify_bank(bank)
            silent.append(spoilt)
    assert path.suffix == ".json" or not silent
    assert all(json.loads(found) == json.loads(whole) for found in silent)  # another blank
    assert len(silent) < len(whole) / 50


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        lambda path: path.rename(path.with_name("sample-000007.safetensors")),
        lambda path: shutil.copy(path, path.with_name("sample-000008.safetensors")),
        lambda path: shutil.copy(path, path.with_name("sample-000000.safetensors")),
    ],
    ids=["missing", "renamed", "surplus", "exchanged"],
)
def test_a_complete_bank_has_the_samples_it_was_completed_with(bank, spoil):
    spoil(make_bank(bank, samples=2) / "sample-000001.safetensors")
    with raises_fault("bank.damaged"):
        verify_bank(bank)


def as_listed(bank: Path, path: Path, data: bytes) -> None:
    """Write a sample as a forger does: with its own digest, and listed in the bank's record."""
    digest = hashlib.sha256(data[:35] + data[99:]).hexdigest()
    path.write_bytes(data[:35] + digest.encode() + data[99:])
    hashes = {path.name[7:13]: digest}
    doc = {"sha256": content_of(hashes), "samples": hashes}
    (bank / "complete.json").write_text(json.dumps(doc))


def forged(data: bytes, **changes: Any) -> bytes:
    """A sample's bytes with entries of its header changed, or taken out (None)."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for entry, change in changes.items():
        header[entry] = change and {**header.get(entry, {}), **change}
    left = {entry: value for entry, value in header.items() if value}
    text = json.dumps(left, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


STRANGE = {"dtype": "I16", "shape": [3, 4, 5], "data_offsets": [240, 360]}
NO_CLASSES = {"dtype": "F32", "shape": [0, 6], "data_offsets": [360, 360]}
FORGED: dict[str, Callable[[bytes], bytes]] = {
    "cut in its length": lambda d: d[:7],
    "cut in its header": lambda d: d[:300],
    "cut in its arrays": lambda d: d[:-1],
    "header beyond the file": lambda d: (1 << 40).to_bytes(8, "little") + d[8:],
    "header of no bytes": lambda d: bytes(8) + d[8:],
    "header of lists": lambda d: (9000).to_bytes(8, "little") + b"[" * 9000,
    "shape of 8 GiB": lambda d: forged(d, image={"shape": [2, 1024, 2048, 1024]}),
    "shape beyond a number": lambda d: forged(d, image={"shape": [2, 1 << 70, 4, 5]}),
    "negative shape": lambda d: forged(d, image={"shape": [-2, -3, 4, 5]}),
    "shape of fractions": lambda d: forged(d, image={"shape": [2.0, 3, 4, 5]}),
    "a hundred axes": lambda d: forged(d, image={"shape": [1] * 96 + [2, 3, 4, 5]}),
    "no image": lambda d: forged(d, image=None),
    "image of integers": lambda d: forged(d, image={"dtype": "I16"}),
    "dtype of objects": lambda d: forged(d, image={"dtype": "|O"}),
    "labels of another shape": lambda d: forged(d, labels={"shape": [3, 5, 4]}),
    "arrays that overlap": lambda d: forged(d, labels={"data_offsets": [0, 120]}),
    "surplus bytes": lambda d: d + b"x",
    "unknown array": lambda d: forged(d, labels=None, x=STRANGE),
    "external file": lambda d: forged(d, labels={"external": ["/etc/passwd", 0, 120]}),
    "boxes without classes": lambda d: forged(d, boxes=NO_CLASSES),
    "no provenance": lambda d: forged(d, __metadata__={"provenance": None}),
    "provenance of a list": lambda d: forged(d, __metadata__={"provenance": "[]"}),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_sample_is_refused_before_memory_is_allocated(bank, how):
    path = make_bank(bank, samples=1) / "sample-000000.safetensors"
    as_listed(bank, path, path.read_bytes())
    assert verify_bank(bank) == 1  # what else the forger writes is no fault
    as_listed(bank, path, FORGED[how](path.read_bytes()))
    tracemalloc.start()
    try:
        for read in (verify_bank, lambda folder: BankReader(folder).read("000000")):
            with raises_fault("bank.damaged"):
                read(bank)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


NOT_FILES: dict[str, Callable[[Path, Path], Any]] = {
    "link": lambda path, copy: path.symlink_to(copy),
    "dangling link": lambda path, copy: path.symlink_to("/nowhere"),
    "pipe": lambda path, copy: os.mkfifo(path),
    "folder": lambda path, copy: path.mkdir(),
}


@pytest.mark.parametrize("name", ["sample-000000.safetensors", "bank.json", "complete.json"])
@pytest.mark.parametrize("what", NOT_FILES)
def test_a_link_pipe_or_folder_in_place_of_a_file_is_refused_at_once(bank, name, what):
    path = make_bank(bank, samples=1) / name
    copy = path.rename(bank.parent / "copy")
    NOT_FILES[what](path, copy)
    with raises_fault("bank.damaged", names=name):
        verify_bank(bank)


def test_samples_are_listed_in_order_with_strangers_among_them(bank):
    make_bank(bank, LIVE, 1)
    numbers = [0, 9, 10, 400, 999_999, 1_000_000, 10_000_000]
    strangers = ["sample-12.safetensors", "sample-000012.h5", ".sample-000013.safetensors.tmp-1"]
    for name in (*(f"sample-{number:06d}.safetensors" for number in numbers), *strangers):
        (bank / name).touch()
    assert list(map(int, BankReader(bank).ids())) == numbers


@pytest.mark.fault(31)
def test_a_file_over_the_limit_is_an_environment_fault_and_leaves_nothing(bank):
    with BankWriter.create(bank, FROZEN) as writer:
        publish(writer, 1)
        too_large = raises_fault("files.no-room-to-write")
        with files_of_at_most(400_000), too_large:
            writer.publish(make_sample(0, (64, 64, 64)), {})
    assert verify_bank(bank) == 1
    assert len(list(bank.glob("*sample*"))) == 1


@pytest.mark.fault(31)
def test_a_live_bank_on_a_full_disk_makes_room_and_gives_up_only_with_its_last_sample(
    bank, monkeypatch
):
    def reserve(descriptor: int, start: int, size: int) -> None:
        if on_disk(bank) + size > 5 * 4096:
            raise OSError(errno.ENOSPC, "the disk is full")

    def refuse(*words: Any, **more: Any) -> int:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr("gansynth.bank.store._SETTLE_SECONDS", 0)
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    held = []
    with BankWriter.create(bank, replace(LIVE, capacity=100)) as writer:
        for _ in range(12):
            publish(writer, 1)
            held.append((writer.held, writer.squeezed, writer.full))
        writer.beat()
        assert json.loads((bank / "heartbeat.json").read_text())["squeezed"]
        os.utime(bank / "heartbeat.json", (0, 0))
        monkeypatch.setattr(Path, "write_text", refuse)
        writer.beat()  # lives, though nothing can be written any more
        with raises_fault("files.no-room-to-write"):
            writer.publish(make_sample(0, (64, 64, 64)), {})
    assert held[:5] == [(n, False, False) for n in (1, 2, 3, 4, 5)]
    assert held[5:] == [(5, True, True)] * 7
    assert BankReader(bank).count() == 1
    assert (BankReader(bank).age() or 0) < 1800


@pytest.mark.fault(29)
@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_no_torn_sample(bank):
    BankWriter.create(bank, LIVE).close()
    sample: Any = make_sample(7, (60, 60, 60))
    reader, trials, left = BankReader(bank), 0, 0

    def write() -> None:
        with BankWriter.attach(bank) as writer:
            while True:
                writer.publish(sample, {})
                writer.beat()

    while trials < 20 or left < 5:  # as long as it takes in the midst of a write
        trials += 1
        last = reader.ids()[-1:]
        child = multiprocessing.get_context("fork").Process(target=write)
        child.start()
        until(lambda last=last: reader.ids()[-1:] != last)  # type: ignore[misc]
        if trials % 2:
            until(lambda: any(bank.glob(".*.tmp-*")), step=0.0)
        child.kill()
        child.join()
        left += len(list(bank.glob(".*.tmp-*")))
        verify_bank(bank)
        assert reader.count() <= LIVE.capacity + 1
        for name in reader.ids():
            same(reader.read(name).labels, sample.labels)
    BankWriter.attach(bank).close()
    assert list(bank.glob(".*.tmp-*")) == []
