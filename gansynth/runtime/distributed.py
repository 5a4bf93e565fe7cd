"""Several processes that train one generator together, and their communication.

torchrun starts one process per device. Each takes its share of every batch. Gradients are averaged
by plain all-reduce after each phase's backward pass, since wrappers with hooks break on gradient
penalties. With one process every method costs nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gansynth.runtime.errors import EnvironmentFault, UsageFault

PATIENCE = timedelta(minutes=30)
"""Timeout of processes for each other: the first one also draws preview grids, writes files."""

HUNG_UP = ("by peer", "Socket closed", "Broken pipe", "remote process exited")
"""Messages of gloo and NCCL about a process that has ended."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one training."""

    rank: int = 0  # number of this process
    size: int = 1  # number of processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and shows progress."""
        return self.rank == 0

    def shares(self, total: int, parts: int) -> list[range]:
        """Return this process's samples of a batch, in equal parts that run one by one."""
        each, remainder = divmod(total, self.size * parts)
        if remainder or not each:
            raise UsageFault(
                "distributed.batch-shares-not-equal",
                f"batch_size={total}: expected a multiple of {self.size * parts} "
                f"({self.size} process(es) x accumulate={parts}), so that all shares are equal; "
                f"for example --set batch_size={self.size * parts * max(each, 1)}",
            )
        first = self.rank * parts * each
        return [range(first + i * each, first + (i + 1) * each) for i in range(parts)]

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by the mean over the processes; None stays None."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [g.numel() for g in gradients])
        torch._foreach_copy_(
            gradients, [m.view_as(g) for m, g in zip(means, gradients, strict=True)]
        )

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes; NaN if it is NaN in any of them."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def any(self, mine: int) -> int:
        """Return the largest of all processes' numbers: a stop request to one stops them all.

        Only the processes wait for each other, by gloo; none waits for its GPU.
        """
        if self.size == 1:
            return mine
        flag = torch.tensor(mine)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return int(flag)

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.size == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def tell(self, value: Any) -> Any:
        """Return the first process's value in all of them; plain JSON types only."""
        if self.size == 1:
            return value
        box = [value if self.is_main else None]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def wait(self) -> None:
        """Wait until every process arrives here."""
        if self.size > 1:
            dist.barrier()


def expected_size() -> int:
    """Return the number of processes that torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; without it, a team of one.

    Args:
        device: where this process trains. NCCL carries tensors on CUDA, gloo those on the CPU.
    """
    if expected_size() == 1:
        yield ProcessGroup()
        return
    if dist.is_initialized():  # by a composite run, around the fits of its parts
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
        return
    cuda = device if device.type == "cuda" else None
    if cuda is not None:
        # NCCL sends non-tensors through the current device, which is the first for all ranks.
        torch.cuda.set_device(cuda)
    backend = "gloo" if cuda is None else "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=PATIENCE, device_id=cuda)
    except (RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            "distributed.processes-not-connected",
            f"torchrun: the {expected_size()} processes do not find each other "
            f"({' '.join(str(error).split())}); expected MASTER_ADDR:MASTER_PORT to be reachable",
        ) from error
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not any(words in str(error) for words in HUNG_UP):
            raise
        raise EnvironmentFault(
            "distributed.other-process-ended-early",
            "torchrun: another process of this training has ended too early; expected all to end "
            "together. Its own message has the reason; the same command resumes from the last "
            "checkpoint",
        ) from error
    finally:
        dist.destroy_process_group()
