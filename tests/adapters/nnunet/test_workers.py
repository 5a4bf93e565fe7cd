"""In how many processes a training loads, augments and draws samples."""

import os
from collections.abc import Iterator

import pytest

from gansynth.bank import producer_count
from gansynth.bank.producer_count import count_producers
from gansynth.runtime.child import torch_threads
from gansynth_nnunet.workers import WORKERS, workers
from tests.adapters.kits import NnunetKit, command, in_this_process
from tests.expected import raises_fault
from tests.producers import forked_producers


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A forked process has none of torch's other threads, and would wait for them."""
    with torch_threads(1):
        yield


@pytest.fixture
def machine(monkeypatch, request) -> int:
    """A machine with so many cores, and memory enough; the user has set nothing."""
    count: int = request.param
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)
    monkeypatch.setattr(producer_count, "free_memory", lambda: 256 << 30)
    monkeypatch.delenv(WORKERS, raising=False)
    return count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("machine", "augmenting", "drawing"),
    [(1, 1, 1), (2, 2, 1), (12, 12, 1), (64, 12, 2)],
    indirect=["machine"],
)
def test_a_training_starts_the_processes_of_nnunet_alone_and_others_that_draw(
    one_thread, toy_nnunet, fitted, tmp_path, monkeypatch, machine, augmenting, drawing
):
    """The bank of eight has two batches, which two processes draw at once."""
    kit = NnunetKit(tmp_path, fitted, toy_nnunet)
    in_this_process(monkeypatch)
    monkeypatch.delenv(WORKERS)
    asked = (*kit.where, "--generator", fitted, "--device", "cpu", "--bank-size", 8)
    with forked_producers():
        result = command(*kit.words(*asked, *kit.lasting(1)))
    assert result.exit_code == 0, result.stderr
    shares = f"nnU-Net loads in {augmenting} process{'es' * (augmenting > 1)}, samples are drawn in"
    assert f"{shares} {drawing}, of {machine} core" in result.stderr
    assert ("these are few" in result.stderr) == (machine <= 4)
    (log,) = kit.output.glob("training_log_*.txt")
    started = f"started {augmenting} processes for training batches, {max(1, augmenting // 2)} for"
    assert started in log.read_text()


@pytest.mark.parametrize(
    ("machine", "beside_nnunet", "alone"),
    [(1, 1, 1), (2, 1, 1), (12, 1, 6), (64, 26, 32)],
    indirect=["machine"],
)
def test_half_of_what_the_host_leaves_draws_samples_on_cpus(machine, beside_nnunet, alone):
    for loaders, expected in ((workers(), beside_nnunet), (0, alone)):
        assert count_producers(None, "cpu", loaders, 1000) == expected
        assert count_producers(None, "cpu", loaders, 8) == min(expected, 2)
        assert count_producers(None, "cuda:0", loaders, 1000) == 1
        assert count_producers(3, "cpu", loaders, 8) == 3


@pytest.mark.parametrize("machine", [64], indirect=True)
def test_memory_for_processes_that_draw_is_left(machine, monkeypatch):
    for gib, expected in ((1, 1), (8, 4)):
        monkeypatch.setattr(producer_count, "free_memory", lambda gib=gib: gib << 30)
        assert count_producers(None, "cpu", 12, 1000) == expected


@pytest.mark.parametrize("machine", [12], indirect=True)
def test_a_users_number_wins_and_a_container_s_cores_count(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert workers() == 3
    for text in ("9", "0"):
        monkeypatch.setenv(WORKERS, text)
        assert workers() == int(text)
    monkeypatch.setenv(WORKERS, "many")
    with raises_fault("nnunet.workers-no-number"):
        workers()
