"""Patches torch, so that a process has pretend CUDA devices."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
import torch.amp.autocast_mode
from torch import Tensor
from torch.utils._pytree import tree_map_only

from tests.pretend_cuda import graphs, places
from tests.pretend_cuda.device_tensor import DeviceTensor, unpickled
from tests.pretend_cuda.places import place_of
from tests.pretend_cuda.torch_calls import PretendCalls, moved
from tests.pretend_cuda.waiting import wait

GIB = 1 << 30
PROPERTIES = SimpleNamespace(
    name="Pretend GPU", total_memory=80 * GIB, major=9, minor=0, multi_processor_count=132
)


def install() -> None:
    """Give this process pretend devices, until it ends."""
    if torch.Generator is places.DeviceGenerator:
        return
    _patch_cuda()
    _patch_autocast()
    _patch_foreach()
    _patch_loading()
    _patch_threads()
    replaced: dict[str, Any] = {
        "Generator": places.DeviceGenerator,
        "compile": lambda model=None, **_: (lambda m: m) if model is None else model,
        "inference_mode": lambda mode=True: torch.no_grad() if mode else torch.enable_grad(),
    }
    _replace(torch, replaced)
    # Modules keep their Parameter objects when they move, as they do on CUDA.
    torch.__future__.set_swap_module_params_on_conversion(True)
    PretendCalls().__enter__()


def _replace(owner: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


def _nothing(*_: Any, **__: Any) -> None: ...


def _zero(*_: Any, **__: Any) -> int:
    return 0


def _place(device: object = None) -> torch.device:
    place = place_of("cuda" if device is None else device)
    assert place is not None
    return place


def _synchronize(device: object = None) -> None:
    wait("synchronize", _place(device))


class Event:
    """Stands for ``torch.cuda.Event``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.place = _place()

    def synchronize(self) -> None:
        wait("event.synchronize", self.place)

    def elapsed_time(self, other: Event) -> float:
        return 1.0

    def query(self) -> bool:
        return True

    record = wait = _nothing


class Stream(Event):
    """Stands for ``torch.cuda.Stream``; there is only one order."""

    wait_event = wait_stream = _nothing

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()


@contextlib.contextmanager
def _device(device: object) -> Iterator[None]:
    before = places.current()
    places.set_current(device)
    try:
        yield
    finally:
        places.set_current(before)


@contextlib.contextmanager
def _in_stream(stream: object) -> Iterator[None]:
    yield


def _get_rng_state(device: object = "cuda") -> Tensor:
    return places.get_stream(_place(device)).clone()


def _set_rng_state(state: Tensor, device: object = "cuda") -> None:
    places.set_stream(_place(device), state)


def _seed_all(seed: int) -> None:
    for number in range(places.DEVICES):
        places.seed_stream(number, seed)


def _patch_cuda() -> None:
    memory = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    quiet = ("empty_cache", "init", "_lazy_init", "ipc_collect", "reset_peak_memory_stats")
    patches: dict[str, Any] = {
        **dict.fromkeys(memory, _zero),
        **dict.fromkeys(quiet, _nothing),
        **dict.fromkeys(("is_available", "is_initialized", "_is_compiled"), lambda: True),
        "current_device": places.current,
        "current_stream": lambda *_: Stream(),
        "default_stream": lambda *_: Stream(),
        "device": _device,
        "device_count": lambda: places.DEVICES,
        "Event": Event,
        "get_arch_list": lambda: ["sm_90"],
        "get_device_capability": lambda *_: (PROPERTIES.major, PROPERTIES.minor),
        "get_device_name": lambda device=None: _place(device) and PROPERTIES.name,
        "get_device_properties": lambda device=None: _place(device) and PROPERTIES,
        "get_rng_state": _get_rng_state,
        "is_bf16_supported": lambda *_, **__: True,
        "is_current_stream_capturing": graphs.capturing,
        "CUDAGraph": graphs.CUDAGraph,
        "graph": graphs.graph,
        "graph_pool_handle": lambda: (0, 0),
        "get_sync_debug_mode": graphs.get_sync_debug_mode,
        "set_sync_debug_mode": graphs.set_sync_debug_mode,
        "manual_seed": lambda seed: places.seed_stream(places.current(), seed),
        "manual_seed_all": _seed_all,
        "mem_get_info": lambda *_: (72 * GIB, PROPERTIES.total_memory),
        "set_device": places.set_current,
        "set_rng_state": _set_rng_state,
        "Stream": Stream,
        "stream": _in_stream,
        "synchronize": _synchronize,
    }
    _replace(torch.cuda, patches)
    states = ("get_rng_state", "set_rng_state")
    _replace(torch.cuda.random, {name: patches[name] for name in states})
    counted = {"_cuda_getDeviceCount": lambda: places.DEVICES, "_cuda_getCurrentRawStream": _zero}
    _replace(torch._C, counted)


def _patch_autocast() -> None:
    """Autocast as the CPU does it; fp16 where nothing is said."""
    autocast: Any = torch.amp.autocast_mode.autocast
    plain = autocast.__init__

    def begin(self: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        plain(self, device_type, dtype, *args, **kwargs)

    autocast.__init__ = begin
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        real = getattr(torch, name)

        def asked(*kind: str, real: Any = real) -> Any:
            return real(*("cpu" if word == "cuda" else word for word in kind))

        setattr(torch, name, asked)


def _patch_foreach() -> None:
    """Optimisers take the paths of CUDA: many tensors in one operator."""
    for name in ("torch.optim.optimizer", "torch.utils._foreach_utils"):
        importlib.import_module(name)._foreach_supported_types.append(DeviceTensor)
    plain = torch._C._group_tensors_by_device_and_dtype

    def grouped(tensors: Any, with_indices: bool = False) -> Any:
        groups = plain(tensors, with_indices)
        return {
            (next((t.device for t in group[0] if t is not None), device), dtype): (group, numbers)
            for (device, dtype), (group, numbers) in groups.items()
        }

    _replace(torch._C, {"_group_tensors_by_device_and_dtype": grouped})


def _patch_loading() -> None:
    """``torch.load`` brings tensors to where ``map_location`` says."""
    torch.serialization.add_safe_globals([unpickled])
    plain: Any = torch.load

    @functools.wraps(plain)  # libreyolo asks for its signature
    def load(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        target = map_location if isinstance(map_location, str | torch.device) else None
        pretend = target is not None and place_of(target) is not None
        loaded = plain(*args, map_location="cpu" if pretend else map_location, **kwargs)
        if target is None:
            return loaded
        return tree_map_only(Tensor, lambda t: moved(t, target), loaded)

    _replace(torch, {"load": load})


def _patch_threads() -> None:
    """Modes of torch are of one thread; new ones have this one too."""
    plain = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def run(self: threading.Thread) -> None:
        with PretendCalls():
            plain(self)

    threading.Thread._bootstrap_inner = run  # type: ignore[attr-defined]
