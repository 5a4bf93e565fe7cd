"""The bank: what goes in comes out, whole or not at all, whoever is killed meanwhile."""

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.placement import place_bank, scratch_banks
from gansynth.bank.reader import BankReader, BankSample, BankSpec, BankWriter, verify_bank
from gansynth.bank.store import content_of
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import digest_of
from tests.disks import files_of_at_most
from tests.processes import until

SCHEMA = Schema(
    channels=("T1", "FLAIR"),
    labels={"background": 0, "tumour": 1},
    spacing=(1.0, 1.0, 1.0),
    has_outside=True,
)
LIVE = BankSpec(
    samples=SampleRequest(edits=("elastic",)),
    schema=SCHEMA,
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


def pairs(first: int, count: int):
    return [(make_sample(k), {}) for k in range(first, first + count)]


@pytest.fixture
def bank(tmp_path) -> Path:
    """Where a bank is made."""
    return Path(tmp_path / "bank")


def publish(writer: BankWriter, samples: Any) -> None:
    for sample, extras in samples:
        writer.publish(sample, extras)


def made(bank: Path, samples: Any = (), spec: BankSpec | None = None) -> BankReader:
    """A live bank of such samples, open to be read."""
    with BankWriter.create(bank, spec or LIVE) as writer:
        publish(writer, samples)
    return BankReader(bank)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(found, wanted)


def make_bank(folder: Path, spec: BankSpec = FROZEN, samples: int = 8) -> Path:
    with BankWriter.create(folder, spec) as writer:
        publish(writer, pairs(0, samples))
        if spec.frozen:
            writer.finish()
    return folder


def draw(reader: BankReader, rng: np.random.Generator) -> BankSample:
    sample = reader.draw(rng)
    assert sample is not None
    return sample


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_sample_comes_out_as_it_went_in(bank, dtype):
    boxes = Boxes(np.array([[0, 0, 0, 2, 2, 2.5]], np.float32), np.array([1], np.int16))
    provenance = {"case": "a", "nested": {"seed": np.int64(3)}}
    sample = replace(make_sample(), boxes=boxes, provenance=provenance)
    other = make_sample(1, (6, 1, 3))  # of another size
    reader = made(bank, [(sample, {}), (other, {})], replace(LIVE, dtype=dtype))
    same(reader.read("000001").labels, other.labels)
    found: Any = reader.read("000000")
    same(found.image, sample.image.astype(dtype))
    same(found.labels, sample.labels)
    same(found.boxes.coords, boxes.coords)
    same(found.boxes.labels, boxes.labels)
    assert found.provenance == {"case": "a", "nested": {"seed": 3}}
    kinds = (found.image, found.labels, found.boxes.coords, found.boxes.labels)
    assert [a.dtype for a in kinds] == [dtype, np.int16, np.float32, np.int16]


def test_extras_keep_shape_dtype_and_values(bank):
    extras: dict[str, Any] = {
        "class_locations:[1, 2] / é": np.arange(12, dtype=np.int32).reshape(3, 4) - 2**30,
        "empty": np.zeros((0, 4), np.int64),
        "scalar": np.array(1.5),
        "bool": np.array([True, False]),
        "big-endian": np.arange(3, dtype=">u2"),
    }
    found = made(bank, [(make_sample(), extras)]).read("000000").extras
    assert found.keys() == extras.keys()
    for key, array in extras.items():
        assert found[key].dtype == array.dtype.newbyteorder("=")
        assert found[key].shape == array.shape
        same(found[key], array)


def test_a_stranger_reads_a_sample_by_the_package_safetensors(bank):
    package = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    told = {"places": np.arange(5), "none": np.zeros((0, 4), np.float64), "yes": np.array(True)}
    made(bank, [(make_sample(), told)])
    found = package.load_file(bank / "sample-000000.safetensors")
    same(found.pop("image"), make_sample().image.astype(np.float16))
    same(found.pop("labels"), make_sample().labels)
    assert found.keys() == {"extra:places", "extra:none", "extra:yes"}
    for name, array in told.items():
        assert found[f"extra:{name}"].dtype == array.dtype
        same(found[f"extra:{name}"], array)


@pytest.mark.parametrize(
    ("changes", "extras", "says"),
    [
        ({"image": np.ones((2, 4, 4), np.float32)}, {}, "'labels' of I16"),
        ({"image": np.ones((2, 4), np.float32), "labels": None}, {}, "no image of two or three"),
        ({"provenance": {"case": object()}}, {}, "provenance holds a object"),
        ({"provenance": {"case": "x" * (16 << 20)}}, {}, "too large"),
        ({}, {"a": np.array(["text"])}, "'extra:a' is <U4"),
    ],
    ids=["other-axes", "no-volume", "provenance", "long", "text"],
)
def test_a_sample_that_cannot_be_stored_is_refused_and_leaves_nothing(bank, changes, extras, says):
    with BankWriter.create(bank, LIVE) as writer:
        with pytest.raises(DataFault, match=says):
            writer.publish(replace(make_sample(), **changes), extras)
        assert (list(bank.glob("*sample*")), writer.held) == ([], 0)
        writer.publish(make_sample(), {})
    assert BankReader(bank).ids() == ["000000"]


def test_draw_is_uniform_over_samples(bank):
    reader, draws = made(bank, pairs(0, 5)), rng()
    drawn = [draw(reader, draws).provenance["index"] for _ in range(2000)]
    counts = np.bincount(drawn, minlength=5)
    assert np.abs(counts - 400).max() < 3.5 * np.sqrt(2000 * 0.2 * 0.8)


def test_draw_gives_none_without_a_bank_before_its_first_sample_and_once_it_is_deleted(bank):
    reader = BankReader(bank, rescan_seconds=0)
    assert reader.draw(rng()) is None
    with BankWriter.create(bank, LIVE) as writer:
        assert reader.draw(rng()) is None
        writer.publish(make_sample(), {})
        assert draw(pickle.loads(pickle.dumps(reader)), rng()).id == "000000"
    shutil.rmtree(bank)
    assert reader.draw(rng()) is None


def test_what_is_drawn_may_be_changed_without_changing_the_bank(bank):
    reader = made(bank, [(make_sample(), {"a": np.arange(3)})])
    before = (bank / "sample-000000.safetensors").read_bytes()
    first: Any = draw(reader, rng())
    for array in (first.image, first.labels, first.extras["a"]):
        assert array.flags.writeable
        array[...] = 0
    again = draw(reader, rng())
    same(again.labels, make_sample().labels)
    same(again.extras["a"], [0, 1, 2])
    assert (bank / "sample-000000.safetensors").read_bytes() == before


def test_draw_meets_samples_retired_since_its_listing(bank):
    reader = BankReader(bank, rescan_seconds=1000)
    with BankWriter.create(bank, LIVE) as writer:
        publish(writer, pairs(0, 4))
        assert draw(reader, rng()).id in ("000000", "000001", "000002", "000003")
        publish(writer, pairs(4, 20))
        assert draw(reader, rng()).id >= "000016"
        with pytest.raises(KeyError):
            reader.read("000000")


@pytest.mark.parametrize("text", ["000009", "../000000", "nonsense"])
def test_read_of_an_absent_sample_is_a_key_error(bank, text):
    with pytest.raises(KeyError):
        made(bank, pairs(0, 1)).read(text)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", 1, "its format is 1, expected 2; make the bank again with this version"),
        ("capacity", None, "capacity"),
        ("dtype", "int8", "dtype"),
        ("surplus", 1, "surplus"),
        ("schema", {}, "is not a bank.s"),
    ],
)
def test_a_description_that_is_none_is_refused_in_one_line(bank, key, value, says):
    reader = made(bank)
    doc = {**json.loads((bank / "bank.json").read_text()), key: value}
    (bank / "bank.json").write_text(json.dumps({**doc, "digest": digest_of(doc)}))
    with pytest.raises(IntegrityFault, match=f"bank.json: .*{says}") as fault:
        _ = reader.spec
    assert "\n" not in str(fault.value)


