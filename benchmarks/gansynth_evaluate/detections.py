"""``gansynth.detections``: the command in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gansynth.core.requests.base import function_of
from gansynth.metrics.detection.measures import DetectionMeasures, measure_arms
from gansynth.metrics.detection.record import read_arms
from gansynth.metrics.detection.report import write_tables
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import RichReporter, counting
from gansynth_evaluate.requests import DetectionsRequest

DETECTOR = "yolov3"
"""Key of the recipe's report with the paper's table."""
PAPER_NOTE = (
    "Han et al. (2019), Table 1: YOLOv3 on T1c slices of 36 other patients (947 slices, 3094 "
    "boxes), one training each, no intervals. Their data are not public: not comparable."
)


def run_detections(request: DetectionsRequest) -> dict[str, Any]:
    """Evaluate detectors, and compare them at equal false positives: ``gansynth detections``.

    Each argument is the option of that name; ``gansynth detections --help`` explains them.

    Returns:
        What ``--json`` prints; ``files`` has the paths of the tables.

    Raises:
        GansynthError: the arms are not of the same images, or a file is damaged.
    """
    reporter, ious = RichReporter(quiet=request.quiet), _overlaps(str(request.iou))
    resampling = (request.bootstrap, request.seed)
    asked = DetectionMeasures(
        ious, request.confidence, *resampling, not request.any_class, request.boxes
    )
    read = read_arms(tuple(request.arms), split=request.split)
    with counting(reporter, "measure") as progress:
        document = measure_arms(read, asked, progress=progress)
    for warning in document["warnings"]:
        reporter.warn(warning)
    if request.paper:
        document["paper"] = {"note": PAPER_NOTE, "arms": paper_arms()}
    files = {} if request.out is None else write_tables(document, Path(request.out))
    for name, path in files.items():
        reporter.say(f"{name}: {path}")
    return {**document, "files": files}


detections = function_of(DetectionsRequest, run_detections)


def _overlaps(text: str) -> tuple[float, ...]:
    try:
        overlaps = tuple(float(part) for part in text.split(","))
    except ValueError:
        overlaps = ()
    if (
        not overlaps
        or not all(0 < iou <= 1 for iou in overlaps)
        or len(set(overlaps)) < len(overlaps)
    ):
        raise UsageFault(f"--iou {text!r}: expected different numbers above 0, e.g. .5,.25")
    return overlaps


def paper_arms() -> list[dict[str, Any]]:
    """Return Table 1 of Han et al. (2019), from the recipe's file, as arms of ``main_table``."""
    from gansynth.core.registry import installed
    from gansynth.fitting.recipe import find_recipe

    reports = (find_recipe(name).spec.reports for name in installed().names("recipes"))
    table = next(report[DETECTOR] for report in reports if DETECTOR in report)
    arms = []
    for name, figures in table.items():
        at = {"0.5": tuple(figures[1:3]), "0.25": tuple(figures[3:])}
        arms.append({"name": f"Han 2019, {name}", "map": figures[0], "at": at})
    return arms
