"""Runs jobs in the order of their needs; what is done stays done, what fails costs its dependents.

store = Store("out/jobs")
report = run_jobs(jobs, store, parse_executor("local:2"), on_change=JobTable())
report.raise_if_failed()
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from gansynth.benchmark.jobs.attempt import DONE, FOUND, GRACE, HELD, STOPPED, Ending, Order
from gansynth.benchmark.jobs.executor import Executor
from gansynth.benchmark.jobs.job import Job, in_order
from gansynth.benchmark.jobs.store import Store
from gansynth.runtime.child import FAULT
from gansynth.runtime.errors import GansynthError, TrainingFault
from gansynth.runtime.signals import Interrupted, stop_request

POLL = 0.25
"""Seconds between two looks at what happens outside."""
TICK = 1.0
"""Seconds after which whoever watches is told, though nothing has changed."""
AHEAD = 8
"""Queued jobs beyond the executor's slots that are looked at for having begun."""


class Phase(Enum):
    """Where a job stands."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    ELSEWHERE = "run by another process"
    DONE = "done"
    FOUND = "was done"
    NOT_NEEDED = "not needed"
    FAILED = "failed"
    SKIPPED = "skipped"


ENDED = (Phase.DONE, Phase.FOUND, Phase.NOT_NEEDED, Phase.FAILED, Phase.SKIPPED)
FINE = (Phase.DONE, Phase.FOUND, Phase.NOT_NEEDED)


@dataclass
class Standing:
    """Where a job stands, and since when."""

    job: Job
    phase: Phase
    log: Path
    began: float = 0.0
    seconds: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Progress:
    """What whoever watches is told."""

    standings: Sequence[Standing]
    slots: int


@dataclass(frozen=True)
class Report:
    """How a run of the graph ended."""

    standings: tuple[Standing, ...]
    seconds: float

    def of(self, *phases: Phase) -> list[Standing]:
        """Those in some phases."""
        return [standing for standing in self.standings if standing.phase in phases]

    @property
    def ok(self) -> bool:
        """Whether every result that is needed is there."""
        return all(standing.phase in FINE for standing in self.standings)

    def lines(self) -> list[str]:
        """For people: counts, then each failure with its last line and its log."""
        counts = ", ".join(
            f"{len(found)} {phase.value}" for phase in Phase if (found := self.of(phase))
        )
        failures = [
            f"failed: {failed.job.title}: {failed.why}; log: {failed.log}"
            for failed in self.of(Phase.FAILED)
        ]
        count = len(self.standings)
        return [f"{count} job{'s' * (count != 1)}: {counts}", *failures]

    def raise_if_failed(self) -> None:
        """Turn failures into this process's own error.

        Raises:
            TrainingFault: if a job failed; those that did not are done and stay so.
        """
        failed = self.of(Phase.FAILED)
        if failed:
            raise TrainingFault(
                f"{len(failed)} of {len(self.standings)} jobs failed; the first: "
                f"{failed[0].job.title}: {failed[0].why}; log: {failed[0].log}. The others' "
                "results are kept; run it again to try these again"
            )


def run_jobs(
    jobs: Iterable[Job],
    store: Store,
    executor: Executor,
    *,
    on_change: Callable[[Progress], None] = lambda progress: None,
    grace: float = GRACE,
) -> Report:
    """Compute what is not done yet, and nothing else.

    A job that nobody needs any more, all its dependents being done, is not computed. Jobs that
    another run is computing are waited for.

    Args:
        jobs: in the order of preference.
        on_change: told of every change, and every second.
        grace: seconds for jobs to stop when this process is told to.

    Raises:
        UsageFault: keys or needs that do not fit together; nothing was run then.
        EnvironmentFault: what the executor needs is not there, or no longer.
        Interrupted: after SIGINT or SIGTERM, when all jobs have been stopped.
    """
    asked = list(jobs)
    graph = _Graph(asked, in_order(asked, store.folder), store)
    with ExitStack() as stack:
        stack.callback(executor.close)
        if graph.unfinished():
            executor.open(store.folder)  # may change how signals are handled, hence before the next
        stop = stack.enter_context(stop_request())
        stack.enter_context(stop.deferred())
        runner = _Runner(graph, store, executor, grace, on_change)
        try:
            while runner.step() and not stop():
                pass
        except GansynthError:  # the executor's: nothing can be started any more
            executor.cancel()
            raise
        if stop():
            executor.cancel()
            raise Interrupted(stop.number)
    return graph.report()


class _Graph:
    """Standings, and how one job's end changes those of others."""

    def __init__(self, asked: Sequence[Job], ordered: Sequence[Job], store: Store) -> None:
        self._began = time.monotonic()
        self._dependents: dict[str, list[str]] = {job.key: [] for job in asked}
        for job in asked:
            for need in set(job.needs):
                self._dependents[need].append(job.key)
        phases: dict[str, Phase] = {}
        for job in reversed(ordered):
            phases[job.key] = _first_phase(
                job, store, [phases[key] for key in self._dependents[job.key]]
            )
        self.standings = {
            job.key: Standing(job, phases[job.key], store.log(job.key)) for job in asked
        }
        for standing in self.in_phase(Phase.FOUND):
            standing.seconds = _seconds(store, standing.job.key)

    def in_phase(self, *phases: Phase) -> list[Standing]:
        return [standing for standing in self.standings.values() if standing.phase in phases]

    def unfinished(self) -> list[Standing]:
        return [standing for standing in self.standings.values() if standing.phase not in ENDED]

    def ready(self) -> list[Standing]:
        return [
            standing
            for standing in self.in_phase(Phase.WAITING)
            if all(self.standings[need].phase in FINE for need in standing.job.needs)
        ]

    def fail(self, standing: Standing, why: str) -> None:
        """A job failed: all that need it, directly or not, are skipped."""
        standing.phase, standing.why = Phase.FAILED, why
        reason = f"needs {standing.job.title}, which failed: {why}"
        waiting = list(self._dependents[standing.job.key])
        while waiting:
            key = waiting.pop()
            if self.standings[key].phase is Phase.WAITING:
                self.standings[key].phase, self.standings[key].why = Phase.SKIPPED, reason
                waiting += self._dependents[key]

    def report(self) -> Report:
        return Report(tuple(self.standings.values()), time.monotonic() - self._began)


