"""What is shown while jobs run."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from gansynth.benchmark.jobs.graph import Phase, Progress, Standing
from gansynth.benchmark.jobs.job import Job
from gansynth.benchmark.jobs.table import JobTable, last_line, picture, remaining
from gansynth.runtime.signals import Interrupted

LOG = Path("none")


def standing(title: str, phase: Phase, group: str = "fit", estimate=None, **more) -> Standing:
    job = Job("0" * 16 + title, title, group, ("x",), folder=Path(), estimate_s=estimate)
    return Standing(job, phase, more.pop("log", LOG), **more)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_remains_is_by_the_median_of_the_group():
    seconds = {"a": 9.0, "b": 10.0, "c": 99.0}
    done = [standing(name, Phase.DONE, seconds=took) for name, took in seconds.items()]
    left = [standing(name, Phase.WAITING, estimate=1000) for name in "def"]
    assert [remaining(Progress([*done, *left], slots), 0) for slots in (1, 2, 64)] == [30, 15, 10]


def test_what_remains_counts_what_running_ones_have_behind_them_and_may_be_unknown():
    running = standing("a", Phase.RUNNING, estimate=100, began=50.0)
    assert [remaining(Progress([running], 1), now) for now in (80, 1000)] == [70, 0]
    other = standing("a", Phase.DONE, "train", seconds=5)
    assert remaining(Progress([other, standing("b", Phase.WAITING)], 1), 0) is None


@pytest.mark.parametrize(
    ("phases", "quiet", "lines"),
    [
        (
            [Phase.WAITING, Phase.RUNNING, Phase.DONE],
            False,
            ["2 jobs: 1 done already, 1 to run", "fit: b: done in 0:05  (2/2 done)"],
        ),
        (
            [Phase.WAITING, Phase.SKIPPED],
            False,
            ["2 jobs: 1 done already, 1 to run", "fit: b: skipped: no  (1/2 done)"],
        ),
        ([Phase.RUNNING, Phase.FAILED], True, ["warning: fit: b: failed: no; log: none"]),
        ([Phase.RUNNING, Phase.DONE], True, []),
    ],
)
def test_a_line_says_what_is_done_and_what_is_left(phases, quiet, lines):
    stream = io.StringIO()
    done = standing("a", Phase.FOUND, seconds=61)
    with JobTable(stream, quiet=quiet) as table:
        for phase in phases:
            job = standing("b", phase, seconds=5 if phase is Phase.DONE else None, why="no")
            table(Progress([done, job], 1))
    assert stream.getvalue().splitlines() == lines


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Interrupted(15),
            ["warning: stopped by a signal: 1 of 2 jobs done; the same command goes on from there"],
        ),
        (ValueError("else"), []),
    ],
)
def test_who_stops_it_is_told_how_to_go_on_and_whatever_else_ends_it_says_so_itself(
    quiet, error, said
):
    stream = io.StringIO()
    jobs = [standing("a", Phase.DONE, seconds=1), standing("b", Phase.RUNNING)]

    def run() -> None:
        with JobTable(stream, quiet=quiet) as table:
            table(Progress(jobs, 1))
            raise error

    with pytest.raises(type(error)):
        run()
    assert stream.getvalue().splitlines()[0 if quiet else 1 :] == said


def test_one_table_is_told_of_several_runs_of_jobs():
    stream = io.StringIO()
    with JobTable(stream) as table:
        for title in "ab":
            table(Progress([standing(title, Phase.WAITING)], 1))
            table(Progress([standing(title, Phase.DONE, seconds=5)], 1))
    assert stream.getvalue().splitlines() == [
        line
        for title in "ab"
        for line in ("1 jobs: 0 done already, 1 to run", f"fit: {title}: done in 0:05  (1/1 done)")
    ]


def test_a_long_silence_is_broken():
    stream, clock = io.StringIO(), Clock()
    running = [standing(name, Phase.RUNNING, estimate=300) for name in "abcd"]
    with JobTable(stream, clock=clock) as table:
        for clock.now in (0.0, 30.0, 59.0, 60.0, 61.0):
            table(Progress(running, 4))
    assert stream.getvalue().splitlines()[1:] == [
        "0/4 done, 4 running, ETA 4:00: a 1:00, b 1:00, c 1:00 and 1 more"
    ]


def test_groups_are_counted_and_running_jobs_show_the_last_line_of_their_logs(tmp_path):
    (tmp_path / "log").write_text("step 1\nstep 120/400  loss 0.3\n\n")
    standings = [
        standing("a", Phase.DONE, seconds=60),
        standing("b", Phase.RUNNING, began=10.0, log=tmp_path / "log"),
        standing("c", Phase.FAILED, "train"),
        standing("d", Phase.SKIPPED, "train"),
        standing("e", Phase.QUEUED, "train", estimate=100),
        standing("f", Phase.ELSEWHERE, "train", began=40.0, estimate=100),
    ]
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(picture(Progress(standings, 1), now=45.0, elapsed=45.0))
    assert [" ".join(line.split()) for line in capture.get().splitlines()] == [
        "done running waiting failed skipped each",
        "fit 1/2 1 0 0 0 1:00",
        "train 0/4 1 1 1 1",
        "all 1/6 2 1 1 1",
        "elapsed 0:45 ETA 3:40",
        "b 0:35 step 120/400 loss 0.3",
        "f 0:05 by another run",
    ]


def test_failures_stay_above_the_table():
    stream = Terminal()
    with JobTable(stream) as table:
        table(Progress([standing("a", Phase.RUNNING, estimate=9)], 1))
        table(Progress([standing("a", Phase.FAILED, why="no such case")], 1))
    assert "warning: fit: a: failed: no such case; log: none" in stream.getvalue()
    assert "elapsed" in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "line"), [("", ""), ("one\n\ntwo\n \n", "two"), ("10 %\r50 %\r", "50 %")]
)
def test_the_last_line_of_a_log(tmp_path, text, line):
    (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == line
    assert last_line(LOG) == ""
