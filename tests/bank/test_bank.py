"""The bank: what goes in comes out, whole or not at all, whoever is killed meanwhile."""

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gansynth.bank.placement import place_bank, scratch_banks
from gansynth.bank.reader import BankReader, BankSample, BankSpec, BankWriter, verify_bank
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
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
    segment_samples=4,
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


def made(bank: Path, *segments: Any, spec: BankSpec | None = None) -> BankReader:
    """A live bank of such segments, open to be read."""
    with BankWriter.create(bank, spec or LIVE) as writer:
        for segment in segments:
            writer.publish(segment)
    return BankReader(bank)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_array_equal(found, wanted)


def make_bank(folder: Path, spec: BankSpec = FROZEN, samples: int = 8) -> Path:
    with BankWriter.create(folder, spec) as writer:
        for first in range(0, samples, 4):
            writer.publish(pairs(first, min(4, samples - first)))
        if spec.frozen:
            writer.finish()
    return folder


def draw(reader: BankReader, rng: np.random.Generator) -> BankSample:
    sample = reader.draw(rng)
    assert sample is not None
    return sample


def test_a_sample_comes_out_as_it_went_in(bank):
    boxes = Boxes(np.array([[0, 0, 0, 2, 2, 2.5]], np.float32), np.array([1], np.int16))
    told = {"case": "a", "nested": {"seed": np.int64(3)}}
    sample = replace(make_sample(), boxes=boxes, provenance=told)
    # Of another size, in the same segment.
    other = replace(make_sample(1, (6, 1, 3)), boxes=boxes)
    reader = made(bank, [(sample, {}), (other, {})])
    same(reader.read("000000-01").image, other.image.astype(np.float16))
    same(reader.read("000000-01").labels, other.labels)
    found: Any = reader.read("000000-00")
    same(found.image, sample.image.astype(np.float16))
    same(found.labels, sample.labels)
    same(found.boxes.coords, boxes.coords)
    same(found.boxes.labels, boxes.labels)
    assert found.provenance == {"case": "a", "nested": {"seed": 3}}
    kinds = (found.image, found.labels, found.boxes.coords, found.boxes.labels)
    assert [a.dtype for a in kinds] == [np.float16, np.int16, np.float32, np.int16]


def test_float32_is_kept_to_the_bit_where_asked(bank):
    found = made(bank, pairs(0, 4), spec=replace(LIVE, dtype="float32")).read("000000-02")
    assert found.image.dtype == np.float32
    same(found.image, make_sample(2).image)


@pytest.mark.parametrize(
    "arrays",
    [
        [np.arange(4 * n, dtype=np.int16).reshape(n, 4) for n in (3, 0, 70)],
        [np.arange(4 * n, dtype=np.int32).reshape(n, 4) - 2**30 for n in (2, 2, 2)],
        [np.zeros((0, 4), np.int64)] * 3,
        [np.array(v) for v in (1.5, -2.0, 3.25)],
        [np.array([v, not v]) for v in (True, False, True)],
        [np.full((n, 2, n), n, np.float64) for n in (1, 2, 3)],
    ],
    ids=["ragged", "stacked", "empty", "scalar", "bool", "ragged-3d"],
)
def test_extras_keep_shape_dtype_and_values(bank, arrays):
    name, beside = "class_locations:[1, 2] / é", np.arange(3, dtype=np.int16)
    told = [(make_sample(k), {name: a, "b": beside + k}) for k, a in enumerate(arrays)]
    reader = made(bank, told)
    for k, array in enumerate(arrays):
        found = reader.read(f"000000-0{k}").extras
        assert set(found) == {name, "b"}
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        same(found[name], array)
        same(found["b"], beside + k)


