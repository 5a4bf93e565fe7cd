"""``gansynth hard-cases``: find hard cases on inner folds, to weight conditions by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import UsageFault, refuse_unknown
from gansynth_cli.common import (
    FILE,
    FOLDER,
    Output,
    device_option,
    dry_run_option,
    examples,
    set_option,
    summary,
    table,
    then,
    with_output,
    with_source,
)
from gansynth_cli.help import with_needs

if TYPE_CHECKING:
    from gansynth.core.source import SourceRequest

SHOWN = 10  # false alarms in the printed table


@click.command(
    epilog=examples(
        "gansynth hard-cases --data msd:Task04_Hippocampus --fold 0 -o failures.json",
        "gansynth hard-cases --data nnunet-raw:004 --inner 3 --write-splits inner.json",
    )
)
@with_needs({"steps": "!predictions", "device": "!predictions"})
@with_source
@click.option("-o", "--out", "path", type=FILE, help="The new file.")
@click.option(
    "--inner", type=click.IntRange(min=2), default=3, show_default=True, help="Inner folds."
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Steps of each small segmenter.  [default: 400]"
)
@click.option(
    "--predictions",
    multiple=True,
    type=FOLDER,
    help="Predicted label maps of the training cases on inner folds, CASE.nii.gz; may be "
    "repeated. [default: a small segmenter is trained on each inner fold]",
)
@click.option(
    "--write-splits",
    "write_splits",
    type=FILE,
    help="Write the inner folds there, in the format of nnU-Net.",
)
@set_option
@device_option
@dry_run_option
@with_output
def command(
    request: SourceRequest,
    path: Path | None,
    inner: int,
    steps: int | None,
    predictions: tuple[Path, ...],
    write_splits: Path | None,
    settings: dict[str, str],
    device: str,
    dry_run: bool,
    out: Output,
) -> None:
    """Find hard cases by inner folds of the training cases.

    Every lesion of a fold's training cases is evaluated by a segmenter trained without its case.
    The file has failure rates by size, place and class of lesions. --sampling-weights FILE then
    takes hard conditions more often, and of those without a lesion such as had false alarms
    (gansynth help hard_cases). The fold's held-out cases are not opened.
    """
    from gansynth.evaluation.hard_cases.job import FailureOptions, find_failures
    from gansynth.runtime.options import parse, refuse_idle
    from gansynth.sampling.run_source import open_source

    if path is None and write_splits is None:
        raise UsageFault(
            "gansynth hard-cases: nothing to write, expected -o FILE, or --write-splits FILE"
        )
    keys = dict.fromkeys(FailureOptions.model_fields.keys() - {"inner", "steps"}, "")
    refuse_unknown(settings, keys, of="gansynth hard-cases")
    texts = {**settings, "inner": str(inner), **({} if steps is None else {"steps": str(steps)})}
    options = parse(FailureOptions, texts)
    values = {**dict(options), "predictions": predictions}
    refuse_idle(settings, values, options.needs, lambda key: f"--set {key}={settings[key]}")
    report = find_failures(
        open_source(request),
        path,
        options,
        predictions=predictions,
        write_splits=write_splits,
        device=device,
        dry_run=dry_run,
        reporter=out.reporter,
    )
    weighted = then("sample", "RUN", "--sampling-weights", path, "--sheet")
    out.result(report, [*_lines(report), *([] if dry_run or path is None else [weighted])])


def _lines(report: dict[str, Any]) -> list[str]:
    plain = {key: value for key, value in report.items() if key != "risk"}
    plain["inner"] = ", ".join(f"{row['train']} + {row['val']}" for row in report["inner"])
    if "risk" not in report:
        return summary(plain)
    plain["false_alarms"] = len(report["false_alarms"])
    lines = summary(plain)
    rows = [("", "", "lesions", "missed", "failure", "weight")]
    for factor in report["risk"]["factors"]:
        for row in factor["bins"]:
            numbers = (
                row["lesions"],
                row["missed"],
                f"{row['failure']:.3f}",
                f"{row['ratio']:.2f}",
            )
            rows.append((factor["name"], row["name"], *map(str, numbers)))
    lines += ["", *table(rows)]
    alarms = sorted(report["false_alarms"], key=lambda row: -row["voxels"])[:SHOWN]
    shown = [("false alarms, largest first", "first voxel", "voxels", "place")]
    for row in alarms:
        corner = ",".join(str(first) for first, _ in row["box"])
        place = ",".join(f"{x:.2f}" for x in row["place"])
        shown.append((row["case"], corner, str(row["voxels"]), place))
    return [*lines, "", *table(shown)] if alarms else lines
