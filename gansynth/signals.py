"""SIGTERM as an exception in this process, and as itself in the ones it forks."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


def on_sigterm(handler: Handler) -> Callable[[], None]:
    """Handle SIGTERM here; returns what puts the former handler back.

    A handler is inherited by forked children. A worker of a pool that is ended with SIGTERM would
    run it, and where the exception it raises is swallowed (in a finaliser, say) the worker lives on
    and the pool waits for it for ever. Children therefore get the default action back.
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