def test_two_dimensional_samples_with_ragged_boxes_and_no_labels(bank):
    boxes = [
        Boxes(np.tile(np.array([[0, 1, 2, 3]], np.float32), (n, 1)), np.arange(n, dtype=np.int16))
        for n in (0, 1, 3)
    ]
    spec = replace(LIVE, schema=Schema(("T1",), {"background": 0}, (1.0, 1.0), axes="HW"))
    samples: list[Any] = [(Sample(np.ones((1, 4, 4), np.float32), None, b), {}) for b in boxes]
    reader = made(bank, samples, spec=spec)
    for k, box in enumerate(boxes):
        found: Any = reader.read(f"000000-0{k}")
        assert found.labels is None
        same(found.boxes.coords, box.coords)
        same(found.boxes.labels, box.labels)


def test_a_strangers_hdf5_reader_finds_one_chunk_per_sample(bank):
    made(bank, pairs(0, 4), pairs(4, 4))
    with h5py.File(bank / "segment-000001.h5") as file:
        assert file["image"].chunks == (1, 2, 3, 4, 5)
        same(file["labels"][2], make_sample(6).labels)


@pytest.mark.parametrize(
    "odd",
    [
        (replace(make_sample(), labels=None), {"a": np.zeros(2)}),
        (make_sample(), {}),
        (make_sample(), {"a": np.zeros(2, np.int8)}),
        (replace(make_sample(), image=np.ones((2, 4, 4), np.float32)), {"a": np.zeros(2)}),
        (replace(make_sample(), image=np.full((2, 3, 4, 5), 1e6, np.float32)), {"a": np.zeros(2)}),
        (replace(make_sample(), provenance={"case": object()}), {"a": np.zeros(2)}),
    ],
    ids=["no-labels", "no-extra", "other-dtype", "other-axes", "overflow", "provenance"],
)
def test_a_sample_that_cannot_be_stored_is_refused_and_leaves_nothing(bank, odd):
    with BankWriter.create(bank, LIVE) as writer:
        with pytest.raises(DataFault):
            writer.publish([(make_sample(), {"a": np.zeros(2)}), odd])
        assert list(bank.glob("*segment*")) == []
        assert writer.held == 0
        writer.publish(pairs(0, 2))
    assert BankReader(bank).ids() == ["000000-00", "000000-01"]


def test_extras_that_are_no_numbers_are_refused_by_name(bank):
    with pytest.raises(DataFault, match="'a' is <U4"):
        made(bank, [(make_sample(), {"a": np.array(["text"])})])


def test_draw_is_uniform_over_samples_of_unequal_segments(bank):
    reader, draws = made(bank, pairs(0, 1), pairs(1, 4)), rng()
    drawn = [draw(reader, draws).provenance["index"] for _ in range(2000)]
    counts = np.bincount(drawn, minlength=5)
    assert np.abs(counts - 400).max() < 3.5 * np.sqrt(2000 * 0.2 * 0.8)


def test_draw_gives_none_without_a_bank_and_once_there_is_one_a_sample(bank):
    reader = BankReader(bank, rescan_seconds=1000)
    assert reader.draw(rng()) is None
    with BankWriter.create(bank, LIVE) as writer:
        assert reader.draw(rng()) is None
        writer.publish(pairs(0, 1))
        assert draw(reader, rng()).id == "000000-00"


def test_what_is_drawn_may_be_changed_without_changing_the_bank(bank):
    reader = made(bank, [(make_sample(), {"a": np.arange(3)})])
    before = (bank / "segment-000000.h5").read_bytes()
    first: Any = draw(reader, rng())
    for array in (first.image, first.labels, first.extras["a"]):
        assert array.flags.writeable
        array[...] = 0
    again = draw(reader, rng())
    same(again.labels, make_sample().labels)
    same(again.extras["a"], [0, 1, 2])
    assert (bank / "segment-000000.h5").read_bytes() == before


