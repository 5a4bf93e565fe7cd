"""The bank of one training: an existing one, or one that a producer fills and keeps fresh.

All hosts share it. A training process makes a ``TrainingBank``. It calls ``start`` and ``wait``
before its first batch, ``step`` and ``pause`` during training, and ``close`` at the end.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gansynth.bank.draw_log import MOST_DRAWS, DrawCounts, enough_samples, too_few
from gansynth.bank.placement import place_bank
from gansynth.bank.store import list_samples, read_heartbeat
from gansynth.core.bank_options import BankCapacity
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.runtime.errors import EnvironmentFault, GansynthError, TrainingFault

if TYPE_CHECKING:
    from gansynth.bank.supervisor import ProducerSupervisor
    from gansynth.bank.throttle import ProducerThrottle

LIVE_FILL = 16  # samples of a live bank that a training waits for, or one batch if that is more
FILL_SECONDS = 1800.0  # time limit for filling the bank
HEAD_START_SECONDS = 60.0
"""Further time that a training with a live bank waits for a larger stock.

The stock is as many samples as are needed so that none is drawn more than ``MOST_DRAWS`` times, or
a full bank.
"""
REJECTED = "gansynth_rejected"
"""Folder beside a training's results with pictures of rejected samples."""


@dataclass
class TrainingBank:
    """Make a bank if there is none, wait for it, and remove it in the end."""

    request: AugmentRequest
    source: Mapping[str, Any]  # of the training, a `SourceRequest` as JSON
    planned: BankCapacity | None  # the bank to make; None if samples come from a given one
    batch_size: int  # samples of a training step
    samples: int  # real and synthetic samples that the whole training draws
    output: Path  # folder of the training's results, for the producer's log
    say: Callable[[str], None]  # writes a line to the training's log
    show: Callable[..., None]  # shows how many of how many units are there: unit, done, total
    dtype: Literal["float16", "float32"] = "float16"  # storage type of images
    progress: float = 0.0  # progress of the training when it starts, 0 to 1
    gpus: tuple[int, ...] = ()  # CUDA devices used by the training alone
    producers: int = 1  # processes that draw samples

    bank: Path | None = field(init=False)  # to draw from; None if nothing synthetic will be drawn
    supervisor: ProducerSupervisor | None = field(init=False, default=None)  # of the producer
    fault: GansynthError | None = field(init=False, default=None)  # why it began without a sample

    def __post_init__(self) -> None:
        bank = self.request.bank
        self.bank = Path(bank) if bank is not None and self.request.mix.synthetic else None
        self._steering: ProducerThrottle | None = None
        self._counts: Callable[[], DrawCounts] = DrawCounts
        self._own: Path | None = None  # the bank, if it was made here
        self._warned_of_wear = self._announced_end = False

    @property
    def draws(self) -> int:
        """Synthetic samples that are still to be drawn."""
        share = self.request.mix.share_of(self.progress)
        return round(self.samples * (1 - self.progress) * share)

    def start(self) -> None:
        """Make a bank and start its producer, if samples are needed and there is no bank yet."""
        request, planned = self.request, self.planned
        if planned is None or request.mix.share_of(self.progress) <= 0:
            return
        assert request.run is not None, "a bank is planned for a generator's samples"
        from gansynth.bank.producer import ProducerConfig
        from gansynth.bank.supervisor import ProducerSupervisor
        from gansynth.runtime.devices import producer_device

        folder, notice = place_bank(request.run.run_id, planned.bytes, request.bank_dir)
        self.bank = self._own = folder
        if notice:
            self.say(notice)
        self.supervisor = ProducerSupervisor(
            ProducerConfig(
                run=str(request.run),
                request=dict(self.source),
                target=request.target,
                bank=str(folder),
                frozen=request.offline,
                capacity=planned.held,
                samples=request.samples,
                rejected=str(self.output / REJECTED),
                device=producer_device(request.device, self.gpus),
                dtype=self.dtype,
                temporary=True,
                reuse=request.pacing.reuse,
                refresh=request.pacing.refresh,
                max_bytes=request.size.bytes,
                producers=self.producers,
            ),
            self.output / "gansynth_producer.log",
            restarts=request.restarts,
        )

    def wait(self) -> None:
        """Wait until the bank holds enough to start with, or set ``fault``."""
        request, planned = self.request, self.planned
        if self.bank is None:
            return
        live = self.supervisor is not None and not request.offline
        try:
            if self.supervisor is None:
                held = len(list_samples(self.bank))
                if held == 0:
                    raise TrainingFault(
                        "bank.training-bank-empty",
                        f"{self.bank}: holds no sample, expected at least 1; fill it first",
                    )
            else:
                assert planned is not None, "it is the supervisor's bank"
                held = planned.held
                least = min(held, max(LIVE_FILL, self.batch_size)) if live else held
                most = request.pacing.reuse or MOST_DRAWS
                enough = max(least, min(held, enough_samples(self.draws, most)))
                self.say(f"waiting for {enough} synthetic samples")
                supervisor = self.supervisor

                def show(count: int) -> None:
                    for message in supervisor.messages():  # such as of a full disk
                        self.say(message)
                    # The last batch may hold more than is waited for.
                    self.show(unit="sample", done=min(count, enough), total=enough)

                self.supervisor.wait(least, FILL_SECONDS, show)
                if enough > least:
                    # Training has not started, so the producer slows nothing down.
                    try:
                        self.supervisor.wait(enough, HEAD_START_SECONDS, show)
                    except TrainingFault:
                        self.say("training starts with fewer; more are made meanwhile")
        except (TrainingFault, EnvironmentFault) as fault:
            mix = request.mix.schedule.at(self.progress, request.mix.ratio)
            if not (request.allow_empty_bank and mix.real == "all"):
                raise
            self.fault = fault
            self.say(
                f"WARNING: there is no synthetic sample ({fault}); training starts "
                "anyway (--allow-empty-bank). Real cases replace samples, and are counted"
            )
            return
        if not live:
            self._warn_of_wear(self.say, held)

    def _warn_of_wear(self, say: Callable[[str], None], held: int, most: int | None = None) -> None:
        """Warn once of samples that are drawn too often."""
        worn = "" if self._warned_of_wear else too_few(self.draws, held, most)
        if worn:
            self._warned_of_wear = True
            say(f"WARNING: {worn}")

    @property
    def drawing(self) -> int:
        """Processes that draw samples, as the producer has started them; 0 without one."""
        if self.supervisor is None or self.bank is None:
            return 0
        return int(read_heartbeat(self.bank).get("drawing", 1))

    # -- while training --------------------------------------------------------------------------

    def start_throttle(
        self, counts: Callable[[], DrawCounts], partners: Callable[[], int] = lambda: 0
    ) -> None:
        """Begin to measure and limit the cost of a live producer.

        Args:
            counts: returns the draws so far.
            partners: returns the synthetic samples drawn beside these.
        """
        self._counts = counts
        if self.supervisor is not None and not self.request.offline and self.bank:
            from gansynth.bank.throttle import ProducerThrottle

            self._steering = ProducerThrottle(
                self.bank, self.request.pacing, lambda: counts().synthetic + partners()
            )

    def step(self, begin: float, end: float) -> None:
        """Record a training step, ``time.monotonic()`` at its begin and end; never raises."""
        # Steps without a producer are not comparable.
        if self._steering is None or self.supervisor is None or not self.supervisor.alive():
            return
        try:
            self._steering.step(begin, end)
        except Exception as error:  # training goes on if measuring fails
            with contextlib.suppress(Exception):  # a duty within the budget, if one is known
                self._steering.pause()
            self._steering = None
            why = f"{type(error).__name__}: {error}"
            self.say(f"WARNING: the producer's cost is no longer measured: {why}")

    def pause(self, now: float) -> None:
        """Record the end of an epoch, and end the producer once no more samples are needed.

        Args:
            now: the training's progress.
        """
        if self._steering is not None:
            self._steering.pause()
        over = self.request.mix.share_of(now) <= 0
        if over and self.supervisor is not None and self.supervisor.alive():
            self.supervisor.stop()
            self.say("the producer has ended: no more samples are needed")

    def messages(self) -> list[str]:
        """Return new messages about the producer and the samples."""
        supervisor, counts = self.supervisor, self._counts()
        lines = [] if supervisor is None else supervisor.messages()
        self._warn_of_wear(lines.append, counts.distinct, counts.most)
        given_up = supervisor is not None and supervisor.ended is not None
        if given_up and self.fault is None and not self._announced_end:
            self._announced_end = True
            lines.append(
                "WARNING: there is no producer any more; training continues with the samples "
                "in the bank. Two minutes after its last heartbeat real cases replace them, where "
                "the schedule has any. They are counted"
            )
        return lines

    def status_line(self) -> str:
        """Describe the producer's work in words; empty without one."""
        text = "" if self._steering is None else self._steering.status_line()
        again = 0 if self.supervisor is None else self.supervisor.restarts
        restarts = f"{again} restart{'s' if again > 1 else ''}" if again else ""
        return "; ".join(filter(None, (text, restarts)))

    def summary(self, counts: DrawCounts) -> dict[str, Any]:
        """Return the facts of the producer for the record."""
        supervisor, fault = self.supervisor, self.fault
        document: dict[str, Any] = {}
        if supervisor is not None:
            document["restarts"] = supervisor.restarts
            fault = fault or supervisor.ended
        if self._steering is not None:
            document |= self._steering.summary()
        if counts.synthetic:
            document["draws_per_sample"] = round(counts.reuse, 4)
        if fault is not None:
            document["ended"] = str(fault)
        return document

    def close(self) -> None:
        """Stop the producer, and remove the bank if it was made here."""
        try:
            if self.supervisor is not None:
                self.supervisor.stop()
        finally:  # a signal may interrupt the wait for the producer's end
            if self._own is not None:
                shutil.rmtree(self._own, ignore_errors=True)