@pytest.mark.fault(36)
def test_a_bank_has_one_writer_and_its_folder_nothing_else(bank):
    with (
        BankWriter.create(bank, LIVE),
        pytest.raises(EnvironmentFault, match=f"pid {os.getpid()}"),
    ):
        BankWriter.attach(bank)
    BankWriter.attach(bank).close()
    with pytest.raises(UsageFault, match="not empty"):
        BankWriter.create(bank, LIVE)
    (bank.parent / "mine").write_text("precious")
    with pytest.raises(UsageFault, match="not empty"):
        BankWriter.create(bank.parent, LIVE)
    assert {p.name for p in bank.parent.iterdir()} == {"mine", "bank"}


@pytest.mark.fault(29)
def test_attach_goes_on_and_removes_what_a_killed_writer_left(bank):
    made(bank, pairs(0, 4))
    left = bank / ".sample-000004.safetensors.tmp-1"
    left.write_bytes(b"half")
    with BankWriter.attach(bank) as writer:
        assert writer.publish(make_sample(), {}).name == "sample-000004.safetensors"
        assert (writer.published, writer.held) == (1, 5)
    assert not left.exists()


def test_a_live_bank_never_holds_more_than_its_capacity_and_the_oldest_go(bank):
    reader, sizes = BankReader(bank), []
    with BankWriter.create(bank, replace(LIVE, capacity=10)) as writer:
        for pair in pairs(0, 48):
            writer.publish(*pair)
            sizes.append(reader.count())
    assert sizes == [*range(1, 11), *[10] * 38]
    assert reader.ids() == [f"{number:06d}" for number in range(38, 48)]


