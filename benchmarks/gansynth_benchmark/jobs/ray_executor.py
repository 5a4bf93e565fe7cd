"""Jobs on a Ray cluster that the user has started (https://docs.ray.io); never starts one.

Every job is one Ray task, which starts the same process as ``local`` on a machine of Ray's choice.
Ray retries a task whose worker or machine is lost. The old process ends by itself, and its lock
blocks a second attempt until then.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

from gansynth.core.registry import installed
from gansynth.hosts.host import framework
from gansynth.runtime.child import PARENT
from gansynth.runtime.errors import EnvironmentFault, GansynthError, UsageFault, extra_hint
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.version import __version__
from gansynth_benchmark.jobs.attempt import (
    PATIENCE,
    AttemptResult,
    AttemptSpec,
    Executor,
    result_of,
    start,
)
from gansynth_benchmark.jobs.machine import THREADS
from gansynth_benchmark.jobs.store import UNDER_WAY

RETRIES = 3  # retries of a job whose worker or machine was lost
PASSED_ON: tuple[str, ...] = ("GANSYNTH_", THREADS)
"""Prefixes of variables that jobs get from the process that runs the graph, not from the node;
those of hosts as well (``Framework.variables``)."""
LOST, NOT_SHARED = 71, 72  # exit codes: Ray gave up; the store is not visible on a node
RAY_LOG = "ray.log"  # file in the store for Ray's messages, e.g. on lost nodes
ANSWER = 120.0  # seconds for a node to start a worker and answer
LOOK = 5.0  # seconds between two checks of the head, and of the cluster's size


@dataclass(frozen=True)
class SharedFileProbe:
    """A file in the store that every node must be able to read."""

    path: Path
    text: str

    @classmethod
    def write(cls, store: Path) -> SharedFileProbe:
        """Write a token into a store."""
        token = cls(store / UNDER_WAY / f"token-{uuid.uuid4().hex}", uuid.uuid4().hex)
        write_bytes_atomic(token.path, token.text.encode())
        return token

    def seen(self, patience: float = 10.0) -> bool:
        """Whether this machine can read it; waits for slow network file systems."""
        end = time.monotonic() + patience
        while True:
            with contextlib.suppress(OSError):
                if self.path.read_text("utf-8") == self.text:
                    return True
                os.listdir(self.path.parent)
            if time.monotonic() > end:
                return False
            time.sleep(0.5)


class RayExecutor(Executor):
    """Runs as many jobs in parallel as fit into the cluster.

    Args:
        cpus: cores of each job; also its OMP_NUM_THREADS, if not set.
        gpus: GPUs of each job, possibly a fraction; None for one if the cluster has any, else 0.
    """

    queues = True

    def __init__(self, cpus: float = 1, gpus: float | None = None) -> None:
        self.cpus, self.gpus = cpus, gpus
        self._ray: Any = None
        self._task: Any = None
        self._connection: RayConnection | None = None
        self._token: SharedFileProbe | None = None
        self._tasks: dict[Any, Future[AttemptResult]] = {}
        self._slots, self._looked, self._grace = 1, -math.inf, 0.0

    @property
    def slots(self) -> int:
        """Number of jobs that fit into the cluster now."""
        due = time.monotonic() - self._looked > LOOK
        if self._connection is not None and due and self._connection.check():
            self._looked = time.monotonic()
            has = self._ray.cluster_resources()
            room = has.get("CPU", 0) / self.cpus
            if self.gpus:
                room = min(room, has.get("GPU", 0) / self.gpus)
            self._slots = max(1, int(room))
        return self._slots

    def open(self, store: Path) -> None:
        """Connect, and check that every node sees the store and has this version of gansynth.

        Raises:
            UsageFault: RAY_ADDRESS names no cluster.
            EnvironmentFault: Ray or the cluster is missing, no node has enough CPUs and GPUs, or a
                node does not see the store or has another version.
        """
        self._connection = RayConnection(store / UNDER_WAY / RAY_LOG)
        self._ray = self._connection.ray
        self._task = self._ray.remote(_attempt)
        self._token = SharedFileProbe.write(store)
        nodes = self._nodes()
        if self.gpus is None:
            self.gpus = 1 if any(node["Resources"].get("GPU") for node in nodes) else 0
        self._check_room(nodes)
        self._check_nodes(nodes)

    def submit(self, order: AttemptSpec) -> Future[AttemptResult]:
        """Submit a task to Ray; the result is an EnvironmentFault if its node lacks the store."""
        task = self._task.options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
            name=f"gansynth {order.job.title}",
        )
        reference = task.remote(order, self._token, self._environ())
        future = Future[AttemptResult]()
        reference.future().add_done_callback(partial(_settle, future))
        self._tasks[reference] = future
        self._grace = max(self._grace, order.grace)
        return future

    def cancel(self) -> None:
        """Interrupt the tasks, which stop their jobs gracefully, and wait."""
        tasks = self._left
        if not tasks or self._connection is None or self._connection.lost:
            return
        for reference in tasks:
            self._ray.cancel(reference, force=False)
        self._ray.wait(tasks, num_returns=len(tasks), timeout=self._grace + 2 * PATIENCE)

    def close(self) -> None:
        """End remaining tasks, and disconnect from the cluster."""
        if self._connection is None:
            return
        if not self._connection.lost:
            with contextlib.suppress(Exception):
                for reference in self._left:
                    self._ray.cancel(reference, force=True)
        self._tasks.clear()
        if self._token is not None:
            self._token.path.unlink(missing_ok=True)
        self._connection.close()
        self._ray = self._connection = None

    @property
    def _left(self) -> list[Any]:
        return [reference for reference, future in self._tasks.items() if not future.done()]

    def _environ(self) -> dict[str, str]:
        registry, prefixes = installed(), PASSED_ON
        for name in registry.names("hosts"):
            with contextlib.suppress(GansynthError):  # of a plugin that does not load
                prefixes += framework(name).variables
        variables = {key: value for key, value in os.environ.items() if key.startswith(prefixes)}
        variables.pop(PARENT, None)
        variables.setdefault(THREADS, str(max(1, int(self.cpus))))
        return variables

    def _check_room(self, nodes: list[dict[str, Any]]) -> None:
        needs = {"CPU": self.cpus, "GPU": self.gpus or 0}
        for node in nodes:
            if all(node["Resources"].get(name, 0) >= count for name, count in needs.items()):
                return
        raise EnvironmentFault(
            "benchmark.ray-nodes-too-small",
            f"executor ray: a job needs {self.cpus:g} CPUs and {self.gpus:g} GPUs, and none of the "
            f"{len(nodes)} nodes has as many; request fewer, as in ray:cpus=1,gpus=0",
        )

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _check_nodes(self, nodes: list[dict[str, Any]]) -> None:
        """Check that each node reads the token and has this version."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        looks = []
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = self._ray.remote(_look).options(num_cpus=0, scheduling_strategy=there)
            looks.append((node, look.remote(self._token)))
        for node, reference in looks:
            where = f"Ray node {node['NodeManagerHostname']} ({node['NodeID'][:8]})"
            try:
                version = self._ray.get(reference, timeout=ANSWER)
            except self._ray.exceptions.RayError as error:
                if node["NodeID"] not in [alive["NodeID"] for alive in self._nodes()]:
                    continue  # it had just died
                raise EnvironmentFault(
                    "benchmark.ray-node-cannot-run",
                    f"{where}: cannot run gansynth: {first_line(error)}; expected the same "
                    "environment on every node",
                ) from error
            if version is None:
                raise EnvironmentFault(
                    "benchmark.ray-store-not-shared", _not_shared(where, self._token)
                )
            if version != __version__:
                raise EnvironmentFault(
                    "benchmark.ray-node-version-differs",
                    f"{where}: has gansynth {version}, expected {__version__} as here",
                )


