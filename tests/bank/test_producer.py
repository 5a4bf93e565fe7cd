import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.bank.producer import ProducerConfig, _rest, main, open_bank, produce
from gansynth.bank.reader import BankReader, BankSpec, BankWriter, verify_bank
from gansynth.bank.rejected_samples import LINES, PICTURES_OF_A_REASON
from gansynth.bank.throttle import ThrottleState, write_throttle_state
from gansynth.core.lineage import Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample, Schema
from tests.expected import raises_fault
from tests.producers import CONFIG

SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0), has_outside=True)
SIZE = (4, 4, 4)
SPEC = BankSpec(SCHEMA, Lineage("toy", "0", ()), "run", "f", True, 13)
REJECTED = (3, 9, 10)
LIVE: dict[str, Any] = {"frozen": False, "capacity": 2}


def draw(first: int, count: int) -> list[Sample]:
    """Sample k depends on k alone; three of them hold a NaN."""
    samples = []
    for k in range(first, first + count):
        image = np.random.default_rng(k).normal(size=(2, *SIZE)).astype(np.float32)
        if k in REJECTED:
            image[0, 0, 0, 0] = np.nan
        samples.append(Sample(image, (image[0] > 1).astype(np.int16), None, {"case": f"c{k}"}))
    return samples


def finalise(sample: Sample) -> dict[str, Any]:
    assert sample.labels is not None
    return {"voxels": np.argwhere(sample.labels > 0).astype(np.int16)}


