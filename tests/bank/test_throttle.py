"""Steering: a host and a producer on one simulated clock, and what can go wrong."""

import json
import math
import timeit
from pathlib import Path

import numpy as np
import pytest

from gansynth.bank.overhead import Overhead
from gansynth.bank.pace import PACE, WORK, Pace, log_work, read_pace
from gansynth.bank.spec import HEARTBEAT
from gansynth.bank.throttle import Steering
from gansynth.core.bank_options import Pacing


class Loop:
    """Steps of a host, slowed down by a producer that obeys ``pace.json``; simulated seconds."""

    def __init__(self, bank: Path, slowdown: float, pacing: Pacing, seed: int = 0) -> None:
        self.bank, self.lost = bank, slowdown / (1 + slowdown)
        self.rng = np.random.default_rng(seed)
        self.now = self.begin = self.end = 1000.0
        self.until: float | None = self.now + 1
        self.alone = self.worked = 0.0
        self.published = 0
        self.pace: Pace | None = None
        self.steering = Steering(bank, pacing, lambda: 7)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.pace = read_pace(self.bank)
            begin, need = self.now, 0.4 * math.exp(0.1 * self.rng.normal())
            self.alone += need
            self._advance(need)
            self.steering.step(begin, self.now)

    def _advance(self, need: float) -> None:
        while need > 1e-9:
            speed = 1.0 if self.until is None else 1 - self.lost
            change = self._due() if self.until is None else self.until
            passed = min(max(0.0, change - self.now), need / speed)
            need -= passed * speed
            self.now += passed
            self.worked += 0.0 if self.until is None else passed
            if self.now >= change - 1e-9:
                self._turn()

    def _turn(self) -> None:
        if self.until is None:
            self.begin, self.until = self.now, self.now + self.rng.gamma(20, 0.05)
        else:
            self.end, self.until = self.now, None
            self.published += 4
            log_work(self.bank, self.begin, self.end)
        beat = {
            "working_since": None if self.until is None else self.begin,
            "total": self.published,
            "held": 64,
            "state": "refreshing",
        }
        (self.bank / HEARTBEAT).write_text(json.dumps(beat))

    def _due(self) -> float:
        assert self.pace is not None
        return self.end + (self.end - self.begin) * (1 - self.pace.duty) / self.pace.duty

    @property
    def overhead(self) -> float:
        return (self.now - 1000) / self.alone - 1


@pytest.mark.parametrize(
    "slowdown", [0.3, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.0, 0.05, 1.0))]
)
def test_the_producer_keeps_to_the_budget_and_uses_it(tmp_path, slowdown):
    loop = Loop(tmp_path, slowdown, Pacing(overhead=0.02))
    loop.run(2000)
    found = loop.steering.summary()
    assert loop.overhead < 0.025
    assert found["overhead"] == pytest.approx(loop.overhead, abs=0.006)
    assert found["overhead_low"] < found["overhead"] < found["overhead_high"]
    assert found["duty"] == pytest.approx(loop.worked / (loop.now - 1000), rel=0.1)
    # The budget is there to be used: 60 % of what it allows, or of all there is.
    allowed = min(0.72, 0.0196 * (1 + slowdown) / slowdown) if slowdown else 0.72
    assert found["duty"] > 0.6 * allowed


def test_with_reuse_or_refresh_the_producer_is_limited_by_those_alone(tmp_path):
    loop = Loop(tmp_path, 0.3, Pacing(reuse=4))
    loop.run(200)
    assert read_pace(tmp_path) == Pace(0.9, 7)
    assert loop.steering.summary()["overhead"] == pytest.approx(loop.overhead, abs=0.15)
    assert "budget" not in loop.steering.sentence()


def test_the_sentence_says_what_there_is_to_know(tmp_path):
    loop = Loop(tmp_path, 0.3, Pacing(overhead=0.02))
    loop.run(500)
    said = loop.steering.sentence()
    for words in ("renewed every ", "producer at work ", "% of the time", "budget 2 %"):
        assert words in said


def test_an_overhead_that_is_hardly_known_is_not_told(tmp_path, monkeypatch):
    loop = Loop(tmp_path, 0.3, Pacing(overhead=0.02))
    loop.run(500)
    monkeypatch.setattr(
        loop.steering.meter, "overhead", lambda: Overhead(4.0, 0.2, 141.0, duty=0.3)
    )
    assert loop.steering.summary()["duty"] == 0.3
    assert "overhead" not in loop.steering.summary()
    assert "at work 30% of the time; what that costs is not known yet" in loop.steering.sentence()


def test_the_renewal_is_the_time_in_which_as_much_is_published_as_is_held(tmp_path):
    steering = Steering(tmp_path, Pacing(), lambda: 0)
    for second in range(0, 200, 2):
        beat = {"total": 64 + 16 * (second // 30), "held": 64, "state": "refreshing"}
        (tmp_path / HEARTBEAT).write_text(json.dumps(beat))
        steering.step(second, second + 2)
    assert steering.summary()["refresh_seconds"] == pytest.approx(120, abs=4)
    assert steering.sentence().startswith("renewed every 2.0 min")


def test_a_bank_without_a_producer_has_nothing_to_say(tmp_path):
    steering = Steering(tmp_path, Pacing(), lambda: 0)
    for second in range(100):
        steering.step(second, second + 1)
    assert (steering.summary(), steering.sentence()) == ({}, "")


def test_work_of_before_a_reboot_is_not_counted(tmp_path):
    for begin in range(10**6, 10**6 + 100, 10):  # clocks have started anew since
        log_work(tmp_path, begin, begin + 5)
    loop = Loop(tmp_path, 0.3, Pacing(overhead=0.02))
    loop.run(400)
    found = loop.steering.summary()
    assert found["duty"] == pytest.approx(loop.worked / (loop.now - 1000), rel=0.15)


def test_a_bank_that_has_gone_harms_nobody(tmp_path):
    steering = Steering(tmp_path / "gone", Pacing(), lambda: 0)
    steering.step(0, 3)
    assert steering.summary() == {}


def test_a_failure_is_told_once_and_never_raised(tmp_path):
    def drawn() -> int:
        raise OSError("no log")

    steering = Steering(tmp_path, Pacing(overhead=0.02), drawn)
    for second in range(20):
        steering.step(second, second + 1)
    assert steering.sentence() == "steering stopped: OSError: no log"
    left = read_pace(tmp_path)
    assert left is not None
    assert left.duty <= 0.1


@pytest.mark.parametrize("text", ["", "[]", '{"working_since": "x", "total": "y", "held": 1}'])
def test_a_heartbeat_that_makes_no_sense_harms_nobody(tmp_path, text):
    steering = Steering(tmp_path, Pacing(), lambda: 0)
    log_work(tmp_path, 1, 2)
    (tmp_path / HEARTBEAT).write_text(text)
    for second in range(30):
        steering.step(second, second + 1)


def test_files_in_ruins_harm_nobody(tmp_path):
    (tmp_path / WORK).write_bytes(b"\xff" * 16 * 50 + b"half")
    (tmp_path / PACE).mkdir()
    steering = Steering(tmp_path, Pacing(), lambda: 0)
    (tmp_path / WORK).write_bytes(b"\xff" * 16 * 150)
    for second in range(100):
        steering.step(second, second + 1)
    assert "overhead" not in steering.summary()


def test_a_step_costs_microseconds(tmp_path):
    steering = Steering(tmp_path, Pacing(), lambda: 0)
    steering.step(0, 1)
    best = min(timeit.repeat(lambda: steering.step(1.0, 1.4), number=1000, repeat=5)) / 1000
    assert best < 20e-6
