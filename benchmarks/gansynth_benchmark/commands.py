"""``gansynth benchmark``, ``tune`` and ``papers`` on the command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth_benchmark.requests import (
    BenchmarkRequest,
    CardRequest,
    PapersRequest,
    TuneRequest,
)
from gansynth_cli.common import WIDTH, Output, examples, summary, table, then
from gansynth_cli.requests import request_command

if TYPE_CHECKING:
    from gansynth_benchmark.functions import Benchmarked
    from gansynth_benchmark.report.study import ReportData


def show_benchmark(request: BenchmarkRequest, done: Benchmarked, out: Output) -> None:
    """Print the verdict, or a dry run's estimate; raise if a training failed."""
    from gansynth_benchmark.estimate import lines_of_estimate

    document = done.document
    if request.new is not None:
        out.result(document, _new_lines(document))
        return
    if "plans" in document:
        lines: list[str] = []
        for plan in document["plans"]:
            lines += [*lines_of_estimate(plan), ""]
        out.result(document, lines)
        return
    if "sets" in document:
        out.result(document, _suite_lines(document))
    elif not done.reports:
        out.result(document, lines_of_estimate(document))
    else:
        told = _answer_lines if "answer" in document else _following
        lines = [*_benchmark_lines(document, document["files"]), *told(document, out)]
        out.result(_short(document), lines)
    for report in done.reports:
        report.raise_if_failed()


benchmark = request_command(
    BenchmarkRequest,
    "gansynth_benchmark.functions:measure",
    show_benchmark,
    epilog=examples(
        "gansynth benchmark --new nifti:scans --subjects subjects.csv",
        "gansynth benchmark plan.yaml --test-set --executor local:2 -o results/gain",
    ),
)


def _suite_lines(document: Mapping[str, Any]) -> Iterator[str]:
    from gansynth_benchmark.suite import sentences

    yield from sentences(document)
    yield f"report: {document['files']['report.md']}"


def _new_lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"{document['plan']}: a plan for {document['subjects']} subjects of {document['data']}"
    if document["alone"]:
        yield "every case counts as one subject; if that is untrue, name them: --subjects"
    arms = document["with_samples"]
    others = f"no arm has samples; --generator {document['generator']} adds one"
    chosen = f"arms with samples: {', '.join(arms)}" if arms else others
    yield f"the data are {document['contents']}: {document['advice']}"
    yield chosen
    yield then("benchmark", document["plan"], "--dry-run")


def _short(document: Mapping[str, Any]) -> dict[str, Any]:
    runs = [{k: v for k, v in run.items() if k != "scores"} for run in document["runs"]]
    return dict(document, runs=runs)


def _benchmark_lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth_benchmark.report.study import ReportData
    from gansynth_benchmark.report.tables import by_size

    yield document["verdict"]["sentence"]
    study = ReportData(document)
    for key in study.beside():
        yield from _differences(study, key)
    sizes = by_size(study)
    if sizes:
        columns = [name for name in sizes[0] if "of the control" not in name]
        rows = [tuple([row[name] for name in columns]) for row in sizes]
        yield from ("", "by the size of lesions, points:", *table([tuple(columns), *rows], WIDTH))
    yield from ("", f"report: {files['report.html']}")


def _following(document: Mapping[str, Any], out: Output) -> Iterator[str]:
    """Yield the command that goes on, or the one that ends a development."""
    from gansynth_benchmark.subject_split import DEVELOPMENT

    missing = len(document["runs"]) - [run["status"] for run in document["runs"]].count("done")
    if missing:
        yield f"no result yet: {missing} training{'s' * (missing != 1)}"
        yield out.again()
    elif document["look"]["split"] == DEVELOPMENT:
        yield out.again(label="once the plan is final", test_set=True)


def _answer_lines(document: Mapping[str, Any], out: Output) -> Iterator[str]:
    """Yield what the hours tell, and the command that follows from it."""
    yield document["advice"]
    yield "all measured sets, with their reports: gansynth help results"
    yield document["answer"]
    yield then(*document["use"])


