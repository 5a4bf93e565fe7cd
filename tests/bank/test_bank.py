"""The bank: what goes in comes out, whole or not at all, whoever is killed meanwhile."""

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from gansynth.bank.placement import place_bank, scratch_banks
from gansynth.bank.reader import (
    BankReader,
    BankSample,
    BankSpec,
    BankWriter,
    verify_bank,
)
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault

ROOT = Path(__file__).parents[2]
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

# Shared by the scripts below: sample k holds the value k everywhere, and says so.
PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from gansynth.bank.reader import BankReader, BankSpec, BankWriter, verify_bank
from gansynth.runtime.errors import EnvironmentFault
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Sample, Schema

def spec(**keys):
    schema = Schema(("T1",), {"background": 0}, (1.0, 1.0, 1.0))
    return BankSpec(schema, Lineage("toy", "0", ()), "run", "f", **keys)

def segment(first, count, edge):
    def sample(k):
        image = np.full((1, edge, edge, edge), k % 2048, np.float32)
        return Sample(image, image[0].astype(np.int16), None, {"index": k}), {"extra": image[0, 0]}
    return [sample(k) for k in range(first, first + count)]

def right(sample):
    k = sample.provenance["index"] % 2048
    arrays = (sample.image, sample.labels, sample.extras["extra"])
    return all(bool((a == k).all()) and a.size for a in arrays)
