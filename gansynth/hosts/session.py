"""One training session: its bank and producer, its draws, and the record of both.

Call ``open``, ``start`` and ``steer`` first, then ``step``, ``pause``, ``report`` and ``write``
during training, and ``close`` at the end.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from gansynth.bank.draw_log import DrawCounter, DrawCounts
from gansynth.bank.store import SPEC
from gansynth.bank.training_bank import BankRequirements, TrainingBank
from gansynth.core.host_commands import TrainingFolder
from gansynth.core.mix_config import MixConfig, MixerConfig
from gansynth.hosts.launch import TrainingDisplay
from gansynth.hosts.record import (
    DRAWS,
    FILE,
    LOG,
    check_same,
    read_sessions,
)
from gansynth.runtime.child import NAME, WARNING, show
from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.files import remove_temporaries, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__

BEGUN = 1e-3  # the part of an epoch that counts as done when it begins
SHOW_SECONDS = 0.5  # least time between two reports of progress
T = TypeVar("T")


class HostSession(ABC):
    """One session of a training; ``Framework`` defines what is trained.

    Args:
        first: epochs, or steps, that earlier sessions have done.
        total: epochs, or steps, of the whole training.
        reporter: shows the progress; None in a child process, whose parent shows it.

    Attributes:
        done: epochs, or steps, done so far.
        log: folder with this session's draw logs.
        plan: what is mixed in, once ``steer`` was called.
    """

    compared: ClassVar[tuple[str, ...]]
    """See ``gansynth.hosts.record.training_folder``."""
    unit: ClassVar[str] = "epoch"  # what `first`, `done` and `total` count
    batches: int = 0  # training steps of an epoch; 0 if only whole epochs are shown
    plan: MixerConfig[str]

    def __init__(
        self,
        mix_config: MixConfig,
        output: Path,
        first: int,
        total: int,
        reporter: Reporter | None = None,
    ) -> None:
        self.display = TrainingDisplay(reporter) if reporter else None
        self._show = self.display.show if self.display else show
        self.mix_config, self.output, self.total = mix_config, output, total
        self.first = self.done = first
        self._pid = os.getpid()
        # Two sessions of one process may begin in the same second, and have separate logs.
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{self._pid}"
        self.log = output / DRAWS / stamp
        self._tally = DrawCounter(self.log)
        self._earlier: list[dict[str, Any]] = []
        self._described: dict[str, Any] = {}
        self._training_bank: TrainingBank | None = None
        self._closed = False
        self._steps, self._showed = 0, -math.inf
        atexit.register(self.close)

    # -- what a subclass defines -----------------------------------------------------------------

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the data, mix and settings of the session, for the record."""

    @abstractmethod
    def demand(self) -> BankRequirements:
        """Return the training's requirements for its bank."""

    @abstractmethod
    def make_plan(self) -> MixerConfig[str]:
        """Return the plan of what is mixed in, with the draws logged in ``log``."""

    def more(self) -> dict[str, Any]:
        """Return further entries of the record."""
        return {}

    def note(self, text: str) -> None:
        """Write a whole line to the training's log."""
        with contextlib.suppress(OSError), (self.output / LOG).open("a") as log:
            log.write(f"{text}\n")

    # -- the beginning ---------------------------------------------------------------------------

    def open(self) -> None:
        """Begin a record; nothing is started."""
        self._described = {**self.describe(), "of_epochs": self.total}
        self._earlier = read_sessions(self.output / FILE) if self.first > 0 else []
        for last in self._earlier[-1:]:
            hint = "name another folder for its results"
            check_same(self.output, last, self._described, self.compared, hint)
        self._training_bank = TrainingBank(self.demand())

    def start(self) -> None:
        """Start the producer and wait for samples, if there is anything left to train.

        Raises:
            EnvironmentFault: no room for the bank.
            TrainingFault: the bank does not fill.
        """
        if self.first < self.total:
            self.training_bank.start()
            self.training_bank.wait()

    def steer(self) -> None:
        """Make the plan, begin to count draws and to limit the producer, and write the record."""
        self.plan = self.make_plan()
        self._tally = DrawCounter(self.log)
        if self._training_bank is not None:
            self._training_bank.steer(self.counts, lambda: self.partners().synthetic)
            self.write()  # before the first checkpoint, which is gone on with only beside a record
        if self.first < self.total:
            self.show_progress(BEGUN)

    @property
    def training_bank(self) -> TrainingBank:
        """The bank and its producer, once the session is open."""
        assert self._training_bank is not None
        return self._training_bank

    @property
    def bank(self) -> Path | None:
        """The bank; None also if its producer died before it wrote the description."""
        bank = self.training_bank.bank
        return bank if bank is not None and (bank / SPEC).exists() else None

    # -- while training --------------------------------------------------------------------------

    def step(self, begin: float, end: float) -> None:
        """Record a training step, ``time.monotonic()`` at its begin and end; never raises."""
        if self._training_bank is not None:
            self._training_bank.step(begin, end)
        self._steps += 1
        if self.batches and end - self._showed >= SHOW_SECONDS:
            self._showed = end
            # What follows the last step, such as validation, counts as one more.
            self.show_progress(min(self._steps, self.batches) / (self.batches + 1))

    def finish_epoch(self, done: int, values: Mapping[str, float]) -> None:
        """Show an epoch as done, with values such as its loss."""
        self.done, self._steps = done, 0
        self.show_progress(0.0, **values)

    def show_progress(self, part: float, **values: float) -> None:
        """Show the epochs done, with a part of the current one, and the share drawn so far."""
        if self._training_bank is not None:  # else another rank shows it
            share = f"{self.counts().realised:.0%}"
            finite = {key: value for key, value in values.items() if math.isfinite(value)}
            done = round(self.done + part, 3)
            self._show(unit=self.unit, done=done, total=self.total, synthetic=share, **finite)

    def pause(self) -> None:
        """Record the end of an epoch; see ``TrainingBank.pause``."""
        self.training_bank.pause(self.now())

    def report(self) -> None:
        """Write new messages about the producer and the samples."""
        for message in self.training_bank.messages():
            self.say(message)

    def say(self, line: str) -> None:
        """Write a line for the user, and to the log, with the name of its sender there."""
        self.note(f"{NAME}{line}")
        self._show(say=line)

    def counts(self) -> DrawCounts:
        """Return the draws of all workers so far."""
        return self._tally.update()

    def partners(self) -> DrawCounts:
        """Return the additional draws, where a framework draws several samples for one place."""
        return DrawCounts()

    def now(self) -> float:
        """Return the progress, 0 to 1."""
        return min(1.0, self.done / self.total)

    def asked(self) -> float:
        """Return the requested share of synthetic samples in this session until now."""
        begin = min(1.0, self.first / self.total)
        return self.mix_config.schedule.share_of(self.mix_config.ratio, begin, self.now())

    def sentence(self) -> str:
        """Describe the draws and the producer's work in words."""
        text = self.counts().sentence(self.asked())
        producer = "" if self._training_bank is None else self._training_bank.sentence()
        return f"{text}, {producer}" if producer else text

    def stopped(self) -> str:
        """Return why drawing stopped, in any worker; empty if it did not."""
        why = self.counts().stopped or self.partners().stopped
        ended = (
            self._training_bank
            and self._training_bank.supervisor
            and self._training_bank.supervisor.ended
        )
        return f"{why}. The producer had ended: {ended}" if why and ended else why

    def write(self, complete: bool = False) -> None:
        """Write the record of all sessions; a failing disk does not stop the training."""
        counts = self.counts()
        this = {
            "epochs": [self.first, self.done],
            **self._described,
            "chosen": list(self.plan.chosen),
            "drawn": counts.to_json(),
            "asked": round(self.asked(), 6),
            "supply": self.training_bank.summary(counts),
            **self.more(),
        }
        sessions = [*self._earlier, this]
        document = {"gansynth": __version__, "complete": complete, "sessions": sessions}
        try:
            write_json_atomic(self.output / FILE, document)
        except EnvironmentFault as error:
            self.say(f"{WARNING}{error}")

    # -- the end ---------------------------------------------------------------------------------

    def close(self, complete: bool = False) -> None:
        """Stop the producer, remove its bank and write the record; only once."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self.display:
            self.display.close()
        if self._training_bank is None:
            return
        try:
            self._training_bank.close()
        finally:
            if hasattr(self, "plan"):  # else it drew nothing
                with contextlib.suppress(OSError):  # the output may be closed
                    self.write(complete)
                    self.note(f"{NAME}in all {self.sentence()}")


class CachedResult(Generic[T]):
    """Cache of a function's last result; other arguments compute it anew.

    A command asks several times for one training, whose samples are then checked only once.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._made: tuple[list[Any], T] | None = None

    def __call__(self, *arguments: Any) -> T:
        """Return the result for these arguments."""
        if self._made is None or self._made[0] != list(arguments):
            self._made = [copy(argument) for argument in arguments], self._make(*arguments)
        return self._made[1]


@contextmanager
def training_in(look: Callable[[], TrainingFolder]) -> Iterator[TrainingFolder]:
    """Lock the folder of a training for this process; one without a checkpoint begins anew.

    Args:
        look: returns the folder, see ``gansynth.hosts.record.training_folder``; another process
            may have changed it meanwhile.

    Raises:
        EnvironmentFault: another process uses it, or it cannot be written.
    """
    from gansynth.sampling.run import locked

    with locked(look().path, "take another folder: -o"):
        folder = look()
        remove_temporaries(folder.path)
        if not (folder.done or folder.finished):
            document = {"gansynth": __version__, "complete": False, "sessions": []}
            write_json_atomic(folder.path / FILE, document)
        yield folder