def _first_phase(job: Job, store: Store, dependents: Sequence[Phase]) -> Phase:
    if store.at_hand(job.key):
        return Phase.FOUND
    needed = not dependents or Phase.WAITING in dependents
    return Phase.WAITING if needed else Phase.NOT_NEEDED


def _seconds(store: Store, key: str) -> float | None:
    found = store.result(key).get("seconds")
    return float(found) if isinstance(found, int | float) else None


@dataclass
class _Runner:
    """Moves jobs from the graph to the executor and back."""

    graph: _Graph
    store: Store
    executor: Executor
    grace: float
    on_change: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self.run = uuid.uuid4().hex
        self.told = -TICK

    def step(self) -> bool:
        """Submit what is ready, wait a little, and take note; False when there is nothing left."""
        changed = self._look_elsewhere() or self._submit()
        if self.graph.in_phase(Phase.QUEUED, Phase.RUNNING):
            for ending in self.executor.wait(POLL):
                self._settle(ending)
                changed = True
        elif self.graph.in_phase(Phase.ELSEWHERE):
            time.sleep(POLL)
        changed = self._note_begun() or changed
        left = bool(self.graph.unfinished())
        now = time.monotonic()
        if changed or not left or now - self.told >= TICK:
            self.told = now
            self.on_change(Progress(list(self.graph.standings.values()), self.executor.slots))
        return left

    def _submit(self) -> bool:
        """Hand jobs to the executor."""
        count = len(self.graph.in_phase(Phase.QUEUED, Phase.RUNNING))
        changed = False
        for standing in self.graph.ready():
            if count >= self.executor.slots and not self.executor.queues:
                break
            changed = True
            if self.store.held(standing.job.key):
                standing.phase, standing.began = Phase.ELSEWHERE, time.monotonic()
                continue
            order = Order(standing.job, self.store.folder, Path.cwd(), self.run, self.grace)
            self.executor.submit(order)
            standing.phase, count = Phase.QUEUED, count + 1
        return changed

    def _look_elsewhere(self) -> bool:
        """What becomes of jobs that another process runs: done by it, or ours to try."""
        changed = False
        for standing in self.graph.in_phase(Phase.ELSEWHERE):
            key = standing.job.key
            if not self.store.held(key):
                changed = True
                if self.store.at_hand(key):
                    self._finish(standing, Phase.FOUND)
                else:
                    standing.phase = Phase.WAITING
        return changed

    def _note_begun(self) -> bool:
        """Which of the queued jobs have begun."""
        changed = False
        for standing in self.graph.in_phase(Phase.QUEUED)[: self.executor.slots * 2 + AHEAD]:
            trace = self.store.trace(standing.job.key)
            if trace is not None and trace.run == self.run:
                standing.phase, standing.began = Phase.RUNNING, time.monotonic()
                changed = True
        return changed

    def _settle(self, ending: Ending) -> None:
        standing = self.graph.standings[ending.key]
        if ending.code == HELD:
            standing.phase, standing.began = Phase.ELSEWHERE, time.monotonic()
        elif ending.code not in (DONE, FOUND):
            self.graph.fail(standing, _why(ending))
        elif self.store.expect(ending.key):
            self._finish(standing, Phase.DONE if ending.code == DONE else Phase.FOUND)
        else:
            self.graph.fail(
                standing,
                f"published, but {self.store.folder / ending.key} does not show up on this machine",
            )
        standing.log = self.store.log(ending.key)

    def _finish(self, standing: Standing, phase: Phase) -> None:
        standing.phase = phase
        standing.seconds = _seconds(self.store, standing.job.key)
        standing.log = self.store.log(standing.job.key)


def _why(ending: Ending) -> str:
    """Why an attempt did not end well, in one line."""
    words = ending.words.removeprefix(FAULT).strip()
    if ending.code == STOPPED:
        return "it was told to stop, by someone else"
    if ending.code < 0:
        words = f"its process was killed by signal {-ending.code}. {words}".strip()
    return words or f"its process ended with exit code {ending.code}"
