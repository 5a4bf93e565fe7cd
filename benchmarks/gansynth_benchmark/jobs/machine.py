"""CUDA devices for jobs, and a description of this machine for their results."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from gansynth.runtime.machine import cores

THREADS = "OMP_NUM_THREADS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
NVIDIA_SMI = "nvidia-smi"
PATIENCE = 30.0  # seconds for a driver to answer; a faulty one never does


def cuda_devices(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the visible CUDA devices, by their names for CUDA_VISIBLE_DEVICES.

    torch is imported only if an NVIDIA driver is installed.
    """
    named = environ.get(VISIBLE)
    if shutil.which(NVIDIA_SMI) is None and not Path("/proc/driver/nvidia/version").exists():
        return ()
    import torch

    count = torch.cuda.device_count()
    names = [str(index) for index in range(count)]
    if named is not None:
        names = [name.strip() for name in named.split(",") if name.strip()]
    return tuple(names[:count])


def describe() -> dict[str, str | int]:
    """Return name, processor and cores of this machine."""
    return {"name": platform.node(), "processor": _processor(), "cores": cores()}


def device_names(environ: Mapping[str, str]) -> str:
    """Return the models of the GPUs visible with these variables; ``cpu`` if none."""
    named = environ.get(VISIBLE)
    program = shutil.which(NVIDIA_SMI)
    if program is None or (named is not None and named.strip() in ("", "-1")):
        return "cpu"
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    if named is not None:
        command.append(f"--id={named}")
    try:
        reply = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return f"cuda:{named or '?'}"
    lines = [line.strip() for line in reply.stdout.splitlines() if line.strip()]
    return ", ".join(lines) if reply.returncode == 0 and lines else f"cuda:{named or '?'}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
