"""Training steps on fake tensors: count memory and FLOPs without using either."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.library import Library, fallthrough_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

BLOCK = 512
"""Bytes: torch's CUDA allocator rounds every tensor up to a multiple."""

FULL_ON_CUDA = (
    *("group_norm", "layer_norm", "softmax.int", "softplus"),
    *("exp", "log", "rsqrt", "pow.Tensor_Scalar"),
)
FULL_ON_CPU = ("max_pool3d", "avg_pool3d")
"""Operations on large features that autocast makes fp32 on one device and not on the other."""


class CountingMode(TorchDispatchMode):
    """Counts bytes of storages on a device, and FLOPs; tensors compute as usual.

    FLOPs are those of convolutions and matrix products: forward, backward and recomputed. A
    multiplication and an addition count as two. torch's ``FlopCounterMode`` does not count second
    derivatives. Counted are outputs of operations, not the workspace of a kernel. Scalars are left
    out: optimisers keep theirs on the CPU.

    Attributes:
        live: bytes held now.
        peak: most bytes held since ``begin``.
        flops: since ``begin``.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.live, self.peak, self.flops = device, 0, 0, 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> None:
        """Restart counting; held bytes stay counted."""
        self.peak, self.flops = self.live, 0

    def hold(self, tensors: Iterable[object]) -> None:
        """Count existing tensors."""
        for x in tensors:
            if isinstance(x, Tensor) and x.ndim and x.device.type == self.device.type:
                self._count(x.untyped_storage())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = self.compute(func, args, kwargs)
        rule = flop_registry.get(func._overloadpacket)
        if rule is not None:
            self.flops += int(rule(*args, **kwargs, out_val=made))
        self.hold(tree_leaves(made))
        return made

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation."""
        return func(*args, **kwargs)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
        if key in self._known:
            return

        def gone(_: object) -> None:
            if self._known.pop(key, None) is not None:
                self.live -= size

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


class FakeCountingMode(CountingMode):
    """``CountingMode`` on torch's fake tensors, which have shapes and no numbers.

    Floats that a program reads are 1, integers 0, and a mask selects every voxel. Fake tensors are
    on the CPU: a torch without CUDA has no others. CPU-only code paths are limited to tensors of
    torch's own class (``networks/lean_norm.py``, ``networks/blocks.py``).
    """

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)

    def take(self, *nets: nn.Module) -> None:
        """Replace tensors of networks by fake ones."""
        for module in (module for net in nets for module in net.modules()):
            buffers = module.named_buffers(recurse=False)
            for name, tensor in [*module.named_parameters(recurse=False), *buffers]:
                setattr(module, name, self._fake.from_tensor(tensor))

    def __enter__(self) -> FakeCountingMode:
        self._fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._fake.__exit__(*error)

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation on tensors without numbers."""
        try:
            return func(*args, **kwargs)
        except DataDependentOutputException:
            return 0 if args[0].dtype == torch.int64 else 1
        except DynamicOutputShapeException:
            aten = torch.ops.aten
            if func is aten.nonzero.default:
                return torch.stack(_everywhere(args[0]), 1)
            if func is not aten.index.Tensor:
                raise
            picked = [x for i in args[1] for x in (_everywhere(i) if _is_mask(i) else [i])]
            return func(args[0], picked)


def _is_mask(x: Tensor | None) -> bool:
    return x is not None and x.dtype == torch.bool


def _everywhere(mask: Tensor) -> list[Tensor]:
    """Return indices along each axis of a mask that selects every voxel."""
    return [mask.new_zeros(mask.numel(), dtype=torch.int64) for _ in range(mask.ndim)]


@contextmanager
def autocast_of_cuda() -> Iterator[None]:
    """Let the CPU's autocast make the same operations fp32 as CUDA's."""
    library = Library("aten", "IMPL", "AutocastCPU")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # overriding kernels is intended
            for name in FULL_ON_CPU:
                library.impl(name, fallthrough_kernel)
            for name in FULL_ON_CUDA:
                library.impl(name, _in_full(name))
            yield
    finally:
        library._destroy()


def _in_full(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return operation(*tree_map(_full, args), **kwargs)

    return run


def _full(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x
