"""One nnU-Net training's bank, producer, counts and record, and what it came to."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.draw_log import Counts, Tally
from gansynth.bank.spec import SPEC
from gansynth.bank.supply import Demand, Supply
from gansynth.core.adapter import Injection, Outcome
from gansynth.core.injection import MixPlan
from gansynth.hosts import record
from gansynth.hosts.record import Origin, outcome_of
from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.files import read_json
from gansynth_nnunet.config import MixConfig, Training
from gansynth_nnunet.foreign_guard import drawn_size
from gansynth_nnunet.guards import host_size, open_host, open_origin, sample_bytes
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.ranks import Tick, lead, wait_for_all
from gansynth_nnunet.source import NnunetSource

SIDECAR = "gansynth.json"
"""Beside nnU-Net's checkpoints: what each session of a training mixed in."""
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
"""What nnU-Net continues a training from, the first there is."""
COMPARED = (*record.COMPARED, "cascade")
"""What a continued training should have in common with what it continues."""
ANEW = "start anew without --c"
OWN = "nnunet_validation"
"""Key of nnU-Net's own summary: Dice is 0 there where the truth has none and it saw some."""


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
        UsageFault, DataFault: see ``guards`` and ``gansynth.hosts.record``.
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
        drawn = injection.ratio.p > 0
        source = open_host(self.config, training) if drawn else None
        origin = None if source is None else open_origin(self.config, training, source)
        self._record = SessionRecord(
            training.output, training.epoch, describe_session(self.config, origin), training.epochs
        )
        if origin is not None and not training.held_out_ids:
            training.say(
                "gansynth: fold 'all' trains on every case: nothing is held out, so nothing is "
                "known about leakage, and the validation Dice is one on training cases"
            )
        for change in self._record.changes:
            training.say(f"gansynth: WARNING: since the last session: {change}")
        self._supply = supply = Supply(demand_of(injection, training, source, origin))
        supply.start()
        supply.wait(tick)
        # Two sessions of one process may begin in one second; they count apart all the same.
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{self._pid}"
        log = training.output / "gansynth_draws" / stamp
        return Shared(log, _existing(supply.bank), self._subjects(source))

    def _subjects(self, source: NnunetSource | None) -> dict[str, str]:
        ids = self.training.train_ids
        return {case: case if source is None else source.subject(case) for case in ids}

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


# -- what it wants of its bank ---------------------------------------------------------------------


def demand_of(
    injection: Injection,
    training: Training,
    source: NnunetSource | None,
    origin: Origin | None,
) -> Demand:
    """What a training wants of a ``Supply``; its rank 0 asks.

    Args:
        injection: what is mixed in, and how.
        training: into this.
        source: its own cases; None if nothing synthetic is drawn.
        origin: where samples come from; likewise.
    """
    manifest = None if origin is None else origin.manifest
    return Demand(
        injection=injection,
        target="nnunet",
        request={} if source is None else source.request.to_json(),
        run_id=None if origin is None else origin.run_id,
        cases=len(training.train_ids),
        sample_bytes=_sample_bytes(training, source, manifest),
        batch_size=training.batch_size,
        samples=training.epochs * training.batches * training.batch_size * training.ranks,
        output=training.output,
        say=training.say,
        dtype=training.dtype,
        progress=training.progress,
        ranks=training.ranks,
        gpus=training.gpus,
    )


def _sample_bytes(
    training: Training, source: NnunetSource | None, manifest: Mapping[str, Any] | None
) -> int:
    if source is None or manifest is None:  # an existing bank: none is made
        return 0
    size = host_size(drawn_size(manifest, source) or training.patch)
    width = np.dtype(training.dtype).itemsize
    cascaded = source.is_cascaded
    keys = len(training.keys)
    return sample_bytes(size, training.patch, training.channels, width, keys, cascaded=cascaded)


# -- the record ------------------------------------------------------------------------------------


class SessionRecord(record.SessionRecord):
    """The record of one session of nnU-Net's, and of those it continues.

    Args:
        folder: nnU-Net's output folder.
        epoch: the session's first; 0 starts a new training, whose record starts anew too.
        session: see ``describe_session``.
        epochs: of the whole training.

    Raises:
        UsageFault, IntegrityFault: see ``compare``.
    """

    def __init__(
        self, folder: Path, epoch: int, session: Mapping[str, Any], epochs: int | None = None
    ) -> None:
        super().__init__(folder / SIDECAR, epoch, session, epochs, compared=COMPARED, anew=ANEW)


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """What the sessions of a training have left in nnU-Net's output folder; maybe none.

    Raises:
        IntegrityFault: a damaged record.
    """
    return record.read_sessions(folder / SIDECAR)


def describe_session(config: MixConfig, origin: Origin | None) -> dict[str, Any]:
    """What is mixed in and how; see ``gansynth.hosts.record``."""
    return {
        **record.describe_session(config.injection, origin),
        "cascade": config.cascade,
        "settings": dict(config.settings),
    }


def compare(before: Mapping[str, Any], now: Mapping[str, Any], epochs: int | None) -> list[str]:
    """What differs between a session and the one it continues, in words.

    Raises:
        UsageFault, IntegrityFault: see ``gansynth.hosts.record.compare``.
    """
    return record.compare(before, now, epochs, COMPARED, ANEW)


# -- the outcome -----------------------------------------------------------------------------------


def read_outcome(folder: Path, account: tuple[Mapping[str, Any], str] = ({}, "")) -> Outcome:
    """Counts over all sessions of a training, and its validation on held-out cases.

    Args:
        folder: nnU-Net's output folder.
        account: measures of the held-out cases, and why there are none; see ``account_of``.
    """
    measured, why = account
    own = _own(folder)
    metrics = {**measured, **({OWN: own} if own else {})}
    outcome = outcome_of(read_sessions(folder), folder, metrics)
    return replace(outcome, warnings=(*outcome.warnings, *filter(None, [why])))


def _own(folder: Path) -> dict[str, Any]:
    """``dice`` and ``dice_per_label`` of nnU-Net's validation, by its own rules."""
    path = folder / "validation" / "summary.json"
    if not path.is_file():
        return {}
    summary = read_json(path)
    per_label = {str(k): _number(v["Dice"]) for k, v in summary["mean"].items()}
    return {"dice": _number(summary["foreground_mean"]["Dice"]), "dice_per_label": per_label}


def _number(value: float) -> float | None:
    """None where nnU-Net says NaN (a label that no held-out case has)."""
    return float(value) if math.isfinite(value) else None
