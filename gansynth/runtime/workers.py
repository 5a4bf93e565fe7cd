"""Work on many independent tasks in processes, with results in the order of the tasks."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

from gansynth.runtime.child import follow
from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.machine import cores, free_memory
from gansynth.runtime.processes import without_script
from gansynth.runtime.system import hold, release

Task = TypeVar("Task")
Result = TypeVar("Result")

WORTH_BYTES, WORTH_FILES = 64 << 20, 256
"""Bytes or number of files that take several times as long to read as a process to start."""
BASE_BYTES = 256 << 20
"""Memory of a process before it reads anything."""
AHEAD = 4
"""Tasks of each process whose results may wait for that of an earlier one."""


def processes_for(files: int, size: int, need: int) -> int:
    """Return how many processes should read some files; 1 where starting more costs too much.

    There are no more than cores that this process may use, and all take at most half of the memory
    that is free.

    Args:
        files: their number.
        size: bytes of all, as stored.
        need: bytes that a process takes for one task, beyond its start.
    """
    work = max(size // WORTH_BYTES, files // WORTH_FILES)
    room = free_memory() // 2 // (BASE_BYTES + need)
    return max(1, min(cores(), work, room))


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], count: int
) -> Generator[Result, None, None]:
    """Yield ``work(task)`` of each task, in order, from ``count`` processes; 1: from this one.

    Tasks are taken from the iterable as processes become free. All processes end at once when this
    generator is closed or an exception leaves it, such as that of a signal.

    ``work`` and tasks are pickled. Work that cannot be, such as a function within a function, is
    done in this process, and so is all in a process that may have none of its own.

    Raises:
        EnvironmentFault: a process was killed.
        Exception: that of the first task that has raised one.
    """
    if count == 1 or current_process().daemon or not _is_pickled(work):
        yield from map(work, tasks)
        return
    workers = _started(work, count)
    try:
        yield from _in_order(workers, iter(tasks))
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


def _is_pickled(work: Callable[..., Any]) -> bool:
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _started(work: Callable[[Any], Any], count: int) -> list[_Worker]:
    """Start processes that never see Ctrl-C, which this process ends them at."""
    context = get_context("spawn")  # threads of torch and of progress bars do not survive a fork
    workers = []
    masked = hold(signal.SIGINT)  # children inherit it
    try:
        with without_script():
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_serve, args=(work, theirs, os.getpid()), daemon=True
                )
                process.start()
                theirs.close()
                workers.append(_Worker(process, ours))
    finally:
        release(masked)
    return workers


def _in_order(workers: list[_Worker], tasks: Iterator[Any]) -> Iterator[Any]:
    """Hand out tasks, and yield results in the tasks' order."""
    idle, busy = deque(workers), dict[Connection, tuple[_Worker, int]]()
    results = dict[int, tuple[bool, Any]]()
    begun = yielded = 0
    more = True
    while True:
        while more and idle and begun < yielded + AHEAD * len(workers):
            try:
                task = next(tasks)
            except StopIteration:
                more = False
                break
            worker = idle.popleft()
            # One that was killed is found by its silence.
            with contextlib.suppress(BrokenPipeError):
                worker.pipe.send(task)
            busy[worker.pipe] = worker, begun
            begun += 1
        if not busy:
            return
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            worker, number = busy.pop(pipe)
            results[number] = _received(worker)
            idle.append(worker)
        while yielded in results:
            failed, result = results.pop(yielded)
            if failed:
                raise result
            yield result
            yielded += 1


def _received(worker: _Worker) -> tuple[bool, Any]:
    try:
        answer: tuple[bool, Any] = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        raise EnvironmentFault(
            "workers.process-killed",
            f"a process ended with {worker.process.exitcode}, expected it to finish its work; the "
            "system does so (-9) when memory runs out: free some, or let it use fewer cores: "
            "taskset -c 0 gansynth ...",
        ) from None
    return answer


# -- in a process ----------------------------------------------------------------------------------


def _serve(work: Callable[[Any], Any], pipe: Connection, parent: int) -> None:
    """Do tasks as they come, until there are none."""
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer = False, work(task)
        except Exception as error:
            answer = True, error
        pipe.send(answer)
