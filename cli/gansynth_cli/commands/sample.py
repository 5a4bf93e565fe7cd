"""``gansynth sample``: generate labelled samples from a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth_cli.common import (
    FOLDER,
    Output,
    device_option,
    examples,
    option_group,
    set_option,
    summary,
    with_moved_data,
    with_output,
    with_samples,
)
from gansynth_cli.help import GroupedCommand, complete_names, refuse_others, with_needs
from gansynth_cli.results import lines_of_samples

if TYPE_CHECKING:
    from gansynth.core.sample_request import SampleRequest

MEANT = frozenset(("run", "replay", "folder", "device", "root", "as_json", "quiet", "debug"))
"""Parameters that have an effect beside ``--replay``."""


with_sheets = option_group(
    "sheets",
    click.option("--sheet", is_flag=True, help="Write a preview grid (PNG) of images and labels."),
    click.option(
        "--interpolate",
        type=click.IntRange(min=2),
        metavar="STEPS",
        help="Write a grid with so many steps from one latent to another, for generators that "
        "generate from noise.",
    ),
    click.option(
        "--rows",
        type=click.IntRange(min=1),
        help="Pairs of latents of --interpolate.  [default: 4]",
    ),
    click.option(
        "--nearest",
        is_flag=True,
        help="Write a grid of samples beside their nearest training cases; it stays in RUN.",
    ),
    read=lambda **options: {key: value for key, value in options.items() if value is not None},
)


@click.command(
    cls=GroupedCommand,
    epilog=examples(
        "gansynth sample runs/g0 -n 16 --sheet --metric spectrum",
        "gansynth sample runs/g0 --replay results/gansynth_draws/draws-host-4711.csv:17 -o again/",
    ),
)
@with_needs(
    {
        "rows": "interpolate",
        "condition_source_read": "condition_source",
    }
)
@click.argument("run", metavar="RUN", type=FOLDER)
@click.option(
    "-n",
    "--number",
    type=click.IntRange(min=1),
    help="Number of samples.  [default: 16; every case, for a run that generates label maps of "
    "images]",
)
@click.option(
    "-o", "--out", "folder", type=FOLDER, help="Folder for the samples. [default: in RUN]"
)
@click.option(
    "--metric",
    "metrics",
    shell_complete=complete_names("metrics"),
    multiple=True,
    metavar="NAME",
    help="Compare the samples with real cases; may be repeated. See: gansynth plugins",
)
@click.option(
    "--replay",
    metavar="RECORD",
    help="Reproduce a recorded sample bit for bit: FILE:LINE of a sample log (draws-*.csv), or "
    "FILE:NAME of a JSON file with provenance (provenance.json, an export's record).",
)
@with_sheets
@click.option(
    "--format",
    "kind",
    shell_complete=complete_names("writers"),
    default="nifti",
    show_default=True,
    metavar="NAME",
    help="Format of the files. png: slices, with a table that names no patient. See: gansynth "
    "plugins",
)
@set_option
@click.option(
    "--keep-flawed",
    is_flag=True,
    help="Also write rejected samples, which png leaves out.",
)
@click.option(
    "--deidentify",
    "for_sharing",
    is_flag=True,
    help="Files for sharing, as PNG files are: the cases behind the samples are recorded in RUN "
    "only. Refused where samples hold parts of real images.",
)
@with_samples("Seeds labels and latents.", classes=True)
@device_option
@with_moved_data
@with_output
def command(
    run: Path,
    number: int | None,
    folder: Path | None,
    metrics: tuple[str, ...],
    replay: str | None,
    sheets: Mapping[str, Any],
    kind: str,
    settings: dict[str, str],
    keep_flawed: bool,
    samples: SampleRequest,
    for_sharing: bool,
    device: str,
    data: str | None,
    root: str | None,
    out: Output,
) -> None:
    """Generate labelled samples from a run.

    RUN is a folder that gansynth fit wrote. The same seed gives the same samples. They are written
    as a data set that nifti:FOLDER reads (PNG files: pictures:FOLDER), or in another --format,
    whose options --set changes. A run may generate label maps of images, e.g. a part of a chain,
    RUN/parts/NAME. It then writes images and label maps of --condition-source SOURCE, or of its
    own training cases.
    """
    from gansynth.metrics.comparison import load_metrics
    from gansynth.sampling.sample import NUMBER, measure_run, replay_run, sample_run

    if replay is not None:
        refuse_others(MEANT, "--replay with {}: the record has all options; leave it out")
        again = replay_run(run, replay, out=folder, device=device, root=root, reporter=out.reporter)
        out.result(again, summary(again))
        return
    load_metrics(metrics)  # a wrong name must not cost the time to generate
    report: dict[str, Any] = sample_run(
        run,
        number,
        out=folder,
        kind=kind,
        settings=settings,
        keep_flawed=keep_flawed,
        request=samples,
        for_sharing=for_sharing,
        device=device,
        data=data,
        root=root,
        reporter=out.reporter,
        **sheets,
    )
    if metrics:
        report["metrics"] = measure_run(
            run,
            metrics,
            NUMBER if number is None else number,
            request=samples,
            device=device,
            data=data,
            root=root,
        )
    out.result(report, lines_of_samples(report, run))
