"""``gansynth.detections``: the command in Python, its tables and its FROC plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.base import function_of
from gansynth.metrics.detection.measures import DetectionMeasures, measure_arms
from gansynth.metrics.detection.record import read_arms
from gansynth.report.figures import save_figure
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import (
    disk_errors,
    refuse_unwritable,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.runtime.progress import counting
from gansynth_evaluate.requests import DetectionsRequest

if TYPE_CHECKING:
    from matplotlib.axes import Axes


DETECTOR = "yolov3"
"""Key of the recipe's report with the paper's table."""
PAPER_NOTE = (
    "Han et al. (2019), Table 1: YOLOv3 on T1c slices of 36 other patients (947 slices, 3094 "
    "boxes), one training each, no intervals. Their data are not public: not comparable."
)


def run_detections(request: DetectionsRequest) -> dict[str, Any]:
    """Evaluate detectors, and compare them at equal false positives: ``gansynth detections``.

    Returns:
        What ``--json`` prints; ``files`` has the paths of the tables.

    Raises:
        GansynthError: the arms are not of the same images, or a file is damaged.
    """
    reporter, ious = request.reporter, _overlaps(str(request.iou))
    resampling = (request.bootstrap, request.seed)
    asked = DetectionMeasures(
        ious, request.confidence, *resampling, not request.any_class, request.boxes
    )
    if request.out is not None:
        refuse_unwritable(Path(request.out))
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
    document["files"] = files
    return document


detections = function_of(DetectionsRequest, run_detections)


def _overlaps(text: str) -> tuple[float, ...]:
    try:
        overlaps = tuple(map(float, text.split(",")))
    except ValueError:
        overlaps = ()
    if (
        not overlaps
        or not all(0 < iou <= 1 for iou in overlaps)
        or len(set(overlaps)) < len(overlaps)
    ):
        raise UsageFault(
            "evaluate.iou-thresholds-refused",
            f"--iou {text!r}: expected different numbers above 0, e.g. .5,.25",
        )
    return overlaps


def paper_arms() -> list[dict[str, Any]]:
    """Return Table 1 of Han et al. (2019), from the recipe's file, as arms of ``main_table``."""
    from gansynth.core.registry import installed
    from gansynth.fitting.recipe import find_recipe

    reports = [find_recipe(name).spec.reports for name in installed().names("recipes")]
    [table, *_] = [report[DETECTOR] for report in reports if DETECTOR in report]
    arms = []
    for name, figures in table.items():
        at = {"0.5": tuple(figures[1:3]), "0.25": tuple(figures[3:])}
        arms.append({"name": f"Han 2019, {name}", "map": figures[0], "at": at})
    return arms


Row = tuple[str, ...]

NONE = "–"


def number(figure: Mapping[str, float | None] | float | None, digits: int = 3) -> str:
    """A number with its interval, ``0.510 [0.480, 0.547]``; a dash where undefined."""
    if not isinstance(figure, Mapping):
        return NONE if figure is None else f"{figure:.{digits}f}"
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return NONE
    if low is None or high is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def heading(doc: Mapping[str, Any]) -> str:
    """Describe the evaluated data in one sentence."""
    intervals = (
        f"95 % intervals from {doc['resamples']} resamples of {doc['unit']}"
        if doc["resamples"]
        else "no intervals"
    )
    patients = doc["patients"]
    people = "patients unknown" if patients is None else f"{patients} patients"
    people += f", {doc['units']} volumes" if doc["unit"] == "volumes" else ""
    return (
        f"{people}, {doc['slices']} slices ({doc['slices_without_lesions']} "
        f"without lesions), {doc['lesions']} boxes ({doc['split']}); detections of confidence >= "
        f"{doc['confidence']:g}; {intervals}."
    )


