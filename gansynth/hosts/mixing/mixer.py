"""Choose what fills a slot of a training batch: a real case, or a sample from a bank.

All hosts use ``Mixer``, which worker processes get by fork or by pickle. Random generators and
open files are made in the process that draws, keyed by (seed, stream, worker). The framework's own
random state is never touched. Importing this module imports neither torch nor a framework.

If a bank has no sample, the real case is used and counted; in fine-tuning, a chosen case. If no
real case may be used, the mixer waits and then raises ``TrainingFault``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from gansynth.bank.draw_log import DrawLog, HeldDraws, Kind, Place
from gansynth.core.ratio import Ratio, SlotAllocator
from gansynth.core.schedule import Key, Mix, Schedule, ScheduledMix, choose_cases
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.serialise import Document
from gansynth.runtime.system import at_fork

if TYPE_CHECKING:
    from gansynth.bank.reader import BankPasses, BankSample

STALE_SECONDS = 120.0
"""Seconds without a heartbeat after which a live bank's producer counts as dead."""
WISHES = 20  # samples drawn at most to find one that fits a wish
_POLL_SECONDS = 0.2
_LOOK_SECONDS = 5.0
_lock = threading.RLock()
"""Some frameworks draw in threads of one process; a reader serves one thread at a time."""


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


# Otherwise a thread that does not exist in a forked process would hold the lock there forever.
at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True)
class BatchCounter:
    """Progress of a training, counted in batches of all worker processes of a rank together.

    Workers load ahead and do not know the epoch. Each appends one byte to a file for every batch;
    the byte's offset is the batch's number. This needs no lock and no repair after a crash.

    Attributes:
        file: of one rank.
        total: batches of the whole training.
        start: batches of earlier sessions.
    """

    file: Path
    total: int
    start: int = 0

    def __post_init__(self) -> None:
        if self.total < 1 or self.start < 0:
            raise UsageFault(
                "hosts.clock-out-of-range",
                f"clock: {self.total} batches from {self.start} on; expected at least 1, from 0 on",
            )

    def to_json(self) -> list[Any]:
        """Return the constructor's arguments."""
        return [str(self.file.absolute()), self.total, self.start]

    @classmethod
    def from_json(cls, doc: Sequence[Any]) -> BatchCounter:
        """Read the document of ``to_json``."""
        return cls(Path(doc[0]), *doc[1:])

    def tick(self) -> float:
        """Count a batch; return progress at its beginning, 0 to 1. May raise OSError."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab", buffering=0) as file:
            file.write(b".")
            # After an append, the file position of this descriptor is behind its own byte.
            return self._progress(file.tell() - 1)

    def now(self) -> float:
        """Return progress without counting a batch."""
        return self._progress(self.file.stat().st_size if self.file.exists() else 0)

    def _progress(self, batches: int) -> float:
        return min(1.0, (self.start + batches) / self.total)


@dataclass(frozen=True)
class MixerConfig(Document, Generic[Key], strict=True):
    """What one rank mixes into one training.

    Its document has the exact numbers of ratio and schedule, since their texts are rounded: every
    process must compute the same tables.

    Attributes:
        bank: the bank to draw from; None only if no synthetic sample is ever drawn.
        ratio: real:synthetic.
        schedule: how the ratio changes.
        batch_counter: counts batches; needed by any schedule but a constant one.
        chosen: real cases that fine-tuning may draw.
        seed: seeds the choice of slots and samples.
        stream: further numbers of the seed: rank and first epoch, say.
        workers: processes that draw for one rank at once, if other than torch's data loader, which
            gives their number itself. 1 if unknown.
        log: folder where draws are counted; None counts nothing.
        strict: stop at the first missing sample.
        sample_timeout: seconds a synthetic-only phase waits for a sample.
    """

    bank: Path | None
    ratio: Ratio
    schedule: Schedule = field(default_factory=Schedule)
    batch_counter: BatchCounter | None = None
    chosen: tuple[Key, ...] = ()
    seed: int = 0
    stream: tuple[int, ...] = ()
    workers: int = 1
    log: Path | None = None
    strict: bool = False
    sample_timeout: float = 300.0

    @classmethod
    def of(
        cls,
        mix: Mix,
        bank: Path | None,
        log: Path,
        *,
        seed: int,
        batches: int,
        subjects: Mapping[Key, str],
        strict: bool,
        sample_timeout: float,
        done: int = 0,
        rank: int = 0,
    ) -> MixerConfig[Key]:
        """Return the plan of one rank.

        Args:
            log: folder of this session, where draws and batches are counted.
            seed: also of the cases chosen for fine-tuning.
            batches: of the whole training, on this rank.
            subjects: training case -> subject.
            done: batches of earlier sessions.
            rank: of a data-parallel training.
        """
        ratio, schedule = mix
        constant, tuning = schedule.kind == "constant", schedule.kind == "finetune"
        return MixerConfig(
            bank=bank,
            ratio=ratio,
            schedule=schedule,
            batch_counter=None
            if constant
            else BatchCounter(log / f"batches-{rank}", batches, done),
            chosen=choose_cases(subjects, schedule.share, seed) if tuning else (),
            seed=seed,
            stream=(rank, done),
            log=log,
            strict=strict,
            sample_timeout=sample_timeout,
        )

    def draw_log(self) -> DrawLog | None:
        """Return this process's log of draws; None if none is kept."""
        return None if self.log is None else DrawLog(self.log)


