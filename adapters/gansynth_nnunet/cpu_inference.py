"""Faster inference of small networks on a CPU, by doubling a batch of one.

Below a certain size torch uses slow convolutions for a batch of one, and nnU-Net predicts one patch
at a time. Whether doubling is faster is measured here, not assumed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def twice_if_faster(network: nn.Module, shape: Sequence[int]) -> Iterator[bool]:
    """Double every batch of one for the network, and keep one result, if that is faster.

    Results agree with those of a batch of one up to rounding. Yields whether samples, of shape
    (C, D, H, W) or (C, H, W), are doubled.
    """
    was_training = network.training
    network.eval()
    faster = _seconds(network, (2, *shape)) < _seconds(network, (1, *shape))
    network.train(was_training)
    if not faster:
        yield False
        return
    hooks = (network.register_forward_pre_hook(_double), network.register_forward_hook(_halve))
    try:
        yield True
    finally:
        for hook in hooks:
            hook.remove()


def _seconds(network: nn.Module, shape: Sequence[int]) -> float:
    """Return the time of the faster of two passes; the first one also warms up."""
    batch, seconds = torch.zeros(*shape), []
    with torch.inference_mode():
        for _ in range(2):
            began = time.perf_counter()
            network(batch)
            seconds.append(time.perf_counter() - began)
    return min(seconds)


def _double(network: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    (batch,) = arguments
    return (batch.expand(2, *batch.shape[1:]),) if len(batch) == 1 else None


def _halve(network: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    # The halves of a real batch of two are independent; those of a doubled one share memory.
    (batch,) = arguments
    return output[:1] if batch.stride(0) == 0 and len(batch) == 2 else output