def main_table(doc: Mapping[str, Any]) -> list[Row]:
    """The paper's table, of ``measure_arms``: mAP, sensitivity, false positives per slice."""
    ious = [f"{iou:g}" for iou in doc["ious"]]
    rows: list[Row] = [("", "mAP", *_per_overlap(ious), "mAP .5:.95")]
    for arm in doc["arms"]:
        cells = _cells(arm, ious)
        rows.append((arm["name"], number(arm["map"]), *cells, number(arm["map_coco"])))
    for published in doc["paper"]["arms"] if "paper" in doc else ():
        row = [published["name"], number(published["map"], 2)]
        for iou in ious:
            sensitivity, fps = published["at"].get(iou, (None, None))
            row += [number(sensitivity, 2), number(fps, 2)]
        rows.append((*row, NONE))
    return rows


def _cells(measured: Mapping[str, Any], ious: Sequence[str]) -> Iterator[str]:
    for iou in ious:
        yield number(measured["at"][iou]["sensitivity"])
        yield number(measured["at"][iou]["fps_per_slice"], 2)


def _per_overlap(ious: Sequence[str]) -> Iterator[str]:
    for iou in ious:
        yield from (f"sensitivity, IoU >= {iou}", f"FPs/slice, IoU >= {iou}")


def lesion_table(doc: Mapping[str, Any]) -> list[Row]:
    """Whether a slice has a lesion, by its most confident detection (Han et al. 2019, sec. 2.5)."""
    rows: list[Row] = [("slice has a lesion", "AUC", "sensitivity", "specificity")]
    for arm in doc["arms"]:
        rows.append((arm["name"], *map(number, arm["has_lesion"].values())))
    return rows


def froc_table(doc: Mapping[str, Any]) -> list[Row]:
    """Sensitivity at fixed numbers of false positives per slice; ``*``: beyond the curve's end."""
    rates = next(iter(doc["arms"][0]["at"].values()))["froc"]["rates"]
    heads = [f"{rate:g} FPs" for rate in rates]
    rows: list[Row] = [("", "IoU", *heads, "FROC score", "ends at")]
    for arm in doc["arms"]:
        for iou, at in arm["at"].items():
            curve = at["froc"]
            cells = [
                number(sensitivity) + ("*" if rate > curve["end"] else "")
                for rate, sensitivity in zip(rates, curve["sensitivity"], strict=True)
            ]
            score, end = number(at["froc_score"]), f"{curve['end']:.2f} FPs"
            rows.append((arm["name"], f">= {iou}", *cells, score, end))
    return rows


def class_table(doc: Mapping[str, Any]) -> list[Row]:
    """Average precision, and sensitivity and false positives per slice, of every class."""
    ious = [f"{iou:g}" for iou in doc["ious"]]
    rows: list[Row] = [("", "class", "boxes", "AP", *_per_overlap(ious))]
    for arm in doc["arms"]:
        for of in arm["classes"]:
            head = (arm["name"], of["name"], str(of["lesions"]), number(of["ap"]))
            rows.append((*head, *_cells(of, ious)))
    return rows


def volume_table(doc: Mapping[str, Any]) -> list[Row] | str:
    """Lesions of volumes, all and by thirds of size; or why there are none."""
    if "unavailable" in doc["arms"][0]["volumes"]:
        return f"not available: {doc['arms'][0]['volumes']['unavailable']}"
    rows: list[Row] = [
        ("", "IoU", "lesions", "found", "smallest third", "middle", "largest", "FPs/volume")
    ]
    for arm in doc["arms"]:
        for iou, volumes in arm["volumes"].items():
            by_size = []
            for key in ("small", "medium", "large"):
                size = volumes["by_size"].get(key)
                by_size.append(number(size and size["sensitivity"]))
            rows.append(
                (
                    arm["name"],
                    f">= {iou}",
                    str(volumes["lesions"]),
                    number(volumes["sensitivity"]),
                    *by_size,
                    number(volumes["fps_per_volume"], 2),
                )
            )
    return rows


