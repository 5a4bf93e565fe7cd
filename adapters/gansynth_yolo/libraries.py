"""What the detection libraries' modules share: releases, sizes, devices, weights, last words."""

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
)
from gansynth_yolo.detectors import DETECTORS

STRIDE = 32
"""``imgsz`` is a multiple of it."""
Release = tuple[int, int]


def check_release(name: str, least: Release, below: Release) -> str:
    """The installed release of a library, which is not imported.

    Raises:
        EnvironmentFault: it is not installed, or not one that our module works with.
    """
    expected = f">={dotted(least)},<{dotted(below)}"
    cure = f"install one by: pip install 'gansynth[{DETECTORS[name][2]}]'"
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise EnvironmentFault(
            f"--detector {name}: not installed, expected {expected}; {cure}"
        ) from None
    if not least <= release_of(installed) < below:
        raise EnvironmentFault(
            f"--detector {name}: version {installed}, expected {expected}: its data set is "
            f"extended from within, and that differs between releases; {cure}"
        )
    return installed


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


def refuse_options(
    options: Mapping[str, Any],
    ours: Mapping[str, str],
    refused: Mapping[str, tuple[Any, str]],
    available: Iterable[str],
    library: str,
) -> None:
    """Refuse options of a user that a library lacks, or that are not the user's to set.

    Args:
        ours: what gansynth sets -> where the user says what to.
        refused: option -> the one value it may have, and why.
        available: those it has, which a slip may have been meant for.
        library: the library, for messages.

    Raises:
        UsageFault: naming the first.
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
    """Whatever a library raises, the user gets one line of.

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
