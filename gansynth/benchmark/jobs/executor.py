"""Where jobs run: the contract, and the executors that there are by name.

An executor starts one process for each order, ``gansynth.benchmark.jobs.order.start(line,
environ)``, on any machine that sees the store; keeps its stdin open for as long as the job is
wanted; and says with which code it ended. Locks, work folders, logs, results and what becomes of
the command's own children are that process's business. A new executor is a class with these six
members, and a line in ``parse_executor``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gansynth.benchmark.jobs.order import Order
from gansynth.runtime.errors import UsageFault, did_you_mean

NAMES = ("local", "ray")
EXPECTED = "expected local, local:4, ray or ray:cpus=2,gpus=1"


@dataclass(frozen=True)
class Ending:
    """An attempt that is over.

    Attributes:
        key: the job's.
        code: exit code of its process (``gansynth.benchmark.jobs.order``), -N for signal N.
        words: the last line it said, or what the executor says of its end.
    """

    key: str
    code: int
    words: str


class Executor(Protocol):
    """Runs attempts at jobs, at most one of each job at a time."""

    @property
    def slots(self) -> int:
        """How many jobs can run at once, as far as is known now."""

    @property
    def queues(self) -> bool:
        """Whether it takes more jobs than it has slots for, and starts them when it can."""

    def open(self, store: Path) -> None:
        """Get ready to run jobs of a store.

        Raises:
            GansynthError: what it needs is not there.
        """

    def submit(self, order: Order) -> None:
        """Start an attempt, or queue it; its handle is the job's key."""

    def wait(self, seconds: float) -> list[Ending]:
        """Attempts that ended, each told once; waits so long if there are none yet.

        A lost machine is the executor's business: it starts the attempt again somewhere else.
        """

    def cancel(self) -> None:
        """Stop all attempts in good order, and wait for their end."""

    def close(self) -> None:
        """Let go of everything, at once; also after ``open`` failed."""


def parse_executor(text: str) -> Executor:
    """The executor of a name: ``local[:N]``, or ``ray[:cpus=C,gpus=G]``.

    Raises:
        UsageFault: no such executor, or no such option of it.
    """
    name, colon, options = text.strip().partition(":")
    if name not in NAMES or (colon and not options):
        hint = "" if name in NAMES else did_you_mean(name, NAMES)
        raise UsageFault(f"executor {text!r}: {EXPECTED}.{hint}")
    if name == "local":
        from gansynth.benchmark.jobs.local import LocalExecutor

        if colon and not (options.isdecimal() and int(options)):
            raise UsageFault(f"executor {text!r}: expected a number of jobs at once, as in local:4")
        return LocalExecutor(int(options) if colon else None)
    from gansynth.benchmark.jobs.ray_executor import RayExecutor

    found = _shares(text, options)
    return RayExecutor(cpus=found.get("cpus", 1), gpus=found.get("gpus"))


def _shares(text: str, options: str) -> Mapping[str, float]:
    """``cpus=2,gpus=0.5`` as numbers."""
    found: dict[str, float] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        number = _number(value)
        fits = number >= (1 if key == "cpus" else 0) and (
            number.is_integer() or (key == "gpus" and number < 1)
        )
        if key not in ("cpus", "gpus") or key in found or not fits:
            raise UsageFault(
                f"executor {text!r}: {option!r}: expected cpus (1 or more, whole) or gpus (whole, "
                "or a part of one) for each job, as in ray:cpus=2,gpus=1"
            )
        found[key] = number
    return found


def _number(text: str) -> float:
    """A finite number, or -1 for what is none."""
    try:
        found = float(text)
    except ValueError:
        return -1.0
    return found if math.isfinite(found) else -1.0
