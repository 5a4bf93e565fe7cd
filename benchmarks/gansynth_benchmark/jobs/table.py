"""Progress of a run of the graph: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from gansynth.runtime.progress import clock_text, from_here
from gansynth.runtime.signals import Interrupted
from gansynth_benchmark.jobs.graph import FINE, GraphProgress, JobPhase, JobStatus

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table

PLAIN_SECONDS = 60.0
"""Without a terminal, a line appears when a job ended, and after this many seconds."""
LISTED_JOBS = 12  # running jobs listed on a terminal; elsewhere three
TAIL = 4096  # bytes at the end of a log that are searched for its last line
UNDER_WAY = (JobPhase.RUNNING, JobPhase.ELSEWHERE)
TO_COME = (JobPhase.WAITING, JobPhase.QUEUED)


class JobTable:
    """Shows the progress of ``run_jobs`` on stderr; a context manager.

    One table can show several runs of jobs, one after the other.

    Args:
        stream: where to write; None for stderr at the time the table is opened.
        clock: seconds, monotonic; tests pass their own.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._quiet, self._clock = stream, quiet, clock
        self._live: Live | None = None
        self._console: Console | None = None
        self._began = self._written = clock()
        self._phases: dict[str, JobPhase] | None = None
        self._progress: GraphProgress | None = None

    def __enter__(self) -> Self:
        """Open the table if stderr is a terminal."""
        self._began = self._written = self._clock()
        stream = self._target()
        if not self._quiet and stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._console = Console(file=stream, emoji=False, markup=False, highlight=False)
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Leave the table as it is; after a signal print how to resume."""
        if self._live is not None:
            self._live.stop()
        self._live = self._console = None
        if isinstance(error, Interrupted):
            error.told = True
            standings = self._progress.standings if self._progress is not None else ()
            done = f"{_count(standings, *FINE)} of {len(standings)} jobs done"
            self._say(
                f"warning: stopped: {done}; {Interrupted.RESUME}",
                self._clock(),
            )

    def __call__(self, progress: GraphProgress) -> None:
        """Show the current state of all jobs."""
        now = self._clock()
        self._progress = progress
        self._tell_news(progress, now)
        if self._live is not None:
            self._live.update(picture(progress, now, now - self._began), refresh=True)
        elif not self._quiet and now - self._written >= PLAIN_SECONDS:
            self._say(_status(progress, now), now)

    def _tell_news(self, progress: GraphProgress, now: float) -> None:
        """Write a line for each job that ended since the last call."""
        before, self._phases = self._phases, {s.job.key: s.phase for s in progress.standings}
        if before is None or before.keys() != self._phases.keys():
            if not self._quiet and self._live is None:
                self._say(_beginning(progress), now)
            return
        for standing in progress.standings:
            if before[standing.job.key] is standing.phase:
                continue
            line = news(standing)
            if standing.phase is JobPhase.FAILED:
                self._say(f"warning: {line}", now)
            elif line and not self._quiet and self._live is None:
                self._say(f"{line}  ({_counts(progress, now)})", now)

    def _say(self, text: str, now: float) -> None:
        self._written, text = now, from_here(text)
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._target().write(text + "\n")
            self._target().flush()

    def _target(self) -> TextIO:
        return self._stream if self._stream is not None else sys.stderr


# -- in words --------------------------------------------------------------------------------------


def news(standing: JobStatus) -> str:
    """Return the outcome of a job in one line; empty while it waits or runs."""
    title = f"{standing.job.group}: {standing.job.title}"
    if standing.phase in (JobPhase.DONE, JobPhase.FOUND):
        took = "" if standing.seconds is None else f" in {clock_text(standing.seconds)}"
        return f"{title}: done{took}"
    if standing.phase is JobPhase.FAILED:
        return f"{title}: failed: {standing.why}; log: {standing.log}"
    return f"{title}: skipped: {standing.why}" if standing.phase is JobPhase.SKIPPED else ""


def last_line(log: Path) -> str:
    """Return the last line of a log; empty if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - TAIL))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return lines[-1] if lines else ""