def test_draw_meets_segments_retired_since_its_listing(bank):
    reader = BankReader(bank, rescan_seconds=1000)
    with BankWriter.create(bank, LIVE) as writer:
        writer.publish(pairs(0, 4))
        assert draw(reader, rng()).id.startswith("000000")
        writer.publish(pairs(4, 4))
        reader.count()
        for first in range(8, 24, 4):
            writer.publish(pairs(first, 4))
        reader._open.popitem()[1].close()  # else the open, unlinked segment is rightly used on
        assert draw(reader, rng()).id[:6] in ("000004", "000005")


def test_draw_gives_none_when_the_folder_is_deleted(bank):
    made(bank, pairs(0, 4))
    reader = BankReader(bank, rescan_seconds=0)
    assert reader.draw(rng()) is not None
    shutil.rmtree(bank)
    assert reader.draw(rng()) is None


def test_a_damaged_segment_is_not_taken_for_a_retired_one(bank):
    reader, path = made(bank, pairs(0, 4)), bank / "segment-000000.h5"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(IntegrityFault, match=r"segment-000000\.h5"):
        reader.draw(rng())


@pytest.mark.parametrize("text", ["000009-00", "000000-04", "nonsense"])
def test_read_of_an_absent_sample_is_a_key_error(bank, text):
    with pytest.raises(KeyError):
        made(bank, pairs(0, 4)).read(text)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc/self/fd")
def test_the_reader_holds_few_handles_and_none_of_retired_segments(bank):
    def held() -> list[str]:
        links = [os.path.realpath(p) for p in Path("/proc/self/fd").iterdir()]
        return [x for x in links if str(bank / "segment") in x]

    reader, draws = BankReader(bank, rescan_seconds=0), rng()
    with BankWriter.create(bank, replace(LIVE, capacity=20)) as writer:
        for first in range(0, 20, 4):
            writer.publish(pairs(first, 4))
        for _ in range(60):
            reader.draw(draws)
        assert len(held()) == 3
        for first in range(20, 40, 4):
            writer.publish(pairs(first, 4))
        reader.draw(draws)
        assert len(held()) == 1
        assert "deleted" not in held()[0]


def test_the_spec_comes_back(bank):
    assert made(bank, spec=FROZEN).spec == FROZEN


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", 2), ("capacity", None), ("surplus", 1), ("schema", {}), ("colour", 1)],
)
def test_a_spec_that_is_none_is_an_integrity_fault(bank, key, value):
    reader, path = made(bank), bank / "bank.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(IntegrityFault):
        _ = reader.spec


def test_create_refuses_a_folder_with_content_and_leaves_it_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageFault, match="not empty"):
        BankWriter.create(tmp_path, LIVE)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.fault(36)
def test_a_second_writer_is_refused_until_the_first_closes(bank):
    writer = BankWriter.create(bank, LIVE)
    with pytest.raises(EnvironmentFault, match=f"pid {os.getpid()}"):
        BankWriter.attach(bank)
    writer.close()
    BankWriter.attach(bank).close()


@pytest.mark.fault(29)
def test_attach_goes_on_and_removes_what_a_killed_writer_left(bank):
    made(bank, pairs(0, 4))
    left = bank / ".segment-000001.h5.tmp-1"
    left.write_bytes(b"half")
    with BankWriter.attach(bank) as writer:
        assert writer.publish(pairs(4, 4)).name == "segment-000001.h5"
        assert (writer.published, writer.held) == (4, 8)
    assert not left.exists()


def test_a_live_bank_never_holds_more_than_its_capacity_and_the_oldest_go(bank):
    reader, sizes = BankReader(bank), []
    with BankWriter.create(bank, replace(LIVE, capacity=10)) as writer:
        for first in range(0, 48, 4):
            writer.publish(pairs(first, min(4, writer.next_size)))
            sizes.append(reader.count())
        assert sizes == [4, 8, *[10] * 10]
        assert reader.ids()[0].startswith("000009")


def test_a_frozen_bank_refuses_to_overflow_and_keeps_everything(bank):
    with BankWriter.create(bank, replace(FROZEN, capacity=8)) as writer:
        writer.publish(pairs(0, 4))
        writer.publish(pairs(4, 4))
        with pytest.raises(UsageFault, match="capacity 8"):
            writer.publish(pairs(8, 1))
    assert BankReader(bank).count() == 8


