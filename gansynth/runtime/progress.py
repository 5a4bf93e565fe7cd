"""Progress reports of long work: messages, warnings, and progress with an ETA.

Everything here writes to stderr (data belongs on stdout). The package rich is imported only to show
a bar on a terminal; the protocol and ``NullReporter`` need nothing.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

_WORD = r"--[\w-]+ (?:'[^']*'|\S+)"
_TYPED = re.compile(f"{_WORD}(?: {_WORD})*")
_PROGRAM = r"(?:\w+=\S+ )*\b(?:gansynth [a-z]|pip install )"
_COMMAND = re.compile(rf"{_PROGRAM}[\w-]*(?: ?(?:'[^']*'|[^\s,;)']|[,;)](?!\s|$))+)*")
PLAIN_SECONDS = 10.0  # without a terminal a line is printed after this many seconds, ...
PLAIN_SHARE = 0.1  # ... later after this share of the time since the start, ...
PART_SECONDS = 600.0  # ... at most after these, also within a unit such as a long epoch


def from_here(text: str) -> str:
    """Return a text for people, with paths below the current folder as seen from there.

    A value that is assigned stays whole, since a variable is exported to be of use elsewhere.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return text
    begin = r"(?<![\w./=-])(?<!=['\"])"
    return re.sub(rf"{begin}{re.escape(here)}/(?=[^\s'\"])", "", text) if here != "/" else text


