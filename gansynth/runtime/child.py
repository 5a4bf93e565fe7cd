"""Code of a child process: signals, exit code, and the number of threads."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from gansynth.runtime.errors import EXIT_SIGINT, EXIT_SIGTERM, GansynthError, disk_fault
from gansynth.runtime.machine import cores
from gansynth.runtime.progress import write_stderr
from gansynth.runtime.signals import on_sigterm
from gansynth.runtime.system import send_self, wait_for_end_of

FAULT = "error: "
"""Prefix of the line in which a child reports its end; its threads may print more after it."""
PARENT = "GANSYNTH_PARENT"
"""Variable with the pid of the process that must stay alive; without it a child ignores that."""
NAME, WARNING = "gansynth: ", "WARNING: "
"""Beginnings of our lines in a host's log, and of the warnings among them."""
SHOWS = "GANSYNTH_SHOWS"
"""Variable that is set where the parent shows what ``show`` sends, and nothing else."""
SHOWN_PREFIX = "gansynth shows: "
"""Prefix of a line that ``show`` sends; it enters no log."""


def obey() -> None:
    """In a child: leave by ``SystemExit`` on SIGTERM, which is also sent when the parent dies."""
    on_sigterm(_leave)
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        threading.Thread(target=follow, args=(int(parent),), daemon=True).start()


def entry(work: Callable[[], None]) -> int:
    """Run a child's work, from its first line to its exit code.

    Returns:
        The exit code; a line on stderr explains any other than 0.
    """
    logging.basicConfig(format="%(name)s: %(levelname)s: %(message)s")
    obey()
    try:
        work()
    except GansynthError as error:
        sys.stderr.write(f"{FAULT}{error.line}\n")
        return error.exit_code
    except OSError as error:
        fault = disk_fault(error)
        if fault is None:
            raise
        sys.stderr.write(f"{FAULT}{fault.line}\n")
        return fault.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT
    return 0


def show(**message: object) -> None:
    """In a child: send the parent something to show, as JSON; see ``hosts.contract.launch``."""
    if os.environ.get(SHOWS):
        write_stderr(SHOWN_PREFIX + json.dumps(message))


def limit_threads(device: str) -> int:
    """Limit torch to ``cpu_threads`` if it trains on the CPU (``cpu``), else to one thread.

    Returns:
        The number of threads.
    """
    import torch

    count = cpu_threads() if device == "cpu" else 1
    torch.set_num_threads(count)
    return count


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give torch so many threads; with another number its sums differ in their last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_threads() -> int:
    """Return the number of CPU threads for torch: OMP_NUM_THREADS if set, else all cores but one.

    Hosts take every core, while the producer and a host's workers need some too. One thread too
    many makes torch tens of times slower.
    """
    text = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(text) if text.isdigit() else cores() - 1)


def keep_to_cores(say: Callable[[str], None]) -> None:
    """Take threads from torch if it has more than there are cores, which a user did not ask for.

    In a container it counts the cores of the machine, not those that the container may use.
    """
    import torch

    count, before = cores(), torch.get_num_threads()
    if count < before and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(count)
        say(f"torch computes in {count} threads, not {before}: this process may use no more cores")


def _leave(number: int, frame: object) -> None:
    """On SIGTERM: unwind, so that the producer stops and the bank is removed."""
    raise SystemExit(EXIT_SIGTERM)


def follow(parent: int) -> None:
    """Leave when the parent process has ended."""
    wait_for_end_of(parent, 1.0)
    send_self(signal.SIGTERM)
