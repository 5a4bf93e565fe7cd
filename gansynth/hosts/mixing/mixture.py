"""What ``gansynth.mix``, ``mix_batches`` and ``mix_segments`` share: options, plan and counts."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from gansynth.bank.draw_log import DrawCounter, DrawCounts
from gansynth.bank.reader import BankReader
from gansynth.bank.store import BankSpec
from gansynth.core.identity import Door, refuse_seen
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Mix, Schedule
from gansynth.core.units import UnitCheck
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth.hosts.mixing.named_cases import NamedCases, held_out_named
from gansynth.runtime.errors import UsageFault

logger = logging.getLogger("gansynth")


BANK = Door(
    "bank",
    "Leave them out of held_out if they train, or fit a generator on the other cases: another fold",
    own_naming='held_out=[gansynth.CaseRecord(ID, SUBJECT, ""), ...]',
)


class MixOptions(TypedDict, total=False):
    """Options of ``gansynth.mix`` and ``gansynth.mix_batches`` alike, see ``Mixture``."""

    schedule: Schedule | str
    batches: int | None
    held_out: NamedCases | None
    seed: int
    rank: int | None
    done: int
    log: Path | str | None
    strict: bool
    sample_timeout: float


class Mixture:
    """Checks the options and makes the plan of a mixed data set or loader, which extends it.

    Args:
        bank: folder of the sample bank, or what ``fill_bank`` returns; None only with ``"1:0"``.
        ratio: real:synthetic, as ``"1:1"``.
        schedule: how the ratio changes: ``"constant"``, ``"finetune:10%@80%"`` or
            ``"anneal:50%-100%"``.
        batches: of the whole training, on this rank; required by all but constant schedules.
        held_out: validation and test cases that the bank's generator must not have seen: a folder
            of their images (a ``Path``), or a list of ids, files, images (C, D, H, W) or records.
        seed: of the choice of slots and samples.
        rank: of a data-parallel training; None asks ``torch.distributed``, then ``RANK``.
        done: batches drawn by earlier sessions of the same training.
        log: parent of a new folder for the draw logs; None: a temporary one.
        strict: stop at the first missing sample.
        sample_timeout: seconds a synthetic-only phase waits for a sample.

    Attributes:
        plan: what this process and its workers mix into one training.
        spec: description of the bank, with its lineage; None if nothing synthetic is drawn.
        log: folder with the draws of this object and of its copies in workers.
    """

    def __init__(
        self,
        bank: Path | str | None,
        ratio: Ratio | str,
        subjects: Mapping[Any, str] | None = None,
        *,
        schedule: Schedule | str = "constant",
        batches: PositiveInt | None = None,
        held_out: NamedCases | None = None,
        seed: NonNegativeInt = 0,
        rank: NonNegativeInt | None = None,
        done: NonNegativeInt = 0,
        log: Path | str | None = None,
        strict: bool = False,
        sample_timeout: NonNegativeFloat = 300.0,
    ) -> None:
        mix = Mix.parse(str(ratio), str(schedule))
        if batches is None and mix.schedule.kind != "constant":
            raise UsageFault(
                "hosts.schedule-without-batches",
                f"schedule {mix.schedule}: needs the length of the training; expected batches=N, "
                "the batches of all its epochs together, on this rank",
            )
        if batches is not None and done > batches:
            raise UsageFault(
                "hosts.more-done-than-batches",
                f"done={done}: expected at most batches={batches}, which counts the batches of all "
                "sessions together",
            )
        if bank is None and mix.synthetic:
            raise UsageFault(
                "hosts.bank-missing",
                f"bank=None: expected the folder of a sample bank for ratio {ratio}; fill one by "
                "gansynth.fill_bank(RUN, FOLDER)",
            )
        folder = None if bank is None or not mix.synthetic else Path(bank).absolute()
        self.spec = None if folder is None else BankReader(folder).spec
        if self.spec is not None:
            self._guard(self.spec, held_out)
        self.log = _new_log(log)
        self.plan: MixerConfig[Any] = MixerConfig.of(
            mix,
            folder,
            self.log,
            seed=seed,
            batches=1 if batches is None else batches,
            subjects=subjects or {},
            done=done,
            rank=_own_rank() if rank is None else rank,
            strict=strict,
            sample_timeout=sample_timeout,
        )
        self._units = UnitCheck(folder)

    @staticmethod
    def _guard(spec: BankSpec, held_out: NamedCases | None) -> None:
        if held_out is None:
            logger.warning(
                "gansynth: held_out is not given, so whether the bank's generator has seen your "
                "validation or test cases is not known; give their ids, their images or a folder"
            )
            return
        compared = refuse_seen(spec.lineage, held_out_named(held_out, spec), BANK)
        for text in compared.warnings:
            logger.warning("gansynth: held_out: %s", text)

    def counts(self) -> DrawCounts:
        """Return the draws of all worker processes so far."""
        return DrawCounter(self.log).update()


def _own_rank() -> int:
    """Return this process's data-parallel rank, 0 without one; never imports torch."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def _new_log(log: Path | str | None) -> Path:
    """Make a new folder in ``log``, or a temporary one that is removed with this process."""
    if log is None:
        folder = Path(tempfile.mkdtemp(prefix="gansynth-draws-"))
        atexit.register(_remove, folder, os.getpid())
        return folder
    folder = Path(log).absolute() / f"session-{time.time_ns()}-{os.getpid()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageFault(
            "hosts.log-cannot-be-written",
            f"log: {log} cannot be written ({error}); name another folder",
        ) from error
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # forked processes call this too
        shutil.rmtree(folder, ignore_errors=True)