@pytest.mark.parametrize(
    ("spec", "use", "says"),
    [
        (replace(FROZEN, capacity=2), BankWriter.publish, "bank of capacity 2"),
        (replace(FROZEN, capacity=3), BankWriter.publish, "complete bank"),
        (LIVE, lambda writer, *_: writer.finish(), "only a frozen bank"),
    ],
    ids=["full", "complete", "live"],
)
def test_a_full_complete_or_live_bank_refuses_its_writer(bank, spec, use, says):
    with BankWriter.create(bank, spec) as writer:
        publish(writer, pairs(0, 2))
        if spec.capacity == 3:
            writer.finish()
        with pytest.raises(UsageFault, match=says):
            use(writer, make_sample(), {})
    assert BankReader(bank).count() == 2


@pytest.mark.parametrize("spec", [LIVE, FROZEN], ids=["live", "frozen"])
def test_a_live_bank_has_an_age_and_a_complete_one_a_hash(bank, spec):
    reader = made(bank, pairs(0, 1), spec)
    assert (reader.age() is None) == spec.frozen
    hour_ago = time.time() - 3600
    os.utime(bank / "heartbeat.json", (hour_ago, hour_ago))
    assert spec.frozen or 3599 < (reader.age() or 0) < 7200
    assert reader.sha256 is None
    with BankWriter.attach(bank) as writer:
        assert (reader.age() or 0) < 1800
        if spec.frozen:
            writer.finish()
    assert len(reader.sha256 or "") == (64 if spec.frozen else 0)


