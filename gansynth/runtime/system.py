"""What only some operating systems offer, and what stands in for it elsewhere.

No other module names it, so that there is one place to look when a system lacks something. What is
missing is found by asking for it, never by a system's name. Only the standard library is imported
here, and psutil where a process is looked for.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

SHARED_MEMORY = Path("/dev/shm")
"""A folder in memory; where it is not, what is kept there goes to the temporary folder."""
KILLED: int = getattr(signal, "SIGKILL", 9)
HUNG_UP: int | None = getattr(signal, "SIGHUP", None)
"""Signal of a closed terminal, where there is one."""
BREAK: int | None = getattr(signal, "SIGBREAK", None)
"""What Windows has in the place of SIGTERM: only this can be sent to another process."""
TERMINATING = (signal.SIGTERM,) if BREAK is None else (signal.SIGTERM, BREAK)
ENDS_ORPHANS = hasattr(os, "setpgid")
"""Whether the id of the parent tells when it has ended; elsewhere ``watchdog`` sees nothing, and
the next training removes what a killed one left."""


# -- signals ---------------------------------------------------------------------------------------


def send_self(number: int) -> None:
    """Send this process a signal, whose handler runs in the main thread."""
    if BREAK is None:
        os.kill(os.getpid(), number)
    else:  # os.kill would end the process at once
        _thread.interrupt_main(signal.Signals(number))


def hold(*numbers: int) -> Iterable[int]:
    """Keep signals from this thread and from what it starts; return what ``release`` takes."""
    if hasattr(signal, "pthread_sigmask"):
        return signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    return ()


def release(held: Iterable[int]) -> None:
    """Let through what ``hold`` kept back."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def at_fork(**hooks: Callable[[], object]) -> None:
    """Register ``before``, ``after_in_parent`` and ``after_in_child``, where processes fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def fork_workers() -> None:
    """Let ``multiprocessing`` fork its workers, where the system can."""
    with contextlib.suppress(ValueError):
        multiprocessing.set_start_method("fork", force=True)


@contextlib.contextmanager
def alarm(seconds: float, ring: Callable[[FrameType | None], float]) -> Iterator[None]:
    """Call ``ring`` after some seconds, within the work; where there are no alarms, never.

    It raises, or returns the seconds after which it is called again. An alarm around it stays.
    """
    main = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "setitimer") or not main or not math.isfinite(seconds):
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, ring(frame))

    handler, began = signal.signal(signal.SIGALRM, end), time.monotonic()
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, outer - time.monotonic() + began))


# -- processes -------------------------------------------------------------------------------------


def apart() -> dict[str, Any]:
    """Return the arguments of ``subprocess.Popen`` for a process that no Ctrl-C reaches."""
    if BREAK is None:
        return {"start_new_session": True}
    return {"creationflags": 0x200}  # CREATE_NEW_PROCESS_GROUP


def ask_to_stop(process: Any, number: int) -> None:
    """Send a signal to a process that was started ``apart``."""
    process.send_signal(number if BREAK is None else getattr(signal, "CTRL_BREAK_EVENT"))  # noqa: B009


def leave_group() -> None:
    """Make this process the first of a group of its own, so that its parent's Ctrl-C passes by."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def end_own_group() -> None:
    """Send SIGTERM to the group that this process leads, itself too; nothing without groups."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)


def belongs_to(process: psutil.Process, leader: int) -> bool:
    """Whether a process is of the group of a leader that has ended, or else its descendant.

    Raises:
        ProcessLookupError, psutil.Error: it has ended.
    """
    if hasattr(os, "getpgid"):
        return os.getpgid(process.pid) == leader
    return leader in (process.ppid(), *(parent.ppid() for parent in process.parents()))


def wait_for_end_of(parent: int, poll: float) -> None:
    """Wait until the process that started this one has ended, looking every so many seconds."""
    if ENDS_ORPHANS:
        while os.getppid() == parent:
            time.sleep(poll)
        return
    import psutil

    while psutil.pid_exists(parent):
        time.sleep(poll)


def lower_priority(by: int) -> None:
    """Let other processes go first, where a process may ask for that."""
    if hasattr(os, "nice"):
        os.nice(by)


def usable_cores() -> int:
    """Return the cores that this process may use, where that is told, else those there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# -- memory and files ------------------------------------------------------------------------------


def peak_memory() -> int:
    """Return the most bytes of memory that this process has had, or where untold those it has."""
    try:
        import resource
    except ImportError:
        import psutil

        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 2**10)


@contextlib.contextmanager
def memory_limit(further: int) -> Iterator[None]:
    """Make allocations beyond so many further bytes fail, where the system can (Linux).

    It would kill the process later.
    """
    try:
        import resource
    except ImportError:
        yield
        return
    import psutil

    held = getattr(psutil.Process().memory_info(), "data", None)
    if held is None:  # what the limit counts is not told
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + further, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def nobody_reads(descriptor: int) -> bool:
    """Return whether the reader of a pipe has gone, where that can be seen."""
    if not hasattr(select, "poll"):
        return False
    looking = select.poll()
    looking.register(descriptor, 0)  # asks for errors only
    return bool(looking.poll(0))
