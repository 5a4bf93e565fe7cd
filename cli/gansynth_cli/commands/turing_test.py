"""``gansynth turing-test``: can people tell a run's samples from real images?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import UsageFault
from gansynth_cli.common import (
    FILE,
    FOLDER,
    Output,
    device_option,
    examples,
    option_group,
    table,
    with_moved_data,
    with_output,
    with_real,
    with_samples,
)
from gansynth_cli.typed import called, typed_options, with_needs

if TYPE_CHECKING:
    from gansynth.core.sample_request import SampleRequest
    from gansynth.evaluation.turing import Session


with_session = option_group(
    "shown",
    click.option(
        "-n",
        "--n",
        "--number",
        "n",
        type=click.IntRange(min=1),
        default=50,
        show_default=True,
        help="Real images, and as many samples; with --per-class of each class.",
    ),
    click.option(
        "--from",
        "origin",
        type=click.Choice(["held-out", "training", "all"]),
        help="Real cases: of which side of the fold.  [default: held-out if enough, else all]",
    ),
    click.option(
        "--per-case",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Most images cut from one real case, of runs that learn from crops or slices of them.",
    ),
    click.option(
        "--class",
        "classes",
        multiple=True,
        metavar="NAME",
        help="Images of this class only; may be repeated.",
    ),
    click.option("--per-class", is_flag=True, help="As many images of each class, and its table."),
    click.option("--channel", metavar="NAME", help="Show this channel.  [default: all]"),
    click.option(
        "--contrast",
        type=click.Choice(["real", "own"]),
        default="real",
        show_default=True,
        help="Black and white: percentiles of real images, for all; or of each image.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), help="Of the samples.  [default: nobody knows]"
    ),
    click.option(
        "--show-results", is_flag=True, help="Raters see their own table after the last answer."
    ),
)


@click.command(
    epilog=examples(
        "gansynth turing-test runs/g1 -n 50 --open",
        "gansynth turing-test runs/g1 --results",
    )
)
@with_needs({"how": "conditions", "real_how": "real", "port": "!results", "browse": "!results"})
@click.argument("run", metavar="RUN", type=FOLDER)
@with_real("Real images of this source instead of the run's own.")
@with_session
@click.option("--instructions", type=FILE, help="Text file that raters read before they begin.")
@click.option(
    "--name", default="session", show_default=True, help="Name of the session, in RUN/turing."
)
@click.option("-o", "--out", "folder", type=FOLDER, help="Its folder instead.")
@click.option("--resume", is_flag=True, help="Go on with the session as it was prepared.")
@click.option("--results", is_flag=True, help="Print the table so far; serve nothing.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port of 127.0.0.1.  [default: as before, or a free one]",
)
@click.option("--open", "browse", is_flag=True, help="Open the page in this machine's browser.")
@with_samples()
@device_option
@with_moved_data
@with_output
@click.pass_context
def command(
    context: click.Context,
    run: Path,
    real: Mapping[str, Any] | None,
    shown: Mapping[str, Any],
    name: str,
    folder: Path | None,
    instructions: Path | None,
    resume: bool,
    results: bool,
    port: int | None,
    browse: bool,
    samples: SampleRequest,
    device: str,
    data: str | None,
    root: str | None,
    out: Output,
) -> None:
    """Have people tell real images from samples, on a local page.

    RUN is a folder that gansynth fit wrote. Real images and samples are prepared once, into
    RUN/turing; the same command goes on with them. The page is served on this machine alone until
    Ctrl-C, which prints the table (docs/turing_test.md).
    """
    from gansynth.evaluation.turing import open_session, serve, write_results
    from gansynth.evaluation.turing.server import check_server
    from gansynth.evaluation.turing.session import default_folder

    folder = folder or default_folder(run, name)
    if resume or results:
        _check_alone(context, "--resume" if resume else "--results")
    if not results:
        check_server()
        asked = {**shown, "real": real, "samples": samples, "instructions": _read(instructions)}
        where = {"device": device, "data": data, "root": root}
        session = open_session(folder) if resume else _prepared(run, folder, asked, where, out)
        out.reporter.say(f"session {session.id} in {session.folder}; end with Ctrl-C")
        serve(session, port=port, ready=_telling(browse), reporter=out.reporter)
    found, files = write_results(folder)
    out.result({**found, "files": files}, _lines(found, files))


def _prepared(
    run: Path, folder: Path, asked: Mapping[str, Any], where: Mapping[str, Any], out: Output
) -> Session:
    from gansynth.evaluation.turing import TuringOptions, prepare_session

    options = TuringOptions(**asked)
    return prepare_session(run, folder, options, **where, reporter=out.reporter)


def _check_alone(context: click.Context, option: str) -> None:
    """Refuse options of preparing beside what prepares nothing."""
    kept = {"run", "name", "folder", "resume", "results", "port", "browse", "as_json", "quiet"}
    for name in typed_options(context):
        if name not in kept:
            raise UsageFault(
                f"{option} with {called(name)}: the session is as it was prepared, expected "
                f"{option} without it; leave it out, or prepare another session with --name NAME"
            )


def _read(path: Path | None) -> str:
    from gansynth.runtime.files import reading

    if path is None:
        return ""
    with reading(path):
        try:
            return path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise UsageFault(f"--instructions {path}: is no text, expected UTF-8") from None


def _telling(browse: bool) -> Callable[[str, Callable[[], None]], None]:
    def ready(link: str, stop: Callable[[], None]) -> None:
        # However quiet: without the link nobody gets in. Data goes to stdout, so this does not.
        click.echo(f"link for raters: {link}", err=True)
        if browse:
            import webbrowser

            webbrowser.open(link)

    return ready


def _lines(found: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth.evaluation.turing.words import rows

    if found["raters"]:
        yield from table(rows(found))
        yield ""
    yield from found["words"]
    for warning in found["warnings"]:
        yield f"note: {warning}"
    yield ""
    yield from table(files.items())