@dataclass(frozen=True)
class BatchItem(Generic[Key]):
    """Content of a slot: a synthetic sample, or else the real case of this id."""

    real: Key
    sample: BankSample | None = None


class Mixer(Generic[Key]):
    """Fill slots; cheap to make, can be pickled or inherited through fork.

    Args:
        refuse: checks a sample before use; returns why it is unusable, or "".

    Attributes:
        log: of its draws; a host that uses one again, undrawn, appends it.
    """

    def __init__(
        self, plan: MixerConfig[Key], refuse: Callable[[BankSample], str] | None = None
    ) -> None:
        self.plan = plan
        self._refuse = refuse
        self.log: DrawLog | HeldDraws | None = plan.draw_log()
        self._chosen = frozenset(plan.chosen)
        self._pid = 0
        self._place, self._synthetic = 0, frozenset[int]()
        self._mix = plan.schedule.at(0.0, plan.ratio)
        self._wish: Callable[[BankSample], bool] | None = None

    @property
    def phase(self) -> ScheduledMix:
        """The mix of the batch that this process began last."""
        return self._mix

    @property
    def rng(self) -> np.random.Generator:
        """Random generator of this process for other choices, e.g. the place of a crop."""
        with self._own():
            return self._rng

    def slot(self, real: Key, batch_size: int) -> BatchItem[Key]:
        """Fill the next slot, for frameworks that request case by case.

        Args:
            real: the requested real case.
            batch_size: slots of a batch; a new batch begins after so many calls.

        Raises:
            TrainingFault: a sample is missing and no real case may replace it.
        """
        with self._own():
            if self._place % batch_size == 0:
                self._place = 0
                self._start_batch(batch_size)
            self._place += 1
            return self._fill(real, self._place - 1 in self._synthetic)

    def batch(self, real: Sequence[Key]) -> list[BatchItem[Key]]:
        """Fill a whole batch, for frameworks that name all its real cases at once.

        Raises:
            TrainingFault: see ``slot``.
        """
        with self._own():
            self._place = 0
            if real:
                self._start_batch(len(real))
            return [self._fill(key, place in self._synthetic) for place, key in enumerate(real)]

    def fill(
        self,
        real: Key,
        mix: ScheduledMix,
        *,
        synthetic: bool,
        rng: np.random.Generator,
        place: Place = (),
        turn: int | None = None,
        wish: Callable[[BankSample], bool] | None = None,
    ) -> BatchItem[Key]:
        """Fill a slot whose content is planned in advance.

        Args:
            real: the real case of this slot, or the replacement of a missing sample.
            rng: for the remaining choices; the caller seeds it by the slot.
            place: of the slot in the whole training, for the log; without it, a draw counts even if
                it was made ahead, or is made again after a kill.
            turn: number of this sample in the whole training, which fixes the sample of a frozen
                bank; None takes this process's next turn.
            wish: preferred property of a sample; ignored after ``WISHES`` draws.

        Raises:
            TrainingFault: see ``slot``.
        """
        with self._own():
            self._mix, self._draws, self._cases, self._wish = mix, rng, rng, wish
            return self._fill(real, synthetic, turn, place)

    @contextmanager
    def held(self) -> Iterator[HeldDraws | None]:
        """Keep the draws of this block, for a host that logs them when it trains on them."""
        log = self.log
        kept = HeldDraws(log) if isinstance(log, DrawLog) else None
        self.log = log if kept is None else kept
        try:
            yield kept
        finally:
            self.log = log

    # -- one process -----------------------------------------------------------------------------

    @contextmanager
    def _own(self) -> Iterator[None]:
        """Make what this process does not share: random generators, and the open bank."""
        with _lock:
            if self._pid != os.getpid():
                plan, worker = self.plan, tuple(getattr(current_process(), "_identity", ()))
                key = np.random.SeedSequence((plan.seed, *plan.stream), spawn_key=worker)
                generators = [np.random.default_rng(child) for child in key.spawn(5)]
                slots, self._draws, self._cases, self._rng, self._order = generators
                self._slots = SlotAllocator(slots)
                self._passes: BankPasses | None = None
                self._looked, self._stale = -np.inf, ""
                self._place, self._pid = 0, os.getpid()
            yield

    def __reduce__(self) -> tuple[Any, ...]:
        return Mixer, (self.plan, self._refuse)

    def _start_batch(self, size: int) -> None:
        batch_counter = self.plan.batch_counter
        progress = 0.0 if batch_counter is None else batch_counter.tick()
        self._mix = self.plan.schedule.at(progress, self.plan.ratio)
        self._synthetic = self._slots.allocate(self._mix.p, size)

    def _fill(
        self, real: Key, synthetic: bool, turn: int | None = None, place: Place = ()
    ) -> BatchItem[Key]:
        if not synthetic:
            return self._give_real(real, "real", "", place)
        sample, reason = self._draw(turn)
        if sample is None and (self._mix.real == "none" or self.plan.strict):
            sample = self._insist(reason)
        if sample is None:
            return self._give_real(real, "fallback", reason, place)
        if self.log is not None:
            told, case = sample.provenance, str(sample.provenance.get("case", ""))
            self.log.append("synthetic", sample.id, case, told, place)
        return BatchItem(real, sample)

    def _give_real(self, real: Key, kind: Kind, reason: str, place: Place) -> BatchItem[Key]:
        if self._mix.real == "chosen" and real not in self._chosen:
            real = self.plan.chosen[int(self._cases.integers(len(self.plan.chosen)))]
        if self.log is not None:
            self.log.append(kind, str(real), reason, place=place)
        return BatchItem(real)

    def _draw(self, turn: int | None = None) -> tuple[BankSample | None, str]:
        """Draw a sample; or return None and the reason."""
        if self.plan.bank is None:
            return None, "no bank"
        try:
            passes = self._passes = self._passes or self._open(self.plan.bank)
            if self._stale or time.monotonic() - self._looked >= _LOOK_SECONDS:
                age = passes.reader.age()
                stale = age is not None and age > STALE_SECONDS
                self._stale = "the bank is stale: its producer has gone" if stale else ""
                self._looked = time.monotonic()
            if self._stale:
                return None, self._stale
            sample, wish = passes.draw(turn), self._wish
            for _ in range(WISHES - 1 if wish is not None else 0):
                if sample is None or wish is None or wish(sample):
                    break
                sample = passes.reader.draw(self._draws)
        except Exception as error:  # training goes on whatever fails in a bank
            return None, f"{type(error).__name__}: {error}"
        if sample is None:
            return None, "the bank is empty"
        reason = self._refuse(sample) if self._refuse is not None else ""
        return (None, reason) if reason else (sample, "")

    def _open(self, bank: Path) -> BankPasses:
        from gansynth.bank.reader import BankPasses, BankReader

        plan, name = self.plan, "_".join(map(str, self.plan.stream))
        turns = None if plan.log is None else plan.log / f"turns-{name}"
        key = (plan.seed, *plan.stream)
        return BankPasses(BankReader(bank), key, self._order, workers=plan.workers, turns=turns)

    def _insist(self, reason: str) -> BankSample:
        """Wait for a sample where no real case may replace it."""
        sample_timeout = 0.0 if self.plan.strict else self.plan.sample_timeout
        end = time.monotonic() + sample_timeout
        while time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            sample, reason = self._draw()
            if sample is not None:
                return sample
        rule = "no real case may be drawn now" if self._mix.real == "none" else "strict is set"
        fault = TrainingFault(
            "hosts.no-synthetic-sample-in-time",
            f"{self.plan.bank}: no synthetic sample after {sample_timeout:g} s ({reason}), "
            f"expected one: {rule}. Give the producer a faster device, or use a frozen bank",
        )
        if self.log is not None:  # the main process may learn only that a worker ended
            self.log.append("stopped", "", str(fault))
        raise fault
