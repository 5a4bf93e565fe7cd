"""Connection to a Ray cluster, without Ray's side effects on this process.

Ray would wait many minutes for a missing cluster, and end this process if it is lost later. It
would also replace our signal and error handlers, and report lost nodes on stdout.
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

from gansynth.runtime.errors import EnvironmentFault, UsageFault, extra_hint

ADDRESS = "RAY_ADDRESS"
LOOK = 5.0  # seconds between two checks of the head
PATIENCE = 30.0  # seconds the head may be unreachable; after 60, Ray ends this process
START = f"start one with `ray start --head` (gansynth help clusters), or name it in {ADDRESS}"


def first_line(error: BaseException) -> str:
    """Return an error of Ray in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class RayConnection:
    """Connection of a driver to the cluster of RAY_ADDRESS, or to the one on this machine.

    While it is open, stdout of Ray's threads goes to a file. An existing connection of the program
    is used unchanged, and stays open.

    Raises:
        UsageFault: RAY_ADDRESS is not the address of a running cluster.
        EnvironmentFault: Ray is not installed, or there is no cluster.
    """

    def __init__(self, log: Path) -> None:
        hook = sys.excepthook  # Ray's hook contacts the head, even if that is gone
        try:
            import ray
        except ImportError as error:
            raise EnvironmentFault(f"executor ray: {error}; {extra_hint('ray')}") from error
        sys.excepthook = hook
        self.ray: Any = ray
        self.lost = False  # whether the head is gone; calls of Ray would hang
        self._aside: _QuietStdout | None = None
        self._looked = self._heard = time.monotonic()
        if not ray.is_initialized():
            self._connect(os.environ.get(ADDRESS) or "auto")
            self._aside = _QuietStdout(sys.stdout, log)
            sys.stdout = cast(TextIO, self._aside)

    def check(self) -> bool:
        """Whether the head answers; contacts it every ``LOOK`` seconds."""
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
                f"({fault}); restart the cluster and run the command again: results are kept"
            )
        return fault is None

    def close(self) -> None:
        """Leave the cluster."""
        if self._aside is None:
            return
        self._aside.everything = True  # Ray flushes its remaining messages in this thread
        try:
            if self.lost:  # shutdown would hang; without it the process would crash at exit
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
                f"{ADDRESS}={address}: expected HOST:PORT of the head of a running cluster with "
                "this machine as a node, or no value. Without a cluster use --executor local"
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
    """End a process whose cluster is gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(EnvironmentFault.exit_code)


def _probe(address: str) -> None:
    """Raise EnvironmentFault if no server listens; Ray itself would wait many minutes."""
    named = f"{ADDRESS}={address}"
    if address == "auto":
        temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        note = Path(temporary, "ray", "ray_current_cluster")
        if not note.exists():
            return  # Ray fails at once without a cluster, or finds one by its processes
        address = note.read_text("utf-8").strip()
        named = f"{address}, named by {note},"
    fault = _unreachable(address, timeout=10.0)
    if fault is not None:
        raise EnvironmentFault(f"executor ray: {named} does not answer ({fault}); {START}")


def _unreachable(address: str, timeout: float) -> OSError | None:
    """Return why HOST:PORT is unreachable; None if it is reachable, or not of that form."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout).close()
        except OSError as error:
            return error
    return None


# Ray reports lost nodes on stdout, whatever ``log_to_driver`` says, which would break ``--json``.
class _QuietStdout:
    """A stdout that redirects Ray's output to a file."""

    def __init__(self, stdout: TextIO, log: Path) -> None:
        self.stdout, self.everything, self._log = stdout, False, log

    def write(self, text: str) -> int:
        """Write to the file from threads of Ray, else to stdout."""
        if not (self.everything or threading.current_thread().name.startswith("ray_")):
            return self.stdout.write(text)
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
            log.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stdout, name)


@contextlib.contextmanager
def _same_handlers() -> Iterator[None]:
    """Restore our signal handlers, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set by Python
                signal.signal(number, handler)
