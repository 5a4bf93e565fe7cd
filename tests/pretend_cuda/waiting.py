"""What a pretend device counts, and which copies end when the CPU waits for it."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from tests.pretend_cuda.environment import HERE, ROOT
from tests.pretend_cuda.graphs import check_wait

PRODUCT = tuple(
    f"{ROOT / shelf}/" for shelf in ("gansynth", "plugins", "adapters", "cli", "benchmarks")
)


@dataclass
class Counts:
    """What has happened on the pretend devices since ``counting`` began.

    Attributes:
        waits: times the CPU waited for a device, by call site and cause.
        operators: operators that would launch at least one kernel or copy, by name.
    """

    waits: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)


_open: list[Counts] = []
_late: defaultdict[torch.device, list[tuple[Tensor, Tensor]]] = defaultdict(list)
_lent: defaultdict[torch.device, list[tuple[Tensor, Tensor]]] = defaultdict(list)


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what happens inside, in all threads of this process."""
    counts = Counts()
    _open.append(counts)
    try:
        yield counts
    finally:
        _open[:] = [other for other in _open if other is not counts]


def count_operator(name: str) -> None:
    for counts in _open:
        counts.operators[name] += 1


def wait(cause: str, place: torch.device) -> None:
    """Let the CPU wait for a device: count it, and end the copies under way.

    Raises:
        RuntimeError: a pinned tensor was overwritten while it was copied to the device.
    """
    check_wait(cause)
    if _open:
        where = f"{_call_site()} {cause}"
        for counts in _open:
            counts.waits[where] += 1
    for target, content in _late.pop(place, ()):
        target.copy_(content)
    for source, content in _lent.pop(place, ()):
        if not torch.equal(_bytes(source), _bytes(content)):
            raise RuntimeError(f"a pinned tensor was overwritten while it was copied to {place}")


def copy_late(content: Tensor, place: torch.device) -> Tensor:
    """Return what a copy to the CPU that does not wait returns: rubbish until somebody waits."""
    if content.dtype == torch.bool:
        target = ~content
    elif content.is_floating_point() or content.is_complex():
        target = torch.full_like(content, torch.nan)
    else:
        target = torch.full_like(content, torch.iinfo(content.dtype).max)
    _late[place].append((target, content.clone()))
    return target


def pinned(tensor: Tensor) -> Tensor:
    """Return a copy in pinned memory.

    Raises:
        RuntimeError: it is expanded: several elements share one place in memory.
    """
    if any(step == 0 for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1):
        raise RuntimeError("more than one element refers to a single memory location")
    made = tensor.detach().clone()
    made.in_pinned_memory = True  # type: ignore[attr-defined]
    return made


def is_pinned(tensor: Tensor) -> bool:
    """Whether a tensor is what ``pinned`` made; views of it are not known."""
    return bool(getattr(tensor, "in_pinned_memory", False))


def lend(source: Tensor, place: torch.device) -> None:
    """Remember a pinned tensor that must stay as it is until somebody waits."""
    _lent[place].append((source, source.clone()))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _call_site() -> str:
    """Return file and line of the innermost frame of the product, else of any other code."""
    frame: FrameType | None = sys._getframe(2)
    other = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PRODUCT):
            return f"{Path(name).relative_to(ROOT)}:{frame.f_lineno}"
        if not other and not name.startswith(str(HERE)) and "/torch/" not in name:
            other = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return other
