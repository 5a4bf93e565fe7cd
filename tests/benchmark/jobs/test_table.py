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
DONE, WAITING, RUNNING = JobPhase.DONE, JobPhase.WAITING, JobPhase.RUNNING


def standing(title: str, phase: JobPhase, group: str = "fit", **more) -> JobStatus:
    job = JobSpec("0" * 16 + title, title, group, "x:y")
    return JobStatus(job, phase, more.pop("log", LOG), **more)


THREE = [standing(str(took), DONE, seconds=took) for took in (9.0, 10.0, 99.0)]
LEFT = [standing(name, WAITING) for name in "def"]
BEGUN = [standing("done", DONE, seconds=100.0), standing("a", RUNNING, began=50.0)]


@pytest.mark.parametrize(
    ("standings", "slots", "now", "left"),
    [
        *(([*THREE, *LEFT], slots, 0, left) for slots, left in ((1, 30), (2, 15), (64, 10))),
        *((BEGUN, 1, now, left) for now, left in ((80, 70), (1000, 0))),
        ([standing("other", DONE, "train", seconds=5), *LEFT], 1, 0, None),
    ],
)
def test_the_time_left_is_by_the_median_of_the_group(standings, slots, now, left):
    assert remaining(GraphProgress(standings, slots), now) == left


@pytest.mark.parametrize(
    ("phase", "quiet", "lines"),
    [
        (DONE, False, ["fit: b: done in 0:05  (2/2 done)"]),
        (JobPhase.SKIPPED, False, ["fit: b: skipped: no  (1/2 done)"]),
        (JobPhase.FAILED, True, ["warning: fit: b: failed: no; log: none"]),
        (DONE, True, []),
    ],
)
def test_a_line_says_what_is_done_and_what_is_left(phase, quiet, lines):
    stream = io.StringIO()
    found = standing("a", JobPhase.FOUND, seconds=61)
    with JobTable(stream, quiet=quiet) as table:
        table(GraphProgress([found, standing("b", RUNNING)], 1))
        ended = standing("b", phase, seconds=5 if phase is DONE else None, why="no")
        table(GraphProgress([found, ended], 1))
        table(GraphProgress([standing("c", WAITING)], 1))  # what follows has a beginning, too
    begun = ["2 jobs: 1 done already, 1 to run"], ["1 jobs: 0 done already, 1 to run"]
    first, last = ([], []) if quiet else begun
    assert stream.getvalue().splitlines() == [*first, *lines, *last]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Interrupted(15),
            ["warning: stopped: 1 of 2 jobs done; type the same command again to resume"],
        ),
        (ValueError("else"), []),
    ],
)
def test_a_run_that_is_stopped_says_how_to_resume(error, said):
    stream = io.StringIO()
    jobs = [standing("a", DONE, seconds=1), standing("b", RUNNING)]
    with pytest.raises(type(error)), JobTable(stream, quiet=True) as table:  # noqa: PT012
        table(GraphProgress(jobs, 1))
        raise error
    assert stream.getvalue().splitlines() == said


def test_a_long_silence_is_broken():
    stream, clock = io.StringIO(), Clock()
    running = [standing(name, RUNNING) for name in "abcd"]
    done = standing("done", DONE, seconds=300.0)
    with JobTable(stream, clock=clock) as table:
        for clock.now in (0.0, 30.0, 59.0, 60.0, 61.0):
            table(GraphProgress([*running, done], 4))
    assert stream.getvalue().splitlines()[1:] == [
        "1/5 done, 4 running, ETA 4:00: a 1:00, b 1:00, c 1:00 and 1 more"
    ]


def test_groups_are_counted_and_running_jobs_show_the_last_line_of_their_logs(tmp_path):
    (tmp_path / "log").write_text("step 1\nstep 60/400\rstep 120/400  loss 0.3\r\n \n")
    standings = [
        standing("a", DONE, seconds=60),
        standing("b", RUNNING, began=10.0, log=tmp_path / "log"),
        standing("c", JobPhase.FAILED, "train"),
        standing("g", DONE, "train", seconds=100.0),
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
        table(GraphProgress([standing("a", RUNNING)], 1))
        table(GraphProgress([standing("a", JobPhase.FAILED, why="no such case")], 1))
    assert "warning: fit: a: failed: no such case; log: none" in stream.getvalue()
    assert "elapsed" in stream.getvalue()
