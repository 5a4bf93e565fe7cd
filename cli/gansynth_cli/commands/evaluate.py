"""``gansynth evaluate``: realism, faithfulness and memorisation of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gansynth_cli.common import (
    FOLDER,
    Output,
    device_option,
    examples,
    with_moved_data,
    with_output,
    with_real,
    with_samples,
)
from gansynth_cli.help import GroupedCommand, complete_names
from gansynth_cli.results import lines_of_evaluation

# As in gansynth.metrics.comparison and gansynth.evaluation.evaluate, which take time to import.
EFFORTS = ("quick", "standard", "thorough")
PARTS = ("realism", "faithfulness", "memorisation", "maps")


@click.command(
    cls=GroupedCommand,
    epilog=examples(
        "gansynth evaluate runs/g0 -n 100",
        "gansynth evaluate banks/g0 --real nnunet:004 --real-read configuration=2d",
    ),
)
@click.argument("folder", metavar="RUN|BANK", type=FOLDER)
@with_real("Compare with these cases, not those of the run's fit; banks need it.")
@click.option(
    "-n",
    "--number",
    "n",
    type=click.IntRange(min=4),
    default=64,
    show_default=True,
    help="Number of samples, and of real crops.",
)
@click.option(
    "-o", "--out", "report", type=FOLDER, help="Folder of the report. [default: evaluation in RUN]"
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(PARTS),
    help="Run this part only; may be repeated.",
)
@click.option(
    "--metric",
    shell_complete=complete_names("metrics"),
    multiple=True,
    metavar="NAME",
    help="Measure realism by this metric only; may be repeated. See: gansynth plugins",
)
@click.option(
    "--preset",
    type=click.Choice(EFFORTS),
    default="standard",
    show_default=True,
    help="How long networks are trained, and how often subjects are split into halves.",
)
@click.option(
    "--exported",
    type=FOLDER,
    help="Folder of samples to share: search it for traces of patients.",
)
@click.option(
    "--pictures/--no-pictures",
    default=True,
    show_default=True,
    help="Thumbnails in the report; those of real cases are patients' images.",
)
@with_samples("Seeds labels and latents.", classes=True, read=dict)
@device_option
@with_moved_data
@with_output
def command(
    folder: Path, report: Path | None, samples: Mapping[str, Any], out: Output, **words: Any
) -> None:
    """Evaluate samples: realism, faithfulness and memorisation.

    RUN is a folder that gansynth fit wrote, BANK a sample bank. Samples are compared with the cases
    the run was fitted on. Every figure stands beside that of other real patients. The report shows
    patients' images: leave them out (--no-pictures) before you share it.
    """
    from gansynth.evaluation.api import evaluate

    document = evaluate(folder, out=report, quiet=out.quiet, **samples, **words)
    out.result(document, lines_of_evaluation(document, folder))
