"""Training steps on tensors without memory: what they would allocate and compute, without either.

Tensors on torch's ``meta`` device have a shape, a type and a storage of a size, and no numbers.
``Watched`` counts storages while they live; ``Imagined`` answers what a program asks of numbers
that are not there. Kernels that exist on the CPU only (``networks/lean_norm.py``,
``networks/conv3d.py``, channels-last volumes) are not taken: steps are those of a CUDA device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from gansynth.core.generator import Batch

META = torch.device("meta")
BLOCK = 512
"""Bytes that torch's CUDA allocator rounds every tensor up to a multiple of."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What autocast does on CUDA (torch/include/ATen/autocast_mode.h), by the names of functions.
IN_HALF = _names(
    """conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution prelu
    addmm addmv addr matmul __matmul__ __rmatmul__ einsum mm mv linear addbmm baddbmm bmm
    chain_matmul multi_dot vecdot scaled_dot_product_attention"""
)
IN_FULL = _names(
    """acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__
    __rpow__ softplus layer_norm rms_norm group_norm cosine_similarity poisson_nll_loss
    cosine_embedding_loss nll_loss cross_entropy hinge_embedding_loss kl_div l1_loss smooth_l1_loss
    huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm
    logsumexp interpolate upsample norm"""
)
IN_WIDEST = _names(
    """addcdiv addcmul atan2 bilinear cross dot vdot grid_sample index_put index_put_ tensordot
    scatter_add"""
)
SUMMED_IN_FULL = _names("prod softmax log_softmax cumprod cumsum sum")


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of the storages that live on a device, and FLOPs; tensors compute as ever.

    FLOPs are those of convolutions and matrix products, forward, backward and computed anew, two
    for a multiplication and an addition. Seen are tensors that operations hand out, not what a
    kernel takes for itself while it runs.

    Attributes:
        live: bytes held now.
        peak: most bytes held since ``begin``.
        flops: since ``begin``.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.live, self.peak, self.flops = device, 0, 0, 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> None:
        """Count anew from here; what is held stays counted."""
        self.peak, self.flops = self.live, 0

    def hold(self, tensors: Iterable[object]) -> None:
        """Count what is there already."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.device.type == self.device.type:
                self._count(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        found = self.compute(func, args, kwargs)
        rule = flop_registry.get(func._overloadpacket)
        if rule is not None:
            self.flops += int(rule(*args, **kwargs, out_val=found))
        self.hold(tree_leaves(found))
        return found

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What an operation gives."""
        return func(*args, **kwargs)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
        if key in self._known:
            return

        def gone(_: object) -> None:
            if self._known.pop(key, None) is not None:
                self.live -= size

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


class Imagined(Watched):  # type: ignore[no-untyped-call]
    """``Watched`` on the meta device; numbers that a program reads are 1, and copies on the CPU 0.

    Random numbers of ``rng``, which is the CPU's, are drawn on the meta device.
    """

    def __init__(self, rng: torch.Generator) -> None:
        super().__init__(META)
        self.rng = rng

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What an operation gives where tensors have no numbers."""
        if kwargs.get("generator") is self.rng:
            kwargs = {**kwargs, "generator": None}
            kwargs |= {"device": META} if "device" in kwargs else {}
        tensors = [x for x in tree_leaves((args, dict(kwargs))) if isinstance(x, Tensor)]
        if not any(x.is_meta for x in tensors):
            return func(*args, **kwargs)
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        if func is aten._to_copy.default and _to_cpu(kwargs):
            return torch.zeros_like(args[0], device="cpu", dtype=kwargs.get("dtype"))
        if func is aten.copy_.default and not args[0].is_meta:
            return args[0]
        return func(*tree_map(_on_meta, args), **tree_map(_on_meta, dict(kwargs)))


def _to_cpu(kwargs: Mapping[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == "cpu"


def _on_meta(x: Any) -> Any:
    """A tensor of the CPU beside ones of the device; numbers (0 axes) may come from anywhere."""
    return x.to(META) if isinstance(x, Tensor) and x.ndim and not x.is_meta else x


class MetaAutocast(TorchFunctionMode):
    """CUDA's autocast to bf16, for the meta device, which torch has none for.

    It is on where that of the CPU is, which concerns no meta tensor but is put back by gradient
    checkpointing when it computes anew. Weights that are cast are kept while it is on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cast: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_autocast_enabled("cpu"):
            self._cast.clear()
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in IN_WIDEST and len({x.dtype for x in _floats((args, kwargs))}) > 1:
            name = "norm"  # any that is computed in full
        if name in IN_HALF or name in IN_FULL:
            to = self._half if name in IN_HALF else _full
            args, kwargs = tree_map(to, args), tree_map(to, dict(kwargs))
        elif name in SUMMED_IN_FULL and _is_half(args) and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)

    def _half(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float32 or not x.is_meta:
            return x
        if not (x.requires_grad and x.is_leaf and not x._is_view()):
            return x.to(torch.bfloat16)
        if id(x) not in self._cast:
            self._cast[id(x)] = (x, x.to(torch.bfloat16))
        return self._cast[id(x)][1]


def _full(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x


def _floats(of: Any) -> list[Tensor]:
    return [x for x in tree_leaves(of) if isinstance(x, Tensor) and x.is_floating_point()]


def _is_half(args: tuple[Any, ...]) -> bool:
    return bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.bfloat16


ENGINE = "_engine_run_backward"
"""What every backward pass goes through, of ``torch.autograd``."""


@contextmanager
def meta_autocast() -> Iterator[None]:
    """Let ``torch.autocast("meta", ...)``, which torch refuses, do what it does on CUDA.

    In backward passes, too: what gradient checkpointing computes anew there would otherwise be
    hidden from a mode that sees ``backward`` itself.
    """
    mode, own, autograd = MetaAutocast(), torch.autocast, vars(torch.autograd)
    run = autograd[ENGINE]

    def autocast(device_type: str, *args: Any, **more: Any) -> AbstractContextManager[Any]:
        if device_type == META.type:
            return own("cpu", dtype=torch.bfloat16, enabled=more.get("enabled", True))
        return own(device_type, *args, **more)

    def engine(*args: Any, **more: Any) -> Any:
        with mode:
            return run(*args, **more)

    torch.autocast = autocast  # type: ignore[assignment, misc]
    autograd[ENGINE] = engine
    try:
        with mode:
            yield
    finally:
        torch.autocast = own  # type: ignore[misc]
        autograd[ENGINE] = run


def map_batch(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A batch with every tensor of it changed."""
    changed: dict[str, Any] = {}
    for one in fields(Batch):
        value = getattr(batch, one.name)
        changed[one.name] = None if value is None else change(value)
    return Batch(**changed)
