import io
import re
import threading
from typing import Any

import pytest

from gansynth.runtime import progress
from gansynth.runtime.progress import NullReporter, RichReporter, alive, clock_text, from_here
from gansynth_cli.common import table
from tests.processes import until
from tests.terminals import Clock, Terminal


@pytest.fixture
def screen(monkeypatch):
    """Lines without colours that a terminal of so many columns is sent by a task."""

    def lines(columns: int, total: int, title: str, done: float, steps: int, n: float, **values):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = Terminal()
        with RichReporter(stream).task(total, title, done) as task:
            for _ in range(steps):
                task.advance(n, **values)
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        return [line for line in re.split(r"[\r\n]+", plain) if line]

    return lines


@pytest.mark.parametrize("columns", [80, 140])
def test_bar_count_eta_and_two_losses_are_seen_at_every_width(screen, columns):
    losses = {"G": 0.4123, "D": 0.5199, **{f"loss{n}": n / 7 for n in range(20)}}
    lines = screen(columns, 150, "fit", 53, 22, 1, **losses)
    assert re.match(r"fit [━╸╺ ]+ 75/150 ETA [-:0-9]+ G 0\.412  D 0\.52  loss0 0 ", lines[-1])
    assert all(line.startswith("fit") and len(line) <= columns for line in lines)


@pytest.mark.parametrize(
    "command",
    [
        "gansynth splits nifti:scans -o 'my folds'",
        "gansynth augment pictures:ill --read labels=tumour:1,ignore:2 --dry-run",
        "nnUNet_raw=/data gansynth predict results IMAGES -o predicted",
        "pip install -e gansynth-blobs",
    ],
)
@pytest.mark.parametrize("end", ["", "; that is all there is", ", or leave it", " (see its help)"])
def test_a_terminal_cuts_no_word_and_a_command_is_never_broken(monkeypatch, command, end):
    monkeypatch.setenv("COLUMNS", "20")
    text, stream = f"error: no fold 7 there; take one: {command}{end}", Terminal()
    RichReporter(stream).say(text)
    shown = stream.getvalue().removesuffix("\n")
    assert shown.split() == text.split()
    assert command in shown  # in a row of its own, which a terminal continues
    assert "\n" not in shown
    assert [shown[n - 1] for n in (20, 40, shown.index(command))] == [" "] * 3
    assert shown.index(command) % 20 == 0
    assert [row for row in table([("hours", text)], most=30) if command in row]


def test_a_task_of_nothing_has_no_bar(screen):
    assert screen(80, 0, "fit", 0, 0, 1) == []


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (80, " synthetic 50%  loss -0.431  Dice 0.612"),
        (66, " synthetic 50%  loss -0.431"),
        (40, ""),
    ],
)
def test_a_value_without_room_is_left_out_whole_and_the_epoch_that_runs_is_named(
    screen, columns, values
):
    shown = {"synthetic": "50%", "loss": -0.4312, "Dice": 0.6123}
    line = screen(columns, 1000, "epoch", 412.001, 1, 0.5, **shown)[-1]
    assert re.fullmatch(rf"epoch [━╸╺]+ 413/1000 ETA [-:0-9]+{values}", line.rstrip())
    assert len(line) <= columns


def plain_lines(total: int, seconds: float, n: float = 1, done: float = 0, **values: Any) -> Any:
    """What a task writes without a terminal, whose steps of n units take so many seconds."""
    stream, clock = io.StringIO(), Clock()
    with RichReporter(stream, clock=clock).task(total, "fit", done) as task:
        for _ in range(round((total - done) / n)):
            clock.now += seconds
            task.advance(n, **values)
        task.advance(0)  # what is done is said once
    return stream.getvalue().splitlines()


def test_plain_lines_have_share_elapsed_eta_and_values_and_the_last_no_eta():
    first, *_, last = plain_lines(4, 30.0, loss=0.75)
    assert first == "fit: 1/4 (25%)  elapsed 0:30  ETA 1:30  loss 0.75"
    assert last == "fit: 4/4 (100%)  elapsed 2:00  loss 0.75"


@pytest.mark.parametrize(("told", "shown"), [("< 0:43", "  ETA < 0:43"), ("", "")])
def test_a_task_that_knows_its_end_tells_it_in_place_of_its_pace(told, shown):
    first = plain_lines(4, 30.0, ETA=told)[0]
    assert first == f"fit: 1/4 (25%)  elapsed 0:30{shown}"


@pytest.mark.parametrize(("told", "shown"), [("< 0:43", "ETA < 0:43"), ("", "ETA --:--")])
def test_so_does_a_bar(screen, told, shown):
    assert shown in screen(80, 4, "fit", 0, 1, 1, ETA=told)[-1]


def test_an_eta_shrinks_while_a_long_unit_lasts():
    stream, clock = io.StringIO(), Clock()
    with RichReporter(stream, clock=clock).task(6, "case") as task:
        for now, done in (60.0, 1), (100.0, 0):
            clock.now = now
            task.advance(done)
    first, second = stream.getvalue().splitlines()
    assert first.endswith("elapsed 1:00  ETA 5:00")
    assert second.endswith("elapsed 1:40  ETA 4:20")


