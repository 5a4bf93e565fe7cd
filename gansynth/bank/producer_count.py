"""How many processes draw samples, where that is not asked for: a share of what is idle."""

from __future__ import annotations

from gansynth.runtime.machine import cores, free_memory

BATCH = 4
"""Samples that a producer draws at once."""
FEW_CORES = 4
"""Cores up to which the choice is explained."""
_BYTES = 1 << 30  # of one process: torch and scipy, hardly the cases (0.8 to 1.1 GB were measured)


def count_producers(asked: int | None, device: str, loaders: int, capacity: int) -> int:
    """Return the number of processes that draw samples side by side.

    Args:
        asked: by the user; None for half of the cores that the host leaves, at least one process,
            and no more than there are batches in the bank and room in half of the free memory. On a
            GPU it is one, which has the GPU to itself.
        device: of the producer, by its name.
        loaders: processes in which the host loads and augments.
        capacity: samples of the bank.
    """
    if asked is not None:
        return asked
    if device != "cpu":
        return 1
    idle, batches = (cores() - loaders) // 2, -(-capacity // BATCH)
    return max(1, min(idle, batches, free_memory() // 2 // _BYTES))


def shares_of_cores(host: str, loaders: int, producers: int) -> str:
    """Say how a host's loading processes and those that draw samples share the cores."""
    count = cores()
    where = f"{loaders} process{'es' * (loaders != 1)}" if loaders else "its own process"
    text = f"{host} loads in {where}" + f", samples are drawn in {producers}" * bool(producers)
    text += f", of {count} core{'s' * (count != 1)}"
    if producers and count <= FEW_CORES:
        text += "; these are few, so samples get what the training leaves"
    return text
