"""The bank of one training: an existing one, or one that a producer fills and keeps fresh."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.drawlog import Counts
from gansynth.errors import EnvironmentFault, GansynthError, TrainingFault
from gansynth_nnunet.bank_size import plan_bank, sample_bytes
from gansynth_nnunet.config import MixConfig
from gansynth_nnunet.foreign_guard import drawn_size
from gansynth_nnunet.guards import host_size

if TYPE_CHECKING:
    from gansynth.keeper import Keeper
    from gansynth.steering import Steering
    from gansynth_nnunet.origin import Origin
    from gansynth_nnunet.ranks import Tick
    from gansynth_nnunet.session import Training

LIVE_FILL = 16
FILL_SECONDS = 1800.0
"""How long the bank may take to fill."""
_TURN_SECONDS = 20.0
"""How long rank 0 waits for the bank without telling the other ranks that it still does."""


class Supply:
    """Makes the bank if there is none, waits for it, and gives it up in the end; on rank 0 only.

    Attributes:
        bank: the folder to draw from; None where nothing synthetic will be drawn.
        keeper: keeps the producer going, if there is one.
        fault: why there was no sample when training started all the same.
    """

    def __init__(self, config: MixConfig, training: Training, origin: Origin | None) -> None:
        self.config, self.training, self.origin = config, training, origin
        self.bank = config.bank if origin is not None else None
        self.keeper: Keeper | None = None
        self.fault: GansynthError | None = None
        self._steering: Steering | None = None
        self._own: Path | None = None
        self._told_of_end = False
        self._measuring = True

    # -- the producer ----------------------------------------------------------------------------

    def start(self) -> None:
        """Make a bank and start its producer, if samples are needed and there is no bank yet.

        Raises:
            EnvironmentFault: there is no room for the bank.
            UsageFault: ``--bank-size`` has no room for two samples, or there is no such device.
        """
        if self.origin is not None and self.bank is None and self._left(self.training.progress) > 0:
            self._start_producer(self.origin)

    def _left(self, now: float) -> float:
        """Share of synthetic samples in what is left of the training at a moment."""
        injection = self.config.injection
        return injection.schedule.share_of(injection.ratio, now, 1.0)

    def _start_producer(self, origin: Origin) -> None:
        from gansynth.bank import place_bank
        from gansynth.devices import producer_device
        from gansynth.keeper import Keeper
        from gansynth.producer import ProducerConfig

        assert origin.manifest is not None
        training, injection = self.training, self.config.injection
        planned = plan_bank(injection, len(training.train_ids), self._sample_bytes(origin))
        self._capacity = planned.held
        run_id = str(origin.manifest["run_id"])
        folder, said = place_bank(run_id, planned.bytes, injection.scratch)
        self.bank = self._own = folder
        if said:
            training.say(f"gansynth: {said}")
        self.keeper = Keeper.start(
            ProducerConfig(
                run=str(self.config.generator),
                request=origin.source.request.to_json(),
                target="nnunet",
                bank=str(folder),
                frozen=injection.frozen,
                capacity=planned.held,
                segment_samples=planned.segment,
                seed=injection.seed,
                edits=injection.edits or None,
                device=producer_device(injection.device, training.gpus),
                parent=os.getpid(),
                dtype=training.dtype,
                temporary=True,
                reuse=injection.pacing.reuse,
                refresh=injection.pacing.refresh,
                max_bytes=injection.size.bytes,
            ),
            training.output / "gansynth_producer.log",
            restarts=injection.restarts,
        )

    def _sample_bytes(self, origin: Origin) -> int:
        assert origin.manifest is not None
        training = self.training
        size = host_size(drawn_size(origin.manifest, origin.source) or training.patch)
        width = np.dtype(training.dtype).itemsize
        cascaded = origin.source.is_cascaded
        keys = len(training.keys)
        return sample_bytes(size, training.patch, training.channels, width, keys, cascaded=cascaded)

    # -- the beginning ---------------------------------------------------------------------------

    def wait(self, tick: Tick) -> None:
        """Return when the bank holds enough to start with, or with ``fault`` set.

        Raises:
            GansynthError: why it does not, unless real cases may stand in and the user wants that.
        """
        if self.bank is None:
            return
        try:
            if self.keeper is not None:
                self._wait_for_producer(self.keeper, tick)
            else:
                self._look(self.bank)
        except (TrainingFault, EnvironmentFault) as fault:
            if not self._may_start_empty:
                raise
            self.fault = fault
            self.training.say(
                f"gansynth: WARNING: there is no synthetic sample ({fault}); training starts all "
                "the same (--keep-going), with real cases in their place, counted"
            )

    @property
    def _may_start_empty(self) -> bool:
        injection = self.config.injection
        mix = injection.schedule.at(self.training.progress, injection.ratio)
        return injection.keep_going and mix.real == "all"

    def _wait_for_producer(self, keeper: Keeper, tick: Tick) -> None:
        live = min(max(LIVE_FILL, self.training.batch_size), self._capacity)
        wanted = self._capacity if self.config.injection.frozen else live
        self.training.say(f"gansynth: waiting for {wanted} synthetic samples")

        def progress(count: int) -> None:
            self.training.say(f"gansynth: {count} of {wanted} synthetic samples")

        turn = _TURN_SECONDS if self.training.ranks > 1 else FILL_SECONDS
        end = time.monotonic() + FILL_SECONDS
        while True:
            left = end - time.monotonic()
            try:
                keeper.wait(wanted, min(left, turn), progress)
                return
            except TrainingFault as fault:
                if left <= turn or not keeper.alive():
                    raise keeper.ended or fault from fault
            tick()

    def _look(self, bank: Path) -> None:
        from gansynth.bank import BankReader

        if BankReader(bank).count() == 0:
            raise TrainingFault(f"{bank}: holds no sample, expected at least 1; fill it first")

    # -- while training --------------------------------------------------------------------------

    def steer(self, drawn: Callable[[], int]) -> None:
        """Begin to measure what a live producer costs, and to pace it."""
        if self.keeper is None or self.config.injection.frozen or self.bank is None:
            return
        from gansynth.steering import Steering

        self._steering = Steering(self.bank, self.config.injection.pacing, drawn)

    def step(self, begin: float, end: float) -> None:
        """Note a training step, ``time.monotonic()`` at its begin and end; never raises."""
        if self._steering is not None and self._measuring:
            try:
                self._steering.step(begin, end)
            except Exception as error:  # whatever ails the measuring, training goes on
                self._measuring = False
                self.training.say(
                    f"gansynth: WARNING: the producer's cost is no longer measured: "
                    f"{type(error).__name__}: {error}"
                )

    def pause(self, now: float) -> None:
        """Note the end of an epoch; once no sample is needed any more, end the producer.

        Args:
            now: the training's progress.
        """
        if self._steering is not None:
            self._steering.pause()
        if self.keeper is not None and self._left(now) == 0 and self.keeper.alive():
            self.keeper.stop()
            self._told_of_end = True
            self._measuring = False  # steps without a producer would be compared with those before
            self.training.say("gansynth: the producer has ended: no more samples are needed")

    def messages(self) -> list[str]:
        """What has happened to the producer since last asked."""
        if self.keeper is None:
            return []
        said = self.keeper.messages()
        if self.keeper.ended is not None and self.fault is None and not self._told_of_end:
            self._told_of_end = True
            said.append(
                "WARNING: there is no producer any more; training goes on with the samples there "
                "are, drawn again and again, and when the bank has shown no sign of life for two "
                "minutes with real cases in their place, counted, where the schedule has any"
            )
        return said

    def sentence(self) -> str:
        """What the producer did, in words; empty without one."""
        said = "" if self._steering is None else self._steering.sentence()
        parts = [f"bank {said}" if said.startswith("renewed") else said]
        if self.keeper is not None and self.keeper.restarts:
            again = self.keeper.restarts
            parts.append(f"{again} restart{'s' if again > 1 else ''}")
        return "; ".join(part for part in parts if part)

    def summary(self, counts: Counts) -> dict[str, Any]:
        """What the producer did, for the record."""
        if self.keeper is None:
            document: dict[str, Any] = {}
        else:
            document = {"restarts": self.keeper.restarts}
        if self._steering is not None:
            document |= self._steering.summary()
        if counts.synthetic:
            document["draws_per_sample"] = round(counts.reuse, 4)
        fault = self.fault or (self.keeper.ended if self.keeper is not None else None)
        return document | ({} if fault is None else {"ended": str(fault)})

    def close(self) -> None:
        """Stop the producer; remove the bank if it was made here."""
        if self.keeper is not None:
            self.keeper.stop()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