"""


def make_sample(k: int = 0, size=(3, 4, 5)) -> Sample:
    rng = np.random.default_rng(k)
    labels = rng.integers(-1, 2, size).astype(np.int16)
    image = rng.normal(size=(2, *size)).astype(np.float32)
    return Sample(image, labels, None, {"index": k})


def pairs(first: int, count: int):
    return [(make_sample(k), {}) for k in range(first, first + count)]


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


def run_script(tmp_path: Path, body: str, *arguments: object, prefix=(), **options):
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + body)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*prefix, sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
        check=False,
        **options,
    )


# -- in and out ----------------------------------------------------------------------------------


def test_a_sample_comes_out_as_it_went_in(tmp_path):
    boxes = Boxes(np.array([[0, 0, 0, 2, 2, 2.5]], np.float32), np.array([1], np.int16))
    sample = replace(
        make_sample(),
        boxes=boxes,
        provenance={"case": "a", "nested": {"seed": np.int64(3)}},
    )
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        writer.publish([(sample, {})])
    found = BankReader(tmp_path / "bank").read("000000-00")
    np.testing.assert_array_equal(found.image, sample.image.astype(np.float16))
    assert found.labels is not None
    assert found.boxes is not None
    np.testing.assert_array_equal(found.labels, sample.labels)
    np.testing.assert_array_equal(found.boxes.coords, boxes.coords)
    np.testing.assert_array_equal(found.boxes.labels, boxes.labels)
    assert found.provenance == {"case": "a", "nested": {"seed": 3}}
    kinds = (found.image, found.labels, found.boxes.coords, found.boxes.labels)
    assert [a.dtype for a in kinds] == [np.float16, np.int16, np.float32, np.int16]


def test_float32_is_kept_to_the_bit_where_asked(tmp_path):
    make_bank(tmp_path / "bank", replace(LIVE, dtype="float32"), 4)
    found = BankReader(tmp_path / "bank").read("000000-02")
    assert found.image.dtype == np.float32
    np.testing.assert_array_equal(found.image, make_sample(2).image)


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
def test_extras_keep_shape_dtype_and_values(tmp_path, arrays):
    name, beside = "class_locations:[1, 2] / é", np.arange(3, dtype=np.int16)
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        writer.publish([(make_sample(k), {name: a, "b": beside + k}) for k, a in enumerate(arrays)])
    reader = BankReader(tmp_path / "bank")
    for k, array in enumerate(arrays):
        found = reader.read(f"000000-0{k}").extras
        assert set(found) == {name, "b"}
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(found["b"], beside + k)


def test_samples_of_different_sizes_share_a_segment(tmp_path):
    sizes = [(3, 4, 5), (2, 2, 2), (6, 1, 3)]
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        writer.publish([(make_sample(k, size), {}) for k, size in enumerate(sizes)])
    reader = BankReader(tmp_path / "bank")
    for k, size in enumerate(sizes):
        found = reader.read(f"000000-0{k}")
        np.testing.assert_array_equal(found.image, make_sample(k, size).image.astype(np.float16))
        np.testing.assert_array_equal(found.labels, make_sample(k, size).labels)


def test_two_dimensional_samples_with_ragged_boxes_and_no_labels(tmp_path):
    boxes = [
        Boxes(np.tile(np.array([[0, 1, 2, 3]], np.float32), (n, 1)), np.arange(n, dtype=np.int16))
        for n in (0, 1, 3)
    ]
    spec = replace(LIVE, schema=Schema(("T1",), {"background": 0}, (1.0, 1.0), axes="HW"))
    with BankWriter.create(tmp_path / "bank", spec) as writer:
        writer.publish([(Sample(np.ones((1, 4, 4), np.float32), None, b), {}) for b in boxes])
    reader = BankReader(tmp_path / "bank")
    for k, box in enumerate(boxes):
        found = reader.read(f"000000-0{k}")
        assert found.labels is None
        assert found.boxes is not None
        np.testing.assert_array_equal(found.boxes.coords, box.coords)
        np.testing.assert_array_equal(found.boxes.labels, box.labels)


def test_a_strangers_hdf5_reader_finds_one_chunk_per_sample(tmp_path):
    make_bank(tmp_path / "bank")
    with h5py.File(tmp_path / "bank/segment-000001.h5") as file:
        assert file["image"].chunks == (1, 2, 3, 4, 5)
        np.testing.assert_array_equal(file["labels"][2], make_sample(6).labels)


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
def test_a_sample_that_cannot_be_stored_is_refused_and_leaves_nothing(tmp_path, odd):
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        with pytest.raises(DataFault):
            writer.publish([(make_sample(), {"a": np.zeros(2)}), odd])
        assert list(writer.folder.glob("*segment*")) == []
        writer.publish(pairs(0, 2))
    assert BankReader(tmp_path / "bank").ids() == ["000000-00", "000000-01"]


def test_extras_that_are_no_numbers_are_refused(tmp_path):
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        with pytest.raises(DataFault, match="'a' is <U4"):
            writer.publish([(make_sample(), {"a": np.array(["text"])})])
        assert writer.held == 0


# -- drawing -------------------------------------------------------------------------------------


def test_draw_is_uniform_over_samples_of_unequal_segments(tmp_path):
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        writer.publish(pairs(0, 1))
        writer.publish(pairs(1, 4))
    reader, rng = BankReader(tmp_path / "bank"), np.random.default_rng(0)
    drawn = [draw(reader, rng).provenance["index"] for _ in range(2000)]
    counts = np.bincount(drawn, minlength=5)
    sigma = np.sqrt(2000 * 0.2 * 0.8)
    assert np.abs(counts - 400).max() < 3.5 * sigma


def test_draw_follows_the_callers_generator(tmp_path):
    make_bank(tmp_path / "bank")
    runs = [
        [draw(BankReader(tmp_path / "bank"), rng).id for _ in range(8)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]
    assert runs[0] == runs[1]


def test_draw_gives_none_without_a_bank_and_once_there_is_one_a_sample(tmp_path):
    reader, rng = BankReader(tmp_path / "bank", rescan_seconds=1000), np.random.default_rng(0)
    assert reader.draw(rng) is None
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        assert reader.draw(rng) is None
        writer.publish(pairs(0, 1))
        assert draw(reader, rng).id == "000000-00"


def test_what_is_drawn_may_be_changed_without_changing_the_bank(tmp_path):
    extras = {"a": np.arange(3)}
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        path = writer.publish([(make_sample(), extras)])
    before = path.read_bytes()
    reader, rng = BankReader(tmp_path / "bank"), np.random.default_rng(0)
    first = draw(reader, rng)
    assert first.labels is not None
    for array in (first.image, first.labels, first.extras["a"]):
        assert array.flags.writeable
        array[...] = 0
    again = draw(reader, rng)
    np.testing.assert_array_equal(again.labels, make_sample().labels)
    np.testing.assert_array_equal(again.extras["a"], [0, 1, 2])
    assert path.read_bytes() == before


def test_draw_meets_segments_retired_since_its_listing(tmp_path):
    reader, rng = BankReader(tmp_path / "bank", rescan_seconds=1000), np.random.default_rng(0)
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        writer.publish(pairs(0, 4))
        assert draw(reader, rng).id.startswith("000000")
        writer.publish(pairs(4, 4))
        reader.count()
        for first in range(8, 24, 4):
            writer.publish(pairs(first, 4))
        reader._open.popitem()[1].close()  # else the open, unlinked segment is rightly used on
        assert draw(reader, rng).id[:6] in ("000004", "000005")


def test_draw_gives_none_when_the_folder_is_deleted(tmp_path):
    make_bank(tmp_path / "bank")
    reader, rng = BankReader(tmp_path / "bank", rescan_seconds=0), np.random.default_rng(0)
    assert reader.draw(rng) is not None
    shutil.rmtree(tmp_path / "bank")
    assert reader.draw(rng) is None


def test_a_damaged_segment_is_not_taken_for_a_retired_one(tmp_path):
    path = make_bank(tmp_path / "bank", samples=4) / "segment-000000.h5"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(IntegrityFault, match=r"segment-000000\.h5"):
        BankReader(tmp_path / "bank").draw(np.random.default_rng(0))


@pytest.mark.parametrize("text", ["000009-00", "000000-04", "nonsense"])
def test_read_of_an_absent_sample_is_a_key_error(tmp_path, text):
    make_bank(tmp_path / "bank", samples=4)
    with pytest.raises(KeyError):
        BankReader(tmp_path / "bank").read(text)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc/self/fd")
def test_the_reader_holds_few_handles_and_none_of_retired_segments(tmp_path):
    def held() -> list[str]:
        links = [os.path.realpath(p) for p in Path("/proc/self/fd").iterdir()]
        return [x for x in links if str(tmp_path / "bank/segment") in x]

    reader, rng = BankReader(tmp_path / "bank", rescan_seconds=0), np.random.default_rng(0)
    with BankWriter.create(tmp_path / "bank", replace(LIVE, capacity=20)) as writer:
        for first in range(0, 20, 4):
            writer.publish(pairs(first, 4))
        for _ in range(60):
            reader.draw(rng)
        assert len(held()) == 3
        for first in range(20, 40, 4):
            writer.publish(pairs(first, 4))
        reader.draw(rng)
        assert len(held()) == 1
        assert "deleted" not in held()[0]


def test_a_drawn_sample_of_four_64_cubed_channels_takes_milliseconds(tmp_path, record_property):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4, 64, 64, 64)).astype(np.float32)
    sample = Sample(image, (image[0] > 1).astype(np.int16), None, {})
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        writer.publish([(sample, {})] * 4)
        writer.publish([(sample, {})] * 4)
    reader = BankReader(tmp_path / "bank")
    times = []
    for _ in range(40):
        start = time.process_time()
        reader.draw(rng)
        times.append(time.process_time() - start)
    record_property("median_ms", 1e3 * float(np.median(times)))
    print(f"draw of 4x64^3 float16 and labels: median {1e3 * np.median(times):.2f} ms")
    assert np.median(times) < 0.05


# -- writing -------------------------------------------------------------------------------------


def test_the_spec_comes_back(tmp_path):
    make_bank(tmp_path / "bank")
    assert BankReader(tmp_path / "bank").spec == FROZEN


@pytest.mark.parametrize(
    ("key", "value"), [("format", 2), ("capacity", None), ("surplus", 1), ("schema", {})]
)
def test_a_spec_that_is_none_is_an_integrity_fault(tmp_path, key, value):
    path = make_bank(tmp_path / "bank") / "bank.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(IntegrityFault):
        _ = BankReader(tmp_path / "bank").spec


def test_a_folder_without_a_bank_is_a_data_fault(tmp_path):
    with pytest.raises(DataFault, match=r"bank\.json"):
        _ = BankReader(tmp_path).spec


def test_create_refuses_a_folder_with_content_and_leaves_it_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageFault, match="not empty"):
        BankWriter.create(tmp_path, LIVE)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_second_writer_is_refused_until_the_first_closes(tmp_path):
    writer = BankWriter.create(tmp_path / "bank", LIVE)
    with pytest.raises(EnvironmentFault, match=f"pid {os.getpid()}"):
        BankWriter.attach(tmp_path / "bank")
    writer.close()
    BankWriter.attach(tmp_path / "bank").close()


def test_attach_goes_on_and_removes_what_a_killed_writer_left(tmp_path):
    make_bank(tmp_path / "bank", LIVE, 4)
    left = tmp_path / "bank/.segment-000001.h5.tmp-1"
    left.write_bytes(b"half")
    with BankWriter.attach(tmp_path / "bank") as writer:
        assert writer.publish(pairs(4, 4)).name == "segment-000001.h5"
        assert (writer.published, writer.held) == (4, 8)
    assert not left.exists()


def test_a_live_bank_never_holds_more_than_its_capacity_and_the_oldest_go(tmp_path):
    reader = BankReader(tmp_path / "bank")
    with BankWriter.create(tmp_path / "bank", replace(LIVE, capacity=10)) as writer:
        sizes = []
        for first in range(0, 48, 4):
            writer.publish(pairs(first, min(4, writer.next_size)))
            sizes.append(reader.count())
        assert max(sizes) == 10
        assert sizes[2:] == [10] * 10
        assert reader.ids()[0].startswith("000009")


def test_a_frozen_bank_refuses_to_overflow_and_keeps_everything(tmp_path):
    make_bank(tmp_path / "bank", replace(FROZEN, capacity=12))
    (tmp_path / "bank/complete.json").unlink()
    with BankWriter.attach(tmp_path / "bank") as writer:
        writer.publish(pairs(8, 4))
        with pytest.raises(UsageFault, match="capacity 12"):
            writer.publish(pairs(12, 1))
    assert BankReader(tmp_path / "bank").count() == 12


def test_a_complete_bank_is_closed(tmp_path):
    make_bank(tmp_path / "bank", samples=4)
    with (
        BankWriter.attach(tmp_path / "bank") as writer,
        pytest.raises(UsageFault, match="complete"),
    ):
        writer.publish(pairs(4, 4))


def test_a_live_bank_cannot_be_finished(tmp_path):
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        writer.publish(pairs(0, 1))
        with pytest.raises(UsageFault, match="frozen"):
            writer.finish()


def test_the_heartbeat_tells_the_age_of_a_live_bank(tmp_path):
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        reader = BankReader(tmp_path / "bank")
        os.utime(tmp_path / "bank/heartbeat.json", (time.time() - 90, time.time() - 90))
        assert 89 < (reader.age() or 0) < 100
        writer.beat()
        assert (reader.age() or 0) < 10


def test_a_frozen_bank_has_no_age_and_a_complete_one_a_hash(tmp_path):
    with BankWriter.create(tmp_path / "bank", FROZEN) as writer:
        reader = BankReader(tmp_path / "bank")
        writer.publish(pairs(0, 4))
        assert (reader.age(), reader.sha256) == (None, None)
        writer.finish()
    assert len(reader.sha256 or "") == 64


def test_the_same_samples_make_the_same_bytes_at_another_time(tmp_path):
    make_bank(tmp_path / "one")
    time.sleep(1.1)  # HDF5 would stamp whole seconds
    make_bank(tmp_path / "two")
    for name in ("segment-000000.h5", "segment-000001.h5", "complete.json", "bank.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_description_without_a_limit_in_bytes_is_that_of_earlier_versions(tmp_path):
    make_bank(tmp_path / "bank", LIVE, 4)
    assert "max_bytes" not in json.loads((tmp_path / "bank/bank.json").read_bytes())
    limited = replace(LIVE, max_bytes=10**6)
    assert BankSpec.from_json(json.loads(json.dumps(limited.to_json()))) == limited


@pytest.mark.parametrize("changes", [{"frozen": True, "max_bytes": 9}, {"max_bytes": 0}], ids=str)
def test_a_limit_in_bytes_is_one_of_a_live_bank(changes):
    with pytest.raises(UsageFault, match="max_bytes"):
        replace(LIVE, **changes)


def test_a_description_that_says_more_than_is_known_is_refused(tmp_path):
    doc = {**LIVE.to_json(), "colour": 1}
    with pytest.raises(IntegrityFault, match="colour"):
        BankSpec.from_json(doc)


# -- how much it holds ---------------------------------------------------------------------------


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


def test_a_limit_with_no_room_for_two_segments_keeps_the_last_one(tmp_path):
    reader = BankReader(tmp_path / "bank")
    with BankWriter.create(tmp_path / "bank", replace(LIVE, max_bytes=1)) as writer:
        for first in range(0, 12, 4):
            writer.publish(pairs(first, 4))
            assert reader.count() == 4 * min(2, 1 + first)
    # One that is whole stays until the next one is.
    assert reader.ids()[0].startswith("000001")


def test_what_earlier_writers_published_is_known_also_if_they_were_killed(tmp_path):
    make_bank(tmp_path / "bank", replace(LIVE, capacity=4), 12)  # its heartbeat knows of none
    with BankWriter.attach(tmp_path / "bank") as writer:
        assert writer.total == 4  # nor does anybody know of the retired
        writer.beat()
        writer.publish(pairs(0, 4))
        writer.publish(pairs(0, 4))
    with BankWriter.attach(tmp_path / "bank") as writer:
        assert (writer.total, writer.published) == (8, 0)


def test_a_writer_that_was_stopped_before_it_retired_leaves_no_surplus(tmp_path, monkeypatch):
    with BankWriter.create(tmp_path / "bank", LIVE) as writer:
        for first in range(0, 8, 4):
            writer.publish(pairs(first, 4))
        monkeypatch.setattr(writer, "_trim", lambda: None)
        writer.publish(pairs(8, 4))
        monkeypatch.undo()
        assert BankReader(tmp_path / "bank").count() == 12
    assert BankReader(tmp_path / "bank").count() == 8


# -- where it lies -------------------------------------------------------------------------------


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


def test_a_bank_is_placed_in_shared_memory_then_on_the_disk_and_says_so(room):
    shared, disk = room
    (one, silent), (two, said), (three, _) = (place_bank("a/run", n) for n in (50, 51, 51))
    assert [p.parent for p in (one, two, three)] == [shared, disk, disk]
    assert two != three
    assert one.name.startswith(f"gansynth-run-{os.getpid()}-")
    assert silent == ""
    assert f"shared memory ({shared}) has 0.0 GB free" in said
    assert f"kept in {disk} instead" in said
    assert "--scratch" in said
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


# -- integrity -----------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_in_a_segment_is_found(tmp_path):
    path = make_bank(tmp_path / "bank", samples=4) / "segment-000000.h5"
    whole = path.read_bytes()
    assert verify_bank(tmp_path / "bank") == 1
    rng = np.random.default_rng(0)
    places = [*range(0, 560, 7), *rng.integers(len(whole), size=120).tolist(), len(whole) - 1]
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoilt)
        with pytest.raises(IntegrityFault, match=r"segment-000000\.h5"):
            verify_bank(tmp_path / "bank")


@pytest.mark.parametrize("keep", [0, 300, 512, -1])
def test_a_cut_segment_is_found(tmp_path, keep):
    path = make_bank(tmp_path / "bank", samples=4) / "segment-000000.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityFault, match=r"segment-000000\.h5"):
        verify_bank(tmp_path / "bank")


def test_a_missing_segment_of_a_complete_bank_is_found(tmp_path):
    (make_bank(tmp_path / "bank") / "segment-000001.h5").unlink()
    with pytest.raises(IntegrityFault, match=r"segment-000001\.h5"):
        verify_bank(tmp_path / "bank")


def test_a_segment_under_anothers_name_is_found(tmp_path):
    folder = make_bank(tmp_path / "bank", LIVE, 4)
    (folder / "segment-000000.h5").rename(folder / "segment-000007.h5")
    with pytest.raises(IntegrityFault, match="published as segment-000000"):
        verify_bank(folder)


# -- processes -----------------------------------------------------------------------------------


def test_reading_needs_neither_torch_nor_any_framework(tmp_path):
    make_bank(tmp_path / "bank")
    body = """
