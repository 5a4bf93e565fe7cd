"""Run jobs in the order of their dependencies; dependents of a failed job are skipped."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from graphlib import TopologicalSorter
from pathlib import Path

from gansynth.runtime.errors import GansynthError, TrainingFault
from gansynth.runtime.signals import Interrupted, stop_request
from gansynth.runtime.system import KILLED
from gansynth_benchmark.jobs.attempt import (
    DONE,
    FOUND,
    GRACE,
    HELD,
    STOPPED,
    AttemptResult,
    AttemptSpec,
    Executor,
)
from gansynth_benchmark.jobs.store import JobSpec, ResultStore

POLL = 0.25  # seconds between two checks of jobs run by other processes
TICK = 1.0  # seconds between progress reports without a change
SILENT = 7200.0
"""Seconds for which a job that another run holds may write nothing to its log."""


class JobPhase(Enum):
    """The state of a job."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    ELSEWHERE = "run by another process"
    DONE = "done"
    FOUND = "was done"
    NOT_NEEDED = "not needed"
    FAILED = "failed"
    SKIPPED = "skipped"


ENDED = (JobPhase.DONE, JobPhase.FOUND, JobPhase.NOT_NEEDED, JobPhase.FAILED, JobPhase.SKIPPED)
FINE = (JobPhase.DONE, JobPhase.FOUND, JobPhase.NOT_NEEDED)


@dataclass
class JobStatus:
    """A job's state, and since when."""

    job: JobSpec
    phase: JobPhase
    log: Path
    began: float = 0.0
    seconds: float | None = None
    why: str = ""
    code: int | None = None  # exit code of the failed attempt, also for jobs that needed it


@dataclass(frozen=True)
class GraphProgress:
    """A progress report."""

    standings: Sequence[JobStatus]
    slots: int


@dataclass(frozen=True)
class GraphReport:
    """The outcome of a run of the graph."""

    standings: tuple[JobStatus, ...]

    def of(self, *phases: JobPhase) -> list[JobStatus]:
        """Return the jobs in the given phases."""
        return [standing for standing in self.standings if standing.phase in phases]

    @property
    def ok(self) -> bool:
        """Whether every needed result exists."""
        return all(standing.phase in FINE for standing in self.standings)

    def lines(self) -> list[str]:
        """Return readable lines: counts, then each failure with its last line and its log."""
        groups = {phase: len(self.of(phase)) for phase in JobPhase}
        counts = ", ".join([f"{count} {phase.value}" for phase, count in groups.items() if count])
        failures = [
            f"failed: {failed.job.title}: {failed.why}; log: {failed.log}"
            for failed in self.of(JobPhase.FAILED)
        ]
        count = len(self.standings)
        return [f"{count} job{'s' * (count != 1)}: {counts}", *failures]

    def raise_if_failed(self) -> None:
        failed = self.of(JobPhase.FAILED)
        if failed:
            raise TrainingFault(
                "benchmark.jobs-failed",
                f"{len(failed)} of {len(self.standings)} jobs failed; the first: "
                f"{failed[0].job.title}: {failed[0].why}; log: {failed[0].log}. Results of the "
                "other jobs are kept; run the command again to retry the failed ones",
            )


def run_jobs(
    jobs: Iterable[JobSpec],
    store: ResultStore,
    executor: Executor,
    *,
    on_change: Callable[[GraphProgress], None] = lambda progress: None,
    grace: float = GRACE,
) -> GraphReport:
    """Run the jobs that are not done yet.

    A job whose dependents are all done is not computed. Jobs that another run computes are waited
    for.

    Args:
        jobs: in the order of preference.
        on_change: called after every change, and every second.
        grace: seconds for jobs to stop after a signal.

    Raises:
        EnvironmentFault: a requirement of the executor is missing.
        Interrupted: after SIGINT or SIGTERM, when all jobs have been stopped.
    """
    graph = _JobGraph(jobs, store)
    with ExitStack() as stack:
        stack.callback(executor.close)
        if graph.unfinished():
            executor.open(store.folder)
        stop = stack.enter_context(stop_request())
        stack.enter_context(stop.deferred())
        runner = _JobRunner(graph, store, executor, grace, on_change)
        try:
            while runner.step() and not stop():
                pass
        except GansynthError:  # from the executor: no more jobs can be started
            executor.cancel()
            raise
        if stop():
            executor.cancel()
            raise Interrupted(stop.number)
    return graph.report()


class _JobGraph:
    """States of all jobs, and how the end of one job changes the others."""

    def __init__(self, jobs: Iterable[JobSpec], store: ResultStore) -> None:
        self.standings = {
            job.key: JobStatus(job, JobPhase.NOT_NEEDED, store.log(job.key)) for job in jobs
        }
        needs = {key: standing.job.needs for key, standing in self.standings.items()}
        self._ordered = [self.standings[key] for key in TopologicalSorter(needs).static_order()]
        needed = self.standings.keys() - {need for each in needs.values() for need in each}
        for standing in reversed(self._ordered):
            key = standing.job.key
            if store.at_hand(key):
                standing.phase, standing.seconds = JobPhase.FOUND, _seconds(store, key)
            elif key in needed:
                standing.phase = JobPhase.WAITING
                needed |= set(needs[key])

    def in_phase(self, *phases: JobPhase) -> list[JobStatus]:
        return [standing for standing in self.standings.values() if standing.phase in phases]

    def unfinished(self) -> list[JobStatus]:
        return [standing for standing in self.standings.values() if standing.phase not in ENDED]

    def ready(self) -> list[JobStatus]:
        ready = []
        for standing in self.in_phase(JobPhase.WAITING):
            needed = {self.standings[need].phase for need in standing.job.needs}
            if needed.issubset(FINE):
                ready.append(standing)
        return ready

    def fail(self, standing: JobStatus, why: str, code: int | None = None) -> None:
        """Mark a job as failed, and skip its direct and indirect dependents."""
        standing.phase, standing.why, standing.code = JobPhase.FAILED, why, code
        lost = {standing.job.key}
        for other in self._ordered:
            if other.phase is JobPhase.WAITING and lost.intersection(other.job.needs):
                lost.add(other.job.key)
                other.phase, other.code = JobPhase.SKIPPED, code
                other.why = f"needs {standing.job.title}, which failed: {why}"

    def report(self) -> GraphReport:
        return GraphReport(tuple(self.standings.values()))


