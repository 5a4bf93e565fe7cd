"""A tensor that holds its numbers on the CPU, says it is on ``cuda:N``, and keeps CUDA's rules.

To C++ it is a tensor of the CPU, so autograd runs in the calling thread; to Python it is on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.pretend_cuda.graphs import note
from tests.pretend_cuda.places import PlainGenerator, check_generator, stream_of
from tests.pretend_cuda.waiting import copy_late, count_operator, is_pinned, lend, wait

CPU = torch.device("cpu")
COPIES = {"aten::copy_", "aten::_to_copy"}
JOINS = {"aten::cat", "aten::stack"}
"""Operators that take no number from another device."""
SUMS = {"aten::add", "aten::add_", *JOINS}
"""Operators that autograd's C++ gives zeros and ones of its own, on what it takes to be the CPU."""
INDEXES = {"aten::index", "aten::_unsafe_index"}
INDEX_PUTS = {"aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
WAITING = {
    "aten::_local_scalar_dense", "aten::bincount", "aten::equal", "aten::masked_select",
    "aten::nonzero", "aten::repeat_interleave", "aten::unique_dim", "aten::_unique2",
}  # fmt: skip
"""Operators whose result, or its size, the CPU needs at once."""
WITHOUT_KERNEL = {
    "aten::_local_scalar_dense", "aten::_unsafe_view", "aten::detach", "aten::empty",
    "aten::empty_like", "aten::empty_strided", "aten::lift_fresh", "aten::new_empty",
    "aten::new_empty_strided", "aten::record_stream", "aten::resize_", "aten::set_",
}  # fmt: skip


class DeviceTensor(Tensor):
    """A tensor of a pretend device.

    Attributes:
        held: its numbers, a tensor of the CPU.
        place: its device, with the number.
    """

    held: Tensor
    place: torch.device
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> DeviceTensor:
        made: DeviceTensor = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=CPU,
        )  # fmt: skip
        made.held, made.place = held, place
        return made

    def __init__(self, *_: object) -> None: ...

    device = property(lambda self: self.place)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        return int(self.place.index)

    def record_stream(self, *_: object) -> None: ...

    def is_pinned(self, *_: object) -> bool:
        return False

    def pin_memory(self, *_: object) -> Any:
        raise RuntimeError(
            "cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"
        )

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() to copy the "
            "tensor to host memory first."
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        wait("tolist", self.place)
        return _held(self).tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"DeviceTensor({_held(self)}, device='{self.place}')"

    def __reduce_ex__(self, protocol: Any) -> Any:
        wait("pickle", self.place)
        return unpickled, (_held(self), str(self.place), self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            attributes = {k: v for k, v in vars(self).items() if k not in ("held", "place")}
            vars(copied).update(attributes)
            memo[id(self)] = copied
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name
        leaves = tree_leaves((args, kwargs))
        place = next(t.place for t in leaves if isinstance(t, DeviceTensor))
        if name in SUMS and torch._C._current_graph_task_id() != -1:
            args = tree_map_only(Tensor, functools.partial(_taken_up, place), args)
            leaves = tree_leaves((args, kwargs))
        if name == "aten::copy_":
            return _copy(func, args, kwargs)
        if name not in COPIES:
            _check_devices(func, name, args, leaves)
        _count(func, name, args, place)
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        inner, named = tree_map_only(DeviceTensor, lambda t: t.held, (args, kwargs))
        if torch.Tag.nondeterministic_seeded in func.tags:
            generator = next((g for g in leaves if isinstance(g, PlainGenerator)), None)
            check_generator(generator, place, str(func))
            with stream_of(place):
                made = func(*inner, **named)
        elif name == "aten::convolution_backward":
            made = _exact(func, *inner)
        else:
            made = func(*inner, **named)
        if not func.is_view:
            run = functools.partial(_exact, func) if name == "aten::convolution_backward" else func
            note(run, inner, named, made, place)
        made = tree_map_only(Tensor, lambda t: DeviceTensor(t, place), made)
        return return_and_correct_aliasing(func, args, kwargs, made)


def _exact(func: Any, *args: Any) -> Any:
    """Compute gradients in float32: ``training/half_precision.py`` says why not in bfloat16."""
    made = func(*tree_map_only(Tensor, lambda t: t.float(), args))
    return tree_map_only(Tensor, lambda t: t.to(args[0].dtype), made)


def _held(tensor: Any) -> Tensor:
    held: Tensor = tensor.detach().held
    return held


def unpickled(held: Tensor, place: str, requires_grad: bool) -> DeviceTensor:
    tensor = DeviceTensor(held, torch.device(place))
    return tensor.requires_grad_(requires_grad)  # type: ignore[return-value]


def _taken_up(place: torch.device, tensor: Tensor) -> Tensor:
    """Return a tensor on a device if it is one of the zeros or ones that autograd's C++ makes."""
    plain = not isinstance(tensor, DeviceTensor)
    made = plain and (not tensor.any() or bool((tensor == 1).all()))
    return DeviceTensor(tensor, place) if made else tensor


def _copy(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Copy into a tensor, from any device to any."""
    target, source = args[:2]
    free = bool(kwargs.get("non_blocking") or any(args[2:3]))
    content = source.held if isinstance(source, DeviceTensor) else source
    count_operator("aten::copy_")
    if not isinstance(target, DeviceTensor):
        if free:
            content = copy_late(content.to(target.dtype).expand_as(target), source.place)
        else:
            wait("copy to the CPU", source.place)
        return target.copy_(content)
    if not isinstance(source, DeviceTensor) and source.ndim:
        if not free:
            wait("copy from the CPU", target.place)
        elif is_pinned(source):
            lend(source, target.place)
    note(func, (target.held, content), {}, func(target.held, content), target.place)
    return target


def _check_devices(func: Any, name: str, args: Sequence[Any], leaves: Sequence[Any]) -> None:
    """Raise RuntimeError where tensors of two devices meet."""
    indices = set[int]()
    if name in INDEXES | INDEX_PUTS:  # the CPU's indices are copied to the device
        indices = {id(t) for t in args[1] if t is not None and not isinstance(t, DeviceTensor)}
    tensors = [t for t in leaves if isinstance(t, Tensor) and id(t) not in indices]
    places = {
        t.place if isinstance(t, DeviceTensor) else CPU
        for t in tensors
        if isinstance(t, DeviceTensor) or t.ndim or name in JOINS
    }
    written = (args[i] for i in _written(func) if i < len(args))
    places |= {CPU for t in written if isinstance(t, Tensor) and not isinstance(t, DeviceTensor)}
    if len(places) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, places)))}! ({func})"
        )


@functools.cache
def _written(func: Any) -> tuple[int, ...]:
    """Return the numbers of the arguments that an operator changes."""
    return tuple(
        number
        for number, one in enumerate(func._schema.arguments)
        if one.alias_info is not None and one.alias_info.is_write
    )


def _count(func: Any, name: str, args: Sequence[Any], place: torch.device) -> None:
    """Count an operator, and what of it makes the CPU wait."""
    if not func.is_view and name not in WITHOUT_KERNEL:
        count_operator(name)
    if name in WAITING:
        wait(name.removeprefix("aten::"), place)
    elif name in INDEXES | INDEX_PUTS:
        indices = [t for t in args[1] if t is not None]
        masks = [t for t in indices if t.dtype in (torch.bool, torch.uint8)]
        filled = name in INDEX_PUTS and len(indices) == 1 and args[2].numel() == 1
        if masks and not filled:
            wait("index by a mask", place)
        elif any(not isinstance(t, DeviceTensor) for t in indices):
            wait("index on the CPU", place)
