"""In a process that another one has started: signals, the exit code, and who else needs cores."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from gansynth.runtime.errors import EXIT_SIGINT, EXIT_SIGTERM, GansynthError
from gansynth.runtime.signals import on_sigterm

FAULT = "error: "
"""Begins the line in which a child says what it ended with; its threads may go on talking."""
PARENT = "GANSYNTH_PARENT"
"""Variable with the pid of the process that must stay alive; without it a child goes on alone."""


def obey() -> None:
    """In a child: leave by ``SystemExit`` on SIGTERM, which also comes when the parent is gone."""
    on_sigterm(_leave)
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        threading.Thread(target=_follow, args=(int(parent),), daemon=True).start()


def entry(work: Callable[[], None]) -> int:
    """A child's work, from its first line to its exit code.

    Returns:
        The exit code; a line on stderr says why it is not 0.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    obey()
    try:
        work()
    except GansynthError as error:
        sys.stderr.write(f"{FAULT}{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT
    return 0


def limit_threads(device: str) -> None:
    """Keep torch to ``cpu_threads`` where it trains on the CPU (``cpu``), else to one."""
    import torch

    torch.set_num_threads(cpu_threads() if device == "cpu" else 1)


def cpu_threads() -> int:
    """Threads for torch on the CPU: OMP_NUM_THREADS if set, else all cores but one.

    Hosts take every core. One core too many is not a little slower but tens of times, and the
    producer and a host's workers need some too.
    """
    text = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(text) if text.isdigit() else (os.cpu_count() or 2) - 1)


def _leave(number: int, frame: object) -> None:
    """On SIGTERM: unwind, so that the producer is stopped and the bank removed."""
    raise SystemExit(EXIT_SIGTERM)


def _follow(parent: int) -> None:
    """Leave when the process that started us is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