def _settle(future: Future[AttemptResult], task: Future[AttemptResult]) -> None:
    """Hand on the result of a task."""
    error = task.exception()
    if error is not None:
        future.set_result(AttemptResult(LOST, f"lost by Ray: {first_line(error)}"))
    elif task.result().code == NOT_SHARED:
        future.set_exception(
            EnvironmentFault("benchmark.ray-store-not-shared", task.result().reason)
        )
    else:
        future.set_result(task.result())


# -- on a node -------------------------------------------------------------------------------------


def _look(token: SharedFileProbe) -> str | None:
    """Return the version of gansynth on a node; None if the node does not see the token."""
    return __version__ if token.seen() else None


def _attempt(
    order: AttemptSpec, token: SharedFileProbe, passed_on: Mapping[str, str]
) -> AttemptResult:
    """Run an attempt as a task."""
    # The attempt runs while its stdin is open, so it ends with this worker.
    if not token.seen():
        name = os.uname().nodename
        return AttemptResult(NOT_SHARED, _not_shared(f"Ray node {name}", token))
    process = start(order, dict(os.environ) | dict(passed_on))
    assert process.stdin is not None
    with process:
        try:
            # In small steps: Ray interrupts a cancelled task between two steps of Python.
            while process.poll() is None:
                time.sleep(0.1)
        except BaseException:
            process.stdin.close()
            process.wait(order.grace + PATIENCE)
            raise
        return result_of(process)


def _not_shared(where: str, token: SharedFileProbe | None) -> str:
    folder = token.path.parent if token else "the store"
    return (
        f"{where}: does not see {folder}; expected a file system that all nodes share under the "
        "same path. Choose an -o on such a file system"
    )


# -- the connection, without Ray's side effects on this process ------------------------------------

# Ray would wait many minutes for a missing cluster, and end this process if it is lost later. It
# would also replace our signal and error handlers, and report lost nodes on stdout.

ADDRESS = "RAY_ADDRESS"
HEAD_PATIENCE = 30.0  # seconds the head may be unreachable; after 60, Ray ends this process
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
            raise EnvironmentFault(
                "benchmark.ray-not-installed", f"executor ray: {error}; {extra_hint('ray')}"
            ) from error
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
        elif now - self._heard > HEAD_PATIENCE:
            self.lost = True
            raise EnvironmentFault(
                "benchmark.ray-head-stopped-answering",
                f"executor ray: the head of the cluster, {address}, does not answer any more "
                f"({fault}); restart the cluster and run the command again: results are kept",
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
                "benchmark.ray-address-malformed",
                f"{ADDRESS}={address}: expected HOST:PORT of the head of a running cluster with "
                "this machine as a node, or no value. Without a cluster use --executor local",
            )
        _probe(address)
        try:
            with _same_handlers():
                self.ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EnvironmentFault(
                "benchmark.no-ray-cluster",
                f"executor ray: no cluster at {address!r}: {first_line(error)}; {START}",
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
        raise EnvironmentFault(
            "benchmark.ray-address-not-answering",
            f"executor ray: {named} does not answer ({fault}); {START}",
        )


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
