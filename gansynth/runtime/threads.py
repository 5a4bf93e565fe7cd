"""Which device draws samples while a host trains."""

from __future__ import annotations

from collections.abc import Sequence


def producer_device(asked: str, training: Sequence[int]) -> str:
    """Choose the producer's device.

    Args:
        asked: ``auto``, or a device by its name. ``auto`` is a CUDA device the training leaves
            free, else the first one it uses, else the CPU.
        training: CUDA devices of this machine that the training uses; none if it runs on the CPU.

    Returns:
        A name with its number: ``cpu``, ``cuda:1``.

    Raises:
        UsageFault: no name of a device.
        EnvironmentFault: the device is not there.
    """
    import torch

    from gansynth.runtime.devices import pick_device

    if asked == "auto":
        # Counting does not wake CUDA up in this process; asking each for its free memory would.
        count = torch.cuda.device_count()
        free = [index for index in range(count) if index not in training]
        return f"cuda:{[*free, *training][0]}" if count else "cpu"
    device = pick_device(asked)
    if device.type == "cuda":
        return f"cuda:{device.index or 0}"
    return str(device)