def remaining(progress: GraphProgress, now: float) -> float | None:
    """Return seconds until all jobs are done; None if a job's time is unknown.

    A job's time is the median of finished jobs of its group. All slots are assumed to be busy,
    regardless of dependencies.
    """
    typical = _medians(progress.standings)
    left: list[float] = []
    for standing in progress.standings:
        if standing.phase not in (*UNDER_WAY, *TO_COME):
            continue
        takes = typical.get(standing.job.group)
        if takes is None:
            return None
        spent = now - standing.began if standing.phase in UNDER_WAY else 0.0
        left.append(max(0.0, takes - spent))
    return max(sum(left) / progress.slots, max(left)) if left else 0.0


def _medians(standings: Sequence[JobStatus]) -> Mapping[str, float]:
    seconds: dict[str, list[float]] = {}
    for standing in standings:
        if standing.seconds is not None:
            seconds.setdefault(standing.job.group, []).append(standing.seconds)
    return {group: statistics.median(values) for group, values in seconds.items()}


def _count(standings: Sequence[JobStatus], *phases: JobPhase) -> int:
    return sum(standing.phase in phases for standing in standings)


def _counts(progress: GraphProgress, now: float) -> str:
    standings, left = progress.standings, remaining(progress, now)
    words = [f"{_count(standings, *FINE)}/{len(standings)} done"]
    for phases, name in ((UNDER_WAY, "running"), ((JobPhase.FAILED,), "failed")):
        count = _count(standings, *phases)
        if count:
            words.append(f"{count} {name}")
    if left:
        words.append(f"ETA {clock_text(left)}")
    return ", ".join(words)


def _beginning(progress: GraphProgress) -> str:
    standings = progress.standings
    done = _count(standings, *FINE)
    return f"{len(standings)} jobs: {done} done already, {len(standings) - done} to run"


def _status(progress: GraphProgress, now: float) -> str:
    running = []
    for standing in progress.standings:
        if standing.phase in UNDER_WAY:
            by = ", by another run" if standing.phase is JobPhase.ELSEWHERE else ""
            running.append(f"{standing.job.title} {clock_text(now - standing.began)}{by}")
    suffix = f" and {len(running) - 3} more" if len(running) > 3 else ""
    return f"{_counts(progress, now)}: {', '.join(running[:3])}{suffix}"


# -- as a table ------------------------------------------------------------------------------------


def picture(progress: GraphProgress, now: float, elapsed: float) -> Group:
    """Return the table: a row for each group, then running jobs with their last log lines."""
    from rich.console import Group
    from rich.text import Text

    left = remaining(progress, now)
    eta = "unknown" if left is None else clock_text(left)
    return Group(
        _groups(progress, now),
        Text(f"elapsed {clock_text(elapsed)}   ETA {eta}"),
        _running(progress, now),
    )


def _groups(progress: GraphProgress, now: float) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("done", "running", "waiting", "failed", "skipped", "each"):
        table.add_column(name, justify="right")
    typical = _medians(progress.standings)
    for group, standings in _by_group(progress.standings):
        bad = "red" if _count(standings, JobPhase.FAILED) else ""
        each = typical.get(group)
        table.add_row(
            group,
            f"{_count(standings, *FINE)}/{len(standings)}",
            str(_count(standings, *UNDER_WAY)),
            str(_count(standings, *TO_COME)),
            str(_count(standings, JobPhase.FAILED)),
            str(_count(standings, JobPhase.SKIPPED)),
            "" if each is None else clock_text(each),
            style=bad,
        )
    return table


def _running(progress: GraphProgress, now: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    running = [s for s in progress.standings if s.phase in UNDER_WAY]
    for standing in running[:LISTED_JOBS]:
        line = last_line(standing.log)
        if standing.phase is JobPhase.ELSEWHERE:
            line = "by another run"
        took = clock_text(now - standing.began)
        table.add_row(Text(standing.job.title), took, Text(line))
    if len(running) > LISTED_JOBS:
        table.add_row(f"and {len(running) - LISTED_JOBS} more", "", "")
    return table


def _by_group(standings: Sequence[JobStatus]) -> Iterator[tuple[str, Sequence[JobStatus]]]:
    """Yield groups in the order of their first jobs, then all jobs if there are several groups."""
    groups: dict[str, list[JobStatus]] = {}
    for standing in standings:
        groups.setdefault(standing.job.group, []).append(standing)
    yield from groups.items()
    if len(groups) > 1:
        yield "all", standings
