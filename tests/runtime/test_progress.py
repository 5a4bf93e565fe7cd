"""Progress and warnings: bars on a terminal, plain lines elsewhere, nothing of it on stdout."""

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest

from gansynth.runtime.progress import NullReporter, RichReporter, clock_text
from tests.terminals import Clock, Terminal

LOSSES = """
import sys
from gansynth.runtime.progress import RichReporter
losses = {"G": 0.4123, "D": 0.5199} | {f"loss{n}": n / 7 for n in range(20)}
with RichReporter().task(150, "fit", 53) as task:
    for step in range(22):
        task.advance(1, **losses)
"""


EPOCHS = """
from gansynth.runtime.progress import RichReporter
with RichReporter().task(1000, "epoch", 412.001) as task:
    task.advance(0.5, synthetic="50%", loss=-0.4312, Dice=0.6123)
"""


def screen_lines(code: str, columns: int) -> list[str]:
    """What a terminal of so many columns is sent, line by line, without colours."""
    parent, child = os.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=child, env={**environ, "TERM": "xterm"}
    ) as process:
        os.close(child)
        sent = b""
        with suppress(OSError):  # the other side is closed
            while chunk := os.read(parent, 4096):
                sent += chunk
        assert process.wait() == 0
    os.close(parent)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent.decode())
    return [line for line in re.split(r"[\r\n]+", plain) if line]


@pytest.mark.parametrize("columns", [80, 110, 140])
def test_bar_count_eta_and_two_losses_are_seen_at_every_width(columns):
    lines = screen_lines(LOSSES, columns)
    assert re.match(r"fit [━╸╺ ]+ 75/150 ETA [-:0-9]+ G 0\.412  D 0\.52  loss0 0 ", lines[-1])
    assert all(line.startswith("fit") and len(line) <= columns for line in lines)


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (80, " synthetic 50%  loss -0.431  Dice 0.612"),
        (66, " synthetic 50%  loss -0.431"),
        (52, " synthetic 50%"),
        (40, ""),
    ],
)
def test_a_value_without_room_is_left_out_whole_and_the_epoch_that_runs_is_named(columns, values):
    line = screen_lines(EPOCHS, columns)[-1]
    assert re.fullmatch(rf"epoch [━╸╺]+ 413/1000 ETA [-:0-9]+{values}", line.rstrip())
    assert len(line) <= columns


def test_part_of_a_unit_is_reported_after_ten_minutes_and_the_whole_one_as_usual():
    stream, clock = io.StringIO(), Clock()
    with RichReporter(stream, clock=clock).task(20, "epoch", 5.0) as task:
        for _ in range(100):
            clock.now += 9
            task.advance(0.01)
    assert [line[:13] for line in stream.getvalue().splitlines()] == [
        "epoch: 6/20 (",
        "epoch: 6/20 (",
    ]


def plain_lines(total: int, seconds_each: float) -> list[str]:
    """What a task of ``total`` steps of so many seconds writes without a terminal."""
    stream, clock = io.StringIO(), Clock()
    with RichReporter(stream, clock=clock).task(total, "fit") as task:
        for step in range(total):
            clock.now += seconds_each
            task.advance(loss=step / 4)
    return stream.getvalue().splitlines()


def test_plain_lines_have_share_elapsed_eta_and_values_and_the_last_no_eta():
    first, *_, last = plain_lines(4, 30.0)
    assert first == "fit: 1/4 (25%)  elapsed 0:30  ETA 1:30  loss 0"
    assert last == "fit: 4/4 (100%)  elapsed 2:00  loss 0.75"


def test_work_that_goes_on_counts_what_was_done_before_but_not_for_its_eta():
    stream, clock = io.StringIO(), Clock()
    with RichReporter(stream, clock=clock).task(150, "fit", 50) as task:
        clock.now += 100.0
        task.advance(25)
    assert stream.getvalue() == "fit: 75/150 (50%)  elapsed 1:40  ETA 5:00\n"


@pytest.mark.parametrize(
    ("total", "seconds", "lines"), [(1000, 1.0, 100), (200, 0.5, 20), (1000, 0.002, 2)]
)
def test_work_is_reported_every_ten_seconds_or_five_percent_once_a_second(total, seconds, lines):
    assert len(plain_lines(total, seconds)) == lines


def test_work_that_is_done_is_reported_once():
    stream = io.StringIO()
    with RichReporter(stream).task(2, "fit") as task:
        task.advance(2)
        task.advance(0)
    assert len(stream.getvalue().splitlines()) == 1


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
            reporter.say("in [between]")
        outer.advance(1, loss=0.5)
    reporter.say("after")
    shown = stream.getvalue()
    for words in ("in [between]\n", "outer [x]", "1/2", "loss 0.5", "inner", "\x1b["):
        assert words in shown
    assert shown.endswith("after\n")


def test_everything_goes_to_stderr(capsys):
    reporter = RichReporter()
    reporter.say("hello")
    reporter.warn("mind the gap")
    with reporter.task(1, "fit") as task:
        task.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hello\nwarning: mind the gap\nfit: 1/1")


@pytest.mark.parametrize("quiet", [True, None])
def test_a_quiet_reporter_keeps_warnings_only_and_the_null_one_nothing(capsys, quiet):
    stream = io.StringIO()
    reporter = NullReporter() if quiet is None else RichReporter(stream, quiet=True)
    reporter.say("hello")
    reporter.warn("mind the gap")
    with reporter.task(1, "fit") as task:
        task.advance(1, loss=0.5)
    assert stream.getvalue() == ("warning: mind the gap\n" if quiet else "")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")]
)
def test_seconds_are_shown_as_a_clock(seconds, text):
    assert clock_text(seconds) == text
