"""``gansynth turing-test``: can raters tell a run's samples from real images?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from gansynth_cli.help import GroupedCommand, refuse_others, with_needs

if TYPE_CHECKING:
    from gansynth.core.sample_request import SampleRequest
with_study = option_group(
    "study_options",
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
)


@click.command(
    cls=GroupedCommand,
    epilog=examples(
        "gansynth turing-test runs/g1 -n 50 --raters 3",
        "gansynth turing-test runs/g1 answers-*.json",
    ),
)
@with_needs({"condition_source_read": "condition_source", "real_read": "real"})
@click.argument("run", metavar="RUN", type=FOLDER)
@click.argument("answers", metavar="[ANSWERS]...", nargs=-1, type=FILE)
@click.option(
    "--raters",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Pages, one for each rater; those that are there stay.",
)
@with_real("Real images of this source instead of the run's own.")
@with_study
@click.option("--instructions", type=FILE, help="Text file that raters read before they begin.")
@click.option("--name", default="study", show_default=True, help="Its name, in RUN/turing.")
@click.option("-o", "--out", "folder", type=FOLDER, help="Folder of the study instead.")
@with_samples()
@device_option
@with_moved_data
@with_output
def command(
    run: Path,
    answers: tuple[Path, ...],
    raters: int,
    real: str | None,
    real_read: Mapping[str, str],
    study_options: Mapping[str, Any],
    name: str,
    folder: Path | None,
    instructions: Path | None,
    samples: SampleRequest,
    device: str,
    data: str | None,
    root: str | None,
    out: Output,
) -> None:
    """Let raters tell real images from samples, each on a page.

    RUN is a folder that gansynth fit wrote. Without ANSWERS, a page for each rater is written into
    RUN/turing/study/pages: give each rater one, and collect the file that it saves. With ANSWERS,
    those files, the table of all raters is printed (gansynth help turing_test).
    """
    from gansynth.evaluation.turing import TuringOptions, make_study, open_study, write_results
    from gansynth.evaluation.turing.study import default_folder
    from gansynth.sampling.request_parsing import read_real

    folder = folder or default_folder(run, name)
    if answers:
        refuse_others(
            {"run", "answers", "name", "folder", "as_json", "quiet"},
            "{} with ANSWERS: the study is made already, expected its answers alone; leave it out",
        )
        document, files = write_results(open_study(folder), answers)
        lines = [*_lines(document, files), then("evaluate", run)]
        out.result({**document, "files": files}, lines)
        return
    asked = {**study_options, "real": read_real(real, real_read), "samples": samples}
    options = TuringOptions(**asked, instructions=_read(instructions))
    study, pages = make_study(
        run,
        folder,
        options,
        raters=raters,
        device=device,
        data=data,
        root=root,
        reporter=out.reporter,
    )
    named = [] if folder == default_folder(run) else ["-o", folder]
    told = [
        f"study {study.id}: {len(study.key)} images, a page for each rater",
        *(f"  {page}" for page in pages),
        then("turing-test", run, *named, f"answers-{study.id}-rater-1.json"),
    ]
    out.result({"study": study.id, "folder": str(folder), "pages": list(map(str, pages))}, told)


def _read(path: Path | None) -> str:
    from gansynth.runtime.files import reading

    if path is None:
        return ""
    with reading(path):
        try:
            return path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise UsageFault(f"--instructions {path}: is not text, expected UTF-8") from None


def _lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth.evaluation.turing.summary import rows

    yield from table(rows(document))
    yield ""
    yield from document["words"]
    for warning in document["warnings"]:
        yield f"note: {warning}"
    yield ""
    yield from table(files.items())
