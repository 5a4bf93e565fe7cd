"""Connecting to a Ray cluster, and keeping Ray from doing more than was asked.

Ray would wait for many minutes for a cluster that is gone, and end this process if it goes later;
put handlers of signals and errors of its own in place of ours; tell of lost nodes on stdout.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from gansynth.runtime.errors import EnvironmentFault, UsageFault

ADDRESS = "RAY_ADDRESS"
LOOK = 5.0
"""Seconds between two looks at the head."""
PATIENCE = 30.0
"""Seconds it may be away; after 60, Ray ends this process."""
START = f"start one with `ray start --head` (docs/clusters.md), or name it in {ADDRESS}"


def first_line(error: BaseException) -> str:
    """What an error of Ray's says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class Connection:
    """A driver's connection to the cluster that RAY_ADDRESS names, or that runs on this machine.

    While it lasts, what Ray's own threads write to stdout goes to a file. One that the program had
    before is used as it is, and stays.

    Attributes:
        lost: whether the head is gone; calls of Ray would hang.

    Raises:
        UsageFault: RAY_ADDRESS is not the address of a cluster that runs.
        EnvironmentFault: Ray is not installed, or there is no cluster.
    """

    def __init__(self, log: Path) -> None:
        hook = sys.excepthook  # Ray's own asks the head, also when that is gone
        try:
            import ray
        except ImportError as error:
            raise EnvironmentFault(
                f"executor ray: {error}; expected Ray: pip install 'gansynth[ray]'"
            ) from error
        sys.excepthook = hook
        self.ray: Any = ray
        self.lost = False
        self._aside: _Aside | None = None
        self._looked = self._heard = time.monotonic()
        if not ray.is_initialized():
            self._connect(os.environ.get(ADDRESS) or "auto")
            self._aside = _Aside(sys.stdout, log)
            sys.stdout = cast(TextIO, self._aside)

    def check(self) -> bool:
        """Whether the head answers; looks now and then. Ray would end this process if it does not.

        Raises:
            EnvironmentFault: it has not answered for half a minute.
        """
        now = time.monotonic()
        if now - self._looked < LOOK:
            return self._heard == self._looked
        self._looked = now
        address = self.ray.get_runtime_context().gcs_address
        fault = _unreachable(address, timeout=1.0)
        if fault is None:
            self._heard = now
        elif now - self._heard > PATIENCE:
            self.lost = True
            raise EnvironmentFault(
                f"executor ray: the head of the cluster, {address}, does not answer any more "
                f"({fault}); start the cluster again, and run this again: what is done is kept"
            )
        return fault is None

    def close(self) -> None:
        """Leave the cluster."""
        if self._aside is None:
            return
        self._aside.everything = True  # Ray says in this thread what it has not said yet
        try:
            if self.lost:  # shutting down would hang, and not to would crash at the very end
                atexit.unregister(self.ray.shutdown)
                atexit.register(_leave_at_once)
            else:
                self.ray.shutdown()
        finally:
            sys.stdout = self._aside.stdout
            self._aside = None

    def _connect(self, address: str) -> None:
        if address == "local" or "://" in address:
            raise UsageFault(
                f"{ADDRESS}={address}: expected HOST:PORT of the head of a cluster that runs, of "
                "which this machine is a node, or nothing. Without a cluster take --executor local"
            )
        _probe(address)
        try:
            with _same_handlers():
                self.ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EnvironmentFault(
                f"executor ray: no cluster at {address!r}: {first_line(error)}; {START}"
            ) from error


def _leave_at_once() -> None:
    """The end of a process whose cluster is gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(EnvironmentFault.exit_code)


def _probe(address: str) -> None:
    """See whether anybody listens; Ray itself would wait for many minutes.

    Raises:
        EnvironmentFault: nobody does.
    """
    named = f"{ADDRESS}={address}"
    if address == "auto":
        temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        note = Path(temporary, "ray", "ray_current_cluster")
        if not note.exists():
            return  # Ray says at once that there is no cluster, or finds one by its processes
        address = note.read_text("utf-8").strip()
        named = f"{address}, named by {note},"
    fault = _unreachable(address, timeout=10.0)
    if fault is not None:
        raise EnvironmentFault(f"executor ray: {named} does not answer ({fault}); {START}")


def _unreachable(address: str, timeout: float) -> OSError | None:
    """Why nobody listens at HOST:PORT; None if somebody does, or if it is another kind of text."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout).close()
        except OSError as error:
            return error
    return None


class _Aside:
    """A stdout that keeps away from the terminal what Ray writes to it.

    It tells of lost nodes there, whatever ``log_to_driver`` says, and would spoil ``--json``.
    """

    def __init__(self, stdout: TextIO, log: Path) -> None:
        self.stdout, self.everything, self._log = stdout, False, log

    def write(self, text: str) -> int:
        """Write to the file if a thread of Ray's asks, else where it belongs."""
        if not (self.everything or threading.current_thread().name.startswith("ray_")):
            return self.stdout.write(text)
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
            log.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stdout, name)


@contextlib.contextmanager
def _same_handlers() -> Iterator[None]:
    """Keep our own handlers of signals; Ray puts one of its own in their place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it was not put there by Python
                signal.signal(number, handler)