sample = BankReader(sys.argv[1]).draw(np.random.default_rng(0))
assert sample.image.shape == (2, 3, 4, 5)
roots = {name.partition(".")[0] for name in sys.modules}
print(sorted(roots & {"torch", "nnunetv2", "scipy", "nibabel", "pydantic", "pluggy", "filelock"}))
"""
    blocked = 'import sys\nsys.modules["torch"] = None\n'
    script = tmp_path / "script.py"
    script.write_text(blocked + PRELUDE + body)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "bank")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "['torch']\n", "")


def test_a_pickled_reader_leaves_its_handles_behind(tmp_path):
    make_bank(tmp_path / "bank")
    reader, rng = BankReader(tmp_path / "bank", handles=2), np.random.default_rng(0)
    reader.draw(rng)
    data = pickle.dumps(reader)
    assert len(data) < 500
    copy = pickle.loads(data)
    assert (copy.handles, copy.ids()) == (2, reader.ids())
    assert copy.draw(rng) is not None


def test_forked_and_spawned_readers_see_no_wrong_sample_while_segments_come_and_go(tmp_path):
    body = """
import multiprocessing as mp

def read(reader, seed, enough, answers):
    rng = np.random.default_rng(seed)
    drawn, wrong, segments, error = 0, 0, set(), None
    try:
        while drawn <= 100 or len(segments) <= 8 or not enough.is_set():
            sample = reader.draw(rng)
            drawn, wrong = drawn + 1, wrong + (not right(sample))
            segments.add(sample.id[:6])
    except BaseException as failure:
        error = repr(failure)
    answers.put([drawn, wrong, len(segments), error])

