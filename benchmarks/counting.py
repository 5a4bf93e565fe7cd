"""FLOPs of a call, counted by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Flops(TorchDispatchMode):
    """Adds up torch's own formulas; its ``FlopCounterMode`` cannot follow a gradient's gradient."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=made)
        return made


def flops(run: Callable[[], object]) -> int:
    """FLOPs of one call (2 per multiply-add)."""
    with Flops() as counter:
        run()
    return int(counter.total)
