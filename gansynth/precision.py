"""Which numbers a device computes in, and the threads it may use."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

from gansynth.errors import EnvironmentFault, UsageFault

Precision = Literal["auto", "bf16", "fp32"]
FABRIC_NAMES = {"bf16": "bf16-mixed", "fp32": "32-true"}


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA if there is any, else the CPU; anything else is taken at its word.

    Raises:
        EnvironmentFault: if the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageFault(f"--device {name!r}: expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFault(
            f"--device {name}: this machine shows {torch.cuda.device_count()} CUDA device(s); "
            "use --device auto or cpu"
        )
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware there (emulated, it is slower than float32)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def resolve(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """``auto`` is bf16 autocast where it is native, else fp32."""
    if precision == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[object]:
    """A bf16 autocast context, or none."""
    if not bf16:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
