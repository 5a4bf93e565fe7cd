"""Signals that end a process: as an exception, as a request, and by default in forked children."""

from __future__ import annotations

import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from gansynth.runtime.system import TERMINATING, at_fork, hold, release, send_self

Handler = Callable[[int, FrameType | None], None]


SAME_REQUEST = 1.0  # seconds within which signals count as one request


class Interrupted(SystemExit):
    """Raised to end a process on request; the exit code encodes the signal.

    ``told``: the user was told what is kept, so the command says nothing more of the signal.
    """

    RESUME = "type the same command again to resume"
    ANEW = "typed again it begins anew"
    """What a command says at its end that keeps its work, or nothing."""

    def __init__(self, number: int, *, told: bool = False) -> None:
        super().__init__(128 + number)
        self.number, self.told = number, told


@contextmanager
def telling(tell: Callable[[str], object], *kept: str) -> Iterator[None]:
    """Tell, where a signal stops the block, what is ``kept``; one is told of once.

    Raises:
        Interrupted: after it, also for a KeyboardInterrupt.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as stop:
        if getattr(stop, "told", False):
            raise
        for line in kept or (f"stopped; {Interrupted.RESUME}",):
            tell(line)
        raise Interrupted(getattr(stop, "number", signal.SIGINT), told=True) from None


class StopRequest:
    """SIGTERM and SIGINT as a request, for work that may end only between two steps.

    Outside of ``deferred``, and at a second signal, they end the process at once, by
    ``Interrupted``. Signals within a second of the first count as the same request: schedulers
    signal a process and its parent, which forwards it.
    """

    def __init__(self) -> None:
        self.number = 0  # of the received signal, 0 for none
        self._since = -math.inf
        self._deferring = False

    def __call__(self) -> int:
        """Return the received signal, 0 for none."""
        return self.number

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context, only record the first signal."""
        before, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = before

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """Within ``deferred``: let a first signal interrupt the work, and continue after it."""
        before, self._deferring = self._deferring, False
        try:
            yield
        except Interrupted:
            if not before:
                raise
        finally:
            self._deferring = before

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._since < SAME_REQUEST:
            return
        again, self.number, self._since = self.number, number, now
        if again or not self._deferring:
            raise Interrupted(number)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Handle SIGTERM and SIGINT as a request; does nothing outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (*TERMINATING, signal.SIGINT)
    handle = _outside_forks(request._note)
    before = {number: signal.signal(number, handle) for number in numbers}
    _default_in_children()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def on_sigterm(handler: Handler) -> Callable[[], None]:
    """Handle SIGTERM; return a function that restores the former handler.

    Forked children get the default action. A pool ends its workers with SIGTERM, and would wait
    forever for one that swallows the handler's exception.
    """
    before = {number: signal.signal(number, _outside_forks(handler)) for number in TERMINATING}
    _default_in_children()

    def restore() -> None:
        for number, former in before.items():
            signal.signal(number, former)

    return restore


def interrupt_outside_forks() -> None:
    """Let SIGINT raise KeyboardInterrupt as usual, but a moment later if a fork goes on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _outside_forks(signal.default_int_handler))
    _default_in_children()


class _Fork(threading.local):
    """Of a thread: the signals it blocked before a fork, and whether it is within one."""

    mask: Iterable[int] = ()
    going_on = False


_fork = _Fork()


def _outside_forks(handler: Handler) -> Handler:
    """Return a handler that acts a moment later if a fork goes on, whose hooks drop exceptions."""

    def handle(number: int, frame: FrameType | None) -> None:
        if not _fork.going_on:
            handler(number, frame)
            return
        again = threading.Timer(0.01, send_self, (number,))
        again.daemon = True
        again.start()

    return handle


@functools.cache
def _default_in_children() -> None:
    """Register once per process, since there is no way to unregister."""
    at_fork(before=_hold, after_in_parent=_release, after_in_child=_reset)


def _hold() -> None:
    """Block SIGTERM over a fork: CPython drops one that comes before a child's first step."""
    _fork.going_on = True
    _fork.mask = hold(signal.SIGTERM)


def _release() -> None:
    release(_fork.mask)
    _fork.going_on = False


def _reset() -> None:
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release()
