"""What the detection libraries' modules share: releases, sizes, devices, weights, last words."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth_yolo.detectors import DETECTORS

STRIDE = 32
"""``imgsz`` is a multiple of it."""
Release = tuple[int, int]


def check_release(name: str, least: Release, below: Release) -> str:
    """The installed release of a library, which is not imported.

    Raises:
        EnvironmentFault: it is not installed, or not one that our module works with.
    """
    wanted = f">={dotted(least)},<{dotted(below)}"
    cure = f"install one by: pip install 'gansynth[{DETECTORS[name][2]}]'"
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise EnvironmentFault(
            f"--detector {name}: not installed, expected {wanted}; {cure}"
        ) from None
    if not least <= release_of(found) < below:
        raise EnvironmentFault(
            f"--detector {name}: version {found}, expected {wanted}: its data set is extended "
            f"from within, and that differs between releases; {cure}"
        )
    return found


def check_size(imgsz: int) -> None:
    """Refuse a size that a detector would change.

    Raises:
        UsageFault: with one nearby.
    """
    if imgsz % STRIDE:
        near = STRIDE * max(1, round(imgsz / STRIDE))
        raise UsageFault(
            f"--set imgsz={imgsz}: expected a multiple of {STRIDE}, for example {near}"
        )


def check_cuda(name: str, number: int) -> None:
    """Refuse a CUDA device that is not there.

    Raises:
        EnvironmentFault: torch does not see it.
    """
    import torch

    there = torch.cuda.device_count()
    if number >= there:
        raise EnvironmentFault(
            f"--set device={name}: torch sees {there} CUDA devices, expected one with this number; "
            "use --set device=cpu"
        )


def best_of(weights: Path) -> Path:
    """The best weights in a folder; the last ones where no epoch was judged."""
    best = weights / "best.pt"
    return best if best.is_file() else weights / "last.pt"


def last_line(error: BaseException) -> str:
    """What an error says; of one from a worker process, which brings a traceback, its end."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines[-1].strip() if "Traceback" in str(error) else " ".join(lines)
    return text.partition("Fault: ")[2] or text


def release_of(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; -1 for what is none."""
    return tuple(int(part) if part.isdigit() else -1 for part in version.split(".")[:2])


def dotted(numbers: Release) -> str:
    """A release as it is written: ``8.4``."""
    return ".".join(map(str, numbers))
