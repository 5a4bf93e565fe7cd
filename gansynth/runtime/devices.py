"""Devices, their precision of computing, and their random numbers."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.runtime.machine import DoctorLine

Precision = Literal["auto", "bf16", "fp16", "fp32"]
Resolved = Literal["bf16", "fp16", "fp32"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Data type of autocast, for precisions that use it."""
DRIVER = Path("/proc/driver/nvidia/version")
OLDER_DRIVERS = "https://download.pytorch.org/whl/cu126"


def pick_device(name: str) -> torch.device:
    """Return a device by its name; ``auto`` is CUDA if there is any, else the CPU.

    Under torchrun, ``auto`` and ``cuda`` are the CUDA device of this process's local rank.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageFault(
            "devices.device-name-unknown", f"--device {name!r}: expected auto, cpu, cuda or cuda:N"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFault(
            "devices.cuda-device-missing",
            f"--device {name}: this machine shows {torch.cuda.device_count()} CUDA device(s); "
            "use --device auto or cpu",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentFault(
            "devices.mps-missing",
            "--device mps: this machine shows torch no Apple GPU; use --device auto or cpu",
        )
    return device


def cuda_devices() -> tuple[int, list[str]]:
    """Return the number of usable CUDA devices, and what torch says of a driver it cannot use."""
    with warnings.catch_warnings(record=True) as notes:  # torch warns once in a process
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return count, [str(note.message) for note in notes]


def no_cuda(built_for: str | None, notes: Sequence[str]) -> DoctorLine:
    """Return why no CUDA device can be used, and the cure.

    Args:
        built_for: torch's version of CUDA; None for a build for the CPU.
        notes: what torch said of the driver.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if built_for is None and not _has_driver():
        return DoctorLine("ok", "device", "cpu (no CUDA device, and a torch built for the CPU)")
    if built_for is None:
        status = "cpu: this torch is built for the CPU, but there is an NVIDIA driver"
        cure = "install a CUDA build: https://pytorch.org/get-started"
    elif hidden in ("", "-1"):
        status = f"cpu: CUDA_VISIBLE_DEVICES={hidden!r} hides every CUDA device"
        cure = "unset CUDA_VISIBLE_DEVICES"
    elif _has_driver():
        why = f" ({' '.join(notes[0].split())[:200]})" if notes else ""
        status = f"cpu: torch is built for CUDA {built_for}, which this driver does not serve{why}"
        cure = "update the NVIDIA driver, or install a torch built for an older CUDA: "
        cure += f"pip install --force-reinstall torch torchvision --index-url {OLDER_DRIVERS}"
    else:
        status = f"cpu: torch is built for CUDA {built_for}, but there is no NVIDIA driver"
        cure = "install the driver (in a container: docker run --gpus all), if there is a GPU"
    return DoctorLine("note", "device", status, cure)


def why_cpu(name: str) -> str | None:
    """Return a line that says why ``auto`` is the CPU where there is an NVIDIA driver; else None.

    Call it before other code counts CUDA devices: torch says what is wrong only once.
    """
    if name != "auto" or not _has_driver():
        return None
    count, notes = cuda_devices()
    return None if count else f"device {no_cuda(torch.version.cuda, notes).text}"


def device_lines() -> Iterator[DoctorLine]:
    """List the devices torch can use, and those that ``--device auto`` takes."""
    count, notes = cuda_devices()
    if not count:
        yield no_cuda(torch.version.cuda, notes)
    for index in range(count):
        yield cuda_line(torch, index)
    yield DoctorLine("ok", "auto", _auto(count))


def cuda_line(torch: Any, index: int) -> DoctorLine:
    """Check one CUDA device."""
    cuda = f"cuda:{index}"
    try:
        name, major = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)[0]
        free, total = [n / 2**30 for n in torch.cuda.mem_get_info(index)]
        architectures = {
            int(arch.rpartition("_")[2].rstrip("af")) // 10
            for arch in torch.cuda.get_arch_list()
            if arch.startswith("sm_")
        }
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return DoctorLine("note", cuda, f"cannot be used: {reason}", "look at it with nvidia-smi")
    state = f"{name}, {free:.1f} GiB free of {total:.1f}"
    if architectures and major not in architectures:
        state += f"; this torch has no code for its architecture (sm_{major}x)"
        return DoctorLine(
            "note", cuda, state, "install another build: https://pytorch.org/get-started"
        )
    if free < total / 4:
        return DoctorLine("note", cuda, state, "other processes use it: nvidia-smi lists them")
    return DoctorLine("ok", cuda, state)


