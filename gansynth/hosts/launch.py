"""Run a training in its own process, apart from the command that started it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gansynth.bank.placement import remove_banks_of
from gansynth.hosts.record import LOG
from gansynth.runtime import processes


def train_apart(
    module: str,
    arguments: Sequence[str],
    output: Path,
    label: str,
    *,
    scratch: Path | None,
    variables: Mapping[str, str],
) -> None:
    """Run ``python -m MODULE`` until it ends; its output also goes to a log file.

    Args:
        scratch: folder of banks that the process may have no time to remove.

    Raises:
        KeyboardInterrupt, SystemExit: interrupted, once the process has ended.
        GansynthError: its own typed fault, or TrainingFault for any other failure.
    """
    ended = processes.run([sys.executable, "-m", module, *arguments], variables, output / LOG)
    if ended.code != 0:
        remove_banks_of(ended.pid, scratch)
    processes.raise_if_failed(ended, f"{output}: {label}")


def device_of(device: str) -> str:
    """Resolve ``auto`` to CUDA if available; the framework checks other devices itself."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