def main(folder):
    with BankWriter.create(folder, spec(frozen=False, capacity=32, segment_samples=8)) as writer:
        reader = BankReader(folder, rescan_seconds=0.03)
        for _ in range(4):
            writer.publish(segment(writer.published, 8, 12))
        reader.draw(np.random.default_rng(0))  # so that an open handle is inherited
        answers, enough = mp.get_context("spawn").Queue(), mp.get_context("spawn").Event()
        readers = [
            mp.get_context(kind).Process(target=read, args=(reader, k, enough, answers))
            for k, kind in enumerate(("fork", "fork", "spawn"))
        ]
        for process in readers:
            process.start()
        while any(process.is_alive() for process in readers):
            writer.publish(segment(writer.published, 8, 12))
            if writer.published > 500:
                enough.set()
            time.sleep(0.002)
        print(json.dumps([writer.published, [answers.get(timeout=5) for _ in readers]]))

if __name__ == "__main__":
    main(sys.argv[1])
"""
    done = run_script(tmp_path, body, tmp_path / "bank")
    assert done.returncode == 0, done.stderr
    published, readers = json.loads(done.stdout)
    assert published > 500
    for drawn, wrong, segments, error in readers:
        assert (wrong, error) == (0, None)
        assert drawn > 100
        assert segments > 8


def test_a_writer_killed_at_any_moment_leaves_no_torn_segment(tmp_path):
    body = """