def test_a_complete_bank_is_closed(bank):
    make_bank(bank, samples=4)
    with BankWriter.attach(bank) as writer, pytest.raises(UsageFault, match="complete"):
        writer.publish(pairs(4, 4))


def test_a_live_bank_cannot_be_finished(bank):
    with BankWriter.create(bank, LIVE) as writer:
        writer.publish(pairs(0, 1))
        with pytest.raises(UsageFault, match="frozen"):
            writer.finish()


def test_the_heartbeat_tells_the_age_of_a_live_bank(bank):
    with BankWriter.create(bank, LIVE) as writer:
        reader, hour_ago = BankReader(bank), time.time() - 3600
        os.utime(bank / "heartbeat.json", (hour_ago, hour_ago))
        assert 3599 < (reader.age() or 0) < 7200
        writer.beat()
        assert (reader.age() or 0) < 1800


def test_a_frozen_bank_has_no_age_and_a_complete_one_a_hash(bank):
    with BankWriter.create(bank, FROZEN) as writer:
        reader = BankReader(bank)
        writer.publish(pairs(0, 4))
        assert (reader.age(), reader.sha256) == (None, None)
        writer.finish()
    assert len(reader.sha256 or "") == 64


@pytest.mark.parametrize(
    "changes",
    [{"frozen": True, "max_bytes": 9}, {"max_bytes": 0}, {"capacity": 0}, {"dtype": "int8"}],
    ids=str,
)
def test_a_description_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageFault, match="bank: "):
        replace(LIVE, **changes)


