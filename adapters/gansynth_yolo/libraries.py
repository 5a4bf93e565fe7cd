"""Common functions of the detection libraries: releases, sizes, devices, weights, errors."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import (
    EnvironmentFault,
    GansynthError,
    TrainingFault,
    UsageFault,
    did_you_mean,
    extra_hint,
)
from gansynth_yolo.detectors import DETECTORS

STRIDE = 32  # `imgsz` must be a multiple of this
Release = tuple[int, int]


def check_release(name: str, least: Release, below: Release) -> str:
    """Return the installed release of a library without importing it."""
    expected = f">={dotted(least)},<{dotted(below)}"
    cure = extra_hint(DETECTORS[name][2])
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise EnvironmentFault(
            f"--detector {name}: not installed, expected {expected}; {cure}"
        ) from None
    if not least <= release_of(installed) < below:
        raise EnvironmentFault(
            f"--detector {name}: version {installed}, expected {expected}: the adapter "
            f"depends on internals that differ between releases; {cure}"
        )
    return installed


def check_size(imgsz: int) -> None:
    """Reject a size that a detector would change."""
    if imgsz % STRIDE:
        near = STRIDE * max(1, round(imgsz / STRIDE))
        raise UsageFault(
            f"--set imgsz={imgsz}: expected a multiple of {STRIDE}, for example {near}"
        )


def check_cuda(name: str, number: int) -> None:
    """Reject a missing CUDA device."""
    import torch

    there = torch.cuda.device_count()
    if number >= there:
        raise EnvironmentFault(
            f"--set device={name}: torch sees {there} CUDA devices, expected one with this number; "
            "use --set device=cpu"
        )


def best_of(weights: Path) -> Path:
    """Return the best weights in a folder, or the last ones without validation."""
    best = weights / "best.pt"
    return best if best.is_file() else weights / "last.pt"


def refuse_options(
    options: Mapping[str, Any],
    ours: Mapping[str, str],
    refused: Mapping[str, tuple[Any, str]],
    available: Iterable[str],
    library: str,
) -> None:
    """Reject unknown options of a library, and options that gansynth sets itself.

    Args:
        ours: option that gansynth sets -> the user's option.
        refused: option -> its only allowed value, and why.
        available: options of the library, for suggestions.
        library: its name in messages.
    """
    available = set(available)
    for name, value in options.items():
        if name in ours:
            raise UsageFault(f"-- {name}={value}: gansynth sets it, give {ours[name]} instead")
        if name in refused and value != refused[name][0]:
            allowed, why = refused[name]
            raise UsageFault(f"-- {name}={value}: expected {name}={allowed}: {why}")
        if name not in available:
            meant = did_you_mean(name, available - set(ours) - set(refused))
            raise UsageFault(f"-- {name}={value}: {library} has no such option.{meant}")


@contextlib.contextmanager
def one_line(name: str) -> Iterator[None]:
    """Convert any error of a library to one line.

    Raises:
        GansynthError: our own, without a worker's traceback.
        TrainingFault: anything else.
    """
    try:
        yield
    except GansynthError as fault:
        raise type(fault)(_last_line(fault)) from fault
    except Exception as error:
        raise TrainingFault(f"{name}: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    """Return the message of an error, or the last line of a worker's traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines[-1].strip() if "Traceback" in str(error) else " ".join(lines)
    return text.partition("Fault: ")[2] or text


def release_of(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, -1 for other parts."""
    return tuple(int(part) if part.isdigit() else -1 for part in version.split(".")[:2])


def dotted(numbers: Release) -> str:
    """Format a release: ``8.4``."""
    return ".".join(map(str, numbers))
