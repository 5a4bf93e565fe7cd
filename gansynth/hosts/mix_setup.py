"""Check the arguments of ``gansynth.mix`` and ``gansynth.mix_batches``, and make the plan."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from gansynth.bank.draw_log import DrawCounter, DrawCounts
from gansynth.bank.reader import BankReader, BankSpec
from gansynth.core.lineage import CaseRecord, guard
from gansynth.core.mix_config import MixConfig, MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.units import UnitCheck
from gansynth.runtime.errors import UsageFault


class MixSetup(NamedTuple):
    """What this process and its workers mix into one training; see ``MixDescription``."""

    plan: MixerConfig[Any]
    spec: BankSpec | None
    log: Path


class MixDescription:
    """A mixed data set or loader, with a description of itself.

    Attributes:
        spec: description of the bank, with its lineage; None if nothing synthetic is drawn.
        log: folder with the draws of this object and of its copies in workers.
    """

    def __init__(self, mixture: MixSetup) -> None:
        self.spec, self.log = mixture.spec, mixture.log
        self._units = UnitCheck(mixture.plan.bank)

    def counts(self) -> DrawCounts:
        """Return the draws of all worker processes so far."""
        return DrawCounter(self.log).update()


class MixOptions(TypedDict, total=False):
    """Options of ``gansynth.mix`` and ``gansynth.mix_batches`` alike."""

    schedule: Schedule | str
    """How the ratio changes, e.g. ``"finetune:10%@80%"`` or ``"anneal:50%-100%"``."""
    batches: int | None
    """Batches of the whole training, on this rank; required by all but constant schedules."""
    held_out: Iterable[CaseRecord | str]
    """Validation and test cases that the bank's generator must not have seen: records or ids."""
    seed: int
    """Seed of the choice of slots and samples."""
    rank: int | None
    """Rank of a data-parallel training; None asks ``torch.distributed``, then ``RANK``."""
    done: int
    """Batches drawn by earlier sessions of the same training."""
    log: Path | str | None
    """Parent of a new folder for the draw logs; None: a temporary one."""
    strict: bool
    """Stop at the first missing sample."""
    patience: float
    """Seconds a synthetic-only phase waits for a sample."""


def make_mix_setup(
    bank: Path | str | None,
    ratio: Ratio | str,
    subjects: Mapping[int, str] | None = None,
    *,
    schedule: Schedule | str = "constant",
    batches: int | None = None,
    held_out: Iterable[CaseRecord | str] = (),
    seed: int = 0,
    rank: int | None = None,
    done: int = 0,
    log: Path | str | None = None,
    strict: bool = False,
    patience: float = 300.0,
) -> MixSetup:
    """Check all options, and make the plan."""
    ratio = Ratio.parse(ratio) if isinstance(ratio, str) else ratio
    schedule = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    if batches is None and schedule.kind != "constant":
        raise UsageFault(
            f"schedule {schedule}: needs the length of the training; expected batches=N, the "
            "batches of all its epochs together, on this rank"
        )
    if seed < 0 or done < 0:
        raise UsageFault(f"seed is {seed} and done {done}, expected whole numbers from 0 on")
    folder = None if bank is None or ratio.p == 0 else Path(bank).absolute()
    mix_config = MixConfig(
        None, ratio, schedule, bank=folder, samples=SampleRequest(seed), strict=strict
    )
    spec = None if folder is None else BankReader(folder).spec
    if spec is not None:
        guard(spec.lineage, _records(held_out), kind="bank")
    session = _session(log)
    rank = _own_rank() if rank is None else rank
    batches = 1 if batches is None else batches
    plan = mix_config.plan(
        folder, session, batches=batches, subjects=subjects or {}, done=done, rank=rank
    )
    return MixSetup(replace(plan, patience=patience), spec, session)


def _records(held_out: Iterable[CaseRecord | str]) -> list[CaseRecord]:
    """Return records of held-out cases; an id alone makes a minimal record."""
    if isinstance(held_out, str):
        raise UsageFault(f"held_out is {held_out!r}, expected a list of cases")
    return [c if isinstance(c, CaseRecord) else CaseRecord(c, c, "unknown") for c in held_out]


def _own_rank() -> int:
    """Return this process's data-parallel rank, 0 without one; never imports torch."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def _session(log: Path | str | None) -> Path:
    """Make a new folder in ``log``, or a temporary one that is removed with this process."""
    if log is None:
        folder = Path(tempfile.mkdtemp(prefix="gansynth-draws-"))
        atexit.register(_remove, folder, os.getpid())
        return folder
    number = 0
    while True:
        folder = Path(log).absolute() / f"session-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir() or not Path(log).is_dir():
                raise UsageFault(f"log: {log} is a file, expected a folder") from None
            number += 1
        except OSError as error:
            raise UsageFault(f"log: {log} cannot be written ({error}); name another") from error
        else:
            return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # forked processes call this too
        shutil.rmtree(folder, ignore_errors=True)
