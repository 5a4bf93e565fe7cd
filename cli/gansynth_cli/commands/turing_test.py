"""``gansynth turing-test``: can raters tell a run's samples from real images?"""

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
    then,
    with_moved_data,
    with_output,
    with_real,
    with_samples,
)
from gansynth_cli.help import GroupedCommand
from gansynth_cli.typed_options import refuse_others, with_needs

if TYPE_CHECKING:
    from gansynth.core.sample_request import SampleRequest
    from gansynth.evaluation.turing import StudySession


with_session = option_group(
    "session_options",
    click.option(
        "-n",
        "--n",
        "--number",
        "n",
        type=click.IntRange(min=1),
        default=50,
        show_default=True,
        help="Real images, and as many samples; with --per-class, of each class.",
    ),
    click.option(
        "--from",
        "origin",
        type=click.Choice(["held-out", "training", "all"]),
        help="Side of the fold of the real cases.  [default: held-out if enough, else all]",
    ),
    click.option(
        "--per-case",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Most images cut from one real case, for runs trained on crops or slices.",
    ),
    click.option(
        "--class",
        "classes",
        multiple=True,
        metavar="NAME",
        help="Images of this class only; may be repeated.",
    ),
    click.option(
        "--per-class", is_flag=True, help="Equally many images of each class, and a table by class."
    ),
    click.option("--channel", metavar="NAME", help="Show this channel.  [default: all]"),
    click.option(
        "--contrast",
        type=click.Choice(["real", "own"]),
        default="real",
        show_default=True,
        help="Black and white level: percentiles of the real images, or of each image.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), help="Seed of the samples.  [default: secret]"
    ),
    click.option(
        "--show-results", is_flag=True, help="Show raters their own table after the last answer."
    ),
)


@click.command(
    cls=GroupedCommand,
    epilog=examples(
        "gansynth turing-test runs/g1 -n 50 --open",
        "gansynth turing-test runs/g1 --results",
    ),
)
@with_needs(
    {
        "condition_source_read": "condition_source",
        "real_read": "real",
        "port": "!results",
        "browse": "!results",
    }
)
@click.argument("run", metavar="RUN", type=FOLDER)
@with_real("Real images of this source instead of the run's own.")
@with_session
@click.option("--instructions", type=FILE, help="Text file that raters read before they begin.")
@click.option(
    "--name", default="session", show_default=True, help="Name of the session, in RUN/turing."
)
@click.option("-o", "--out", "folder", type=FOLDER, help="Folder of the session instead.")
@click.option("--resume", is_flag=True, help="Resume the prepared session.")
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
def command(
    run: Path,
    real: str | None,
    real_read: Mapping[str, str],
    session_options: Mapping[str, Any],
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
    """Let raters tell real images from samples, on a local page.

    RUN is a folder that gansynth fit wrote. Real images and samples are prepared once, into
    RUN/turing. The same command resumes the session. The page is served on this machine only.
    Ctrl-C ends it and prints the table (gansynth help turing_test).
    """
    from gansynth.evaluation.turing import open_session, serve, write_results
    from gansynth.evaluation.turing.server import check_server
    from gansynth.evaluation.turing.session import default_folder
    from gansynth.sampling.request_parsing import read_real

    folder = folder or default_folder(run, name)
    if resume or results:
        option = "--resume" if resume else "--results"
        refuse_others(
            {"run", "name", "folder", "resume", "results", "port", "browse", "as_json", "quiet"},
            f"{option} with {{}}: the session is prepared already, expected {option} without it; "
            "leave it out, or prepare another session with --name NAME",
        )
    if not results:
        check_server()
        options = {
            **session_options,
            "real": read_real(real, real_read),
            "samples": samples,
            "instructions": _read(instructions),
        }
        where = {"device": device, "data": data, "root": root}
        session = open_session(folder) if resume else _prepared(run, folder, options, where, out)
        out.reporter.say(f"session {session.id} in {session.folder}; end with Ctrl-C")
        serve(session, port=port, ready=_telling(browse), reporter=out.reporter)
    document, files = write_results(folder)
    lines = [*_lines(document, files), then("evaluate", run)]
    out.result({**document, "files": files}, lines)


def _prepared(
    run: Path, folder: Path, options_given: Mapping[str, Any], where: Mapping[str, Any], out: Output
) -> StudySession:
    from gansynth.evaluation.turing import TuringOptions, prepare_session

    options = TuringOptions(**options_given)
    return prepare_session(run, folder, options, **where, reporter=out.reporter)


def _read(path: Path | None) -> str:
    from gansynth.runtime.files import reading

    if path is None:
        return ""
    with reading(path):
        try:
            return path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise UsageFault(f"--instructions {path}: is not text, expected UTF-8") from None


def _telling(browse: bool) -> Callable[[str, Callable[[], None]], None]:
    def ready(link: str, stop: Callable[[], None]) -> None:
        # Printed even with --quiet: raters need the link. On stderr, as stdout is for data.
        click.echo(f"link for raters: {link}", err=True)
        if browse:
            import webbrowser

            webbrowser.open(link)

    return ready


def _lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth.evaluation.turing.summary import rows

    if document["raters"]:
        yield from table(rows(document))
        yield ""
    yield from document["words"]
    for warning in document["warnings"]:
        yield f"note: {warning}"
    yield ""
    yield from table(files.items())
