"""What a dry run measures: with a bar from the first second, and an end."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TypeVar

from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.progress import ProgressTask, Reporter, clock_text
from gansynth.runtime.system import alarm

BOUND = 60.0
"""Seconds of measuring after which a dry run measures nothing more. Its checks do not count."""
OPENING = 60.0
"""Seconds within which a dry run opens a data set."""
CHECKS = "checks"
T = TypeVar("T")


class OutOfTime(BaseException):
    """Ends what is measured, wherever it is, as Ctrl-C would."""


class Tally:
    """Names that are handed out one after the other, and how many have been."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.done = names, 0

    def __iter__(self) -> Iterator[str]:
        for name in self.names:
            yield name
            self.done += 1

    @property
    def share(self) -> float:
        """Share of the names that are done with."""
        return self.done / max(1, len(self.names))


class Measuring:
    """The time that is left for measuring.

    Attributes:
        began: when the work whose cost is asked for began, with its imports; seconds, monotonic.
        missing: what was not measured, for lack of time.
        now: what is measured.
    """

    def __init__(self, bound: float = math.inf, *, whole: bool = False) -> None:
        self.began = time.monotonic()
        self.missing = list[str]()
        self.now = CHECKS
        self._measured = 0.0  # seconds, but of the part that is under way
        self._part_began: float | None = None
        # ``whole``: checks count, too, in a process that another one waits for.
        self._whole, self._started = whole, self.began
        self._ends = self.used + bound

    @property
    def used(self) -> float:
        """Seconds of the bound that are used up; the time of checks is not counted."""
        return time.monotonic() - self._started if self._whole else self._of_parts

    @property
    def dry(self) -> bool:
        """Whether a dry run is under way, which writes nothing beside the user's data."""
        return math.isfinite(self._ends)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._ends - self.used)

    @property
    def elapsed(self) -> float:
        """Seconds since ``began``."""
        return time.monotonic() - self.began

    def part(self, name: str, work: Callable[[], T], share: float = 1.0) -> T | None:
        """Return what ``work`` returns, or None and note that it is missing.

        Args:
            name: in words.
            work: it is ended by ``OutOfTime`` in the main thread, else waited for. An import
                that has begun is waited for, too.
            share: of the time that is left, after which it is ended.
        """
        before, self.now = self.now, name
        outermost = self._part_began is None
        if outermost:
            self._part_began = time.monotonic()
        try:
            with warnings.catch_warnings():  # until nothing holds what was ended any more
                return self._ended_in_time(name, work, share)
        finally:
            self.now = before
            if outermost:
                self._measured, self._part_began = self._of_parts, None

    def _ended_in_time(self, name: str, work: Callable[[], T], share: float) -> T | None:
        try:
            with self.within(share):
                if not self.left:
                    raise OutOfTime
                with alarm(self.left, _out_of_time):
                    return work()
        except OutOfTime:
            self.missing.append(name)
            return None

    @property
    def _of_parts(self) -> float:
        began = self._part_began
        return self._measured + (0.0 if began is None else time.monotonic() - began)

    def opened(self, what: str, work: Callable[[], T]) -> T:
        """Return what ``work`` opens; opening other data, or measuring, has one end for both."""
        if self.now != CHECKS or not self.dry:
            return work()
        self.now = f"opening {what}"
        try:
            with warnings.catch_warnings(), alarm(OPENING, _out_of_time):
                return work()
        except OutOfTime:
            raise EnvironmentFault(
                "measuring.data-not-opened",
                f"--dry-run: {what} is not open after {OPENING:g} s, so nothing is known of what "
                "takes longer; expected faster files, on a disk of this machine. Without --dry-run "
                "there is no such end",
            ) from None
        finally:
            self.now = CHECKS

    @contextmanager
    def within(self, share: float) -> Iterator[None]:
        """Give what is measured here a share of the time that is left."""
        whole = self._ends
        if math.isfinite(whole):
            self._ends = self.used + share * self.left
        try:
            yield
        finally:
            self._ends = whole

    def begin(self, start: float = 0.0) -> None:
        """Measure something else from now on; its own process, if any, took ``start`` seconds."""
        self.began = time.monotonic() - start


_current = ContextVar[Measuring | None]("measuring", default=None)


def measuring() -> Measuring:
    """Return the time of the dry run that is under way; outside of one there is no end."""
    return _current.get() or Measuring()


@contextmanager
def dry_run(
    reporter: Reporter, bound: float | None = None, *, whole: bool = False
) -> Iterator[Measuring]:
    """Show a bar, and give what is measured within an end; say what was not measured.

    Args:
        bound: seconds; ``BOUND`` if None.
        whole: the bound is that of checks and measuring together.
    """
    bound = BOUND if bound is None else bound
    before = _current.get()
    if before is not None:
        yield before
        return
    time_left = Measuring(bound, whole=whole)
    token, over = _current.set(time_left), threading.Event()
    with reporter.task(round(bound), f"measuring, at most {bound:g} s") as bar:
        clock = threading.Thread(target=_tick, args=(bar, time_left, bound, over), daemon=True)
        clock.start()
        try:
            yield time_left
        finally:
            _current.reset(token)
            over.set()
            clock.join()
    if time_left.missing:
        names = "; ".join(dict.fromkeys(time_left.missing))
        reporter.warn(f"measuring ends after {bound:g} s; not measured: {names}")


def _tick(bar: ProgressTask, time_left: Measuring, bound: float, over: threading.Event) -> None:
    told = 0
    while not over.wait(1.0) and time_left.used < bound:
        done = int(time_left.used)  # a thread may wait longer than it asks for
        # Nobody knows how long a check takes; its time is not of the bound.
        eta = "" if time_left.now == CHECKS else f"< {clock_text(bound - done)}"
        bar.advance(done - told, now=time_left.now, ETA=eta)
        told = done


def _out_of_time(frame: FrameType | None) -> float:
    """Raise ``OutOfTime``; or return the seconds to an import's next chance to end."""
    if _imports(frame):
        return 0.05
    # A file that was just opened and is not yet in its ``with`` is closed as garbage.
    warnings.simplefilter("ignore", ResourceWarning)
    raise OutOfTime


def _imports(frame: FrameType | None) -> bool:
    """Return whether the part that is measured is importing a module.

    An import that is cut off leaves half of a module's effects, and the next one fails on them.
    """
    while frame is not None and frame.f_code is not Measuring.part.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
