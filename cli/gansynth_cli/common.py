"""Options that commands share (``--json``, ``--data`` and others), and helpers to print."""

from __future__ import annotations

import functools
import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gansynth.runtime.progress import for_terminal, from_here, rows_of
from gansynth_cli.help import complete_keys

if TYPE_CHECKING:
    from gansynth.core.requests.base import Request
    from gansynth.runtime.progress import Reporter

F = TypeVar("F", bound=Callable[..., Any])
WIDTH = 80  # characters of a line of a terminal
NARROW = 20  # least characters of a column that is wrapped
# Without permission to read one, click would say that its name is wrong.
FOLDER = click.Path(file_okay=False, readable=False, path_type=Path)
FILE = click.Path(dir_okay=False, readable=False, path_type=Path)


class Hint(str):
    """What to type next: a line for people, on stderr, and none with ``--quiet``."""


def then(
    *words: object,
    program: str = "gansynth",
    label: str = "next",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Hint:
    """Return the line of a command that can be pasted as it stands, which no other function makes.

    Args:
        words: of the command, without placeholders: where a value is not known, there is no line.
            Those of data, and of how they are read, are ``SourceRequest.words``.
        program: the first word.
        label: another than the usual one stands beside ``next``, for those whom it names.
        variables: of the environment, which it needs and another shell may lack.
    """
    named = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return Hint(" ".join([f"{label}:", *named, program, shlex.join(map(str, words))]))


@dataclass(frozen=True)
class Output:
    """Output of a command: data to stdout, everything else to stderr.

    ``request`` is what was asked of it, None of a command that is no request's; ``variables``: of
    the environment, which the same command needs again.
    """

    as_json: bool = False
    quiet: bool = False
    request: Request | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def reporter(self) -> Reporter:
        """Reporter of progress and warnings, on stderr."""
        from gansynth.runtime.progress import RichReporter

        return RichReporter(quiet=self.quiet)

    def result(self, document: Mapping[str, Any], lines: Iterable[str] = ()) -> None:
        """Print a command's result: the document with ``--json``, else the lines; hints last."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, default=str))
            return
        all_lines = list(lines)
        following = [line for line in all_lines if line.startswith("next: ")]
        if document.get("dry_run") is True and self.request is not None and not following:
            all_lines.append(self.again(without=idle_with(self.request, "dry_run")))
        for line in all_lines:
            if isinstance(line, Hint):
                self.reporter.say(line)
            else:
                click.echo(for_terminal(from_here(line), sys.stdout))

    def again(self, without: Iterable[str] = (), label: str = "next", **changes: object) -> Hint:
        """Return the same command as the next one, without some fields and with others changed."""
        assert self.request is not None, "a request's command"
        asked = self.request.replace(without=tuple(without), **changes)
        name, variables = click.get_current_context().info_name, self.variables
        return then(name, *asked.command_line[1:], label=label, variables=variables)


def idle_with(request: Request, field: str) -> list[str]:
    """Return a field, and those that have an effect only beside it."""
    needs = request.conditions().items()
    return [field, *(name for name, condition in needs if condition == field)]


PRINTING = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress; warnings stay."),
    # The group reads --debug itself, so that it also applies to earlier errors.
    click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of errors."),
)


def with_output(function: F) -> F:
    """Add ``--json``, ``--quiet`` and ``--debug``; the function gets an ``Output`` as ``out``."""

    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        return function(*args, out=Output(as_json, quiet), **kwargs)

    for option in reversed(PRINTING):
        option(wrapped)
    return wrapped  # type: ignore[return-value]


def reader_of_pairs(flag: str, example: str) -> Callable[..., dict[str, str]]:
    """Return the callback of a repeatable option of ``KEY=VALUE`` texts."""

    def read(
        context: click.Context, parameter: click.Parameter, values: Sequence[str]
    ) -> dict[str, str]:
        from gansynth.core.requests.base import as_texts

        try:
            return as_texts(values)
        except ValueError as error:
            raise click.BadParameter(f"{error}, e.g. {flag} {example}") from None

    return read


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    callback=reader_of_pairs("--set", "steps=2000"),
    help="Change one setting (gansynth options NAME lists them); may be repeated.",
    shell_complete=complete_keys,
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything and print the plan; write nothing."
)


def examples(*lines: str) -> str:
    """Return an epilog with commands to copy."""
    return "\n".join(["\b", "Examples:"] + [f"  {line}" for line in lines])


def table(rows: Iterable[Sequence[object]], most: int | None = None) -> list[str]:
    """Align rows as lines, with two blanks between columns.

    Args:
        most: characters of a line, by default a terminal's; elsewhere lines have any length. The
            last column is wrapped. If it has no room, columns for which there is none follow below,
            beside the first one again.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    terminal = shutil.get_terminal_size((0, 0)).columns
    most = most or (max(WIDTH, terminal) if terminal else None)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = math.inf if most is None else most - sum(widths[:-1]) - 2 * len(widths[:-1])
    if NARROW <= room < widths[-1]:
        cells = [line for row in cells for line in _wrapped(row, int(room))]
        widths[-1] = int(room)
    parts, taken = [[0]], widths[0]
    for number, width in enumerate(widths[1:], start=1):
        taken += 2 + width
        if most is not None and taken > most and len(parts[-1]) > 1:
            parts.append([0])
            taken = widths[0] + 2 + width
        parts[-1].append(number)
    lines = list[str]()
    for columns in parts:
        lines += [""] if lines else []
        for row in cells:
            padded = [row[n].ljust(widths[n]) for n in columns]
            lines.append("  ".join(padded).rstrip())
    return lines


def _wrapped(row: Sequence[str], room: int) -> Iterator[list[str]]:
    *first, last = row
    for line in rows_of(last, room) or [""]:
        yield [*first, line]
        first = [""] * len(first)


def summary(document: Mapping[str, Any]) -> list[str]:
    """Return a document as aligned lines; a nested key is ``outer.inner``."""
    return table((key, _shown(value)) for key, value in _flat(document))


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
        return str(len(value))  # records, which a line has no room for
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value)) or "-"
    return "-" if value is None or value == {} else str(value)
