import os
import pickle
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.bank.draw_log import summarise
from gansynth.bank.store import list_samples, sample_path
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.hosts.mixer import BatchCounter, BatchItem, Mixer, MixerConfig
from gansynth.runtime.errors import TrainingFault
from tests.processes import forked

HALF, ONLY = Ratio(1, 1), Ratio(0, 1)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "draws"


@pytest.fixture
def mixer(tmp_path, log):
    """Makes a mixer of real cases 0, 1, 2, ...: ``mixer(Ratio(1, 1), bank, patience=1)``."""

    def make(ratio, bank=None, *, schedule="constant", batches=100, **plan):
        told, usual = Schedule.parse(schedule), {"log": log, "patience": 0.2}
        if told.kind != "constant":
            usual["batch_counter"] = BatchCounter(tmp_path / "batches", batches)
        if told.kind == "finetune":
            usual["chosen"] = (3, 7)
        return Mixer(MixerConfig(bank, ratio, told, **{**usual, **plan}))

    return make


def kinds(slots: Iterable[BatchItem[Any]]) -> str:
    return "".join("R" if slot.sample is None else "s" for slot in slots)


def drawn_ids(slots: Iterable[BatchItem[Any]]) -> list[str]:
    return [slot.sample.id for slot in slots if slot.sample is not None]


@pytest.mark.parametrize(("p", "size"), [(0.5, 2), (0.3, 18), (0.25, 1), (0.75, 3), (1.0, 2)])
@pytest.mark.parametrize("how", ["a batch", "slot by slot"])
def test_every_batch_holds_the_share_asked_for(mixer, toy_bank, p, size, how):
    mixed = mixer(Ratio(1 - p, p), toy_bank())
    batches = []
    for _ in range(60):
        one = mixed.batch(range(size)) if how == "a batch" else [
            mixed.slot(real, size) for real in range(size)
        ]  # fmt: skip
        batches.append(kinds(one).count("s"))
    assert set(batches) <= {int(p * size), int(np.ceil(p * size))}
    asked = p * size * np.arange(1, 61)
    assert np.abs(np.cumsum(batches) - asked).max() <= 1 + 1e-9


def test_what_is_drawn_is_logged_by_id_and_source(mixer, toy_bank, log):
    slots = mixer(HALF, toy_bank()).batch([4, 5])
    (path,) = log.glob("draws-*.csv")
    expected = [
        f"real,{s.real}," if s.sample is None else f"synthetic,{s.sample.id},case_1" for s in slots
    ]
    assert path.read_text().splitlines() == expected


@pytest.mark.parametrize("frozen", [True, False])
def test_every_sample_comes_once_before_one_comes_again(mixer, toy_bank, frozen):
    mixed = mixer(HALF, toy_bank(samples=10, frozen=frozen))
    ids = [one for _ in range(40) for one in drawn_ids(mixed.batch([0]))]
    assert [len(set(ids[n : n + 10])) for n in (0, 10)] == [10, 10]
    assert ids[:10] != ids[10:20]


def test_what_is_added_to_a_live_bank_is_drawn_first(mixer, toy_bank):
    bank, more = toy_bank(samples=4, frozen=False), toy_bank("more", samples=3, frozen=False)
    mixed = mixer(ONLY, bank)
    old = drawn_ids(mixed.batch(range(2)))
    new = {f"{number:06d}" for number in (9, 10, 11)}
    for old_id, new_id in zip(list_samples(more), sorted(new), strict=True):
        sample_path(more, old_id).rename(sample_path(bank, new_id))
    mixed._passes.reader.rescan_seconds = 0.0
    ids = drawn_ids(mixed.batch(range(5)))
    assert set(ids[:3]) == new
    assert len({*old, *ids}) == 7


@pytest.mark.parametrize("frozen", [True, False])
def test_workers_that_know_how_many_they_are_share_a_pass(mixer, toy_bank, log, frozen):
    mixed = mixer(ONLY, toy_bank(samples=12, frozen=frozen), workers=3)
    assert forked(lambda _: mixed.batch(range(4)), 3) == [0, 0, 0]
    assert summarise(log).distinct == 12


def test_a_mixed_phase_takes_the_real_case_and_counts_it(mixer, toy_bank, log):
    slots = mixer(HALF, toy_bank(samples=0, frozen=False)).batch(range(8))
    counts = summarise(log)
    assert [slot.real for slot in slots] == list(range(8))
    assert kinds(slots) == "R" * 8
    assert (counts.real, counts.fell_back, counts.synthetic) == (8, 4, 0)
    assert counts.reasons == {"the bank is empty": 4}


@pytest.mark.fault(40)
@pytest.mark.parametrize("trouble", ["damaged", "vanished", "never there"])
def test_a_mixed_phase_goes_on_without_a_sound_bank(mixer, toy_bank, log, trouble):
    bank = toy_bank()
    mixed = mixer(HALF, bank)
    if trouble == "damaged":
        for sample in bank.glob("sample-*"):
            sample.write_bytes(sample.read_bytes()[:600])
    else:
        if trouble == "vanished":
            mixed.batch(range(2))
            mixed._passes.reader.rescan_seconds = 0.0
        shutil.rmtree(bank)
    before = summarise(log).fell_back
    mixed.batch(range(4))
    assert (before, summarise(log).fell_back) == (0, 2)


