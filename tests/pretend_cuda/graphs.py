"""CUDA graphs of the pretend devices: operators that are written down, and run again.

A GPU runs nothing while it captures. Here operators run then, and the first replay runs none.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.pretend_cuda.places import open_graphs, stream_of

_debug = {"mode": 0}


class CUDAGraph:
    """Stands for ``torch.cuda.CUDAGraph``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.calls: list[tuple[Any, Any, Any, Any, torch.device]] = []
        self.generators: list[Any] = []
        self.fresh = True

    def register_generator_state(self, generator: Any) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        if not self.fresh:
            for func, args, kwargs, made, place in self.calls:
                with torch._C.DisableTorchFunction(), stream_of(place):
                    again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old is not new:
                        old.detach().copy_(new)
        self.fresh = False


@contextlib.contextmanager
def graph(captured: CUDAGraph, pool: Any = None, **_: Any) -> Iterator[None]:
    """Stand for ``torch.cuda.graph``."""
    open_graphs.append(captured)
    try:
        yield
    finally:
        open_graphs.pop()


def capturing() -> bool:
    """Whether a graph is captured."""
    return bool(open_graphs)


def note(func: Any, args: Any, kwargs: Any, made: Any, place: torch.device) -> None:
    """Write an operator down, if a graph is captured."""
    if open_graphs:
        open_graphs[-1].calls.append((func, args, kwargs, made, place))


def check_wait(cause: str) -> None:
    """Refuse a wait while a graph is captured; warn of it where torch was asked to.

    Raises:
        RuntimeError: a graph is captured.
    """
    if open_graphs:
        raise RuntimeError(f"operation not permitted when stream is capturing ({cause})")
    if _debug["mode"]:
        warnings.warn(f"called a synchronizing CUDA operation ({cause})", stacklevel=4)


def set_sync_debug_mode(mode: Any) -> None:
    _debug["mode"] = {"default": 0, "warn": 1}.get(mode, mode)


def get_sync_debug_mode() -> int:
    return _debug["mode"]
