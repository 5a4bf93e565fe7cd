"""Calls of torch that name a device: what they move, and what they make there."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tests.pretend_cuda.device_tensor import CPU, DeviceTensor
from tests.pretend_cuda.graphs import note
from tests.pretend_cuda.places import begin, check_generator, place_of, stream_of
from tests.pretend_cuda.waiting import copy_late, count_operator, is_pinned, lend, pinned, wait

LIKE = {
    *("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like"),
    *("zeros_like", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"),
}
"""Calls that make a tensor where their first argument is, unless told otherwise."""
FROM_DATA = {"as_tensor", "asarray", "tensor"}
"""Calls that copy numbers of the CPU to a device, and wait for it."""


def moved(
    tensor: Tensor, target: object, *, free: bool = False, made_there: bool = False
) -> Tensor:
    """Move a tensor to a device.

    Args:
        tensor: on any device.
        target: the device or its name.
        free: without waiting.
        made_there: a GPU would have made it there; nothing is copied.
    """
    place = place_of(target)
    if isinstance(tensor, DeviceTensor):
        if place == tensor.place:
            return tensor
        count_operator("aten::_to_copy")
        late = free and place is None
        if not late:
            wait(f"copy to the {'CPU' if place is None else 'other device'}", tensor.place)
        plain: Tensor = _Down.apply(tensor, late)
        return plain if place is None else _up(plain, place)
    if place is None:
        return tensor
    begin()
    if not made_there:
        count_operator("aten::_to_copy")
        if not free:
            wait("copy from the CPU", place)
        elif is_pinned(tensor):
            lend(tensor, place)
    return _up(tensor, place)


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, place: torch.device) -> Tensor:
        return DeviceTensor(tensor.detach().clone(), place)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        return (grad.held if isinstance(grad, DeviceTensor) else grad).clone(), None


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: DeviceTensor, late: bool) -> Tensor:
        ctx.place = tensor.place
        held = tensor.held.detach()
        return copy_late(held, tensor.place) if late else held.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return DeviceTensor(grads[0], ctx.place), None


def _up(tensor: Tensor, place: torch.device) -> Tensor:
    made: Tensor = _Up.apply(tensor, place)
    return made


class PretendCalls(TorchFunctionMode):
    """Stands in front of torch's functions in one thread."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and name in CALLS:
            return CALLS[name](func, first, args[1:], kwargs)
        if first is not None and name in LIKE:
            return _like(func, first, args, kwargs)
        place = place_of(kwargs.get("device"))
        if kwargs.get("generator") is not None:
            places = (t.place for t in tree_leaves((args, kwargs)) if isinstance(t, DeviceTensor))
            check_generator(kwargs["generator"], place or next(places, CPU), name)
        if place is None or isinstance(func, type):
            return func(*args, **kwargs)
        return _made(func, name, args, kwargs, place)


def _made(
    func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], place: torch.device
) -> Tensor:
    """Make a tensor on a pretend device."""
    begin()
    if args and isinstance(args[0], DeviceTensor):  # torch.as_tensor
        return moved(args[0].to(kwargs.get("dtype") or args[0].dtype), place)
    kwargs["device"], grad = CPU, kwargs.pop("requires_grad", False)
    drawn = kwargs.get("generator") is None and name.startswith(("rand", "normal", "bernoulli"))
    with stream_of(place) if drawn else contextlib.nullcontext():
        made = func(*args, **kwargs)
    if name not in FROM_DATA and not name.startswith("empty"):
        count_operator(f"aten::{name}")
    result = moved(made, place, made_there=name not in FROM_DATA)
    if name not in FROM_DATA:
        note(func, args, kwargs, result.held, place)  # type: ignore[attr-defined]
    return result.requires_grad_(grad)


def _like(func: Any, tensor: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    target = kwargs.pop("device", None)
    target = tensor.device if target is None else torch.device(target)
    place = place_of(target)
    if place == (tensor.place if isinstance(tensor, DeviceTensor) else None):
        made: Tensor = func(*args, **kwargs)
        return made
    held = tensor.held if isinstance(tensor, DeviceTensor) else tensor
    with stream_of(place) if place is not None else contextlib.nullcontext():
        made = func(held, *args[1:], **kwargs)
    return moved(made, target, made_there=True)


def _to(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    options: dict[str, Any] = dict(zip(("dtype", "non_blocking", "copy"), others, strict=False))
    if others and isinstance(others[0], Tensor):
        names = ("non_blocking", "copy")
        options = {"device": others[0].device, "dtype": others[0].dtype}
        options |= dict(zip(names, others[1:], strict=False))
    elif others and not isinstance(others[0], torch.dtype):
        options = dict(zip(("device", "dtype", "non_blocking", "copy"), others, strict=False))
    elif "other" in kwargs:
        other = kwargs.pop("other")
        options = {"device": other.device, "dtype": other.dtype}
    options |= kwargs
    target, free = options.pop("device", None), bool(options.pop("non_blocking", False))
    options = {key: value for key, value in options.items() if value}
    changed: Tensor = func(tensor, **options) if options else tensor
    return changed if target is None else moved(changed, target, free=free)


def _type_as(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    return _to(Tensor.to, tensor, [*others, *kwargs.values()], {})


def _type(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return the name of a tensor's type, or change it: ``torch.cuda.FloatTensor``."""
    wanted = next(iter([*others, *kwargs.values()]), None)
    if isinstance(wanted, str):
        kind = getattr(torch, wanted.rpartition(".")[2])
        target = "cuda" if ".cuda." in wanted else "cpu"
        return moved(tensor.to(kind.dtype), target)
    name = func(tensor, *others, **kwargs)
    there = isinstance(tensor, DeviceTensor) and isinstance(name, str)
    return name.replace("torch.", "torch.cuda.") if there else name


def _cuda(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    options = dict(zip(("device", "non_blocking"), others, strict=False)) | kwargs
    target = options.get("device")
    return moved(
        tensor, "cuda" if target is None else target, free=bool(options.get("non_blocking"))
    )


def _cpu(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    return moved(tensor, CPU)


def _pin(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    made = tensor.pin_memory() if isinstance(tensor, DeviceTensor) else pinned(tensor)
    return made


def _is_pinned(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return is_pinned(tensor)


def _new_tensor(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    made = torch.tensor(others[0], dtype=kwargs.get("dtype") or tensor.dtype)
    return moved(made, kwargs.get("device") or tensor.device)


def _one_hot(func: Any, tensor: Tensor, others: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """Its C++ looks at the numbers of what it takes to be on the CPU."""
    if not isinstance(tensor, DeviceTensor):
        made: Tensor = func(tensor, *others, **kwargs)
        return made
    if [*others, *kwargs.values()] in ([], [-1]):
        wait("one_hot without a number of classes", tensor.place)
    for name in ("aten::zeros", "aten::scatter_"):
        count_operator(name)
    result = moved(func(tensor.held, *others, **kwargs), tensor.place, made_there=True)
    note(func, (tensor.held, *others), kwargs, result.held, tensor.place)  # type: ignore[attr-defined]
    return result


CALLS: dict[str, Callable[[Any, Tensor, Sequence[Any], dict[str, Any]], Any]] = {
    "cpu": _cpu,
    "cuda": _cuda,
    "is_pinned": _is_pinned,
    "new_tensor": _new_tensor,
    "one_hot": _one_hot,
    "pin_memory": _pin,
    "to": _to,
    "type": _type,
    "type_as": _type_as,
}
