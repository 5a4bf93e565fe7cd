"""What is shown while jobs run."""

import io
from pathlib import Path

import pytest

from gansynth.benchmark.jobs.graph import Phase, Progress, Standing
from gansynth.benchmark.jobs.job import Job
from gansynth.benchmark.jobs.table import JobTable, last_line, picture, remaining
from gansynth.runtime.signals import Interrupted

LOG = Path("none")


def standing(title: str, phase: Phase, group: str = "fit", estimate=None, **more) -> Standing:
    job = Job("0" * 16 + title, title, group, ("x",), folder=Path(), estimate_s=estimate)
    return Standing(job, phase, more.pop("log", LOG), **more)


class Terminal(io.StringIO):
    """A terminal that keeps what is shown."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestRemaining:
    """Seconds that are left."""

    def test_is_by_the_median_of_the_group(self):
        done = [
            standing(name, Phase.DONE, seconds=s)
            for name, s in zip("abc", (9, 10, 99), strict=True)
        ]
        left = [standing(name, Phase.WAITING, estimate=1000) for name in "def"]
        assert remaining(Progress([*done, *left], 1), 0) == 30
        assert remaining(Progress([*done, *left], 2), 0) == 15
        assert remaining(Progress([*done, *left], 64), 0) == 10

    def test_counts_what_running_ones_have_behind_them(self):
        running = standing("a", Phase.RUNNING, estimate=100, began=50.0)
        assert remaining(Progress([running], 1), 80) == 70
        assert remaining(Progress([running], 1), 1000) == 0

    def test_is_unknown_without_a_measure_or_an_estimate(self):
        other = standing("a", Phase.DONE, "train", seconds=5)
        assert remaining(Progress([other, standing("b", Phase.WAITING)], 1), 0) is None


class TestPlain:
    """Without a terminal."""

    def told(self, *phases: Phase, quiet=False) -> list[str]:
        """Lines about one job that goes through some phases, beside one that is done."""
        stream = io.StringIO()
        done = standing("a", Phase.FOUND, seconds=61)
        with JobTable(stream, quiet=quiet) as table:
            for phase in phases:
                job = standing("b", phase, seconds=5 if phase is Phase.DONE else None, why="no")
                table(Progress([done, job], 1))
        return stream.getvalue().splitlines()

    def ended(self, error: BaseException, quiet: bool) -> str:
        """What is said when an error comes while one of two jobs is done."""
        stream = io.StringIO()
        jobs = [standing("a", Phase.DONE, seconds=1), standing("b", Phase.RUNNING)]

        def run() -> None:
            with JobTable(stream, quiet=quiet) as table:
                table(Progress(jobs, 1))
                raise error

        with pytest.raises(type(error)):
            run()
        return stream.getvalue()

    @pytest.mark.parametrize("quiet", [False, True])
    def test_who_stops_it_is_told_how_to_go_on(self, quiet):
        assert self.ended(Interrupted(15), quiet).splitlines()[-1] == (
            "warning: stopped by a signal: 1 of 2 jobs done; the same command goes on from there"
        )

    def test_whatever_else_ends_it_says_so_itself(self):
        assert self.ended(ValueError("else"), quiet=True) == ""

    def test_a_line_says_what_is_done_and_what_is_left(self):
        assert self.told(Phase.WAITING, Phase.RUNNING, Phase.DONE) == [
            "2 jobs: 1 done already, 1 to run",
            "fit: b: done in 0:05  (2/2 done)",
        ]

    def test_one_table_is_told_of_several_runs_of_jobs(self):
        stream = io.StringIO()
        with JobTable(stream) as table:
            for title in "ab":
                table(Progress([standing(title, Phase.WAITING)], 1))
                table(Progress([standing(title, Phase.DONE, seconds=5)], 1))
        assert stream.getvalue().splitlines() == [
            "1 jobs: 0 done already, 1 to run",
            "fit: a: done in 0:05  (1/1 done)",
            "1 jobs: 0 done already, 1 to run",
            "fit: b: done in 0:05  (1/1 done)",
        ]

    def test_a_failure_is_told_though_quiet(self):
        line = "warning: fit: b: failed: no; log: none"
        assert self.told(Phase.RUNNING, Phase.FAILED, quiet=True) == [line]
        assert self.told(Phase.RUNNING, Phase.DONE, quiet=True) == []

    def test_a_skipped_job_says_why(self):
        assert self.told(Phase.WAITING, Phase.SKIPPED)[1].startswith("fit: b: skipped: no  (")

    def test_a_long_silence_is_broken(self):
        stream, clock = io.StringIO(), Clock()
        running = [standing(name, Phase.RUNNING, estimate=300) for name in "abcd"]
        with JobTable(stream, clock=clock) as table:
            for clock.now in (0.0, 30.0, 59.0, 60.0, 61.0):
                table(Progress(running, 4))
        assert stream.getvalue().splitlines()[1:] == [
            "0/4 done, 4 running, ETA 4:00: a 1:00, b 1:00, c 1:00 and 1 more"
        ]


class TestLive:
    """On a terminal."""

    @pytest.fixture
    def shown(self, tmp_path) -> str:
        """The table with a job in every state, as text."""
        from rich.console import Console

        log = tmp_path / "log"
        log.write_text("step 1\nstep 120/400  loss 0.3\n\n")
        standings = [
            standing("a", Phase.DONE, seconds=60),
            standing("b", Phase.RUNNING, began=10.0, log=log),
            standing("c", Phase.FAILED, "train"),
            standing("d", Phase.SKIPPED, "train"),
            standing("e", Phase.QUEUED, "train", estimate=100),
            standing("f", Phase.ELSEWHERE, "train", began=40.0, estimate=100),
        ]
        console = Console(file=io.StringIO(), width=100)
        with console.capture() as capture:
            console.print(picture(Progress(standings, 1), now=45.0, elapsed=45.0))
        return capture.get()

    def test_groups_are_counted(self, shown):
        rows = [line.split() for line in shown.splitlines()]
        assert rows[0] == ["done", "running", "waiting", "failed", "skipped", "each"]
        assert rows[1] == ["fit", "1/2", "1", "0", "0", "0", "1:00"]
        assert rows[2] == ["train", "0/4", "1", "1", "1", "1"]
        assert rows[3] == ["all", "1/6", "2", "1", "1", "1"]
        assert rows[4] == ["elapsed", "0:45", "ETA", "3:40"]

    def test_running_jobs_show_the_last_line_of_their_logs(self, shown):
        rows = [line.strip().split(maxsplit=2) for line in shown.splitlines()[5:]]
        assert rows == [["b", "0:35", "step 120/400  loss 0.3"], ["f", "0:05", "by another run"]]

    def test_failures_stay_above_the_table(self):
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


def test_the_last_line_of_no_log():
    assert last_line(LOG) == ""
