"""Run jobs in the order of their dependencies; dependents of a failed job are skipped."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.benchmark.jobs.attempt import (
    DONE,
    FOUND,
    GRACE,
    HELD,
    STOPPED,
    AttemptResult,
    AttemptSpec,
)
from gansynth.benchmark.jobs.job import JobSpec, in_order
from gansynth.benchmark.jobs.store import ResultStore
from gansynth.runtime.child import FAULT
from gansynth.runtime.errors import GansynthError, TrainingFault
from gansynth.runtime.signals import Interrupted, stop_request

if TYPE_CHECKING:
    from gansynth.benchmark.jobs.executor import Executor

POLL = 0.25  # seconds between two checks of jobs run by other processes
TICK = 1.0  # seconds between progress reports without a change
AHEAD = 8  # queued jobs beyond the executor's slots that are checked for having begun


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
    seconds: float

    def of(self, *phases: JobPhase) -> list[JobStatus]:
        """Return the jobs in the given phases."""
        return [standing for standing in self.standings if standing.phase in phases]

    @property
    def ok(self) -> bool:
        """Whether every needed result exists."""
        return all(standing.phase in FINE for standing in self.standings)

    def lines(self) -> list[str]:
        """Return readable lines: counts, then each failure with its last line and its log."""
        counts = ", ".join(
            f"{len(group)} {phase.value}" for phase in JobPhase if (group := self.of(phase))
        )
        failures = [
            f"failed: {failed.job.title}: {failed.why}; log: {failed.log}"
            for failed in self.of(JobPhase.FAILED)
        ]
        count = len(self.standings)
        return [f"{count} job{'s' * (count != 1)}: {counts}", *failures]

    def raise_if_failed(self) -> None:
        """Raise an error if a job failed."""
        failed = self.of(JobPhase.FAILED)
        if failed:
            raise TrainingFault(
                f"{len(failed)} of {len(self.standings)} jobs failed; the first: "
                f"{failed[0].job.title}: {failed[0].why}; log: {failed[0].log}. Results of the "
                "other jobs are kept; run the command again to retry the failed ones"
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
        UsageFault: keys or needs are inconsistent; nothing was run.
        EnvironmentFault: a requirement of the executor is missing.
        Interrupted: after SIGINT or SIGTERM, when all jobs have been stopped.
    """
    listed = list(jobs)
    graph = _JobGraph(listed, in_order(listed, store.folder), store)
    with ExitStack() as stack:
        stack.callback(executor.close)
        if graph.unfinished():
            executor.open(store.folder)  # may change signal handlers, hence before stop_request
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

    def __init__(
        self, jobs: Sequence[JobSpec], ordered: Sequence[JobSpec], store: ResultStore
    ) -> None:
        self._began = time.monotonic()
        self._dependents: dict[str, list[str]] = {job.key: [] for job in jobs}
        for job in jobs:
            for need in set(job.needs):
                self._dependents[need].append(job.key)
        phases: dict[str, JobPhase] = {}
        for job in reversed(ordered):
            phases[job.key] = _first_phase(
                job, store, [phases[key] for key in self._dependents[job.key]]
            )
        self.standings = {
            job.key: JobStatus(job, phases[job.key], store.log(job.key)) for job in jobs
        }
        for standing in self.in_phase(JobPhase.FOUND):
            standing.seconds = _seconds(store, standing.job.key)

    def in_phase(self, *phases: JobPhase) -> list[JobStatus]:
        return [standing for standing in self.standings.values() if standing.phase in phases]

    def unfinished(self) -> list[JobStatus]:
        return [standing for standing in self.standings.values() if standing.phase not in ENDED]

    def ready(self) -> list[JobStatus]:
        return [
            standing
            for standing in self.in_phase(JobPhase.WAITING)
            if all(self.standings[need].phase in FINE for need in standing.job.needs)
        ]

    def fail(self, standing: JobStatus, why: str, code: int | None = None) -> None:
        """Mark a job as failed, and skip its direct and indirect dependents."""
        standing.phase, standing.why, standing.code = JobPhase.FAILED, why, code
        reason = f"needs {standing.job.title}, which failed: {why}"
        waiting = list(self._dependents[standing.job.key])
        while waiting:
            key = waiting.pop()
            if self.standings[key].phase is JobPhase.WAITING:
                skipped = self.standings[key]
                skipped.phase, skipped.why, skipped.code = JobPhase.SKIPPED, reason, code
                waiting += self._dependents[key]

    def report(self) -> GraphReport:
        return GraphReport(tuple(self.standings.values()), time.monotonic() - self._began)