import random

def trial(folder, moment):
    child = os.fork()
    if child == 0:
        writer = BankWriter.attach(folder)
        while True:
            writer.publish(segment(7, 4, 40))
            writer.beat()
    reader = BankReader(folder)
    last = reader.ids()[-1:]
    while reader.ids()[-1:] == last:  # it is at work
        time.sleep(0.001)
    moment()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

def in_a_write():
    while not list(folder.glob(".*.tmp-*")):
        pass

folder, draws, trials, left = Path(sys.argv[1]), random.Random(0), 0, 0
BankWriter.create(folder, spec(frozen=False, capacity=16, segment_samples=4)).close()
while trials < 25 or left < 5:  # at any moment, and as long as it takes in the midst of a write
    trials += 1
    trial(folder, in_a_write if trials % 2 else lambda: time.sleep(0.03 * draws.random()))
    left += len(list(folder.glob(".*.tmp-*")))
    verify_bank(folder)
    reader = BankReader(folder)
    assert reader.count() <= 20 and all(right(reader.read(i)) for i in reader.ids())
BankWriter.attach(folder).close()
print(BankReader(folder).ids()[-1], [p.name for p in folder.glob(".*.tmp-*")])
"""
    done = run_script(tmp_path, body, tmp_path / "bank")
    assert done.returncode == 0, done.stderr
    last, temporaries = done.stdout.split(maxsplit=1)
    assert last > "000020"
    assert temporaries.strip() == "[]"


FILL_UP = """
import shutil
folder = Path(sys.argv[1]) / "bank"
writer = BankWriter.create(folder, spec(frozen=True, capacity=10**6))
message, free = None, None
for size in [4] * 30 + [40]:  # a last, large segment where the limit is per file
    try:
        free = shutil.disk_usage(folder).free
        writer.publish(segment(writer.published, 4, 16 if size == 4 else 40))
    except EnvironmentFault as fault:
        message = str(fault)
        break
