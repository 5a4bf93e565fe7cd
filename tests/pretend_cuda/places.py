"""The pretend devices, and the random numbers of each."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from tests.pretend_cuda.environment import VARIABLE

DEVICES = int(os.environ.get(VARIABLE) or 1)
"""How many devices there are."""
PlainGenerator = torch.Generator
_new: Any = PlainGenerator.__new__

_thread = threading.local()
open_graphs: list[Any] = []
"""The CUDA graph that is captured."""
_process = {"begun": False, "forked": False}
_streams: dict[int, Tensor] = {}
_generators: WeakValueDictionary[int, DeviceGenerator] = WeakValueDictionary()


def place_of(device: object) -> torch.device | None:
    """Return the pretend device that is named, with its number; None for any other.

    Raises:
        RuntimeError: there is no such device, or this process was forked after CUDA had begun.
    """
    if isinstance(device, int) and not isinstance(device, bool):
        device = torch.device("cuda", device)
    if not isinstance(device, str | torch.device):
        return None
    named = torch.device(device)
    if named.type != "cuda":
        return None
    number = current() if named.index is None else named.index
    if number >= DEVICES:
        raise RuntimeError(f"CUDA error: invalid device ordinal {number}, there are {DEVICES}")
    return torch.device("cuda", number)


def current() -> int:
    return getattr(_thread, "number", 0)


def set_current(device: object) -> None:
    place = place_of(device)
    _thread.number = current() if place is None else place.index


def begin() -> None:
    """Begin to use CUDA in this process.

    Raises:
        RuntimeError: the process was forked from one that used CUDA.
    """
    if _process["forked"]:
        raise RuntimeError(
            "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, "
            "you must use the 'spawn' start method"
        )
    _process["begun"] = True


def _after_fork() -> None:
    _process["forked"] = _process["begun"]


os.register_at_fork(after_in_child=_after_fork)


# -- random numbers --------------------------------------------------------------------------------


class _AnyGenerator(type(PlainGenerator)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, PlainGenerator)


class DeviceGenerator(PlainGenerator, metaclass=_AnyGenerator):
    """Stands for ``torch.Generator``; makes plain ones for the CPU."""

    place: torch.device

    def __new__(cls, device: Any = "cpu") -> Any:
        place = place_of(device)
        if place is None:
            return _new(PlainGenerator, device)
        made = _new(cls, "cpu")
        made.place = place
        _generators[made._cdata] = made
        return made

    def __init__(self, device: Any = "cpu") -> None: ...

    device = property(lambda self: self.place)

    def get_state(self) -> Tensor:
        if open_graphs:
            raise RuntimeError("Cannot call CUDAGeneratorImpl::current_seed during stream capture")
        return super().get_state()

    def manual_seed(self, seed: int) -> DeviceGenerator:
        """Seed it; its numbers differ from the CPU's of the same seed."""
        super().manual_seed(_own(seed))
        return self


def check_generator(generator: object, place: torch.device, what: str) -> None:
    """Raise RuntimeError unless a generator of random numbers is of a device."""
    if generator is None:
        return
    # C++ hands on a new object for the same generator.
    device_generator = _generators.get(generator._cdata)  # type: ignore[attr-defined]
    device = torch.device("cpu") if device_generator is None else device_generator.place
    if device != place:
        raise RuntimeError(f"Expected a {str(place)!r} generator, but found {device!s} ({what})")


@contextlib.contextmanager
def stream_of(place: torch.device) -> Iterator[None]:
    """Let torch's default random numbers be those of a device."""
    default = torch.default_generator
    before = default.get_state()
    default.set_state(get_stream(place))
    try:
        yield
    finally:
        _streams[place.index] = default.get_state()
        default.set_state(before)


def get_stream(place: torch.device) -> Tensor:
    if place.index not in _streams:
        seed_stream(place.index, 1_000_003 + place.index)
    return _streams[place.index]


def set_stream(place: torch.device, state: Tensor) -> None:
    _streams[place.index] = state.clone()


def seed_stream(number: int, seed: int) -> None:
    _streams[number] = PlainGenerator().manual_seed(_own(seed)).get_state()


def _own(seed: int) -> int:
    """Return a seed of other numbers, the same every time."""
    return (int(seed) ^ 0x5EED0000) % 2**63
