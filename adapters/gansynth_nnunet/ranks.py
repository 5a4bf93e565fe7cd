"""Work that rank 0 does for all ranks; they get its result, or end with the same fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from gansynth.runtime.errors import FAULTS, GansynthError

T = TypeVar("T")
Tick = Callable[[], None]
"""Called now and then by rank 0 while it works. The others wait in short turns, since NCCL aborts
a collective after ten minutes."""


def lead(rank: int, ranks: int, work: Callable[[Tick], T]) -> T:
    """Let rank 0 work while the others wait; its result, which must be picklable, on every rank.

    Raises:
        GansynthError: raised by the work, on every rank. Any other failure is raised as it is on
            rank 0, and as a bare GansynthError on the others.
    """
    if ranks == 1:
        return work(lambda: None)
    if rank > 0:
        followed: T = _follow()
        return followed

    def tick() -> None:
        _tell(("working",))

    try:
        done = work(tick)
    except Exception as error:  # not on a signal, which reaches every rank by itself
        code = error.exit_code if isinstance(error, GansynthError) else 1
        _tell(("failed", code, str(error) or type(error).__name__))
        raise
    _tell(("done", done))
    return done


def wait_for_all(ranks: int) -> None:
    """Wait until every rank arrives here."""
    if ranks > 1:
        import torch.distributed

        torch.distributed.barrier()


def fault_of_rank(text: str) -> GansynthError | None:
    """Return the typed fault of a dead rank, from the traceback that torch reports, or None."""
    lines = re.findall(r"^gansynth\.runtime\.errors\.(\w+): (.+)$", text, re.MULTILINE)
    kinds = {fault.__name__: fault for fault in FAULTS.values()}
    return kinds[lines[-1][0]](lines[-1][1]) if lines and lines[-1][0] in kinds else None


def _follow() -> Any:
    while True:
        state, *values = _tell(None)
        if state == "done":
            return values[0]
        if state == "failed":
            code, text = values
            raise FAULTS.get(code, GansynthError)(text)


def _tell(message: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Broadcast rank 0's message to every rank."""
    import torch.distributed

    shared = [message]
    torch.distributed.broadcast_object_list(shared, src=0)
    assert shared[0] is not None
    return shared[0]
