"""Options that commands share (``--json``, ``--data`` and others), and helpers to print."""

from __future__ import annotations

import functools
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gansynth_cli.help import Complete, complete_keys, complete_names

if TYPE_CHECKING:
    from gansynth.core.sample_request import SampleRequest
    from gansynth.runtime.progress import Reporter

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


class Hint(str):
    """What to type next: a line for people, on stderr, and none with ``--quiet``."""


def then(*words: object) -> Hint:
    """Return the next command, to be copied."""
    return Hint(f"next: gansynth {shlex.join(map(str, words))}")


def again(read: Mapping[str, str] = MappingProxyType({}), **options: object) -> list[object]:
    """Return the options of how a data set is read, as they are typed."""
    pairs = [(f"--{name}", value) for name, value in options.items() if value]
    pairs += [("--read", f"{key}={value}") for key, value in read.items()]
    return [word for pair in pairs for word in pair]


AGAIN = Hint("next: the same command without --dry-run")


@dataclass(frozen=True)
class Output:
    """Output of a command: data to stdout, everything else to stderr."""

    as_json: bool = False
    quiet: bool = False

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
        for line in (*lines, *([AGAIN] if document.get("dry_run") is True else ())):
            if isinstance(line, Hint):
                self.reporter.say(line)
            else:
                click.echo(line)


def option_group(
    into: str, *options: Callable[[Any], Any], read: Callable[..., Any] = dict
) -> Callable[[F], F]:
    """Group options; their values reach the command as ``into=read(name=value, ...)``."""

    def add(function: F) -> F:
        names: list[str] = []

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            values = {name: kwargs.pop(name) for name in names}
            return function(*args, **{into: read(**values)}, **kwargs)

        declared: list[click.Parameter] = getattr(wrapped, "__click_params__", [])
        before = len(declared)
        for option in reversed(options):
            option(wrapped)
        added: list[click.Parameter] = wrapped.__click_params__[before:]  # type: ignore[attr-defined]
        names += [option.name for option in added if option.name and option.expose_value]
        return wrapped  # type: ignore[return-value]

    return add


with_output = option_group(
    "out",
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress; warnings stay."),
    # The group reads --debug itself, so that it also applies to earlier errors.
    click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of errors."),
    read=Output,
)
"""Add ``--json``, ``--quiet`` and ``--debug``; the function gets an ``Output`` as ``out``."""


def seed_option(help_text: str) -> Callable[[F], F]:
    """Return the option ``--seed``, 0 by default."""
    number = click.IntRange(min=0)
    return click.option("--seed", type=number, default=0, show_default=True, help=help_text)


executor_option = click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="WHERE",
    help="local[:N] for N jobs at once, or ray[:cpus=C,gpus=G]; see: gansynth help clusters.",
)
class_option = click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Samples of this class only; may be repeated.",
)
# Absolute, because a run remembers it and may be sampled from elsewhere.
root_option = click.option(
    "--root",
    callback=lambda context, parameter, folder: None if folder is None else os.path.abspath(folder),
    help="Folder with the framework's own folders, instead of its environment variables.",
)
subjects_option = click.option(
    "--subjects", help="CSV (case,subject) or regular expression with one group."
)


def pairs_option(
    option: str,
    name: str,
    example: str,
    help_text: str,
    metavar: str = "KEY=VALUE",
    complete: Complete | None = None,
) -> Callable[[F], F]:
    """Return a repeatable option of ``KEY=VALUE`` texts; the command gets a dictionary."""

    def read(
        context: click.Context, parameter: click.Parameter, values: Sequence[str]
    ) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for text in values:
            key, equals, value = text.partition("=")
            if not equals or not key.strip():
                message = f"{text!r}: expected KEY=VALUE, e.g. {option} {example}"
                raise click.BadParameter(message)
            if key.strip() in pairs:
                raise click.BadParameter(f"{key.strip()!r} is given twice")
            pairs[key.strip()] = value.strip()
        return pairs

    return click.option(
        *(option, name),
        multiple=True,
        metavar=metavar,
        callback=read,
        help=help_text,
        shell_complete=complete,
    )


synthetic_option = click.option(
    "--synthetic-source",
    metavar="RUN",
    help="Run or sample bank of synthetic cases; the training cases of it count as seen.",
)
read_option = pairs_option(
    "--read",
    "read",
    "spacing=1",
    "How to read the cases; gansynth options KIND lists the keys. May be repeated.",
)


def with_source(function: F) -> F:
    """Add ``--data`` and options to read it; the function gets a ``SourceRequest``."""
    data = click.option(
        "--data", required=True, metavar="KIND:WHERE", help="Cases, e.g. nnunet:004."
    )
    return _with_request(data, function)


def with_source_argument(function: F) -> F:
    """Like ``with_source``, with ``KIND:WHERE`` as an argument."""
    return _with_request(click.argument("data", metavar="KIND:WHERE"), function)


def _with_request(data: Callable[..., Any], function: F) -> F:
    @data
    @with_reading
    @functools.wraps(function)
    def wrapped(*args: Any, data: str, reading: Mapping[str, Any], **kwargs: Any) -> Any:
        from gansynth.data.api import source_request

        # A recipe has its own reading options.
        request = source_request(data, **reading, idle=not kwargs.get("recipe"))
        return function(*args, request=request, **kwargs)

    return wrapped  # type: ignore[no-any-return]


