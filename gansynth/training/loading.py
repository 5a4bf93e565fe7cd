"""Batches of the training loop: read ahead, and copied to a GPU while it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gansynth.core.generator import Batch

Loaded = tuple[list[Batch], torch.cuda.Event | None]
"""Parts of a batch on the GPU and the end of their copy; as they were read, and None, on a CPU."""


class BatchLoader:
    """Reads batches in a thread; a GPU copies them from pinned memory, on a stream of its own.

    Attributes:
        ahead: steps whose batches are read while one trains.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream, self.ahead = None, 1
        if device.type == "cuda":
            self._stream, self.ahead = torch.cuda.Stream(device), 2  # type: ignore[no-untyped-call]
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[Loaded] | None = None

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def read(self, parts: Callable[[], Sequence[Batch]]) -> Future[Loaded]:
        """Read the parts of a batch in the thread; none after a failure, which is raised again."""
        self._last = self._thread.submit(self._load, parts, self._last)
        return self._last

    def settle(self) -> None:
        """Wait until nothing is read or copied."""
        if self._last is not None:
            self._last.result()
        if self._stream is not None:
            self._stream.synchronize()

    def wait(self, loaded: Future[Loaded]) -> list[Batch]:
        """Return the parts of a batch; only the GPU waits for their copies."""
        parts, copied = loaded.result()
        if copied is None:
            return [part.to(self.device) for part in parts]
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(copied)

        def read(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)  # its memory is not reused before the step has read it
            return tensor

        return [_changed(part, read) for part in parts]

    def _load(self, read: Callable[[], Sequence[Batch]], before: Future[Loaded] | None) -> Loaded:
        if before is not None:
            before.result()
        parts = list(read())
        if self._stream is None:
            return parts, None
        with torch.cuda.stream(self._stream):
            moved = [_changed(part, _pinned).to(self.device) for part in parts]
            return [_changed(part, _widened) for part in moved], self._stream.record_event()


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
