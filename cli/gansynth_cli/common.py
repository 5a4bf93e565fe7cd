"""What commands share: ``--json --quiet --debug``, ``--data`` and its friends, and how to print."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gansynth.core.sample_request import SampleRequest
    from gansynth.runtime.progress import Reporter

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Output:
    """Where a command's words go: data to stdout, everything else to stderr."""

    as_json: bool = False
    quiet: bool = False

    @functools.cached_property
    def reporter(self) -> Reporter:
        """Progress and warnings, on stderr."""
        from gansynth.runtime.progress import RichReporter

        return RichReporter(quiet=self.quiet)

    def result(self, document: Mapping[str, Any], lines: Iterable[str] = ()) -> None:
        """Print a command's result: the document with ``--json``, else the lines."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2, default=str))
        else:
            for line in lines:
                click.echo(line)


def option_group(
    into: str, *options: Callable[[Any], Any], read: Callable[..., Any] = dict
) -> Callable[[F], F]:
    """Options whose values reach a command as one argument: ``into=read(name=value, ...)``."""

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
        names += [one.name for one in added if one.name and one.expose_value]
        return wrapped  # type: ignore[return-value]

    return add


with_output = option_group(
    "out",
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress; warnings stay."),
    # The group looks at --debug itself, so that it also holds for errors before this point.
    click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of errors."),
    read=Output,
)
"""Add ``--json``, ``--quiet`` and ``--debug``; the function gets an ``Output`` as ``out``."""


def seed_option(what: str) -> Callable[[F], F]:
    """``--seed``, 0 by default; ``what`` is its help."""
    number = click.IntRange(min=0)
    return click.option("--seed", type=number, default=0, show_default=True, help=what)


executor_option = click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="WHERE",
    help="local[:N] for N jobs at once, or ray[:cpus=C,gpus=G]; see docs/clusters.md.",
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
    help="Folder of the host's folders, instead of its environment.",
)
subjects_option = click.option(
    "--subjects", help="CSV (case,subject) or regular expression with one group."
)


def pairs_option(
    option: str, name: str, example: str, what: str, metavar: str = "KEY=VALUE"
) -> Callable[[F], F]:
    """A repeatable option of ``KEY=VALUE`` texts, which reach the command as a dictionary."""

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

    return click.option(option, name, multiple=True, metavar=metavar, callback=read, help=what)


synthetic_option = click.option(
    "--synthetic-source",
    "synthetic",
    metavar="RUN",
    callback=lambda context, parameter, folder: None if folder is None else os.path.abspath(folder),
    help="The run or bank that drew the cases, if they are synthetic; its own cases count as seen.",
)
read_option = pairs_option(
    "--read",
    "read",
    "spacing=1",
    "How to read the cases; gansynth options KIND has the keys. May be repeated.",
)


def with_source(function: F) -> F:
    """Add ``--data`` and what says how to read it; the function gets a ``SourceRequest``."""
    data = click.option(
        "--data", required=True, metavar="KIND:WHERE", help="Cases, e.g. nnunet:004."
    )
    return _with_request(data, function)


def with_source_argument(function: F) -> F:
    """As ``with_source``, with ``KIND:WHERE`` as an argument."""
    return _with_request(click.argument("data", metavar="KIND:WHERE"), function)


def _with_request(data: Callable[..., Any], function: F) -> F:
    @data
    @with_reading
    @functools.wraps(function)
    def wrapped(*args: Any, data: str, asked: Mapping[str, Any], **kwargs: Any) -> Any:
        from gansynth.core.source import SourceRequest

        request = SourceRequest.parse(data, **{**asked, "fold": asked["fold"] or "0"})
        if not kwargs.get("recipe_name"):  # which reads in a way of its own
            from gansynth.data.reading import refuse_idle_read

            refuse_idle_read(request, asked["read"])
        return function(*args, request=request, **kwargs)

    return wrapped  # type: ignore[no-any-return]


with_reading = option_group(
    "asked",
    click.option("-c", "--configuration", help="The host's configuration, e.g. 3d_fullres."),
    click.option("--plans", help="Name of the host's plans; its default if not given."),
    click.option("-f", "--fold", help="Fold number, or all.  [default: 0]"),
    subjects_option,
    read_option,
    synthetic_option,
    root_option,
)
"""Add what says how a data set is read; the function gets ``asked``, None of what was not."""


def with_host_data(function: F) -> F:
    """Add ``--data`` and what says how to read it, none of it required; see ``host_data``."""
    data = click.option(
        "--data",
        metavar="KIND:WHERE",
        help="Cases, e.g. nnunet:004. What is not given of --data, -c, --plans, --fold, "
        "--subjects, --read and --root is as the generator was fitted.",
    )
    return data(with_reading(function))


def with_moved_data(function: F) -> F:
    """Add ``--data`` and ``--root``: where the data set of a run is, if it was moved since."""
    data = click.option(
        "--data",
        metavar="KIND:WHERE",
        help="Where the data set that RUN was fitted on is now, if it was moved or renamed.",
    )
    return data(root_option(function))


set_option = pairs_option(
    "--set",
    "settings",
    "steps=2000",
    "Change one setting (gansynth options NAME has them all); may be repeated.",
)
with_option = pairs_option(
    "--with",
    "others",
    "tissues=nifti:adni",
    "A further source that a recipe needs, by its name; may be repeated.",
    "NAME=KIND:WHERE",
)


def _edits(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Edits as they are asked for; a slip is found at once."""
    if texts:
        from gansynth.core.sample_request import SampleRequest
        from gansynth.sampling.request_parsing import check_texts

        check_texts(SampleRequest(edits=texts))
    return texts


