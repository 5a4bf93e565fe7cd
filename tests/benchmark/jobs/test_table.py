import io
from pathlib import Path

import pytest
from rich.console import Console

from gansynth.runtime.signals import Interrupted
from gansynth_benchmark.jobs.graph import GraphProgress, JobPhase, JobStatus
from gansynth_benchmark.jobs.store import JobSpec
from gansynth_benchmark.jobs.table import JobTable, picture, remaining
from tests.terminals import Clock, Terminal

LOG = Path("none")


def standing(title: str, phase: JobPhase, group: str = "fit", **more) -> JobStatus:
    job = JobSpec("0" * 16 + title, title, group, "x:y")
    return JobStatus(job, phase, more.pop("log", LOG), **more)


def test_the_time_left_is_by_the_median_of_the_group():
    seconds = {"a": 9.0, "b": 10.0, "c": 99.0}
    done = [standing(name, JobPhase.DONE, seconds=took) for name, took in seconds.items()]
    left = [standing(name, JobPhase.WAITING) for name in "def"]
    assert [remaining(GraphProgress([*done, *left], slots), 0) for slots in (1, 2, 64)] == [
        30,
        15,
        10,
    ]


def test_the_time_left_counts_what_running_jobs_have_done_and_may_be_unknown():
    done = standing("done", JobPhase.DONE, seconds=100.0)
    running = standing("a", JobPhase.RUNNING, began=50.0)
    assert [remaining(GraphProgress([done, running], 1), now) for now in (80, 1000)] == [70, 0]
    other = standing("a", JobPhase.DONE, "train", seconds=5)
    assert remaining(GraphProgress([other, standing("b", JobPhase.WAITING)], 1), 0) is None


@pytest.mark.parametrize(
    ("phases", "quiet", "lines"),
    [
        (
            [JobPhase.WAITING, JobPhase.RUNNING, JobPhase.DONE],
            False,
            ["2 jobs: 1 done already, 1 to run", "fit: b: done in 0:05  (2/2 done)"],
        ),
        (
            [JobPhase.WAITING, JobPhase.SKIPPED],
            False,
            ["2 jobs: 1 done already, 1 to run", "fit: b: skipped: no  (1/2 done)"],
        ),
        ([JobPhase.RUNNING, JobPhase.FAILED], True, ["warning: fit: b: failed: no; log: none"]),
        ([JobPhase.RUNNING, JobPhase.DONE], True, []),
    ],
)
def test_a_line_says_what_is_done_and_what_is_left(phases, quiet, lines):
    stream = io.StringIO()
    done = standing("a", JobPhase.FOUND, seconds=61)
    with JobTable(stream, quiet=quiet) as table:
        for phase in phases:
            job = standing("b", phase, seconds=5 if phase is JobPhase.DONE else None, why="no")
            table(GraphProgress([done, job], 1))
    assert stream.getvalue().splitlines() == lines


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Interrupted(15),
            ["warning: stopped by a signal: 1 of 2 jobs done; the same command resumes from there"],
        ),
        (ValueError("else"), []),
    ],
)
def test_a_run_that_is_stopped_says_how_to_resume(quiet, error, said):
    stream = io.StringIO()
    jobs = [standing("a", JobPhase.DONE, seconds=1), standing("b", JobPhase.RUNNING)]

    def run() -> None:
        with JobTable(stream, quiet=quiet) as table:
            table(GraphProgress(jobs, 1))
            raise error

    with pytest.raises(type(error)):
        run()
    assert stream.getvalue().splitlines()[0 if quiet else 1 :] == said


def test_one_table_is_told_of_several_runs_of_jobs():
    stream = io.StringIO()
    with JobTable(stream) as table:
        for title in "ab":
            table(GraphProgress([standing(title, JobPhase.WAITING)], 1))
            table(GraphProgress([standing(title, JobPhase.DONE, seconds=5)], 1))
    assert stream.getvalue().splitlines() == [
        line
        for title in "ab"
        for line in ("1 jobs: 0 done already, 1 to run", f"fit: {title}: done in 0:05  (1/1 done)")
    ]


def test_a_long_silence_is_broken():
    stream, clock = io.StringIO(), Clock()
    running = [standing(name, JobPhase.RUNNING) for name in "abcd"]
    done = standing("done", JobPhase.DONE, seconds=300.0)
    with JobTable(stream, clock=clock) as table:
        for clock.now in (0.0, 30.0, 59.0, 60.0, 61.0):
            table(GraphProgress([*running, done], 4))
    assert stream.getvalue().splitlines()[1:] == [
        "1/5 done, 4 running, ETA 4:00: a 1:00, b 1:00, c 1:00 and 1 more"
    ]


def test_groups_are_counted_and_running_jobs_show_the_last_line_of_their_logs(tmp_path):
    (tmp_path / "log").write_text("step 1\nstep 60/400\rstep 120/400  loss 0.3\r\n \n")
    standings = [
        standing("a", JobPhase.DONE, seconds=60),
        standing("b", JobPhase.RUNNING, began=10.0, log=tmp_path / "log"),
        standing("c", JobPhase.FAILED, "train"),
        standing("g", JobPhase.DONE, "train", seconds=100.0),
        standing("d", JobPhase.SKIPPED, "train"),
        standing("e", JobPhase.QUEUED, "train"),
        standing("f", JobPhase.ELSEWHERE, "train", began=40.0),
    ]
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(picture(GraphProgress(standings, 1), now=45.0, elapsed=45.0))
    assert [" ".join(line.split()) for line in capture.get().splitlines()] == [
        "done running waiting failed skipped each",
        "fit 1/2 1 0 0 0 1:00",
        "train 1/5 1 1 1 1 1:40",
        "all 2/7 2 1 1 1",
        "elapsed 0:45 ETA 3:40",
        "b 0:35 step 120/400 loss 0.3",
        "f 0:05 by another run",
    ]


def test_failures_stay_above_the_table():
    stream = Terminal()
    with JobTable(stream) as table:
        table(GraphProgress([standing("a", JobPhase.RUNNING)], 1))
        table(GraphProgress([standing("a", JobPhase.FAILED, why="no such case")], 1))
    assert "warning: fit: a: failed: no such case; log: none" in stream.getvalue()
    assert "elapsed" in stream.getvalue()
