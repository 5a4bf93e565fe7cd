"""One nnU-Net training's bank, producer, counts and record."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gansynth.bank.draw_log import Counts, Tally
from gansynth.bank.spec import SPEC
from gansynth.bank.supply import Supply
from gansynth.core.injection import MixPlan
from gansynth.runtime.errors import EnvironmentFault
from gansynth_nnunet.bank_supply import demand_of
from gansynth_nnunet.class_locations import Key
from gansynth_nnunet.config import MixConfig
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.origin import Origin, open_origin
from gansynth_nnunet.ranks import Tick, lead, wait_for_all
from gansynth_nnunet.record import SessionRecord, describe_session


@dataclass(frozen=True)
class Training:
    """What an nnU-Net trainer knows about its training when it opens its data sets."""

    dataset: str
    configuration: str
    plans: str
    fold: str
    train_ids: tuple[str, ...]
    held_out_ids: tuple[str, ...]
    patch: tuple[int, ...]
    channels: int
    batch_size: int
    keys: tuple[Key, ...]
    dtype: Literal["float16", "float32"]
    epoch: int
    epochs: int
    batches: int
    output: Path
    rank: int
    ranks: int
    say: Callable[[str], None]
    gpus: tuple[int, ...] = ()

    @property
    def progress(self) -> float:
        """How far the training has come, 0 to 1."""
        return min(1.0, self.epoch / self.epochs)


@dataclass(frozen=True)
class Shared:
    """What rank 0 tells the other ranks: folders, and the person of each training case."""

    log: Path
    bank: Path | None
    subjects: Mapping[str, str]


class MixSession:
    """Checks a generator or bank, makes the bank if there is none, and keeps count.

    In a data-parallel training rank 0 does all that for the others, which only draw.

    Raises:
        IntegrityFault: leakage, or a generator or bank made for something else, or other than the
            one that the training is continued from.
        UsageFault, DataFault: see ``guards`` and ``record``.
        EnvironmentFault: no room for the bank.
        TrainingFault: the bank does not fill.
    """

    def __init__(self, config: MixConfig, training: Training) -> None:
        self.config, self.training = config, training
        self._supply: Supply | None = None
        self._record: SessionRecord | None = None
        self._tally: Tally | None = None
        self._pid = os.getpid()
        self._closed = False
        atexit.register(self.close, training.epoch)
        try:
            self._plan = self._make_plan(lead(training.rank, training.ranks, self._open))
        except BaseException:
            self.close(training.epoch)
            raise
        self._tally = Tally(self._plan.log or training.output)
        self._steer()

    def _open(self, tick: Tick) -> Shared:
        """Check, start the producer, and wait for samples; on rank 0."""
        training, injection = self.training, self.config.injection
        origin = open_origin(self.config, training) if injection.ratio.p > 0 else None
        self._record = SessionRecord(
            training.output, training.epoch, self._describe(origin), training.epochs
        )
        if origin is not None and not training.held_out_ids:
            training.say(
                "gansynth: fold 'all' trains on every case: nothing is held out, so nothing is "
                "known about leakage, and the validation Dice is one on training cases"
            )
        for change in self._record.changes:
            training.say(f"gansynth: WARNING: since the last session: {change}")
        self._supply = supply = Supply(demand_of(injection, training, origin))
        supply.start()
        supply.wait(tick)
        # Two sessions of one process may begin in one second; they count apart all the same.
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{self._pid}"
        log = training.output / "gansynth_draws" / stamp
        return Shared(log, _existing(supply.bank), self._subjects(origin))

    def _describe(self, origin: Origin | None) -> dict[str, Any]:
        generator, lineage = (None, None) if origin is None else (origin.generator, origin.lineage)
        return describe_session(self.config, generator, lineage)

    def _subjects(self, origin: Origin | None) -> dict[str, str]:
        ids = self.training.train_ids
        return {case: case if origin is None else origin.source.subject(case) for case in ids}

    def _make_plan(self, shared: Shared) -> MixPlan[str]:
        from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

        training = self.training
        plan: MixPlan[str] = self.config.injection.plan(
            shared.bank,
            shared.log,
            batches=training.epochs * training.batches,
            subjects=shared.subjects,
            done=training.epoch * training.batches,
            rank=training.rank,
        )
        workers = max(1, get_allowed_n_proc_DA())
        return replace(plan, patience=self.config.patience, workers=workers)

    def _steer(self) -> None:
        if self._supply is not None:
            self._supply.steer(self.counts)

    @property
    def supply(self) -> Supply:
        """The bank and its producer; on rank 0."""
        assert self._supply is not None
        return self._supply

    def wrap(self, real: Any) -> MixedDataset:
        """The training data set with synthetic samples mixed in."""
        training = self.training
        return MixedDataset(real, self._plan, training.batch_size, training.channels, training.keys)

    # -- while training --------------------------------------------------------------------------

    def step(self, begin: float, end: float) -> None:
        """Note a training step, ``time.monotonic()`` at its begin and end; never raises."""
        if self._supply is not None:
            self._supply.step(begin, end)

    def report(self, epoch: int) -> None:
        """Tell the log what was drawn so far, and what has happened to the producer; on rank 0."""
        for said in self.supply.messages():
            self.training.say(f"gansynth: {said}")
        self.training.say(f"gansynth: {self.sentence()}")
        self.supply.pause(self._now())
        self._write(epoch, complete=False)

    def sentence(self) -> str:
        """What was drawn, and what the producer did, in words."""
        said = self.counts().sentence(self.asked())
        more = "" if self._supply is None else self._supply.sentence()
        return f"{said}, {more}" if more else said

    def asked(self) -> float:
        """Share of synthetic samples asked for, from this session's beginning until now."""
        injection = self.config.injection
        return injection.schedule.share_of(injection.ratio, self.training.progress, self._now())

    def _now(self) -> float:
        """Progress of what is drawn, a little ahead of what is trained."""
        return 1.0 if self._plan.clock is None else self._plan.clock.now()

    def counts(self) -> Counts:
        """What was drawn so far, by all workers and ranks."""
        return Counts() if self._tally is None else self._tally.update()

    def stopped(self) -> str:
        """Why drawing stopped, in any worker or rank; empty if it did not."""
        why = self.counts().stopped
        ended = None if self._supply is None else self._supply.keeper and self._supply.keeper.ended
        return f"{why}. The producer had ended: {ended}" if why and ended else why

    def close(self, epoch: int, complete: bool = False) -> None:
        """Stop the producer, write the record, remove the bank if it was made here.

        Args:
            epoch: the next one to train.
            complete: whether the training has reached its end; then all ranks must come here.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        if complete:  # other ranks' workers may be drawing from the bank until then
            wait_for_all(self.training.ranks)
        if self._supply is None:
            return
        self._supply.close()
        if self._tally is not None:
            with contextlib.suppress(OSError):  # nobody may be listening any more
                self._write(epoch, complete)
                self.training.say(f"gansynth: in all {self.sentence()}")

    def _write(self, epoch: int, complete: bool) -> None:
        assert self._record is not None
        counts = self.counts()
        try:
            self._record.write(
                epoch,
                counts,
                complete=complete,
                asked=self.asked(),
                supply=self.supply.summary(counts),
                chosen=self._plan.chosen,
            )
        except EnvironmentFault as error:  # the training itself is not harmed
            self.training.say(f"gansynth: WARNING: {error}")


def _existing(bank: Path | None) -> Path | None:
    """None also for a bank whose producer died before it said what is in it."""
    return bank if bank is not None and (bank / SPEC).exists() else None