def _auto(count: int) -> str:
    if not count:
        return "training on cpu; the producer on cpu too, at low priority"
    producer = producer_device("auto", (0,))
    shared = " (shared with training)" if producer == "cuda:0" else ""
    return f"training on cuda:0, the producer on {producer}{shared}"


def _has_driver() -> bool:
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def adam(
    parameters: Iterable[torch.nn.Parameter], rate: float, betas: tuple[float, float]
) -> torch.optim.Adam:
    """Return Adam; on CUDA it updates all tensors by one kernel, and fp16 does not wait for it."""
    held = list(parameters)
    fused = all(parameter.is_cuda for parameter in held)
    return torch.optim.Adam(held, lr=rate, betas=betas, fused=fused, foreach=not fused)


def numbers_on(device: torch.device, values: Iterable[float]) -> torch.Tensor:
    """Return a few numbers on a device, float32 (n,), without a copy that waits for it."""
    return torch.stack([torch.full((), float(value), device=device) for value in values])


def set_seed(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's random numbers of the CPU, and those of one CUDA device.

    ``torch.manual_seed`` would seed all CUDA devices, including those others use.
    """
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's random numbers and restore their state after; other devices do not change."""
    with torch.random.fork_rng(devices=[]):
        set_seed(seed)
        yield


def place_for(size: int, device: torch.device) -> torch.device:
    """Return the device, or the CPU if so many bytes are over half of a GPU's free memory."""
    if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // 2:
        return torch.device("cpu")
    return device


def device_name(device: torch.device) -> str:
    """Return the model of a CUDA device, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def tf32(device: torch.device) -> str:
    """Return which fp32 operations CUDA rounds to TF32: ``convolutions`` (usual) or ``none``."""
    if device.type != "cuda" or os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return "none"
    backends = torch.backends
    if hasattr(backends, "fp32_precision"):  # torch 2.9; the old flags may not be read then
        chosen = (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision)  # type: ignore[attr-defined]
        on = [value == "tf32" for value in chosen]
    else:
        on = [backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32]
    names = ("convolutions", "matrix products")
    return " and ".join([name for name, is_on in zip(names, on, strict=True) if is_on]) or "none"


def native_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def resolve(precision: Precision, device: torch.device) -> Resolved:
    """Resolve ``auto``: bf16 where it is native, else fp16 on CUDA from 7.0 on, else fp32.

    Older GPUs compute fp16 no faster than fp32, or far slower.
    """
    if precision == "auto":
        if native_bf16(device):
            return "bf16"
        tensor_cores = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
        return "fp16" if tensor_cores else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise UsageFault(
            "devices.half-precision-without-cuda",
            f"precision=fp16: expected a CUDA device, got {device.type}; use bf16 or fp32 there",
        )
    return precision


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[object]:
    """Return a bf16 autocast context, or an empty one."""
    if not bf16:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def autocast_dtype(kind: str) -> torch.dtype | None:
    """Return the data type that autocast gives convolutions on a type of device; None if off."""
    there = torch.amp.is_autocast_available(kind)  # not on ``meta``
    return torch.get_autocast_dtype(kind) if there and torch.is_autocast_enabled(kind) else None


def producer_device(device_name: str, training: Sequence[int]) -> str:
    """Choose the producer's device.

    Args:
        device_name: ``auto``, or a device by its name. ``auto`` is a CUDA device that the training
            leaves free, else the first one it uses, else the CPU.
        training: CUDA devices of this machine that the training uses; none if it runs on the CPU.

    Returns:
        A name with its number: ``cpu``, ``cuda:1``.
    """
    if device_name == "auto":
        # Counting does not initialise CUDA in this process; reading free memory would.
        count = torch.cuda.device_count()
        free = [index for index in range(count) if index not in training]
        return f"cuda:{[*free, *training][0]}" if count else "cpu"
    device = pick_device(device_name)
    if device.type == "cuda":
        return f"cuda:{device.index or 0}"
    return str(device)
