"""Batches of the training loop: read ahead, and copied to a GPU while it computes."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gansynth.core.generator import Batch
from gansynth.runtime.machine import cores

MOST_THREADS = 8
ON_DEVICE = 2  # steps that a GPU is given ahead, with their batches in its memory


def threads_for(device: torch.device, processes: int = 1) -> int:
    """Return the threads that read batches: one beside a CPU's own, several for a GPU.

    Each of several processes that train together leaves one of its cores to the training.
    """
    if device.type != "cuda":
        return 1
    return max(1, min(MOST_THREADS, cores() // processes - 1))


class BatchLoader:
    """Reads batches in threads; a GPU copies them from pinned memory, on a stream of its own.

    Attributes:
        threads: that read; batches come in the order in which they were asked for.
        ahead: steps whose batches are read while one trains.
    """

    def __init__(self, device: torch.device, threads: int = 1) -> None:
        self.device, self.threads = device, threads
        self._stream, self.ahead = None, 1
        if device.type == "cuda":
            self._stream, self.ahead = torch.cuda.Stream(device), threads + 1
        self._pool = ThreadPoolExecutor(threads)
        self._reading = deque[Future[list[Batch]]]()
        self._failure: BaseException | None = None
        self._given = deque[torch.cuda.Event]()
        self._waited = 0.0  # on a CPU
        self._waits = list[tuple[torch.cuda.Event, torch.cuda.Event]]()
        self._seconds = deque[float]()  # of each batch that was read

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, parts: Callable[[], Sequence[Batch]]) -> Future[list[Batch]]:
        """Read the parts of a batch in a thread; none after a failure, which is raised again."""
        while self._reading and self._reading[0].done():
            self._reading.popleft()
        self._reading.append(self._pool.submit(self._load, parts))
        return self._reading[-1]

    def settle(self) -> None:
        """Wait until nothing is read or copied."""
        futures.wait(self._reading)
        if self._stream is not None:
            self._stream.synchronize()

    def wait(self, loaded: Future[list[Batch]]) -> list[Batch]:
        """Return the parts of a batch; only the GPU waits for their copies."""
        if self._stream is None:
            began = time.perf_counter()
            parts = loaded.result()
            self._waited += time.perf_counter() - began
            return [part.to(self.device) for part in parts]
        stream = torch.cuda.current_stream(self.device)
        idle, fed = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        idle.record(stream)
        self._given.append(idle)
        if len(self._given) > ON_DEVICE:  # else its memory would fill with batches
            self._given.popleft().synchronize()
        parts = loaded.result()
        with torch.cuda.stream(self._stream):
            parts = [part.to(self.device) for part in parts]
            parts = [_changed(part, _widened) for part in parts]
        stream.wait_stream(self._stream)
        fed.record(stream)
        self._waits.append((idle, fed))

        def read(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)  # its memory is not reused before the step has read it
            return tensor

        return [_changed(part, read) for part in parts]

    def spent(self) -> tuple[float, float]:
        """Return what was spent since the last call: waits for the steps that a GPU was given.

        Seconds in which the device had no batch, and mean seconds of reading one in a thread, nan
        if none was read.
        """
        waited, self._waited = self._waited, 0.0
        if self._waits:
            self._waits[-1][1].synchronize()
        for idle, fed in self._waits:
            waited += idle.elapsed_time(fed) / 1e3
        self._waits.clear()
        seconds = [self._seconds.popleft() for _ in range(len(self._seconds))]
        return waited, sum(seconds) / len(seconds) if seconds else math.nan

    def _load(self, read: Callable[[], Sequence[Batch]]) -> list[Batch]:
        if self._failure is not None:
            raise self._failure
        began = time.perf_counter()
        try:
            parts = list(read())
            return parts if self._stream is None else [_changed(part, _pinned) for part in parts]
        except BaseException as failure:
            self._failure = failure
            raise
        finally:
            self._seconds.append(time.perf_counter() - began)


def _pinned(tensor: Tensor) -> Tensor:
    """Return a tensor in pinned memory; whole numbers as int16, which all of ours fit into.

    An expanded tensor has one place for many elements: CUDA cannot pin it.
    """
    small = tensor.short() if tensor.dtype == torch.int64 else tensor
    return small.contiguous().pin_memory()


def _widened(tensor: Tensor) -> Tensor:
    return tensor.long() if tensor.dtype == torch.int16 else tensor


def _changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        return change(value) if isinstance(value, Tensor) else value

    return replace(batch, **{name: changed(value) for name, value in vars(batch).items()})