edit_option = click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    callback=_edits,
    help="Edit of the drawn label maps (of lesions that are put into real images: of these), in "
    "order; may be repeated. [default: the generator's own]",
)


def with_samples(seed: str | None = None, *, classes: bool = False) -> Callable[[F], F]:
    """Add what samples are asked to be; the function gets a ``SampleRequest`` as ``samples``.

    Args:
        seed: what ``--seed`` does; None adds none.
        classes: whether to add ``--class``.
    """
    options = [
        edit_option,
        click.option(
            "--boxes",
            metavar="WHICH",
            help="Boxes that samples are asked to have: training, jitter[:KEY=VALUE,...] (off the "
            "training ones, the default) or file:PATH.",
        ),
        click.option(
            "--conditions",
            metavar="KIND:WHERE",
            help="Draw of, or into, the cases of this source (tumour-free ones, say) instead of "
            "the run's own training cases.",
        ),
        pairs_option(
            "--conditions-read",
            "how",
            "fold=0",
            "How to read --conditions: keys of its kind, fold (default: all its cases), "
            "configuration, plans, subjects. Else as the run's own cases. May be repeated.",
        ),
        click.option(
            "--lesions",
            metavar="KEY=VALUE,...",
            help="How lesions are put into real images, of generators that do so.",
        ),
        click.option(
            "--weights", type=FILE, help="Draw conditions by this file of gansynth failures."
        ),
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="NAME[:KEY=VALUE,...]",
            help="own (default): heed what the generator itself finds flawed in samples; none: "
            "take them all; or a filter beside own, see gansynth plugins. May be repeated.",
        ),
        *([class_option] if classes else []),
        *([] if seed is None else [seed_option(seed)]),
    ]

    def read(**said: Any) -> SampleRequest:
        from gansynth.sampling.request_parsing import read_request

        weights = None if said["weights"] is None else str(said["weights"])
        return read_request(**{"seed": 0, "classes": (), **said, "weights": weights})

    return option_group("samples", *options, read=read)


def with_real(what: str) -> Callable[[F], F]:
    """Add ``--real`` and ``--real-read``; the function gets ``real``, a request as JSON or None.

    Args:
        what: help of ``--real``.
    """

    def read(real: str | None, real_how: Mapping[str, str]) -> Mapping[str, Any] | None:
        from gansynth.sampling.request_parsing import read_real

        return read_real(real, real_how)

    return option_group(
        "real",
        click.option("--real", metavar="KIND:WHERE", help=what),
        pairs_option(
            "--real-read",
            "real_how",
            "fold=0",
            "How to read --real, like --conditions-read. May be repeated.",
        ),
        read=read,
    )


device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything and print the plan; write nothing."
)


def examples(*lines: str) -> str:
    """An epilog with the commands a user may copy."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def table(rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows as aligned lines, two blanks between columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def summary(document: Mapping[str, Any]) -> list[str]:
    """A document as aligned lines; a nested key as ``outer.inner``."""
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