reader = BankReader(folder)
assert verify_bank(folder) == writer.published // 4 > 0
assert all(right(reader.read(i)) for i in reader.ids())
files = sorted(p.name for p in folder.glob("*segment*")) + [p.name for p in folder.glob(".*.tmp*")]
print(json.dumps([message, writer.published, files, free - shutil.disk_usage(folder).free]))
"""


def check_full_disk(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    message, published, files, lost = json.loads(done.stdout)
    assert "bytes needed" in message
    assert "bytes free" in message
    assert len(files) == published // 4
    assert lost == 0


def test_a_file_over_the_limit_is_an_environment_fault_and_leaves_nothing(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    done = run_script(tmp_path, FILL_UP, tmp_path, preexec_fn=limit)
    assert done.returncode == 0, done.stderr
    message, published, files, _ = json.loads(done.stdout)
    assert "larger than the system allows; " in message
    assert "bytes needed" in message
    assert len(files) == published // 4 == 30


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a tmpfs")
def test_a_full_disk_is_an_environment_fault_and_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" || exit 77; exec "$@"'
    prefix = ("unshare", "-rm", "sh", "-c", mount, str(disk))
    done = run_script(tmp_path, FILL_UP, disk, prefix=prefix)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    check_full_disk(done)
    assert "the disk is full" in json.loads(done.stdout)[0]


SHRINK = """
import shutil
folder = Path(sys.argv[1]) / "bank"
keys = {"frozen": False, "capacity": 10**6, "segment_samples": 4}
writer = BankWriter.create(folder, spec(**keys))
reader, held = BankReader(folder), []
while not writer.squeezed:
    assert writer.published < 1000
    writer.publish(segment(writer.published, 4, 16))
    held.append(writer.held)
