import multiprocessing
import os
import pickle
import random
import shutil
import time
from collections.abc import Iterable
from threading import Timer
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.bank.draw_log import summarise
from gansynth.bank.store import list_samples, sample_path
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.hosts.mixing.mixer import BatchCounter, BatchItem, Mixer, MixerConfig
from tests.expected import raises_fault
from tests.processes import forked

HALF, ONLY = Ratio(1, 1), Ratio(0, 1)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "draws"


@pytest.fixture
def mixer(tmp_path, log):
    """Makes a mixer of real cases 0, 1, 2, ...: ``mixer(Ratio(1, 1), bank, sample_timeout=1)``."""

    def make(ratio, bank, *, schedule="constant", batches=100, **plan):
        told, usual = Schedule.parse(schedule), {"log": log, "sample_timeout": 0.2}
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


def test_every_sample_comes_once_before_one_comes_again(mixer, toy_bank):
    for frozen in (True, False):
        mixed = mixer(HALF, toy_bank(f"{frozen}", samples=10, frozen=frozen))
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


@pytest.mark.fault(40)
def test_a_mixed_phase_goes_on_where_the_banks_folder_is_gone(mixer, toy_bank, log):
    bank = toy_bank()
    shutil.rmtree(bank)
    mixer(HALF, bank).batch(range(4))
    assert summarise(log).fell_back == 2


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
    monkeypatch.setattr("gansynth.hosts.mixing.mixer._LOOK_SECONDS", 0.0)
    assert kinds(mixed.batch(range(4))).count("s") == 2


@pytest.mark.fault(40)
def test_a_synthetic_only_phase_waits_and_then_stops(mixer, toy_bank, log):
    bank = toy_bank(samples=0, frozen=False)
    began = time.monotonic()
    with raises_fault("hosts.no-synthetic-sample-in-time"):
        mixer(ONLY, bank, schedule="finetune:10%@80%").slot(0, 2)
    assert time.monotonic() - began >= 0.2
    counts = summarise(log)
    assert (counts.real, counts.fell_back) == (0, 0)
    assert "no real case may be drawn now" in counts.stopped


def test_a_sample_that_comes_while_it_waits_is_taken(mixer, toy_bank):
    bank, full = toy_bank(samples=0, frozen=False), toy_bank("full", samples=1, frozen=False)
    (sample,) = full.glob("sample-*")
    late = Timer(0.1, sample.rename, [bank / sample.name])
    late.start()
    assert kinds(mixer(ONLY, bank, sample_timeout=30.0).batch([0])) == "s"
    late.join()


def test_chosen_cases_are_drawn_evenly_whichever_are_asked_for(mixer, toy_bank):
    mixed = mixer(ONLY, toy_bank(), schedule="finetune:20%@50%", batches=40)
    first, rest = ([s for _ in range(20) for s in mixed.batch(range(10))] for _ in "ab")
    assert (kinds(first), kinds(rest)) == ("s" * 200, "R" * 200)
    drawn = [slot.real for slot in rest]
    assert set(drawn) == {3, 7}
    assert min(drawn.count(3), drawn.count(7)) > 70


def test_a_pickle_draws_on_alike_and_the_hosts_own_random_state_is_untouched(mixer, toy_bank):
    def state() -> bytes:
        return pickle.dumps(
            (np.random.get_state(), random.getstate(), torch.get_rng_state().tolist())  # noqa: NPY002
        )

    before = state()
    mixed = mixer(ONLY, toy_bank(), schedule="finetune:20%@50%", batches=8)
    pickled = pickle.dumps(mixed)
    first = drawn_ids(mixed.batch(range(6)))
    assert pickle.dumps(mixed) == pickled
    assert drawn_ids(pickle.loads(pickled).batch(range(6))) == first
    for _ in range(4):
        mixed.batch(range(5))
    mixed.rng.random()
    assert state() == before


def test_processes_and_a_copy_together_go_on_where_earlier_sessions_ended(tmp_path):
    processes, ticks, start = 4, 500, 7
    total = start + processes * ticks
    counter = BatchCounter(tmp_path / "sub" / "batches", total + 1, start)
    first = pickle.loads(pickle.dumps(counter)).tick()
    together = multiprocessing.get_context("fork").Barrier(processes)

    def work(number: int) -> None:
        together.wait()
        told = "\n".join(repr(counter.tick()) for _ in range(ticks))
        (tmp_path / f"process-{number}").write_text(told)

    assert forked(work, processes) == [0] * processes
    texts = [path.read_text() for path in tmp_path.glob("process-*")]
    drawn = [first, *(float(line) for text in texts for line in text.split())]
    assert sorted(drawn) == [place / (total + 1) for place in range(start, total + 1)]
    assert (counter.now(), counter.tick()) == (1, 1)