class Written(io.StringIO):
    """A stream that tells of its first lines, two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = threading.Event()

    def flush(self) -> None:
        super().flush()
        if self.getvalue().count("\n") == 2:
            self.twice.set()


def test_the_innermost_work_says_that_it_goes_on_before_a_unit_of_it_is_done(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.01)
    stream = Written()
    reporter = RichReporter(stream)
    with reporter.task(3, "outer"), reporter.task(2, "inner"):
        assert stream.twice.wait(60)
    assert all(line.startswith("inner: 0/2 (0%)") for line in stream.getvalue().splitlines())


def test_work_that_goes_on_counts_what_was_done_before_but_not_for_its_eta():
    assert plain_lines(150, 100.0, 25, 50)[0] == "fit: 75/150 (50%)  elapsed 1:40  ETA 5:00"


@pytest.mark.parametrize(
    ("total", "seconds", "lines"),
    [(60, 0.1, 1), (60, 1.0, 6), (1000, 1.0, 32), (100_000, 1.0, 206)],
)
def test_lines_come_every_ten_seconds_and_ever_more_rarely(total, seconds, lines):
    assert len(plain_lines(total, seconds)) == lines


def test_part_of_a_unit_is_reported_after_ten_minutes_and_the_whole_one_as_usual():
    parts = plain_lines(6, 9, 0.01, done=5)
    assert [line[:10] for line in parts] == ["fit: 6/6 ("] * 2


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_respected(monkeypatch, no_color):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with RichReporter(stream).task(2, "fit") as task:
        task.advance(1)
    coloured = re.search(r"\x1b\[(\d+;)*(3\d|9\d|38;5;\d+)m", stream.getvalue())
    assert (coloured is None) == no_color


def test_tasks_nest_and_lines_are_written_between_bars(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    reporter = RichReporter(stream)
    with pytest.raises(ValueError, match="oh"), reporter.task(2, "fit"):
        raise ValueError("oh")  # and the bar is gone
    with reporter.task(2, "outer [x]") as outer:
        with reporter.task(1, "inner") as inner:
            inner.advance()
            reporter.say("in [between], nifti:hospital: 6")
        outer.advance(1, loss=0.5)
    reporter.say("after")
    shown = stream.getvalue()
    between = "in [between], nifti:hospital: 6\n"  # neither markup nor the name of a picture
    for words in (between, "outer [x]", "1/2", "loss 0.5", "inner", "\x1b["):
        assert words in shown
    assert shown.endswith("after\n")


@pytest.mark.parametrize(
    ("reporter", "err"),
    [
        (RichReporter(), "hello\nwarning: mind the gap\nfit: 1/1 (100%)  elapsed 0:00\n"),
        (RichReporter(quiet=True), "warning: mind the gap\n"),
        (NullReporter(), ""),
    ],
    ids=["all", "quiet", "none"],
)
def test_everything_goes_to_stderr_warnings_if_quiet_too(capsys, reporter, err):
    reporter.say("hello")
    for _ in range(2):  # a warning is written once
        reporter.warn("mind the gap")
    with reporter.task(1, "fit") as task:
        task.advance()
    assert capsys.readouterr() == ("", err)


def test_seconds_are_shown_as_a_clock():
    assert [clock_text(s) for s in (0, 59.6, 754, 3661)] == ["0:00", "1:00", "12:34", "1:01:01"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("report: HERE/a/b.html, HERE/c", "report: a/b.html, c"),
        ("fit --data nifti:HERE/scans -o 'HERE/my run'", "fit --data nifti:scans -o 'my run'"),
        ("HERE and HERE/", "HERE and HERE/"),
        ("HEREabouts/a and /mntHERE/a", "HEREabouts/a and /mntHERE/a"),
        ("export X=HERE/a Y='HERE/b c'", "export X=HERE/a Y='HERE/b c'"),
    ],
)
def test_paths_are_seen_from_the_current_folder_but_values_to_export(
    monkeypatch, tmp_path, text, shown
):
    monkeypatch.chdir(tmp_path)
    assert from_here(text.replace("HERE", str(tmp_path))) == shown.replace("HERE", str(tmp_path))


def test_where_nothing_is_written_for_a_while_a_line_says_that_work_goes_on(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.05)
    stream = io.StringIO()
    with alive(RichReporter(stream)):
        until(lambda: "working  elapsed 0:00" in stream.getvalue())


def test_a_task_that_counts_speaks_for_itself(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.05)
    stream = io.StringIO()
    reporter = RichReporter(stream)
    with alive(reporter), reporter.task(2, "fit") as task:
        until(lambda: "fit: 0/2" in stream.getvalue())
        assert "working" not in stream.getvalue()
        task.advance(2)
        until(lambda: "working" in stream.getvalue())  # what follows it within the task