def for_terminal(text: str, stream: TextIO) -> str:
    """Return a line for people, of which a terminal cuts no word where its rows end.

    Blanks fill the rows, without new lines: a command in it can be copied and pasted. The next
    command stays as it is.
    """
    width = max(2, shutil.get_terminal_size().columns)
    if not stream.isatty() or len(text) <= width or text.startswith("next: "):
        return text
    rows = rows_of(text, width - 1)
    full = [row.ljust(width * (len(row) // width + 1)) for row in rows[:-1]]
    return "".join([*full, rows[-1]])


def rows_of(text: str, width: int) -> list[str]:
    """Return rows of whole words; a command stays in one row, and so do options and their values.

    A command that is wider than a row has one of its own, which the terminal breaks: a paste of it
    runs. It ends where its clause does.
    """
    held = text
    for whole in (_COMMAND, _TYPED):
        held = whole.sub(lambda typed: typed[0].replace(" ", "\0"), held)
    rows = textwrap.wrap(held, width, break_long_words=False, break_on_hyphens=False)
    return [row.replace("\0", " ") for row in rows]


def write_stderr(text: str) -> None:
    """Write a line to stderr; one that is closed or full must not end good work."""
    _LastingStream(sys.stderr).write(for_terminal(text, sys.stderr) + "\n")


class _LastingStream:
    """A stream that leads nowhere once it is full, or its terminal has been closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is buffered goes there, too
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class ProgressTask(Protocol):
    """One piece of work of known length."""

    def advance(self, n: float = 1, **values: object) -> None:
        """Report ``n`` more units, or parts, as done, and values to show (``loss=0.31``).

        A task that knows its end better than its pace tells gives it as ``ETA``, a text; an empty
        one if nothing is known.
        """


class Reporter(Protocol):
    """Receiver of progress reports; pass ``NullReporter()`` for silence."""

    def say(self, text: str) -> None:
        """Show the user one line."""

    def warn(self, text: str) -> None:
        """Show the user one line, even if quiet."""

    def task(self, total: int, title: str, done: float = 0) -> AbstractContextManager[ProgressTask]:
        """Open a task of ``total`` units, ``done`` of them finished before; leaving closes it."""


class NullReporter:
    """Reports nothing."""

    def say(self, text: str) -> None:
        """Drop the line."""

    def warn(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[ProgressTask]:
        """Yield a task that reports nothing."""
        yield _Silent()


class WarningLog:
    """Passes everything on to another reporter, and keeps the warnings."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.warnings = reporter, list[str]()
        self.say, self.task = reporter.say, reporter.task

    def warn(self, text: str) -> None:
        """Keep the line, and pass it on."""
        self.warnings.append(text)
        self.reporter.warn(text)


class RichReporter:
    """Progress bars on a terminal, plain lines with an ETA elsewhere.

    Args:
        stream: where to write; stderr (as it is at the time of writing) if None.
        quiet: warnings only.
        clock: seconds, monotonic; tests pass their own.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._quiet = quiet
        self._clock = clock
        self._bars: Progress | None = None
        self._plain: list[_Plain] = []  # open ones, the innermost last
        self._warned = set[str]()
        self._written_at = clock()

    def say(self, text: str) -> None:
        """Write a line, unless quiet."""
        if not self._quiet:
            self._write(text)

    def warn(self, text: str) -> None:
        """Write a line that starts with ``warning:``, quiet or not; the same one only once."""
        if text not in self._warned:
            self._warned.add(text)
            self._write(f"warning: {text}")

    @contextmanager
    def alive(self) -> Iterator[None]:
        """While the block runs, say so now and then where nothing else is written."""
        began = self._clock()

        def tell() -> None:
            now = self._clock()
            counting = self._bars is not None or (self._plain and self._plain[-1].runs)
            if not counting and now - self._written_at >= _pause(now - began):
                self._write(f"working  elapsed {clock_text(now - began)}")

        with nullcontext() if self._quiet else _repeated(PLAIN_SECONDS / 10, tell):
            yield

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[ProgressTask]:
        """Show a bar on a terminal, else a plain line now and then; nothing if quiet, or of 0.

        Of nested tasks the innermost also says that it is alive while no unit of it is done.
        """
        if self._quiet or not total:
            yield _Silent()
        elif self._target().isatty():
            with self._bar(total, title, done) as task:
                yield task
        else:
            task = _Plain(self._write, total, title, done, self._clock)
            self._plain.append(task)

            def tell() -> None:
                if self._plain[-1:] == [task]:  # else it has ended, or one within it has not
                    task.tell()

            real = self._clock is time.monotonic  # another one does not run by itself
            with _repeated(PLAIN_SECONDS / 10, tell) if real else nullcontext():
                try:
                    yield task
                finally:
                    self._plain.remove(task)

    @contextmanager
    def _bar(self, total: int, title: str, done: float) -> Iterator[ProgressTask]:
        # Tasks may nest; rich draws one live display at a time, so the outermost owns it.
        outermost = self._bars is None
        bars = self._bars or _new_bars(self._target())
        self._bars = bars
        if outermost:
            bars.start()
        row = bars.add_task(title, total=total, shown="", count="", eta=None)
        try:
            yield _Bar(bars, row, title, total, done)
        finally:
            bars.stop_task(row)
            if outermost:
                bars.stop()
                self._bars = None

    def _target(self) -> TextIO:
        return self._stream if self._stream is not None else sys.stderr

    def _write(self, text: str) -> None:
        self._written_at = self._clock()
        text = for_terminal(from_here(text), self._target())
        if self._bars is not None:
            self._bars.console.print(text, soft_wrap=True)
        elif self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()
        else:
            write_stderr(text)


def alive(reporter: Reporter) -> AbstractContextManager[None]:
    """Have a reporter of a terminal or a log say that work goes on while a block runs."""
    return reporter.alive() if isinstance(reporter, RichReporter) else nullcontext()


class _Silent:
    def advance(self, n: float = 1, **values: object) -> None:
        """Do nothing."""


class _Counted:
    """The units of a task (one may be partly done), and its newest values."""

    def __init__(self, title: str, total: int, done: float) -> None:
        self._title, self._total, self._done = title, total, done
        self._shown: dict[str, object] = {}
        self._eta: str | None = None  # None: of the pace so far

    def _add(self, n: float, values: dict[str, object]) -> None:
        self._done = round(self._done + n, 6)  # parts add up to whole units
        self._shown.update(values)
        if "ETA" in self._shown:
            self._eta = str(self._shown.pop("ETA"))

    @property
    def _count(self) -> str:
        return f"{math.ceil(self._done)}/{self._total}"


class _Bar(_Counted):
    def __init__(self, bars: Progress, row: Any, title: str, total: int, done: float) -> None:
        super().__init__(title, total, done)
        self._bars, self._row = bars, row
        self.advance(0)

    def advance(self, n: float = 1, **values: object) -> None:
        self._add(n, values)
        width = self._bars.console.width
        taken = min(len(self._title), TITLE) + len(self._count) + BESIDE + 9 * (width >= WIDE)
        shown = _values(self._shown, width - taken)
        fields: dict[str, Any] = {"count": self._count, "shown": shown, "eta": self._eta}
        self._bars.update(self._row, completed=self._done, **fields)


class _Plain(_Counted):
    def __init__(
        self,
        write: Callable[[str], None],
        total: int,
        title: str,
        done: float,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(title, total, done)
        self._write, self._clock = write, clock
        self._begun = self._last_time = self._moved_at = clock()
        self._before = self._last_done = done

    def advance(self, n: float = 1, **values: object) -> None:
        self._add(n, values)
        if n:
            self._moved_at = self._clock()
        moved = self._done - self._last_done
        if moved and self._done == self._total:
            self._say(self._clock())
        elif self._done == int(self._done):
            self.tell()
        elif self._clock() - self._last_time >= PART_SECONDS:
            self._say(self._clock())

    def tell(self) -> None:
        """Write a line if none was written for a while, unless all is done."""
        now = self._clock()
        if now - self._last_time >= _pause(now - self._begun) and self.runs:
            self._say(now)

    @property
    def runs(self) -> bool:
        """Whether units are left."""
        return self._done < self._total

    def _say(self, now: float) -> None:
        self._last_time, self._last_done = now, self._done
        self._write(self._line(now - self._begun))

    def _line(self, elapsed: float) -> str:
        share = self._done / max(1, self._total)
        parts = [f"{self._title}: {self._count} ({share:.0%})"]
        parts.append(f"elapsed {clock_text(elapsed)}")
        eta = self._by_pace(elapsed) if self._eta is None else self._eta
        if eta:
            parts.append(f"ETA {eta}")
        if self._shown:
            parts.append(_values(self._shown))
        return "  ".join(parts)

    def _by_pace(self, elapsed: float) -> str:
        moved = self._done - self._before
        if not moved:
            return ""
        # The unit in progress has taken its share of the time since the last one.
        taken = self._moved_at - self._begun
        pace = max(taken / moved, elapsed / (moved + 1))
        left = pace * (self._total - self._done) - (elapsed - taken)
        # Units may be uneven, and one last long after its time.
        return clock_text(left) if left >= 1 else ""


def _pause(elapsed: float) -> float:
    """Return after how many seconds a line is due."""
    return min(PART_SECONDS, max(PLAIN_SECONDS, PLAIN_SHARE * elapsed))


@contextmanager
def _repeated(seconds: float, work: Callable[[], object]) -> Iterator[None]:
    """Do something every so many seconds, in a thread, while the block runs."""
    ended = Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            work()

    Thread(target=repeat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def counting(
    reporter: Reporter, title: str, after: float = 0.0
) -> Iterator[Callable[[int, int], None]]:
    """Yield a ``progress(done, total)`` callback that drives a reporter's task.

    ``after`` so many seconds only: what mostly takes less says nothing.
    """
    with ExitStack() as stack:
        tasks: list[ProgressTask] = []
        before, begun = 0, time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal before
            if not tasks and time.monotonic() - begun < after:
                return
            if not tasks:
                before = done if after else 0
                tasks.append(stack.enter_context(reporter.task(total, title, before)))
            tasks[0].advance(done - before)
            before = done

        yield progress


@contextmanager
def stepping(reporter: Reporter) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a ``progress(step, done, total)`` callback with a task for each step."""
    with ExitStack() as stack:
        begun: dict[str, Callable[[int, int], None]] = {}

        def progress(step: str, done: int, total: int) -> None:
            if step not in begun:
                begun[step] = stack.enter_context(counting(reporter, step))
            begun[step](done, total)

        yield progress


def clock_text(seconds: float) -> str:
    """Format seconds as ``M:SS`` or ``H:MM:SS``."""
    whole = round(seconds)
    hours, seconds_left = divmod(whole, 3600)
    minutes, left = divmod(seconds_left, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def _values(values: dict[str, object], room: float = math.inf) -> str:
    """Return as many of the first values as fit; a number that is cut would be another one."""
    text = ""
    for name, value in values.items():
        item = f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        if len(text) + len(item) > room:
            break
        text += f"{item}  "
    return text.rstrip()


TITLE = 24  # most columns of a bar's title
BESIDE = 24  # columns of a bar's other parts: 8 of the bar itself, the ETA, spaces
WIDE = 100  # least columns of a terminal that also shows the time since the start


def _new_bars(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Remaining(TimeRemainingColumn):
        def render(self, task: Any) -> Text:
            eta = task.fields["eta"]
            return (
                super().render(task) if eta is None else Text(eta or "--:--", "progress.remaining")
            )

    # Essential columns keep their width; the bar gets the rest.
    lasting: Any = _LastingStream(stream)
    # All text is shown as it is: "nifti:hospital:" holds no picture of a hospital.
    console = Console(file=lasting, emoji=False, markup=False, highlight=False)
    elapsed = [TimeElapsedColumn(table_column=Column(no_wrap=True))]
    title = Column(no_wrap=True, max_width=TITLE, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=title),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn("ETA", style="progress.remaining", table_column=Column(no_wrap=True)),
        Remaining(table_column=Column(no_wrap=True), compact=True),
        TextColumn("{task.fields[shown]}", markup=False, table_column=Column(no_wrap=True)),
        *(elapsed if console.width >= WIDE else ()),
        console=console,
        expand=True,
        speed_estimate_period=PART_SECONDS,
    )
