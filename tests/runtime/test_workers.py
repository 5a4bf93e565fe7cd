"""Work in processes: order, faults, and who ends whom."""

import itertools
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from gansynth.runtime import workers
from gansynth.runtime.errors import DataFault
from gansynth.runtime.workers import in_processes
from tests.expected import raises_fault


def slowest_first(number: int) -> int:
    if number == 0:
        time.sleep(0.5)
    return 10 * number


def refused(number: int) -> int:
    if number:
        raise DataFault("test.refused", f"{number}: expected 0")
    return number


def killed(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def pid(number: int) -> int:
    return os.getpid()


def test_results_come_in_the_order_of_the_tasks():
    assert list(in_processes(slowest_first, range(20), 3)) == list(range(0, 200, 10))


def test_a_fault_of_a_task_comes_in_its_place():
    results = in_processes(refused, [0, 0, 7, 8], 2)
    assert [next(results), next(results)] == [0, 0]
    with raises_fault("test.refused", names="7"):
        next(results)


def test_a_process_that_was_killed_is_told_of():
    with raises_fault("workers.process-killed", names="-9"):
        list(in_processes(killed, range(4), 2))


def test_no_process_outlives_the_work_that_is_given_up():
    results = in_processes(pid, itertools.count(), 2)
    there = {next(results) for _ in range(20)}
    assert os.getpid() not in there
    results.close()
    assert not [number for number in there if psutil.pid_exists(number)]


@pytest.mark.parametrize(
    ("cores", "files", "size", "free", "count"),
    [
        (1, 10_000, 1 << 40, 1 << 40, 1),
        (12, 10_000, 1 << 40, 1 << 40, 12),
        (64, 4, 10 << 20, 1 << 40, 1),  # not worth the start
        (64, 1200, 3 << 30, 16 << 30, 16),  # half of what is free, each a quarter of 2 GiB
    ],
)
def test_processes_are_as_many_as_cores_work_and_memory_allow(
    cores, files, size, free, count, monkeypatch
):
    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers, "free_memory", lambda: free)
    assert workers.processes_for(files, size, 256 << 20) == count


WORK = """
import itertools, sys, time
from gansynth.runtime.signals import on_sigterm
from gansynth.runtime.workers import in_processes
from tests.runtime.test_workers import pid
on_sigterm(lambda *_: sys.exit(143))
for number in in_processes(pid, itertools.count(), 2):
    print(number, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(number):
    child = subprocess.Popen(
        [sys.executable, "-c", WORK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    there = {int(next(child.stdout)) for _ in range(50)}
    watched = [psutil.Process(pid) for pid in there]
    child.send_signal(number)
    child.communicate()
    _, alive = psutil.wait_procs(watched, timeout=60)
    assert not alive
