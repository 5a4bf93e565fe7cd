"""Waiting for processes, and finding those of a training."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def until(true: Callable[[], bool], seconds: float = 300, step: float = 0.1) -> None:
    """Wait for something to be true, not for ever."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(step)


def forked(work: Callable[[int], Any], times: int) -> list[int | None]:
    """Exit codes of so many processes that do work(0), work(1), ... at the same time."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(i,)) for i in range(times)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [worker.exitcode for worker in workers]


def family(output: Path) -> list[int]:
    """Processes that name a folder in their command line: training, loaders, producer."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if str(output).encode() in words and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found
