"""``gansynth evaluate``, ``turing-test`` and ``detections`` on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth_cli.common import Output, examples, table, then
from gansynth_cli.requests import request_command
from gansynth_cli.results import then_augment, then_cure
from gansynth_evaluate.requests import (
    DetectionsRequest,
    EvaluateRequest,
    TuringRequest,
)

if TYPE_CHECKING:
    from gansynth_evaluate.turing.rated_study import RatedStudy


def show_evaluate(request: EvaluateRequest, document: dict[str, Any], out: Output) -> None:
    """Print the main figures, and what to type next: after alarms, what cures them."""
    from gansynth_evaluate.summary import MEANT

    lines = [*lines_of_evaluation(document)]
    cures = [alarm["cure"] for alarm in document["alarms"] if alarm["cure"] != MEANT]
    if document["of"]["kind"] == "run" and any(cures):
        lines += _cure(request, cures)
    elif document["of"]["kind"] == "run" and not cures:
        lines += then_augment(Path(request.run))
    out.result(document, lines)


def _cure(request: EvaluateRequest, cures: list[str]) -> Iterator[str]:
    from gansynth.core.run_folder import RunFolder
    from gansynth.sampling.manifest import PARTS
    from gansynth.sampling.run_source import open_moved

    run = RunFolder(Path(request.run))
    if PARTS not in run.manifest and not run.request.view:
        yield from then_cure(cures, run, open_moved(run, request.data, request.root))


evaluate = request_command(
    EvaluateRequest,
    "gansynth_evaluate.evaluate:run_evaluation",
    show_evaluate,
    epilog=examples(
        "gansynth evaluate runs/g0 -n 100",
        "gansynth evaluate banks/g0 --real nnunet:004 --real-read configuration=2d",
    ),
)


def show_turing_test(request: TuringRequest, made: RatedStudy, out: Output) -> None:
    """Print where the pages are, or the table of all raters."""
    if made.results is not None:
        lines = [*_turing_test_lines(made.results, made.files), then("evaluate", request.run)]
        out.result(dict(made.results, files=made.files), lines)
        return
    study, pages = made.study, made.pages
    named = [] if made.usual else ["-o", study.folder]
    lines = [f"study {study.id}: {len(study.key)} images, a page for each rater"]
    lines += [f"  {page}" for page in pages]
    answers = ("turing-test", request.run, *named, f"answers-{study.id}-rater-1.json")
    lines.append(then(*answers, label="once it is rated"))
    folder = str(study.folder)
    out.result({"study": study.id, "folder": folder, "pages": list(map(str, pages))}, lines)


turing_test = request_command(
    TuringRequest,
    "gansynth_evaluate.turing.rated_study:run_turing_test",
    show_turing_test,
    epilog=examples(
        "gansynth turing-test runs/g1 -n 50 --raters 3",
        "gansynth turing-test runs/g1 answers-*.json",
    ),
)


def _turing_test_lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth_evaluate.turing.summary import rows

    yield from table(rows(document))
    yield ""
    yield from document["words"]
    for warning in document["warnings"]:
        yield f"note: {warning}"
    yield ""
    yield from table(files.items())


def show_detections(request: DetectionsRequest, document: dict[str, Any], out: Output) -> None:
    """Print the tables."""
    lines = list(_detections_lines(document))
    if not document["files"]:
        lines.append(out.again(out="runs/detections"))  # which also writes numbers and curves
    out.result(document, lines)


detections = request_command(
    DetectionsRequest,
    "gansynth_evaluate.detections:run_detections",
    show_detections,
    epilog=examples(
        "gansynth detections runs/yolo-real runs/yolo-both --paper -o runs/table",
        "gansynth detections real=runs/a both=runs/b --split test --iou .5 --json",
    ),
)


def _detections_lines(document: Mapping[str, Any]) -> Iterator[str]:
    from gansynth_evaluate.detections import (
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


def lines_of_evaluation(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the three answers, the alarms, and where the report is."""
    from gansynth_evaluate.report.tables import in_short
    from gansynth_evaluate.sites import site_lines
    from gansynth_evaluate.summary import sentence_of

    for title, lines in in_short(document).items():
        if title == "Realism":  # the figures are in the report
            lines = [(sign, text.partition(":")[0]) for sign, text in lines]
        signed = [f"{sign} {text}" for sign, text in lines]
        yield f"{title}: {'  '.join(signed)}"
    yield from [line for _, line in site_lines(document)]
    identity = document.get("identity")
    if identity and not identity["findings"]:  # else it is an alarm
        yield sentence_of(identity)
    for alarm in document["alarms"]:
        yield f"ALARM {alarm['text']}"
    yield f"report: {document['files']['report.html']}"
