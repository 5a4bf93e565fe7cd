"""Signals that end a process: as an exception, as a request, and as themselves in forked ones."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


SAME_REQUEST = 1.0
"""Seconds in which signals are one request."""


class Interrupted(SystemExit):
    """A process that was asked to stop and has; the exit code says by which signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class StopRequest:
    """SIGTERM and SIGINT as a request, for work that may end only between two steps.

    Outside of ``deferred``, and when a signal comes a second time, they end the process at once, by
    ``Interrupted``. What follows within a second of the first is the same request: schedulers tell
    a process and its parent, which passes it on.

    Attributes:
        number: the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = -math.inf
        self._deferring = False

    def __call__(self) -> int:
        """The signal that came, 0 for none."""
        return self.number

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only take note of the first signal meanwhile."""
        before, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = before

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """Within ``deferred``: work that a first signal breaks off, to come back to the request."""
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
    """Handle SIGTERM and SIGINT as a request; in a thread other than the main one, do nothing."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, request._note) for number in numbers}
    _default_in_children()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def on_sigterm(handler: Handler) -> Callable[[], None]:
    """Handle SIGTERM here; returns what puts the former handler back.

    Forked children get the default action: a pool ends its workers with SIGTERM, and would wait for
    ever for one whose handler's exception is swallowed.
    """
    before = signal.signal(signal.SIGTERM, handler)
    _default_in_children()

    def restore() -> None:
        signal.signal(signal.SIGTERM, before)

    return restore


@functools.cache
def _default_in_children() -> None:
    """Once per process: there is no way to unregister."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_reset)


def _reset() -> None:
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