with_reading = option_group(
    "reading",
    click.option(
        "-c", "--configuration", help="Configuration of the target framework, e.g. 3d_fullres."
    ),
    click.option("--plans", help="Name of the framework's plans; its default if not given."),
    click.option("-f", "--fold", help="Fold number, or all.  [default: 0]"),
    subjects_option,
    read_option,
    synthetic_option,
    root_option,
)
"""Add options to read a data set; the function gets ``reading``, None where not given."""


def with_host_data(function: F) -> F:
    """Add ``--data`` and options to read it, none of them required; see ``host_data``."""
    data = click.option(
        "--data",
        metavar="KIND:WHERE",
        help="Cases, e.g. nnunet:004. Options not given (--data, -c, --plans, --fold, "
        "--subjects, --read, --root) are those of the generator's fit.",
    )
    return data(with_reading(function))


def with_moved_data(function: F) -> F:
    """Add ``--data`` and ``--root``: the place of a run's data set, if it was moved."""
    data = click.option(
        "--data",
        metavar="KIND:WHERE",
        help="New place of the data set that RUN was fitted on, if it was moved or renamed.",
    )
    return data(root_option(function))


set_option = pairs_option(
    "--set",
    "settings",
    "steps=2000",
    "Change one setting (gansynth options NAME lists them); may be repeated.",
    complete=complete_keys,
)
with_option = pairs_option(
    "--extra-source",
    "extra_source",
    "tissues=nifti:adni",
    "Further source that a recipe needs, by its name; may be repeated.",
    "NAME=KIND:WHERE",
)


edit_option = click.option(
    "--edit",
    multiple=True,
    shell_complete=complete_names("edits"),
    metavar="NAME[:KEY=VALUE,...]",
    help="Edit of the label maps of samples, or of lesions inserted into real images, in "
    "order; may be repeated. [default: the generator's own]",
)


def with_samples(
    seed: str | None = None, *, classes: bool = False, read: Callable[..., Any] | None = None
) -> Callable[[F], F]:
    """Add options of samples; the function gets a ``SampleRequest`` as ``samples``.

    Args:
        seed: help of ``--seed``; None adds no such option.
        classes: whether to add ``--class``.
        read: makes something else of the values than a ``SampleRequest``.
    """
    options = [
        edit_option,
        click.option(
            "--boxes",
            metavar="WHICH",
            help="Boxes of the samples: training, jitter[:KEY=VALUE,...] (jittered training boxes, "
            "the default) or file:PATH.",
        ),
        click.option(
            "--condition-source",
            metavar="KIND:WHERE",
            help="Take conditions from the cases of this source (e.g. tumour-free ones) instead of "
            "the run's own training cases.",
        ),
        pairs_option(
            "--condition-source-read",
            "condition_source_read",
            "fold=0",
            "How to read --condition-source: keys of its kind, fold (default: all its cases), "
            "configuration, plans, subjects. Default: like the run's own cases. May be repeated.",
        ),
        click.option(
            "--prevalence",
            metavar="real|SHARE",
            default="real",
            show_default=True,
            help="Share of samples with a lesion: real, that of the training cases, or 0 to 1.",
        ),
        click.option(
            "--lesions",
            metavar="match|add|replace,KEY=VALUE,...",
            help="How lesions are inserted into real images, for generators that do so. match "
            "(default): the image's own lesions are taken out first; add: beside them; replace: "
            "in their place.",
        ),
        click.option(
            "--sampling-weights",
            type=FILE,
            help="Weight conditions by this file of gansynth hard-cases.",
        ),
        click.option(
            "--filter",
            multiple=True,
            shell_complete=complete_names("filters"),
            metavar="NAME[:KEY=VALUE,...]",
            help="own (default): reject samples that fail the generator's own checks. none: accept "
            "all. Or a further filter, see gansynth plugins. May be repeated.",
        ),
        *([class_option] if classes else []),
        *([] if seed is None else [seed_option(seed)]),
    ]

    def request(**words: Any) -> SampleRequest:
        from gansynth.sampling.request_parsing import read_request

        return read_request(**words)

    return option_group("samples", *options, read=read or request)


def with_real(help_text: str) -> Callable[[F], F]:
    """Add ``--real``, with ``help_text``, and ``--real-read``."""
    how = "How to read --real; keys as for --condition-source-read. May be repeated."
    real = click.option("--real", metavar="KIND:WHERE", help=help_text)
    pairs = pairs_option("--real-read", "real_read", "fold=0", how)
    return lambda function: real(pairs(function))


device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything and print the plan; write nothing."
)


def examples(*lines: str) -> str:
    """Return an epilog with commands to copy."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def table(rows: Iterable[Sequence[object]]) -> list[str]:
    """Align rows as lines, with two blanks between columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


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
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value)) or "-"
    return "-" if value is None or value == {} else str(value)


def say_device(device: str, out: Output) -> None:
    """Say why ``--device auto`` is the CPU, where there is an NVIDIA driver."""
    from gansynth.runtime.devices import why_cpu

    why = why_cpu(device)
    if why is not None:
        out.reporter.say(why)