@pytest.mark.fault(40)
def test_a_stale_bank_has_nothing_to_give_until_it_lives_again(mixer, toy_bank, log, monkeypatch):
    bank = toy_bank(frozen=False)
    old = time.time() - 1000
    for path in bank.iterdir():
        os.utime(path, (old, old))
    mixed = mixer(HALF, bank)
    assert kinds(mixed.batch(range(4))) == "RRRR"
    assert summarise(log).reasons == {"the bank is stale: its producer has gone": 2}
    for path in bank.iterdir():
        os.utime(path)
    monkeypatch.setattr("gansynth.hosts.mixer._LOOK_SECONDS", 0.0)
    assert kinds(mixed.batch(range(4))).count("s") == 2


ALONE = [("constant", ONLY), ("finetune:10%@80%", ONLY), ("anneal:50%-100%", ONLY)]


@pytest.mark.fault(40)
@pytest.mark.parametrize(("schedule", "ratio"), ALONE)
def test_a_synthetic_only_phase_waits_and_then_stops(mixer, toy_bank, log, schedule, ratio):
    mixed = mixer(ratio, toy_bank(samples=0, frozen=False), schedule=schedule)
    begin = time.monotonic()
    with pytest.raises(TrainingFault, match=r"no synthetic sample after 0\.2 s \(the bank is emp"):
        mixed.slot(0, 2)
    assert time.monotonic() - begin >= 0.2
    assert (summarise(log).real, summarise(log).fell_back) == (0, 0)
    assert "no real case may be drawn now" in summarise(log).stopped


def test_a_sample_that_comes_while_it_waits_is_taken(mixer, toy_bank, tmp_path):
    bank = toy_bank(samples=0, frozen=False)
    full = toy_bank("full", frozen=False)
    mixed = mixer(ONLY, bank, patience=30.0)

    def deliver():
        time.sleep(0.3)
        for sample in full.glob("sample-*"):
            shutil.copy(sample, bank / "temporary")
            (bank / "temporary").rename(bank / sample.name)

    thread = Thread(target=deliver)
    thread.start()
    slots = mixed.batch([0])
    thread.join()
    assert kinds(slots) == "s"


def test_strict_stops_a_mixed_phase_at_once(mixer, toy_bank, log):
    mixed = mixer(HALF, toy_bank(samples=0, frozen=False), strict=True, patience=1000.0)
    with pytest.raises(TrainingFault, match="strict is set"):
        mixed.batch(range(2))
    assert summarise(log).fell_back == 0


def test_fine_tuning_draws_chosen_cases_and_nothing_else(mixer, toy_bank, log):
    mixed = mixer(ONLY, toy_bank(), schedule="finetune:20%@50%", batches=40)
    first = [slot for _ in range(20) for slot in mixed.batch(range(10))]
    rest = [slot for _ in range(20) for slot in mixed.batch(range(10))]
    assert kinds(first) == "s" * 200
    assert kinds(rest) == "R" * 200
    drawn = Counter(slot.real for slot in rest)
    assert set(drawn) == {3, 7}
    # Those asked for are given; the places of the others are dealt out evenly.
    assert min(drawn.values()) > 70


@pytest.mark.parametrize(
    ("schedule", "ratio"),
    [
        ("constant", Ratio(2, 1)),
        ("anneal:25%-75%", Ratio(1, 3)),
        ("anneal:50%-100%", ONLY),
        ("finetune:20%@60%", ONLY),
    ],
)
def test_a_whole_training_draws_the_share_that_its_schedule_asks_for(
    mixer, toy_bank, log, schedule, ratio
):
    batches, size, workers = 400, 3, 4
    mixed = mixer(ratio, toy_bank(), schedule=schedule, batches=batches)
    mixed.rng.random()  # in use in the parent, which a fork then inherits

    def work(_):
        for _ in range(batches // workers):
            mixed.batch(range(size))

    assert forked(work, workers) == [0] * workers
    counts = summarise(log)
    assert counts.real + counts.synthetic == batches * size
    told = Schedule.parse(schedule)
    asked = sum(size * told.at(batch / batches, ratio).p for batch in range(batches))
    assert abs(counts.synthetic - asked) <= workers


def test_a_pickle_carries_nothing_open_and_draws_on(mixer, toy_bank):
    mixed = mixer(ONLY, toy_bank())
    before = pickle.dumps(mixed)
    first = drawn_ids(mixed.batch(range(6)))
    assert pickle.dumps(mixed) == before
    assert drawn_ids(pickle.loads(before).batch(range(6))) == first


def test_the_hosts_own_random_state_is_untouched(mixer, toy_bank):
    def state() -> bytes:
        return pickle.dumps(
            (np.random.get_state(), random.getstate(), torch.get_rng_state().tolist())  # noqa: NPY002
        )

    before = state()
    mixed = mixer(ONLY, toy_bank(), schedule="finetune:20%@50%", batches=4)
    for _ in range(4):
        mixed.batch(range(5))
    mixed.rng.random()
    assert state() == before
