"""``gansynth detections``: evaluate detectors, and compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gansynth_cli.common import FOLDER, Hint, Output, examples, table, with_output

if TYPE_CHECKING:
    from gansynth.metrics.detection.measures import DetectionMeasures

SHARE = click.FloatRange(0, 1)
RECIPE = "han2019-cpggan"
"""Recipe with the paper's table."""
PAPER_NOTE = (
    "Han et al. (2019), Table 1: YOLOv3 on T1c slices of 36 other patients (947 slices, 3094 "
    "boxes), one training each, no intervals. Their data are not public: not comparable."
)


def _overlaps(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        overlaps = tuple(float(part) for part in text.split(","))
    except ValueError:
        overlaps = ()
    if (
        not overlaps
        or not all(0 < iou <= 1 for iou in overlaps)
        or len(set(overlaps)) < len(overlaps)
    ):
        raise click.BadParameter(f"{text!r}: expected different numbers above 0, e.g. .5,.25")
    return overlaps


@click.command(
    epilog=examples(
        "gansynth detections runs/yolo-real runs/yolo-both --paper -o runs/table",
        "gansynth detections real=runs/a both=runs/b --split test --iou .5 --json",
    )
)
@click.argument("arms", metavar="[NAME=]PATH...", nargs=-1, required=True)
@click.option(
    "--split",
    type=click.Choice(["val", "test"]),
    default="val",
    show_default=True,
    help="Images to evaluate, where PATH is a folder.",
)
@click.option("-o", "--out", "folder", type=FOLDER, help="Write table, numbers and curves there.")
@click.option(
    "--confidence", type=SHARE, default=0.001, show_default=True, help="Least score of a detection."
)
@click.option(
    "--iou",
    "ious",
    default=".5,.25",
    show_default=True,
    callback=_overlaps,
    help="Least intersection over union of a hit; separate several by commas.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(0, 100_000),
    default=2000,
    show_default=True,
    help="Resamples of patients for the intervals; 0: no intervals.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the resamples."
)
@click.option("--any-class", is_flag=True, help="Count a box of a wrong class as a hit.")
@click.option(
    "--boxes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Boxes of a lesion in a volume that must be hit.",
)
@click.option("--paper", is_flag=True, help="Also show the numbers of Han et al. (2019).")
@with_output
def command(
    arms: tuple[str, ...],
    split: str,
    folder: Path | None,
    confidence: float,
    ious: tuple[float, ...],
    bootstrap: int,
    seed: int,
    any_class: bool,
    boxes: int,
    paper: bool,
    out: Output,
) -> None:
    """Evaluate detectors, and compare them at equal false positives.

    PATH is a file of detections, or the folder of a training that holds one. All experiment arms
    must use the same images, and drop double boxes alike. Intervals are over patients. Each arm is
    compared with the first.
    """
    from gansynth.metrics.detection.measures import DetectionMeasures
    from gansynth.metrics.detection.report import write_tables

    request = DetectionMeasures(ious, confidence, bootstrap, seed, not any_class, boxes)
    document = _measured(arms, split, request, out)
    if paper:
        document["paper"] = {"note": PAPER_NOTE, "arms": paper_arms()}
    files = {} if folder is None else write_tables(document, folder)
    for name, path in files.items():
        out.reporter.say(f"{name}: {path}")
    hint = [] if files else [Hint("next: the same with -o DIR writes table, numbers and curves")]
    out.result({**document, "files": files}, [*_lines(document), *hint])


def paper_arms() -> list[dict[str, Any]]:
    """Return Table 1 of Han et al. (2019), from the recipe's file, as arms of ``main_table``."""
    from gansynth.fitting.recipe import find_recipe

    arms = []
    for name, figures in find_recipe(RECIPE).spec.reports["yolov3"].items():
        at = {"0.5": tuple(figures[1:3]), "0.25": tuple(figures[3:])}
        arms.append({"name": f"Han 2019, {name}", "map": figures[0], "at": at})
    return arms


def _measured(
    arms: tuple[str, ...], split: str, request: DetectionMeasures, out: Output
) -> dict[str, Any]:
    from gansynth.metrics.detection.arms import read_arms
    from gansynth.metrics.detection.measures import measure_arms
    from gansynth.runtime.progress import counting

    read = read_arms(arms, split=split)
    with counting(out.reporter, "measure") as progress:
        document = measure_arms(read, request, progress=progress)
    for warning in document["warnings"]:
        out.reporter.warn(warning)
    return document


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    from gansynth.metrics.detection.report import (
        heading,
        lesion_table,
        main_table,
        verdicts,
        volume_table,
    )

    yield heading(document)
    yield ""
    yield from table(main_table(document))
    if "paper" in document:
        yield document["paper"]["note"]
    yield ""
    yield from table(lesion_table(document))
    if document["equal_fps"]:
        yield ""
        yield "At equal false positives:"
        yield from verdicts(document)
    yield ""
    yield "Lesions in three dimensions:"
    volumes = volume_table(document)
    yield from [volumes] if isinstance(volumes, str) else table(volumes)
