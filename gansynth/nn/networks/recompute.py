"""Gradient checkpointing (Chen et al. 2016): compute activations twice to save memory.

The second pass is bit-identical to the first. It uses the same singular vectors, and does not
update batch statistics again. Networks here use no random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from gansynth.nn.networks.spectral import held, spectral_parts, vectors

Result = TypeVar("Result")


def recomputed(
    function: Callable[..., Result], *inputs: Tensor, modules: Sequence[nn.Module]
) -> Result:
    """Return ``function(*inputs)``, recomputed in the backward pass; it calls ``modules`` once."""
    if not torch.is_grad_enabled():
        return function(*inputs)
    replay = _RecomputeState(modules)
    result: Result = checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (replay.first(), replay),
    )
    return result


class _RecomputeState:
    """State that the second pass needs from the first."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.spectral = [part for module in modules for part in spectral_parts(module)]
        self.batch = [m for top in modules for m in top.modules() if isinstance(m, _BatchNorm)]
        self.used: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def first(self) -> Iterator[None]:
        yield
        self.used = vectors(self.spectral)

    @contextmanager
    def _again(self) -> Iterator[None]:
        before = [(m, m.momentum, m.num_batches_tracked) for m in self.batch]
        for module in self.batch:
            module.momentum = 0.0
            if module.num_batches_tracked is not None:
                module.num_batches_tracked = module.num_batches_tracked.clone()
        try:
            with held(self.spectral, self.used):
                yield
        finally:
            for module, momentum, tracked in before:
                module.momentum, module.num_batches_tracked = momentum, tracked

    # Entered once per gradient: second derivatives recompute once more.

    def __enter__(self) -> None:
        self._inside = self._again()
        self._inside.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inside.__exit__(*error)