def on_disk(folder: Path) -> int:
    """Bytes of samples, and of those being written."""
    files = [p for p in folder.iterdir() if "sample" in p.name]
    return sum(4096 * -(-p.stat().st_size // 4096) for p in files)


def test_the_oldest_go_so_that_a_live_bank_stays_within_its_bytes_at_all_times(
    tmp_path, monkeypatch
):
    sizes, replace_file = [], os.replace

    def watched(old, new):
        if str(new).endswith(".safetensors"):
            sizes.append(on_disk(tmp_path / "bank"))
        replace_file(old, new)

    one = on_disk(make_bank(tmp_path / "one", replace(LIVE, capacity=4), 1))
    monkeypatch.setattr(os, "replace", watched)
    limit = 3 * one + 100
    with BankWriter.create(
        tmp_path / "bank", replace(LIVE, capacity=100, max_bytes=limit)
    ) as writer:
        full = []
        for pair in pairs(0, 10):
            writer.publish(*pair)
            full.append(writer.full)
    assert full == [False] * 2 + [True] * 8
    assert max(sizes[1:]) == 3 * one
    assert BankReader(tmp_path / "bank").ids()[0] == "000007"


def test_a_limit_with_no_room_for_two_samples_keeps_the_last_one(bank):
    with BankWriter.create(bank, replace(LIVE, max_bytes=1)) as writer:
        publish(writer, pairs(0, 3))
    assert BankReader(bank).ids() == ["000001", "000002"]  # a whole one stays until the next is


def test_a_writer_that_was_stopped_before_it_retired_leaves_no_surplus(bank, monkeypatch):
    with BankWriter.create(bank, LIVE) as writer:
        publish(writer, pairs(0, 8))
        monkeypatch.setattr(writer, "_trim", lambda: None)
        publish(writer, pairs(8, 4))
        monkeypatch.undo()
        assert BankReader(bank).count() == 12
    assert BankReader(bank).count() == 8


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
    assert two != three
    assert one.name.startswith("gansynth-run-")
    assert f"-{os.getpid()}-" in one.name
    assert silent == ""
    assert f"shared memory ({shared}) has 0.0 GB free" in said
    assert f"kept in {disk} instead" in said
    assert "--bank-dir" in said
    monkeypatch.setattr("gansynth.bank.placement.SHARED_MEMORY", tmp_path / "nowhere")
    folder, said = place_bank("run", 1)
    assert folder.parent == disk
    assert "there is no shared memory" in said
    folder, said = place_bank("run", 101, tmp_path / "new/scratch")
    assert folder.parent == tmp_path / "new/scratch"
    assert str(folder.parent) in said


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    ("size", "where", "fault", "says"),
    [
        (81, None, EnvironmentFault, "81 bytes, 80 are free"),
        (1001, "new", EnvironmentFault, "1001 bytes, 1000 are free"),
        (1, "file", UsageFault, "file: is a file"),
        (1, "file/below", EnvironmentFault, "cannot be written"),
    ],
)
def test_a_bank_without_a_place_is_refused(room, tmp_path, size, where, fault, says):
    (tmp_path / "file").touch()
    with pytest.raises(fault, match=says):
        place_bank("run", size, where if where is None else tmp_path / where)


@pytest.mark.fault(29)
def test_scratch_banks_are_found_and_those_of_dead_processes_go_with_the_next_one(room):
    mine, _ = place_bank("my-run", 1)
    (mine / "sample").write_bytes(b"12345")
    machine = mine.name.split("-")[3]
    left = room[1] / f"gansynth-run-{machine}-4194999-abc_12de"  # no process has such a number
    others = room[1] / "gansynth-run-0123abcd-4194999-abc_12de"  # of a container beside this one
    for folder in (left, others, room[1] / "gansynth-notes"):
        folder.mkdir()
    assert scratch_banks() == [(mine, 5, os.getpid(), True), (left, 0, 4194999, False)]
    place_bank("my-run", 1)
    assert [folder.exists() for folder in (mine, left, others)] == [True, False, True]


@pytest.mark.fault(3)
@pytest.mark.parametrize("name", ["bank.json", "complete.json", "sample-000000.safetensors"])
def test_a_flipped_bit_anywhere_is_found(bank, name):
    path = make_bank(bank, samples=1) / name
    whole, draws, silent, said = path.read_bytes(), rng(), [], []
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(draws.integers(8))
        path.write_bytes(spoilt)
        try:
            verify_bank(bank)
            silent.append(spoilt)
        except IntegrityFault as fault:
            said.append(str(fault))
    if path.suffix == ".json":
        assert all(json.loads(found) == json.loads(whole) for found in silent)  # another blank
        assert len(silent) < len(whole) / 10
    else:
        assert silent == []
        assert all(name in line for line in said)


@pytest.mark.parametrize("spec", [FROZEN, LIVE], ids=["complete", "live"])
def test_a_sample_cut_anywhere_is_found(bank, spec):
    path = make_bank(bank, spec, 2) / "sample-000001.safetensors"
    whole = path.read_bytes()
    for size in (0, 7, 8, 9, 100, 300, len(whole) - 241, len(whole) - 1):
        path.write_bytes(whole[:size])
        for read in (verify_bank, lambda folder: BankReader(folder).read("000001")):
            with pytest.raises(IntegrityFault, match=r"sample-000001\.safetensors: damaged"):
                read(bank)


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
    spoil(make_bank(bank) / "sample-000001.safetensors")
    with pytest.raises(IntegrityFault, match="its SHA-256 is"):
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
    for key, value in changes.items():
        entry, _, part = (key, "", "") if key.startswith("__") else key.partition("__")
        if value is None:
            del header[entry]
        elif part:
            header[entry][part] = value
        else:
            header[entry] = value
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LARGE = [2, 1024, 2048, 1024]  # 8 GiB in float16
PROVENANCE = {"sha256": "0" * 64, "provenance": "[]"}
FORGED: dict[str, Callable[[bytes], bytes]] = {
    "header beyond the file": lambda d: (1 << 40).to_bytes(8, "little") + d[8:],
    "header of no bytes": lambda d: bytes(8) + d[8:],
    "header of lists": lambda d: (9000).to_bytes(8, "little") + b"[" * 9000,
    "shape of 8 GiB": lambda d: forged(d, image__shape=LARGE),
    "8 GiB with offsets": lambda d: forged(d, image=entry("F16", LARGE, 0, 1 << 33), labels=None),
    "shape beyond a number": lambda d: forged(d, image__shape=[2, 1 << 70, 4, 5]),
    "negative shape": lambda d: forged(d, image__shape=[-2, -3, 4, 5]),
    "shape of text": lambda d: forged(d, image__shape="2345"),
    "shape of fractions": lambda d: forged(d, image__shape=[2.0, 3, 4, 5]),
    "a hundred axes": lambda d: forged(d, image__shape=[1] * 96 + [2, 3, 4, 5]),
    "endless nothing": lambda d: forged(d, **{"extra:a": entry("F16", [0, 2**40], 360, 360)}),
    "no image": lambda d: forged(d, image=None),
    "image of integers": lambda d: forged(d, image__dtype="I16"),
    "dtype of objects": lambda d: forged(d, image__dtype="|O"),
    "dtype numpy lacks": lambda d: forged(d, image__dtype="BF16"),
    "labels of another shape": lambda d: forged(d, labels__shape=[3, 5, 4]),
    "arrays that overlap": lambda d: forged(d, labels__data_offsets=[0, 120]),
    "gap": lambda d: forged(d, labels__data_offsets=[241, 361]) + b"x",
    "surplus bytes": lambda d: d + b"x",
    "unknown array": lambda d: forged(d, labels=None, x=entry("I16", [3, 4, 5], 240, 360)),
    "path in place of offsets": lambda d: forged(d, labels__data_offsets="/etc/passwd"),
    "external file": lambda d: forged(d, labels__external=["/etc/passwd", 0, 120]),
    "boxes without classes": lambda d: forged(d, boxes=entry("F32", [0, 6], 360, 360)),
    "no provenance": lambda d: forged(d, __metadata__={"sha256": "0" * 64}),
    "provenance of a list": lambda d: forged(d, __metadata__=PROVENANCE),
    "HDF5": lambda d: b"\x89HDF\r\n\x1a\n" + d,
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
            with pytest.raises(IntegrityFault, match=r"000000\.safetensors: damaged"):
                read(bank)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


NOT_FILES: dict[str, Callable[[Path, Path], Any]] = {
    "a link to a system file": lambda path, copy: path.symlink_to("/etc/passwd"),
    "a link to a whole one": lambda path, copy: path.symlink_to(copy),
    "a dangling link": lambda path, copy: path.symlink_to("/nowhere"),
    "a pipe": lambda path, copy: os.mkfifo(path),
    "a folder": lambda path, copy: path.mkdir(),
}


@pytest.mark.parametrize("name", ["sample-000000.safetensors", "bank.json", "complete.json"])
@pytest.mark.parametrize("what", NOT_FILES)
def test_a_link_pipe_or_folder_in_place_of_a_file_is_refused_at_once(bank, name, what):
    path = make_bank(bank) / name
    copy = path.rename(bank.parent / "copy")
    NOT_FILES[what](path, copy)
    with pytest.raises(IntegrityFault, match=f"{name}: damaged: a link, folder, pipe or device"):
        verify_bank(bank)


def test_samples_are_listed_in_order_with_strangers_among_them(bank):
    reader, numbers = made(bank, pairs(0, 1)), [*range(4000), 999_999, 1_000_000, 10_000_000]
    strangers = ["sample-12.safetensors", "sample-000012.h5", ".sample-000013.safetensors.tmp-1"]
    for name in (*(f"sample-{number:06d}.safetensors" for number in numbers), *strangers):
        (bank / name).touch()
    assert list(map(int, reader.ids())) == numbers


@pytest.mark.fault(31)
def test_a_file_over_the_limit_is_an_environment_fault_and_leaves_nothing(bank):
    with BankWriter.create(bank, FROZEN) as writer:
        writer.publish(make_sample(), {})
        too_large = pytest.raises(EnvironmentFault, match=r"larger than .*; .*bytes needed")
        with files_of_at_most(400_000), too_large:
            writer.publish(make_sample(0, (64, 64, 64)), {})
    assert verify_bank(bank) == 1
    assert len(list(bank.glob("*sample*"))) == 1


def test_reading_needs_neither_torch_nor_any_framework(bank):
    make_bank(bank)
    body = f"""
import sys
import numpy as np
from gansynth.bank.reader import BankReader
assert BankReader({str(bank)!r}).draw(np.random.default_rng(0)).image.shape == (2, 3, 4, 5)
heavy = {{"torch", "h5py", "safetensors", "nnunetv2", "scipy", "nibabel", "pydantic", "filelock"}}
print(sorted(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


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


FULL = """
import json, shutil, sys
from pathlib import Path
import gansynth.bank.store as store
from gansynth.bank.reader import BankReader, BankWriter, verify_bank
from gansynth.runtime.errors import EnvironmentFault
from tests.bank.test_bank import LIVE, make_sample, replace
store._SETTLE_SECONDS = 0.01
folder = Path(sys.argv[1]) / "bank"
large = make_sample(0, (24, 24, 24)), {}
writer = BankWriter.create(folder, replace(LIVE, capacity=10**6))
held = []
while not writer.squeezed:
    assert writer.published < 1000
    writer.publish(*large)
    held.append(writer.held)
for _ in range(5):
    assert writer.full
    writer.publish(*large)
    held.append(writer.held)
writer.beat()
assert json.loads((folder / "heartbeat.json").read_text())["squeezed"]
assert verify_bank(folder) == writer.held
(folder / "fill").write_bytes(bytes(shutil.disk_usage(folder).free))
writer.beat()  # lives, though nothing can be written any more
try:
    writer.publish(make_sample(0, (64, 64, 64)), {})
except EnvironmentFault as fault:
    message = str(fault)
print(json.dumps([held[-7:], writer.held, BankReader(folder).count(), message]))
"""


@pytest.mark.fault(31)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a tmpfs")
def test_a_live_bank_on_a_full_disk_makes_room_and_gives_up_only_with_its_last_sample(tmp_path):
    mount = 'mount -t tmpfs -o size=700k tmpfs "$0" || exit 77; exec "$@"'
    disk = ("unshare", "-rm", "sh", "-c", mount, str(tmp_path))
    words = [*disk, sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    assert done.returncode == 0, done.stderr
    held, last, seen, message = json.loads(done.stdout)
    assert held == [held[0]] * 7
    assert held[0] > 3
    assert last == seen == 1
    assert "the disk is full" in message