def on_disk(folder: Path) -> int:
    """Bytes of segments, and of those being written."""
    files = [p for p in folder.iterdir() if "segment" in p.name]
    return sum(4096 * -(-p.stat().st_size // 4096) for p in files)


def test_the_oldest_go_so_that_a_live_bank_stays_within_its_bytes_at_all_times(
    tmp_path, monkeypatch
):
    sizes, replace_file = [], os.replace

    def watched(old, new):
        if str(new).endswith(".h5"):
            sizes.append(on_disk(tmp_path / "bank"))
        replace_file(old, new)

    one = on_disk(make_bank(tmp_path / "one", replace(LIVE, capacity=4), 4))
    monkeypatch.setattr(os, "replace", watched)
    limit = 3 * one + 100
    with BankWriter.create(
        tmp_path / "bank", replace(LIVE, capacity=100, max_bytes=limit)
    ) as writer:
        full = []
        for first in range(0, 40, 4):
            writer.publish(pairs(first, 4))
            full.append((writer.full, writer.next_size))
    assert full == [(False, 4)] * 2 + [(True, 4)] * 8
    assert max(sizes[1:]) == 3 * one
    assert BankReader(tmp_path / "bank").ids()[0].startswith("000007")


def test_a_limit_with_no_room_for_two_segments_keeps_the_last_one(bank):
    reader = BankReader(bank)
    with BankWriter.create(bank, replace(LIVE, max_bytes=1)) as writer:
        for first in range(0, 12, 4):
            writer.publish(pairs(first, 4))
            assert reader.count() == 4 * min(2, 1 + first)
    # One that is whole stays until the next one is.
    assert reader.ids()[0].startswith("000001")


def test_what_earlier_writers_published_is_known_also_if_they_were_killed(bank):
    made(bank, *[pairs(0, 4)] * 3, spec=replace(LIVE, capacity=4))  # its heartbeat knows of none
    with BankWriter.attach(bank) as writer:
        assert writer.total == 4  # nor does anybody know of the retired
        writer.beat()
        writer.publish(pairs(0, 4))
        writer.publish(pairs(0, 4))
    with BankWriter.attach(bank) as writer:
        assert (writer.total, writer.published) == (8, 0)


def test_a_writer_that_was_stopped_before_it_retired_leaves_no_surplus(bank, monkeypatch):
    with BankWriter.create(bank, LIVE) as writer:
        writer.publish(pairs(0, 4))
        writer.publish(pairs(4, 4))
        monkeypatch.setattr(writer, "_trim", lambda: None)
        writer.publish(pairs(8, 4))
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
def test_a_bank_is_placed_in_shared_memory_then_on_the_disk_and_says_so(room):
    shared, disk = room
    (one, silent), (two, said), (three, _) = (place_bank("a/run", n) for n in (50, 51, 51))
    assert [p.parent for p in (one, two, three)] == [shared, disk, disk]
    assert two != three
    assert one.name.startswith(f"gansynth-run-{os.getpid()}-")
    assert silent == ""
    assert f"shared memory ({shared}) has 0.0 GB free" in said
    assert f"kept in {disk} instead" in said
    assert "--bank-dir" in said
    with pytest.raises(EnvironmentFault, match="81 bytes, 80 are free"):
        place_bank("run", 81)


def test_a_bank_is_placed_where_asked_and_the_folder_made(room, tmp_path):
    folder, said = place_bank("run", 101, tmp_path / "new/scratch")
    assert folder.parent == tmp_path / "new/scratch"
    assert str(folder.parent) in said
    with pytest.raises(EnvironmentFault, match="1001 bytes, 1000 are free"):
        place_bank("run", 1001, tmp_path / "new/scratch")


def test_a_bank_cannot_be_placed_in_a_file_nor_where_writing_is_not_permitted(room, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageFault, match="file: is a file"):
        place_bank("run", 1, tmp_path / "file")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        place_bank("run", 1, tmp_path / "file/below")


@pytest.mark.fault(31)
def test_without_shared_memory_a_bank_is_placed_on_the_disk(room, monkeypatch, tmp_path):
    monkeypatch.setattr("gansynth.bank.placement.SHARED_MEMORY", tmp_path / "nowhere")
    folder, said = place_bank("run", 1)
    assert folder.parent == room[1]
    assert "there is no shared memory" in said


def test_scratch_banks_are_found_with_their_size_and_whether_their_maker_lives(room):
    mine, _ = place_bank("my-run", 1)
    (mine / "segment").write_bytes(b"12345")
    left = room[1] / "gansynth-run-4194999-abc_12de"  # no process has such a number
    left.mkdir()
    (room[1] / "gansynth-notes").mkdir()
    assert scratch_banks() == [(mine, 5, os.getpid(), True), (left, 0, 4194999, False)]


@pytest.mark.fault(3)
def test_a_flipped_bit_anywhere_in_a_segment_is_found(bank):
    path = make_bank(bank, samples=4) / "segment-000000.h5"
    whole, draws = path.read_bytes(), rng()
    assert verify_bank(bank) == 1
    places = [*range(0, 560, 7), *draws.integers(len(whole), size=120).tolist(), len(whole) - 1]
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(draws.integers(8))
        path.write_bytes(spoilt)
        with pytest.raises(IntegrityFault, match=r"segment-000000\.h5"):
            verify_bank(bank)


def cut_to(size: int) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        *((cut_to(size), r"segment-000001\.h5") for size in (0, 300, 512, -1)),
        (Path.unlink, r"segment-000001\.h5"),
        (
            lambda path: path.rename(path.with_name("segment-000007.h5")),
            "published as segment-000001",
        ),
    ],
    ids=["0", "300", "512", "all but one", "missing", "another name"],
)
def test_a_segment_that_is_cut_or_gone_is_found(bank, spoil, says):
    spoil(make_bank(bank) / "segment-000001.h5")
    with pytest.raises(IntegrityFault, match=says):
        verify_bank(bank)