def verdicts(doc: Mapping[str, Any]) -> list[str]:
    """A sentence for each comparison at equal false positives."""
    return [
        f"IoU >= {comparison['iou']:g}: {comparison['verdict']}" for comparison in doc["equal_fps"]
    ]


def markdown(doc: Mapping[str, Any]) -> str:
    """The whole comparison as a page."""
    parts = ["# Detections", heading(doc)] + [f"Warning: {text}." for text in doc["warnings"]]
    parts.append(_table(main_table(doc)))
    parts += [doc["paper"]["note"]] if "paper" in doc else []
    parts += ["mAP: mean over classes of the area below precision over recall, IoU >= 0.5."]
    if doc["equal_fps"]:
        lines = "\n".join([f"- {line}" for line in verdicts(doc)])
        parts += ["## At equal false positives", lines]
    parts += ["## Slices with and without lesions", _table(lesion_table(doc))]
    parts += ["## FROC", "Sensitivity; *: beyond the curve's end.", _table(froc_table(doc))]
    volumes = volume_table(doc)
    parts += ["## Lesions in three dimensions"]
    parts.append(volumes if isinstance(volumes, str) else _table(volumes))
    if len(doc["classes"]) > 1:
        parts += ["## Classes", _table(class_table(doc))]
    return "\n\n".join(parts).replace("<", "&lt;") + "\n"


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


COLOURS = ("#1f6fb4", "#d1600f", "#2b8a3e", "#7a3fa0", "#9a7b00", "#5b6770")


def draw_froc(doc: Mapping[str, Any], path: Path, *, title: str = "") -> Path:
    """Plot every arm's FROC curve, one panel for each overlap; a dot marks the confidence."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ious = [f"{iou:g}" for iou in doc["ious"]]
    figure = Figure(figsize=(4.6 * len(ious), 3.7), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(ious), squeeze=False, sharey=True)[0]
    for axis, iou in zip(axes, ious, strict=True):
        _draw(axis, doc, iou)
    axes[0].set_ylabel("sensitivity (boxes of slices)")
    axes[-1].legend(fontsize=8, loc="lower right", frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def _draw(axis: Axes, doc: Mapping[str, Any], iou: str) -> None:
    for number, arm in enumerate(doc["arms"]):
        colour, at = COLOURS[number % len(COLOURS)], arm["at"][iou]
        name = arm["name"].replace("$", r"\$")
        line = at["drawn"]
        defined = [v is not None for v in line["sensitivity"]]
        if all(defined):
            axis.plot(line["fps"], line["sensitivity"], color=colour, lw=1.5, label=name)
        if line["low"]:
            axis.fill_between(
                line["fps"], line["low"], line["high"], color=colour, alpha=0.15, lw=0
            )
        used = at["fps_per_slice"]["value"], at["sensitivity"]["value"]
        if used[1] is not None:
            axis.plot(*used, "o", color=colour, ms=5)
    ticks = [2.0**power for power in range(-5, 7)]
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in ticks], fontsize=7)
    axis.set(xlim=_span(doc, iou), ylim=(0, 1), xlabel="false positives per slice (log)")
    axis.set_title(f"IoU ≥ {iou}", fontsize=10)
    axis.grid(alpha=0.3)


def _span(doc: Mapping[str, Any], iou: str) -> tuple[float, float]:
    """From 1/32 to the end of the longest curve, as powers of two."""
    ends = max(arm["at"][iou]["froc"]["end"] for arm in doc["arms"])
    high = 1.0
    while high < min(ends, 64):
        high *= 2
    return 1 / 32, high


def write_tables(document: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Write table, numbers and curves; return their paths."""
    files = {"table": "table.md", "numbers": "detections.json", "curves": "froc.png"}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(folder / files["table"], markdown(document).encode())
    write_json_atomic(folder / files["numbers"], document)
    draw_froc(document, folder / files["curves"])
    return {name: str(folder / file) for name, file in files.items()}
