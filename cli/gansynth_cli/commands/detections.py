"""``gansynth detections``: evaluate detectors, and compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gansynth.core.requests.studies import DetectionsRequest
from gansynth_cli.common import Hint, Output, examples, table
from gansynth_cli.requests import request_command


def show(request: DetectionsRequest, document: dict[str, Any], out: Output) -> None:
    """Print the tables."""
    hint = Hint("next: the same with -o DIR writes table, numbers and curves")
    out.result(document, [*_lines(document), *([] if document["files"] else [hint])])


command = request_command(
    DetectionsRequest,
    "gansynth.evaluation.detections:run_detections",
    show,
    epilog=examples(
        "gansynth detections runs/yolo-real runs/yolo-both --paper -o runs/table",
        "gansynth detections real=runs/a both=runs/b --split test --iou .5 --json",
    ),
)


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
