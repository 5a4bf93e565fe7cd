import os
import threading
from functools import partial
from typing import Any

import pytest
import torch

from gansynth.core.generator import Batch
from gansynth.runtime import machine
from gansynth.training.loading import BatchLoader, threads_for


def note(read: list[int]) -> list[Batch]:
    read.append(1)
    return []


def test_nothing_is_read_after_a_failure():
    begun, read = threading.Event(), list[int]()

    def fail() -> Any:
        begun.wait(10)
        raise OSError("disk")

    with BatchLoader(torch.device("cpu")) as loader:
        waiting = [loader.read(fail), loader.read(partial(note, read))]
        begun.set()
        for loaded in waiting:
            with pytest.raises(OSError, match="disk"):
                loader.wait(loaded)
    assert read == []


def test_what_has_not_begun_is_not_read_at_the_end():
    begun, go, read = threading.Event(), threading.Event(), list[int]()

    def slow() -> list[Batch]:
        begun.set()
        go.wait(10)
        return [Batch(torch.zeros(1, 1, 2, 2))]

    with BatchLoader(torch.device("cpu")) as loader:
        loader.read(slow)
        loader.read(partial(note, read))
        begun.wait(10)
        threading.Timer(0.05, go.set).start()
    assert read == []


def test_several_threads_read_at_once_and_batches_come_in_order():
    together = threading.Barrier(3, timeout=10)

    def numbered(number: int) -> list[Batch]:
        together.wait()
        return [Batch(torch.full((1, 1, 2, 2), float(number)))]

    with BatchLoader(torch.device("cpu"), 3) as loader:
        reads = [loader.read(partial(numbered, number)) for number in range(3)]
        assert [loader.wait(read)[0].image[0, 0, 0, 0].item() for read in reads] == [0, 1, 2]


@pytest.mark.parametrize(
    ("cores", "processes", "threads"),
    [(1, 1, 1), (2, 1, 1), (4, 1, 3), (12, 1, 8), (64, 1, 8), (12, 4, 2), (2, 4, 1)],
)
def test_a_gpu_is_fed_by_the_cores_but_one_and_a_cpu_by_one_thread(
    cores, processes, threads, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(machine, "_cgroup", lambda name: "")
    assert threads_for(torch.device("cuda"), processes) == threads
    assert threads_for(torch.device("cpu"), processes) == 1
