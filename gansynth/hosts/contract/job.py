"""One session of a training, as a host's ``train`` gets it: what fills it, its pace, its record."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gansynth.bank.draw_log import DrawCounter, DrawCounts
from gansynth.bank.producer_count import shares_of_cores
from gansynth.bank.store import SPEC
from gansynth.bank.training_bank import TrainingBank
from gansynth.core.bank_options import BankCapacity
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource
from gansynth.hosts.contract import record
from gansynth.hosts.contract.launch import TrainingDisplay
from gansynth.hosts.mixing.epoch_plan import PARTNERS, EpochPlan
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth.hosts.mixing.training_data import TrainingData
from gansynth.runtime.child import NAME, WARNING, show
from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.files import disk_errors
from gansynth.runtime.progress import Reporter
from gansynth.runtime.signals import Interrupted, StopRequest

if TYPE_CHECKING:
    import torch

CHECKPOINTS = "checkpoints"
REPORT_SECONDS = 1.0  # least time between two looks for messages of the producer
SHOW_SECONDS = 0.5  # least time between two reports of progress
BEGUN = 1e-3  # the part of a unit that counts as done when it begins


@dataclass(frozen=True)
class Training:
    """What does not change while a session of a training lasts; ``Session`` collects it.

    A training has sessions, one for each time it is started. It counts its progress in units: in
    steps, or in rounds, which are a framework's epochs or subepochs of many steps.

    Attributes:
        request: what was asked.
        source: the real cases.
        schema: channels and labels of the items.
        folder: of the results.
        first: units that earlier sessions have done.
        steps: units of the whole training.
        unit: ``step``, ``epoch`` or ``subepoch``.
        batch_size: samples of an optimiser step.
        round_size: samples of a round; None for every real case once and its synthetic share.
        samples_of_a_unit: the same as a number, real and synthetic.
        batches: optimiser steps of a round, for hosts whose own loader asks for one sample after
            another; None for hosts that fill places or train on items.
        seed, device: of the host.
        gpus: CUDA devices that the host occupies.
        dtype: of images in a bank.
        bank: size of the bank that the training makes.
        host: its name in reports.
        loaders: processes in which the host loads and augments.
        producers: processes that draw samples.
        checkpoint_every: steps between checkpoints of ``Job.checkpoint``.
        restarts_rate: whether the rate begins anew when fine-tuning begins.
        described: what the record says of the session.
        items: returns the items of the whole training, for hosts that train on crops.
    """

    request: AugmentRequest
    source: CaseSource
    schema: Schema
    folder: Path
    first: int
    steps: int
    unit: str
    batch_size: int
    round_size: int | None
    samples_of_a_unit: int
    batches: int | None
    seed: int
    device: str
    gpus: tuple[int, ...]
    dtype: Literal["float16", "float32"]
    bank: BankCapacity | None
    host: str
    loaders: int
    producers: int
    checkpoint_every: int
    restarts_rate: bool
    described: Mapping[str, Any]
    items: Callable[[MixerConfig[str], int, int], TrainingData] | None


class Job:
    """One session of a training, as ``train`` gets it; it has the bank, and writes the record.

    Attributes:
        folder: of the training's results.
        first: steps, or rounds, that earlier sessions have done.
        steps: of the whole training, or its rounds.
        batch_size: samples of a step.
        seed: for all random numbers of the host.
        schema: channels and labels of the items.
        plan: what is mixed in, for hosts with data of their own: ``Mixer(job.plan)``. Its
            ``to_json`` is read by ``MixerConfig.from_json`` in another process.
        stop: whether SIGTERM or SIGINT has asked to stop.
        metrics: of the evaluation, once it is done.
        output_log: file of all that the training's process writes, and of what is noted here.
    """

    plan: MixerConfig[str]

    def __init__(self, training: Training, reporter: Reporter | None) -> None:
        self.training, self.folder, self.steps = training, training.folder, training.steps
        self.first, self.output_log = training.first, training.folder / record.LOG
        self.done = training.first  # units up to the last checkpoint
        self._stepped = training.first  # units up to now
        self.batch_size, self.seed = training.batch_size, training.seed
        self.schema = training.schema
        self.request = training.request
        self.stop = StopRequest()
        self.display = TrainingDisplay(reporter) if reporter else None
        self._show = self.display.show if self.display else show
        # Optimiser steps of a round, of which parts are shown.
        self._batches = math.ceil(training.samples_of_a_unit / training.batch_size)
        self._pid = os.getpid()
        # Two sessions of one process may begin in the same second, and have separate logs.
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{self._pid}"
        self.log = self.folder / record.DRAWS / stamp
        # What is drawn, some of it ahead, sets the pace; what is trained on is recorded.
        self._drawn, self._partners = DrawCounter(self.log), DrawCounter(self.log / PARTNERS)
        self._trained = DrawCounter(self.log), DrawCounter(self.log / PARTNERS)
        self._described = dict(training.described, of_epochs=self.steps)
        self._earlier = record.TrainingResult.sessions_in(self.folder) if self.first > 0 else []
        self._end_earlier()
        self._rounds: list[dict[str, Any]] = []  # draws of each round of this session
        self.metrics: Mapping[str, Any] = {}
        self._taken = 0  # optimiser steps of the current round
        self._showed, self._reported = -math.inf, time.monotonic()
        self._last: float | None = None  # when the last step ended
        self._stopping = self._closed = False
        self.training_bank = TrainingBank(
            request=self.request,
            source=training.source.request.to_json(),
            planned=training.bank,
            batch_size=training.batch_size,
            samples=training.steps * training.samples_of_a_unit,
            output=self.folder,
            say=self.say,
            show=self._show,
            dtype=training.dtype,
            progress=self._now(),
            gpus=training.gpus,
            producers=training.producers,
        )
        atexit.register(self.close)

    # -- for the host ----------------------------------------------------------------------------

    @cached_property
    def data(self) -> TrainingData:
        """Items of the whole training of a ``CropHost``, real and synthetic."""
        items = self.training.items
        assert items is not None, "other frameworks have data of their own"
        return items(self.plan, self.steps, self.batch_size)

    @cached_property
    def rounds(self) -> EpochPlan:
        """What fills each place of each round; real cases by their place in ``train_ids``.

        The same in every session: ``Mixer(job.rounds.plan).fill`` fills a place.
        """
        cases, plan = self.training.source.train_ids, replace(self.plan, stream=(0,))
        return EpochPlan.of(plan, cases, count=self.training.round_size)

    @property
    def remaining(self) -> range:
        """Places in ``data`` of the steps that are left: a ``sampler`` for a ``DataLoader``."""
        return range(self.first * self.batch_size, self.steps * self.batch_size)

    @cached_property
    def device(self) -> torch.device:
        """Where to train."""
        from gansynth.runtime.devices import pick_device

        return pick_device(self.training.device)

    def step(self, **values: float) -> None:
        """Record that one more step is done; show it with values such as its loss.

        Raises:
            Interrupted: asked to stop, and no checkpoint followed the last step.
        """
        if self._stopping:
            raise Interrupted(self.stop.number)
        now = time.monotonic()
        if self._last is not None:
            self.training_bank.step(self._last, now)
        self._stepped += 1
        self._progress(self._stepped - self.done, **values)
        if now - self._reported > REPORT_SECONDS:
            self._reported = now
            self._report()
        self._stopping = bool(self.stop())
        self._last = time.monotonic()

    def checkpoint(self, step: int, save: Callable[[Path], object] | None = None) -> None:
        """Let the training be resumed at a step: only this does.

        Args:
            step: steps of the whole training that are done.
            save: writes a file with everything that later steps depend on. It is called every
                ``--set checkpoint_every`` steps, at the last one, and before a stop. None: the host
                has written a checkpoint of its own, which ``Framework.done`` finds.

        Raises:
            Interrupted: asked to stop; the checkpoint is written.
            EnvironmentFault: the disk refuses.
        """
        if save is not None:
            every = self.training.checkpoint_every
            if not (step % every == 0 or step == self.steps or self.stop()):
                return
            path = self.folder / CHECKPOINTS / f"step-{step:08d}.ckpt"
            with disk_errors(path):
                path.parent.mkdir(exist_ok=True)
                save(path.with_suffix(".partial"))
                os.replace(path.with_suffix(".partial"), path)
                for older in path.parent.glob("step-*.ckpt"):
                    if older != path:
                        older.unlink()
        self.done = step
        self.pause()
        if save is not None and self.stop() and step < self.steps:
            raise Interrupted(self.stop.number)

    def begin_round(self, done: int) -> None:
        """Go on after ``done`` rounds, by a framework's own checkpoint.

        That is one more than the record knows where a training was killed between the two.
        """
        if done != self.first:
            self.first = self.done = done
            self._end_earlier()

    def log_step(self, begin: float, end: float) -> None:
        """Record an optimiser step of a round, by ``time.monotonic()`` at its begin and end."""
        self.training_bank.step(begin, end)
        self._taken += 1
        if end - self._showed >= SHOW_SECONDS:
            self._showed = end
            # What follows the last step, such as validation, counts as one more.
            self._progress(min(self._taken, self._batches) / (self._batches + 1))

    def end_round(
        self, done: int, counts: Mapping[str, int] | None = None, /, **values: float
    ) -> None:
        """Let the training be resumed after ``done`` rounds, whose checkpoint is written.

        Args:
            counts: of the framework's own, for the record, beside the draws.
            values: such as losses, which are shown.
        """
        self.done, self._taken = done, 0
        self._progress(0.0, **values)
        if self.training.batches is None:
            self._note_round(done, counts or {})
        self._report()
        numbers = "".join([f"; {key} {value:.4g}" for key, value in values.items()])
        since = " since it went on" if self._earlier else ""
        self.note(f"{NAME}so far{since} {self._sentence()}{numbers}")
        self.pause()

    def say(self, line: str) -> None:
        """Write a line for the user, and to the log, with the name of its sender there."""
        self.note(f"{NAME}{line}")
        self._show(say=line)

    def warn(self, line: str) -> None:
        """Write a warning for the user, and to the log."""
        self.say(f"{WARNING}{line}")

    def count(self, unit: str, done: int, total: int) -> None:
        """Show how many of what follows the training are done, such as held-out cases."""
        self._show(unit=unit, done=done, total=total)

    def note(self, text: str) -> None:
        """Write a whole line to the training's log."""
        with contextlib.suppress(OSError), self.output_log.open("a") as log:
            log.write(f"{text}\n")

    # -- from its begin to its end ---------------------------------------------------------------

    def begin(self) -> None:
        """Start the producer, wait for samples, make the plan, and write the record."""
        bank = self.training_bank
        for last in self._earlier[-1:]:
            record.check_same(self.folder, last, self._described, self.folder)
        if self.first < self.steps:
            bank.start()
            bank.wait()
            self.say(shares_of_cores(self.training.host, self.training.loaders, bank.drawing))
        source, each = self.training.source, self.training.batches or 1
        there = bank.bank is not None and (bank.bank / SPEC).exists()  # else its producer died
        plan: MixerConfig[str] = MixerConfig.of(
            self.request.mix,
            bank.bank if there else None,
            self.log,
            seed=self.request.seed,
            strict=self.request.strict,
            sample_timeout=self.request.sample_timeout,
            batches=self.steps * each,
            subjects={case: source.header(case).subject for case in source.train_ids},
            done=self.first * each,
        )
        self.plan = replace(plan, seed=self.seed)
        bank.start_throttle(self.counts, lambda: self._partners.update().synthetic)
        self._write()  # before the first checkpoint, which is gone on with only beside a record
        if self.first < self.steps:
            self._progress(BEGUN)
        unit, ours = self.training.unit, self.training.restarts_rate
        note = self.request.mix.schedule.tuning_note(self.steps, unit, ours=ours)
        if note:
            self.say(note)

    def why_stopped(self) -> str:
        """Return why a worker that draws has ended the training, or ""."""
        why = self.counts().stopped or self._partners.update().stopped
        supervisor = self.training_bank.supervisor
        if why and supervisor is not None and supervisor.ended:
            why += f". The producer had ended: {supervisor.ended}"
        return why

    def pause(self) -> None:
        """Record a checkpoint; see ``TrainingBank.pause``."""
        self.training_bank.pause(self._now())
        self._write()

    def close(self, complete: bool = False) -> None:
        """Stop the producer, remove its bank and write the record; only once."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self.display:
            self.display.close()
        try:
            self.training_bank.close()
        finally:
            if hasattr(self, "plan"):  # else it drew nothing
                with contextlib.suppress(OSError):  # the output may be closed
                    self._write(complete)
                    whole = "since it went on" if self._earlier else "in all"
                    self.note(f"{NAME}{whole} {self._sentence()}")

    # -- what is recorded and shown --------------------------------------------------------------

    def _note_round(self, done: int, counts: Mapping[str, int]) -> None:
        """Record the draws of a round."""
        drawn = {}
        for kind, draws in zip(("", "partners_"), self.trained(), strict=True):
            for key in ("real", "synthetic", "fell_back"):
                before = sum(each[kind + key] for each in self._rounds)
                drawn[kind + key] = getattr(draws, key) - before
        table = self.rounds.table(done - 1)
        synthetic = int(table.synthetic.sum())
        real = len(table.synthetic) - synthetic
        noted = {"epoch": done, "places_real": real, "places_synthetic": synthetic}
        noted.update(drawn)
        noted.update(counts)
        self._rounds.append(noted)
        text = f"{drawn['real']} real, {drawn['synthetic']} synthetic"
        if drawn["partners_real"] or drawn["partners_synthetic"]:
            text += (
                f", with {drawn['partners_real']} real, {drawn['partners_synthetic']} synthetic "
                "partners"
            )
        missing = drawn["fell_back"] + drawn["partners_fell_back"]
        if missing:
            text += f"; {missing} of the real ones in place of a missing synthetic one"
        self.note(
            f"{NAME}{self.training.unit} {done} of {self.steps} had places for {real} real and "
            f"{synthetic} synthetic samples; trained on: {text}"
        )

    def _progress(self, part: float, **values: float) -> None:
        """Show the units done, with a part of the current one, and the share drawn so far."""
        drawn = self.counts()
        share = {"synthetic": f"{drawn.realised:.0%}"} if drawn.real + drawn.synthetic else {}
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        done = round(self.done + part, 3)
        self._show(unit=self.training.unit, done=done, total=self.steps, **share, **finite)

    def _report(self) -> None:
        """Write new messages about the producer and the samples."""
        for message in self.training_bank.messages():
            self.say(message)

    def counts(self) -> DrawCounts:
        """Return the draws of all workers so far, also ahead of training, without partners."""
        return self._drawn.update()

    def trained(self) -> tuple[DrawCounts, DrawCounts]:
        """Return the draws trained on up to the newest checkpoint, and those of their partners."""
        draws, partners = [counter.update(self.done) for counter in self._trained]
        return draws, partners

    def _end_earlier(self) -> None:
        """Let earlier sessions end where this one begins: all beyond is trained again.

        A killed one may have ended after its last checkpoint, or between that and its record.
        """
        for session in self._earlier:
            begin, end = session["epochs"]
            last = session is self._earlier[-1]
            end = max(begin, self.first if last else min(end, self.first))
            session.update(epochs=[begin, end], asked=self._asked(begin, end))
            log = self.folder / record.DRAWS / str(session.get("draw_log"))
            if log.is_dir():  # else only its record knows
                session["drawn"] = DrawCounter(log).update(end).to_json()
                if "partners" in session:
                    session["partners"] = DrawCounter(log / PARTNERS).update(end).to_json()
            if "per_epoch" in session:
                noted = session["per_epoch"]
                session["per_epoch"] = [each for each in noted if each["epoch"] <= end]

    def _now(self) -> float:
        """Return the progress, 0 to 1."""
        # Of drawing, slightly ahead of training, where each batch is counted.
        if self.training.batches is not None and hasattr(self, "plan") and self.plan.batch_counter:
            return self.plan.batch_counter.now()
        return min(1.0, self.done / self.steps)

    def _asked(self, begin: int, end: int) -> float:
        """Return the requested share of synthetic samples between two units of the training."""
        of = max(1, self.steps)
        share = self.request.mix.share_of(min(1.0, begin / of), min(1.0, end / of))
        return round(share, 6)

    def _sentence(self) -> str:
        """Return what was trained on, and what the producer supplied, in words."""
        draws, asked = self.trained()[0], self._asked(self.first, self.done)
        texts = draws.describe(asked), self.training_bank.status_line()
        return ", ".join(filter(None, texts))

    def _write(self, complete: bool = False) -> None:
        """Write the record of all sessions; a failing disk does not stop the training."""
        counts, partners = self.trained()
        this: dict[str, Any] = {"epochs": [self.first, self.done]}
        this.update(self._described)
        this |= {
            "chosen": list(self.plan.chosen),
            "drawn": counts.to_json(),
            "draw_log": self.log.name,
            "asked": self._asked(self.first, self.done),
            "supply": self.training_bank.summary(counts),
            "metrics_on_real_cases": dict(self.metrics),
        }
        if self.training.unit != "step" and self.training.batches is None:
            this |= {"partners": partners.to_json(), "per_epoch": self._rounds}
        try:
            record.write_sessions(self.folder, [*self._earlier, this], complete=complete)
        except EnvironmentFault as error:
            self.warn(str(error))