def _seconds(store: ResultStore, key: str) -> float | None:
    seconds = store.result(key).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


@dataclass
class _JobRunner:
    """Moves jobs from the graph to the executor and back."""

    graph: _JobGraph
    store: ResultStore
    executor: Executor
    grace: float
    on_change: Callable[[GraphProgress], None]
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    reported: float = -TICK
    running: dict[Future[AttemptResult], JobStatus] = field(default_factory=dict)
    logged: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of jobs that other runs hold: bytes of the log, and when there were no more."""

    def step(self) -> bool:
        """Submit ready jobs, wait briefly, update states; False when no job is left."""
        changed = self._look_elsewhere() or self._submit()
        if self.running:
            for future in wait(self.running, POLL, FIRST_COMPLETED).done:
                self._settle(self.running.pop(future), future.result())
                changed = True
        elif self.graph.in_phase(JobPhase.ELSEWHERE):
            time.sleep(POLL)
        changed = self._note_begun() or changed
        left = bool(self.graph.unfinished())
        now = time.monotonic()
        if changed or not left or now - self.reported >= TICK:
            self.reported = now
            self.on_change(GraphProgress(list(self.graph.standings.values()), self.executor.slots))
        return left

    def _submit(self) -> bool:
        changed = False
        for standing in self.graph.ready():
            if len(self.running) >= self.executor.slots:
                break
            changed = True
            if self.store.held(standing.job.key):
                standing.phase, standing.began = JobPhase.ELSEWHERE, time.monotonic()
                continue
            order = AttemptSpec(standing.job, self.store.folder, Path.cwd(), self.run, self.grace)
            self.running[self.executor.submit(order)] = standing
            standing.phase = JobPhase.QUEUED
        return changed

    def _look_elsewhere(self) -> bool:
        """Update jobs that another process ran: done, to be run here, or stuck."""
        changed = False
        for standing in self.graph.in_phase(JobPhase.ELSEWHERE):
            key = standing.job.key
            if not self.store.held(key):
                changed = True
                if self.store.at_hand(key):
                    self._finish(standing, JobPhase.FOUND)
                else:
                    standing.phase = JobPhase.WAITING
            elif self._silent(key):
                changed = True
                self.graph.fail(standing, _stuck(self.store, key))
        return changed

    def _silent(self, key: str) -> bool:
        """Whether a job that another run holds has written nothing for too long."""
        log, now = self.store.log(key), time.monotonic()
        size = log.stat().st_size if log.exists() else 0
        known, since = self.logged.get(key, (-1, now))
        if size != known:
            self.logged[key] = (size, now)
        return size == known and now - since > SILENT

    def _note_begun(self) -> bool:
        changed = False
        for standing in self.graph.in_phase(JobPhase.QUEUED):
            trace = self.store.trace(standing.job.key)
            if trace is not None and trace.run == self.run:
                standing.phase, standing.began = JobPhase.RUNNING, time.monotonic()
                changed = True
        return changed

    def _settle(self, standing: JobStatus, ending: AttemptResult) -> None:
        key = standing.job.key
        if ending.code == HELD:
            standing.phase, standing.began = JobPhase.ELSEWHERE, time.monotonic()
        elif ending.code not in (DONE, FOUND):
            self.graph.fail(standing, _why(ending), ending.code)
        elif self.store.expect(key):
            self._finish(standing, JobPhase.DONE if ending.code == DONE else JobPhase.FOUND)
        else:
            self.graph.fail(
                standing,
                f"published, but {self.store.folder / key} is not visible on this machine",
            )
        standing.log = self.store.log(key)

    def _finish(self, standing: JobStatus, phase: JobPhase) -> None:
        standing.phase = phase
        standing.seconds = _seconds(self.store, standing.job.key)
        standing.log = self.store.log(standing.job.key)


def _stuck(store: ResultStore, key: str) -> str:
    """Return why a job that another run holds is not waited for any longer."""
    trace = store.trace(key)
    holder = f"process {trace.pid} on {trace.machine}" if trace else "a process of another run"
    hours = f"{SILENT / 3600:g} h"
    return f"{holder} holds it and has logged nothing for {hours}; end it and run the plan again"


def _why(ending: AttemptResult) -> str:
    """Return why an attempt failed, in one line."""
    if ending.code == STOPPED:
        return "it was stopped by another process"
    if ending.code < 0:
        memory = ", as the system does when memory runs out" if ending.code == -KILLED else ""
        said = f": {ending.reason}" if ending.reason else ""
        return f"its process was killed by signal {-ending.code}{memory}{said}"
    return ending.reason or f"its process ended with exit code {ending.code}"