def fill(
    writer: BankWriter,
    config: ProducerConfig = CONFIG,
    *,
    draw: Callable[[int, int], list[Sample]] = draw,
    finalise: Callable[[Sample], dict[str, Any]] = finalise,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    produce(writer, draw, finalise, config, stop=stop, min_size=SIZE)


def filled(folder: Path, spec: BankSpec = SPEC, **how: Any) -> BankWriter:
    """The writer of a bank that was made, or taken up again, and filled."""
    there = (folder / "bank.json").exists()
    with BankWriter.attach(folder) if there else BankWriter.create(folder, spec) as writer:
        fill(writer, **how)
    return writer


def stop_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def indices(folder: Path) -> list[int]:
    reader = BankReader(folder)
    return [reader.read(i).provenance["index"] for i in reader.ids()]


def test_a_frozen_bank_is_filled_in_order_without_the_rejected_and_finished(tmp_path):
    writer = filled(tmp_path / "bank")
    assert writer.complete
    assert writer.rejected == {"image holds NaN or infinite voxel(s)": 3}
    assert indices(tmp_path / "bank") == [k for k in range(16) if k not in REJECTED]
    assert verify_bank(tmp_path / "bank") == 13
    found = BankReader(tmp_path / "bank").read("000004")
    assert found.provenance == {"case": "c5", "index": 5}
    np.testing.assert_array_equal(found.extras["voxels"], finalise(draw(5, 1)[0])["voxels"])


@pytest.mark.fault(29)
@pytest.mark.parametrize("batches", [0, 2])
def test_a_frozen_bank_that_was_interrupted_gets_the_same_bytes(tmp_path, batches):
    drawn = []

    def watched(first: int, count: int) -> list[Sample]:
        drawn.append((first, count))
        return draw(first, count)

    filled(tmp_path / "whole")
    assert not filled(tmp_path / "bank", draw=watched, stop=stop_after(batches)).complete
    filled(tmp_path / "bank", draw=watched)
    for name in ("complete.json", *(f"sample-{n:06d}.safetensors" for n in range(13))):
        assert (tmp_path / "bank" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {(first % 4, count) for first, count in drawn} == {(0, 4)}
    assert set(drawn) == {(first, 4) for first in (0, 4, 8, 12)}


def test_a_live_bank_stays_full_while_its_samples_grow_newer_over_restarts(tmp_path):
    spec, config = replace(SPEC, frozen=False), replace(CONFIG, frozen=False, duty=1)
    last = 80
    for batches in (30, 2):
        writer = filled(tmp_path / "bank", spec, config=config, stop=stop_after(batches))
        found = indices(tmp_path / "bank")
        assert (writer.state, writer.held) == ("refreshing", 13)
        assert found == sorted(found)
        assert found[-1] > last
        last = found[-1]
    assert found[0] > 80


@pytest.mark.parametrize(
    ("frozen", "state", "told", "pace", "seconds"),
    [
        (True, "filling", None, {}, 0),
        (False, "filling", None, {}, 0),
        (False, "filling", (0.5, 0), {}, 10),
        (False, "refreshing", None, {"duty": 0.2}, 40),
        (False, "refreshing", (0.5, 0), {"duty": 0.2}, 10),
        (False, "refreshing", None, {"refresh": 8.0}, 6),
        (False, "refreshing", (0.2, 0), {"refresh": 8.0}, 40),
        (False, "filling", None, {"refresh": 8.0}, 0),
        (False, "refreshing", None, {"reuse": 5}, math.inf),
        (False, "refreshing", (1.0, 35), {"reuse": 5}, math.inf),
        (False, "refreshing", (1.0, 36), {"reuse": 5}, 0),
    ],
)
def test_a_producer_rests_as_its_host_says_and_the_reuse_asked_for(
    tmp_path, monkeypatch, frozen, state, told, pace, seconds
):
    """After a batch of four in ten seconds, two of nine samples being held."""
    monkeypatch.setattr("gansynth.bank.producer.time.monotonic", lambda: 10.0)
    if told:
        write_throttle_state(tmp_path, ThrottleState(*told))
    spec = SimpleNamespace(frozen=frozen)
    writer: Any = SimpleNamespace(spec=spec, state=state, held=2, total=9, folder=tmp_path)
    assert _rest(writer, replace(CONFIG, **pace), 0.0, 10.0) == pytest.approx(seconds)


def test_the_hosts_word_on_duty_counts_also_in_the_midst_of_a_rest(tmp_path):
    config, seen = replace(CONFIG, batch=1, duty=1e-6, **LIVE), list[int]()

    def stop() -> bool:
        seen.append(writer.published)
        if seen.count(2) == 3:
            write_throttle_state(tmp_path / "bank", ThrottleState(duty=1.0, drawn=0))
        return writer.published > 5

    with BankWriter.create(tmp_path / "bank", replace(SPEC, **LIVE)) as writer:
        fill(writer, config, stop=stop)
    assert seen.count(2) >= 3


def stand_still() -> None:
    threading.Event().wait(0.1)


def go_in_circles() -> None:
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        pass


@pytest.mark.fault(40)
@pytest.mark.parametrize("work", [stand_still, go_in_circles])
@pytest.mark.parametrize(("usual", "silent"), [(None, True), (0.02, True), (9.0, False)])
def test_a_producer_falls_silent_while_a_batch_stands_still_or_goes_in_circles(
    tmp_path, monkeypatch, work, usual, silent
):
    limits = {"_BEAT_SECONDS": 0.02, "_WATCHED": 0.0, "_LONGEST": 0.1, "_TIMES_USUAL": 9.0}
    for name, seconds in limits.items():
        monkeypatch.setattr(f"gansynth.bank.producer.{name}", seconds)
    file = tmp_path / "bank" / "heartbeat.json"
    newer: list[bool] = []

    def endless(first: int, count: int) -> list[Sample]:
        writer.usual = usual
        [beating] = (one for one in threading.enumerate() if one.name == "gansynth-beat")
        # Beside a loop of pure Python one look takes seconds where the machine has many processes.
        end = time.monotonic() + (30.0 if silent else 1.0)
        while beating.is_alive() and time.monotonic() < end:
            work()
        before = file.stat().st_mtime_ns
        time.sleep(0.3)
        newer.append(file.stat().st_mtime_ns != before)
        return draw(first, count)

    with BankWriter.create(tmp_path / "bank", SPEC) as writer:
        fill(writer, draw=endless, stop=stop_after(1))
    assert newer == [not silent]


@pytest.mark.fault(39)
def test_a_generator_that_mostly_fails_stops_with_the_reasons_and_is_pictured(tmp_path):
    config = replace(CONFIG, rejected=str(tmp_path / "rejected"))
    with raises_fault("sampling.too-many-samples-rejected", names="33 times image") as caught:
        filled(tmp_path / "bank", config=config, draw=lambda first, n: draw(REJECTED[0], 1) * n)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "rejected" / LINES).read_text().count("\n") == PICTURES_OF_A_REASON


@pytest.mark.fault(41)
def test_a_bank_made_otherwise_is_not_taken_up(tmp_path):
    filled(tmp_path / "bank")
    other = replace(SPEC, capacity=14, samples=SampleRequest(1), generator="g")
    with raises_fault("bank.made-with-other-options"):
        open_bank(tmp_path / "bank", other)
    assert BankReader(tmp_path / "bank").count() == 13


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bank": None, "colour": 1}, "colour"),
        ({"duty": 0}, "duty"),
        ({"refresh": -1}, "refresh"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_2(tmp_path, capsys, changes, words):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG.to_json(), **changes}))
    assert main(str(path)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