def _differences(study: ReportData, key: str) -> Iterator[str]:
    """Yield a measure's differences of each arm to the control, as a table."""
    from gansynth.metrics.segmentation.measures import NO_CASE
    from gansynth.report.numbers import NOTHING, probability
    from gansynth_benchmark.report.study import ends_of

    show = study.measures[key]
    rows: list[tuple[object, ...]] = []
    for arm, n, node in study.entries("comparisons", study.others, key):
        if node:
            low, high = map(show.difference, ends_of(node))
            change = show.difference(node["difference"])
            unknown = NOTHING if change == NOTHING else "too small a design"
            span = unknown if low == NOTHING else f"{low} to {high}"
            numbers = [probability(node.get(key)) for key in ("p_holm", "false_claim")]
            numbers.append(study.detectable(node))
            rows.append((arm.key, n, change, span, *numbers))
    if not rows:
        return
    yield from ("", f"{show.title}, {show.unit}:")
    if key.startswith("false_alarms") and {row[2] for row in rows} == {NOTHING}:
        yield NO_CASE
    else:
        head = ("arm", "N", "difference", "95 % interval", "p (Holm)", "P(false)", "detectable")
        yield from table([head, *rows], WIDTH)


def show_tune(request: TuneRequest, document: dict[str, Any], out: Output) -> None:
    """Print the choice, or what would be compared."""
    out.result(document, summary(document) if request.dry_run else _tune_lines(document))


tune = request_command(
    TuneRequest,
    "gansynth_benchmark.functions:run_tuning",
    show_tune,
    epilog=examples(
        "gansynth tune plan.yaml --executor local:2",
        "gansynth tune plan.yaml --size 12 --draw 1 -o runs/tune",
    ),
)


def _tune_lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"chosen: {document['chosen']}; {document['why']}"
    for arm, why in document["dropped"].items():
        yield f"dropped: {arm}: {why}"
    rungs = document["rungs"]
    last = rungs[-1]
    measured = {document["by"]: last["scores"]}
    measured.update(last["beside"])
    for key, values in measured.items():
        scores = [f"{arm} {'-' if v is None else f'{v:.4f}'}" for arm, v in values.items()]
        yield f"{key} on inner folds, at the last of {len(rungs)} rungs: {', '.join(scores)}"
    for arm, gain in document["gains"].items():
        yield f"{arm} against {document['compared_with']}: {gain['words']}"
    for number, line in enumerate(document["use"]):
        yield then(*shlex.split(line)[1:], label="then" if number else "next")


def show_papers(request: PapersRequest, document: dict[str, Any], out: Output) -> None:
    """Print the table, after the commands of a dry run."""
    lines = document.pop("table")
    if request.dry_run:
        lines += [f"figure: {of}" for of in document["pictures"]]
        lines += ["", "open:", *[f"- {remark}" for remark in document["open"]], ""]
        out.result(document, [*document["commands"], "", *lines, document["cost"]])
        return
    file = document.pop("file", None)
    for picture, shows in document["pictures"].items():
        lines.append(f"figure: {Path(request.out or '') / picture} ({shows})")
    keep = out.again(out=Path("papers") / Path(request.plan).stem)
    out.result(document, [*lines, keep if file is None else f"results: {file}"])


papers = request_command(
    PapersRequest,
    "gansynth_benchmark.functions:run_papers",
    show_papers,
    epilog=examples(
        "gansynth papers shin2018 --data nifti:brats/ --extra-source tissues=nifti:tissues/ "
        "--dry-run",
        "gansynth papers han2019-cpggan --data yolo:data.yaml -o papers/han2019",
    ),
)


def show_card(request: CardRequest, document: dict[str, Any], out: Output) -> None:
    """Print the card, or the paragraph and the table."""
    from gansynth_benchmark.composition import lines_of

    out.result(document, lines_of(document))


card = request_command(
    CardRequest,
    "gansynth_benchmark.composition:card",
    show_card,
    epilog=examples(
        "gansynth card runs/g1",
        "gansynth card results/with-samples --methods",
    ),
)
