"""How much room a bank takes, and how it is given back."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansynth.adapter import Injection
from gansynth_nnunet.guards import host_size

SEGMENT = 16
"""Samples of a segment at most."""


@dataclass(frozen=True)
class BankPlan:
    """How large a bank will be.

    Attributes:
        held: samples.
        segment: samples of one segment.
        bytes: of a full bank, with what is being written and what readers have not closed yet.
    """

    held: int
    segment: int
    bytes: int


def plan_bank(injection: Injection, cases: int, sample: int) -> BankPlan:
    """Plan a bank; a live one holds two samples at least, so that one can be retired.

    Args:
        injection: says how large it is.
        cases: training cases.
        sample: bytes of one sample.

    Raises:
        UsageFault: the bytes asked for have no room for two samples.
    """
    held = injection.size.capacity(cases, sample)
    held = held if injection.frozen else max(2, held)
    segment = min(SEGMENT, max(1, held // 2))
    return BankPlan(held, segment, sample * (held + 4 * segment))


def sample_bytes(
    size: tuple[int, ...],
    patch: tuple[int, ...],
    channels: int,
    width: int,
    keys: int,
    *,
    cascaded: bool = False,
) -> int:
    """Bytes one sample takes at most.

    Args:
        size: voxels of what the generator draws, (D, H, W).
        patch: voxels of nnU-Net's patch, (D, H, W) or (H, W); a sample is no smaller.
        channels: of the images.
        width: bytes of a value.
        keys: labels or regions, some of whose voxels are listed.
        cascaded: it brings the labels of a cascade's previous stage along.
    """
    voxels = int(np.prod(np.maximum(size, host_size(patch))))
    return voxels * (channels * width + 2 + cascaded) + 8000 * keys


def remove_banks_of(pid: int, scratch: Path | None = None) -> None:
    """Remove the scratch banks of a process that has ended, and may have had no time for it.

    A bank in shared memory would hold that memory until the machine restarts.
    """
    from gansynth.bank import SHARED_MEMORY

    bases = {SHARED_MEMORY, Path(tempfile.gettempdir())} | ({scratch} if scratch else set())
    for base in bases:
        with contextlib.suppress(OSError):
            for folder in base.glob(f"gansynth-*-{pid}-*"):
                shutil.rmtree(folder, ignore_errors=True)