@pytest.mark.fault(35)
def test_a_pickled_reader_leaves_its_handles_behind(bank):
    make_bank(bank)
    reader = BankReader(bank, handles=2)
    reader.draw(rng())
    data = pickle.dumps(reader)
    assert len(data) < 500
    copy = pickle.loads(data)
    assert (copy.handles, copy.ids()) == (2, reader.ids())
    assert copy.draw(rng()) is not None


@pytest.mark.fault(31)
def test_a_file_over_the_limit_is_an_environment_fault_and_leaves_nothing(bank):
    with BankWriter.create(bank, replace(FROZEN, capacity=100)) as writer:
        writer.publish(pairs(0, 4))
        large: list[Any] = [(make_sample(0, (64, 64, 64)), {})]
        with (
            files_of_at_most(400_000),
            pytest.raises(EnvironmentFault, match=r"larger than .*; .*bytes needed"),
        ):
            writer.publish(large)
    assert verify_bank(bank) == 1
    assert len(list(bank.glob("*segment*"))) == 1


def test_reading_needs_neither_torch_nor_any_framework(bank):
    make_bank(bank)
    body = f"""
import sys
import numpy as np
from gansynth.bank.reader import BankReader
assert BankReader({str(bank)!r}).draw(np.random.default_rng(0)).image.shape == (2, 3, 4, 5)
heavy = {{"torch", "nnunetv2", "scipy", "nibabel", "pydantic", "pluggy", "filelock"}}
print(sorted(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.fault(29)
@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_no_torn_segment(bank):
    BankWriter.create(bank, LIVE).close()
    segment: list[Any] = [(make_sample(7, (40, 40, 40)), {})] * 4
    reader, trials, left = BankReader(bank), 0, 0

    def write() -> None:
        with BankWriter.attach(bank) as writer:
            while True:
                writer.publish(segment)
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
        assert reader.count() <= 12
        for name in reader.ids():
            same(reader.read(name).labels, segment[0][0].labels)
    BankWriter.attach(bank).close()
    assert list(bank.glob(".*.tmp-*")) == []


FULL = """
import json, shutil, sys
from pathlib import Path
import gansynth.bank.writer as w
from gansynth.bank.reader import BankReader, BankWriter, verify_bank
from gansynth.runtime.errors import EnvironmentFault
from tests.bank.test_bank import LIVE, pairs, make_sample, replace
w._SETTLE_SECONDS = w._RETRY_SECONDS = 0.01
folder = Path(sys.argv[1]) / "bank"
large = [(make_sample(k, (16, 16, 16)), {}) for k in range(4)]
writer = BankWriter.create(folder, replace(LIVE, capacity=10**6))
held = []
while not writer.squeezed:
    assert writer.published < 1000
    writer.publish(large)
    held.append(writer.held)
for _ in range(5):
    assert writer.full and writer.next_size == 4
    writer.publish(large)
    held.append(writer.held)
writer.beat()
assert json.loads((folder / "heartbeat.json").read_text())["squeezed"]
assert verify_bank(folder) == writer.held // 4
(folder / "fill").write_bytes(bytes(shutil.disk_usage(folder).free))
writer.beat()  # lives, though nothing can be written any more
try:
    writer.publish([(make_sample(0, (64, 64, 64)), {})])
except EnvironmentFault as fault:
    message = str(fault)
print(json.dumps([held[-7:], writer.held, BankReader(folder).count(), message]))
"""


@pytest.mark.fault(31)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a tmpfs")
def test_a_live_bank_on_a_full_disk_makes_room_and_gives_up_only_with_its_last_segment(tmp_path):
    mount = 'mount -t tmpfs -o size=700k tmpfs "$0" || exit 77; exec "$@"'
    disk = ("unshare", "-rm", "sh", "-c", mount, str(tmp_path))
    words = [*disk, sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    assert done.returncode == 0, done.stderr
    held, last, seen, message = json.loads(done.stdout)
    assert held == [held[0]] * 7
    assert held[0] > 12
    assert last == seen == 4
    assert "the disk is full" in message
