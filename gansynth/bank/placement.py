"""How much room the bank of one training takes, and how it is given back."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from gansynth.core.adapter import Injection
from gansynth.core.bank_options import BankPlan

SEGMENT = 16
"""Samples of a segment at most."""


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


def remove_banks_of(pid: int, scratch: Path | None = None) -> None:
    """Remove the scratch banks of a process that has ended, and may have had no time for it.

    A bank in shared memory would hold that memory until the machine restarts.
    """
    from gansynth.bank.reader import SHARED_MEMORY

    bases = {SHARED_MEMORY, Path(tempfile.gettempdir())} | ({scratch} if scratch else set())
    for base in bases:
        with contextlib.suppress(OSError):
            for folder in base.glob(f"gansynth-*-{pid}-*"):
                shutil.rmtree(folder, ignore_errors=True)