for _ in range(5):
    assert writer.full and writer.next_size == 4
    writer.publish(segment(writer.published, 4, 16))
    held.append(writer.held)
writer.beat()
assert json.loads((folder / "heartbeat.json").read_text())["squeezed"]
assert verify_bank(folder) == writer.held // 4
assert all(right(reader.read(i)) for i in reader.ids())
(folder / "fill").write_bytes(bytes(shutil.disk_usage(folder).free))
writer.beat()  # lives, though nothing can be written any more
try:
    writer.publish(segment(0, 4, 64))
except EnvironmentFault as fault:
    message = str(fault)
print(json.dumps([held[-7:], writer.held, BankReader(folder).count(), message]))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a tmpfs")
def test_a_live_bank_on_a_full_disk_makes_room_and_gives_up_only_with_its_last_segment(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=512k tmpfs "$0" || exit 77; exec "$@"'
    prefix = ("unshare", "-rm", "sh", "-c", mount, str(disk))
    body = "import gansynth.bank.writer as w; w._SETTLE_SECONDS = w._RETRY_SECONDS = 0.01\n"
    done = run_script(tmp_path, body + SHRINK, disk, prefix=prefix)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a tmpfs here")
    assert done.returncode == 0, done.stderr
    held, last, seen, message = json.loads(done.stdout)
    assert held == [held[0]] * 7
    assert held[0] > 12
    assert last == seen == 4
    assert "the disk is full" in message
