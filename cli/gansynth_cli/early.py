"""A Ctrl-C while the command is still being imported: nothing is to be cleaned up, so it ends.

Before this module, Python itself starts: a Ctrl-C then ends the process without a word, or with
Python's traceback and another exit code. No code of ours runs yet that could catch it.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # importing typing would take as long as all of this
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130  # EXIT_SIGINT, of a module that takes long to import


def leave_on_sigint() -> None:
    """Let SIGINT end the process in one line, unless it is ignored, as of a job in background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_sigint() -> None:
    """Let SIGINT raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)
