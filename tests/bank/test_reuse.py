from types import SimpleNamespace
from typing import Any

import pytest

from gansynth.bank.draw_log import DrawCounts, DrawLog, foreseen, summarise
from gansynth.bank.throttle import read_throttle_state
from gansynth.bank.training_bank import FILL_SECONDS, HEAD_START_SECONDS, TrainingBank
from gansynth.core.bank_options import BankCapacity
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.hosts.contract.record import DRAWS, TrainingResult
from gansynth.runtime.errors import EnvironmentFault, TrainingFault


class Producer:
    """A producer that makes so many samples before a training loses its patience."""

    restarts, ended = 0, None

    def __init__(self, made: int, fault: Exception | None = None) -> None:
        self.made, self.fault = made, fault or TrainingFault("test.fault", "too slow")
        self.asked: list[tuple[int, float]] = []

    def wait(self, count, seconds, progress):
        self.asked.append((count, round(seconds)))
        progress(count + 14)  # a segment holds more
        if count > self.made:
            raise self.fault

    def alive(self):
        return True

    def messages(self):
        return []


@pytest.fixture
def supply_of(tmp_path):
    """Makes a supply: ``supply_of(draws=643)``; its ``said`` is what the user is told."""

    def make(draws: int, made: int = 1000, fault: Exception | None = None, **changes: Any) -> Any:
        words = {"ratio": "1:1", "generator": tmp_path / "run", "bank_size": 64, **changes}
        request, said, shown = AugmentRequest(target="toy", **words), list[str](), list[Any]()
        how: Any = (request, {}, BankCapacity(64, 0), 1, 2 * draws, tmp_path, said.append)
        training_bank: Any = TrainingBank(*how, lambda **told: shown.append(told))
        training_bank.shown = shown
        training_bank.bank, training_bank.said = tmp_path, said
        training_bank.supervisor = Producer(made, fault)
        return training_bank

    return make


@pytest.mark.parametrize(
    ("draws", "pacing", "filled"),
    [(90, {}, 23), (643, {}, 64), (400, {"refresh": "10x"}, 40)],
)
def test_a_live_bank_is_filled_first_as_far_as_it_takes(supply_of, draws, pacing, filled):
    training_bank = supply_of(draws, **pacing)
    training_bank.wait()
    asked = training_bank.supervisor.asked
    assert asked == [(16, FILL_SECONDS), (filled, HEAD_START_SECONDS)]


def test_a_slow_or_given_up_producer_keeps_nobody_waiting_for_more_than_the_least(supply_of):
    slow = supply_of(643, made=16)
    slow.wait()
    assert slow.fault is None
    with pytest.raises(TrainingFault):
        supply_of(643, made=15).wait()
    given_up = EnvironmentFault("test.fault", "killed")
    without = supply_of(643, 16, given_up, allow_empty_bank=True)
    without.wait()
    assert without.fault is given_up


def test_what_the_supervisor_says_is_shown_while_samples_are_waited_for(supply_of):
    training_bank = supply_of(643)
    training_bank.supervisor.messages = lambda: ["the disk is full"]
    training_bank.wait()
    assert "the disk is full" in training_bank.said


def test_a_frozen_bank_that_is_too_small_is_said_before_training(supply_of):
    training_bank = supply_of(643, offline=True)
    training_bank.wait()
    assert training_bank.said[0] == "waiting for 64 synthetic samples"
    assert training_bank.shown == [{"unit": "sample", "done": 64, "total": 64}]  # a batch has more
    (said,) = [line for line in training_bank.said if "WARNING" in line]
    assert "each of 64 samples will be drawn 10.0 times, more than 4" in said
    assert "--bank-size 161" in said
    enough = supply_of(256, offline=True)
    enough.wait()
    assert not [line for line in enough.said if "WARNING" in line]


def test_a_sample_drawn_too_often_is_said_once_with_the_cure(supply_of):
    training_bank, counts = supply_of(643), DrawCounts(synthetic=160, distinct=47, most=4)
    training_bank._counts = lambda: counts
    assert training_bank.messages() == []
    counts = DrawCounts(synthetic=643, distinct=47, most=19)
    (said,) = training_bank.messages()
    assert "47 different samples were drawn up to 19 times each, more than 4" in said
    assert "--refresh" in said
    assert training_bank.messages() == []


def test_sessions_of_a_training_count_a_sample_once_and_say_how_often_it_was_used(tmp_path):
    sessions = []
    for number, draws in (("first", 3), ("second", 5)):
        log = DrawLog(tmp_path / DRAWS / number)
        for sample in draws * ["000000", "000001"]:
            log.append("synthetic", sample, "case")
        counts = summarise(log.folder).to_json()
        sessions.append({"drawn": counts, "draw_log": number, "epochs": [0, 1]})
    result = TrainingResult.of(sessions, tmp_path)
    assert result.training_bank["draws_per_sample"] == 8.0  # not 4
    (said,) = result.warnings
    assert "2 different samples were drawn up to 8 times each, more than 4" in said
    del sessions[0]["draw_log"]  # as in records of earlier versions
    assert "draws_per_sample" not in TrainingResult.of(sessions, tmp_path).training_bank


def test_a_failure_to_measure_is_told_once_never_raised_and_leaves_a_low_duty(supply_of, tmp_path):
    def no_log() -> int:
        raise OSError("no log")

    training_bank = supply_of(643)
    training_bank.start_throttle(DrawCounts, no_log)
    for second in range(20):
        training_bank.step(second, second + 1)
    (said,) = training_bank.said
    assert "the producer's cost is no longer measured: OSError: no log" in said
    left = read_throttle_state(tmp_path)
    assert left is not None
    assert left.duty <= 0.2


def test_a_signal_while_the_producer_is_ended_leaves_no_bank(supply_of, tmp_path):
    def cut_short() -> None:
        raise SystemExit(143)

    training_bank, bank = supply_of(1), tmp_path / "bank"
    bank.mkdir()
    training_bank.supervisor, training_bank._own = SimpleNamespace(stop=cut_short), bank
    with pytest.raises(SystemExit):
        training_bank.close()
    assert not bank.exists()


@pytest.mark.parametrize(
    ("how", "held", "key", "number"),
    [
        ({"offline": True}, 64, "draws_of_a_sample", 10.05),
        ({"bank": "bank"}, 643, "draws_of_a_sample", 1.0),
        ({}, 64, "samples_to_make", 161),
    ],
)
def test_a_dry_run_knows_how_often(how, held, key, number):
    request = AugmentRequest(target="toy", ratio="1:1", generator="run", **how)
    found = foreseen(request, 643, held)
    assert (found["synthetic_draws"], found[key]) == (643, number)
    assert ("reuse" in found) == (held == 64)
