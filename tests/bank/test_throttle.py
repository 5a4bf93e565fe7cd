import numpy as np
import pytest

from benchmarks.measure.bench_throttle import BUDGET, HOSTS, Loop, needs, prefetched
from gansynth.bank import throttle
from gansynth.bank.store import HEARTBEAT, PACE
from gansynth.bank.throttle import (
    ProducerThrottle,
    ThrottleState,
    log_work,
    read_throttle_state,
)
from gansynth.core.bank_options import RefreshPolicy


@pytest.mark.parametrize(
    "slowdown", [0.3, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.05, 1.0))]
)
def test_the_producer_keeps_to_the_budget_and_uses_it(tmp_path, slowdown):
    loop = Loop(tmp_path, slowdown)
    loop.run(2000)
    found = loop.steering.summary()
    assert loop.overhead < 0.025
    assert found["overhead"] == pytest.approx(loop.overhead, abs=0.006)
    assert found["overhead_low"] < found["overhead"] < found["overhead_high"]
    assert found["duty"] == pytest.approx(loop.duty, rel=0.1)
    # The budget is there to be used: 60 % of what it allows.
    assert found["duty"] > 0.6 * min(0.72, 0.0196 * (1 + slowdown) / slowdown)


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_the_promise_is_kept_whatever_the_host_is_like(tmp_path, host):
    loops = []
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        loops.append(Loop(tmp_path / str(seed), 0.3, seed=seed))
        loops[-1].run(0, HOSTS[host](seed))
    assert np.mean([loop.overhead for loop in loops]) < 0.0202
    assert max(loop.overhead for loop in loops) < 0.025
    assert np.mean([loop.duty for loop in loops]) > 0.5 * 0.085


def test_a_change_of_load_is_followed(tmp_path):
    loop = Loop(tmp_path, 0.0)
    loop.run(400)
    loop.lost = 0.5
    loop.run(1000)
    begun, worked = loop.now, loop.worked
    loop.run(400)
    assert (loop.worked - worked) / (loop.now - begun) < 1.3 * 0.0196 / 0.5


def test_neither_gaps_nor_the_time_between_epochs_count(tmp_path):
    found = {}
    for gap in (1, 60):  # without a word
        (tmp_path / str(gap)).mkdir()
        loop = Loop(tmp_path / str(gap), 0.3, seed=1)
        alone = needs(1, 1500)
        alone[199::200] *= gap
        loop.run(0, alone, epoch=100)
        assert loop.overhead < 0.0202
        found[gap] = loop.steering.summary()["overhead"]
    assert found[60] == pytest.approx(found[1], abs=0.006)


def test_between_epochs_the_producer_does_not_work_without_rest(tmp_path):
    steering = ProducerThrottle(tmp_path, BUDGET, lambda: 0)
    steering.step(1.0, 2.0)
    steering.pause()
    assert read_throttle_state(tmp_path) == ThrottleState(steering.duty(), 0)
    assert 0.02 / 1.02 <= steering.duty() <= 0.25
    steering.step(50.0, 51.0)
    assert read_throttle_state(tmp_path) == ThrottleState(1e-6, 0)  # work is paid in advance


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_overhead_that_is_felt_batches_later_is_measured(tmp_path, workers):
    loop, overhead = prefetched(tmp_path, workers)
    found = loop.steering.summary()
    assert overhead < 0.022
    assert found["overhead"] == pytest.approx(overhead, abs=0.006)


@pytest.mark.parametrize("step", [0.03, pytest.param(0.2, marks=pytest.mark.slow)])
def test_a_producer_that_costs_nothing_works_nearly_all_the_time_but_is_measured(tmp_path, step):
    loop = Loop(tmp_path, 0.0, stretch=0.15)
    shares = []
    for _ in range(4):  # minutes
        begun, worked = loop.now, loop.worked
        loop.run(0, step * np.exp(0.05 * loop.rng.normal(size=int(60 / step))))
        shares.append((loop.worked - worked) / (loop.now - begun))
    assert np.mean(shares[2:]) > 0.85
    assert min(loop.duties) < 0.01


def test_with_reuse_or_refresh_the_producer_is_limited_by_those_alone(tmp_path):
    loop = Loop(tmp_path, 0.3, RefreshPolicy(reuse=4))
    loop.run(1000)
    assert set(loop.duties) == {0.9, 1e-6}  # a short rest now and then, to compare with
    assert loop.duty > 0.7
    assert loop.pace is not None
    assert loop.pace.drawn == 7
    assert loop.steering.summary()["overhead"] == pytest.approx(loop.overhead, abs=0.15)
    assert "budget" not in loop.steering.status_line()


@pytest.mark.fault(43)
def test_the_sentence_says_what_there_is_to_know_since_the_last_reboot(tmp_path, monkeypatch):
    for begin in range(10**6, 10**6 + 100, 10):  # clocks have started anew since
        log_work(tmp_path, begin, begin + 5)
    loop = Loop(tmp_path, 0.3)
    loop.run(2400)
    said, found = loop.steering.status_line(), loop.steering.summary()
    for words in ("bank renewed every ", "producer at work ", "% of the time", "budget 2 %"):
        assert words in said
    assert found["duty"] == pytest.approx(loop.duty, rel=0.15)
    # Four samples of 64 are published in each batch, of a second or so.
    assert found["refresh_seconds"] == pytest.approx(16 / loop.duty, rel=0.2)
    monkeypatch.setattr(throttle, "interval", lambda pairs, level: (-5.0, 0.1, 3.0))
    assert "overhead" not in loop.steering.summary()
    assert "what that costs is not known yet" in loop.steering.status_line()


@pytest.mark.parametrize("heartbeat", [None, "", "[]"])
def test_without_a_heartbeat_that_makes_sense_there_is_nothing_to_say(tmp_path, heartbeat):
    steering = ProducerThrottle(tmp_path, RefreshPolicy(), lambda: 0)
    if heartbeat is not None:
        log_work(tmp_path, 1, 2)
        (tmp_path / HEARTBEAT).write_text(heartbeat)
    for second in range(100):
        steering.step(second, second + 1)
    assert (steering.summary(), steering.status_line()) == ({}, "")


def test_a_damaged_pace_file_is_ignored(tmp_path):
    for text in ("{", "[]", '{"duty": 0.5}', '{"duty": 0, "drawn": 1}', '{"duty": 2, "drawn": 1}'):
        (tmp_path / PACE).write_text(text)
        assert read_throttle_state(tmp_path) is None