def _first_phase(job: JobSpec, store: ResultStore, dependents: Sequence[JobPhase]) -> JobPhase:
    if store.at_hand(job.key):
        return JobPhase.FOUND
    needed = not dependents or JobPhase.WAITING in dependents
    return JobPhase.WAITING if needed else JobPhase.NOT_NEEDED


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

    def __post_init__(self) -> None:
        self.run = uuid.uuid4().hex
        self.reported = -TICK

    def step(self) -> bool:
        """Submit ready jobs, wait briefly, update states; False when no job is left."""
        changed = self._look_elsewhere() or self._submit()
        if self.graph.in_phase(JobPhase.QUEUED, JobPhase.RUNNING):
            for ending in self.executor.wait(POLL):
                self._settle(ending)
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
        """Submit ready jobs to the executor."""
        count = len(self.graph.in_phase(JobPhase.QUEUED, JobPhase.RUNNING))
        changed = False
        for standing in self.graph.ready():
            if count >= self.executor.slots and not self.executor.queues:
                break
            changed = True
            if self.store.held(standing.job.key):
                standing.phase, standing.began = JobPhase.ELSEWHERE, time.monotonic()
                continue
            order = AttemptSpec(standing.job, self.store.folder, Path.cwd(), self.run, self.grace)
            self.executor.submit(order)
            standing.phase, count = JobPhase.QUEUED, count + 1
        return changed

    def _look_elsewhere(self) -> bool:
        """Update jobs that another process ran: done, or to be run here."""
        changed = False
        for standing in self.graph.in_phase(JobPhase.ELSEWHERE):
            key = standing.job.key
            if not self.store.held(key):
                changed = True
                if self.store.at_hand(key):
                    self._finish(standing, JobPhase.FOUND)
                else:
                    standing.phase = JobPhase.WAITING
        return changed

    def _note_begun(self) -> bool:
        """Mark queued jobs that have begun as running."""
        changed = False
        for standing in self.graph.in_phase(JobPhase.QUEUED)[: self.executor.slots * 2 + AHEAD]:
            trace = self.store.trace(standing.job.key)
            if trace is not None and trace.run == self.run:
                standing.phase, standing.began = JobPhase.RUNNING, time.monotonic()
                changed = True
        return changed

    def _settle(self, ending: AttemptResult) -> None:
        standing = self.graph.standings[ending.key]
        if ending.code == HELD:
            standing.phase, standing.began = JobPhase.ELSEWHERE, time.monotonic()
        elif ending.code not in (DONE, FOUND):
            self.graph.fail(standing, _why(ending), ending.code)
        elif self.store.expect(ending.key):
            self._finish(standing, JobPhase.DONE if ending.code == DONE else JobPhase.FOUND)
        else:
            self.graph.fail(
                standing,
                f"published, but {self.store.folder / ending.key} is not visible on this machine",
            )
        standing.log = self.store.log(ending.key)

    def _finish(self, standing: JobStatus, phase: JobPhase) -> None:
        standing.phase = phase
        standing.seconds = _seconds(self.store, standing.job.key)
        standing.log = self.store.log(standing.job.key)


def _why(ending: AttemptResult) -> str:
    """Return why an attempt failed, in one line."""
    words = ending.words.removeprefix(FAULT).strip()
    if ending.code == STOPPED:
        return "it was stopped by another process"
    if ending.code < 0:
        words = f"its process was killed by signal {-ending.code}. {words}".strip()
    return words or f"its process ended with exit code {ending.code}"
