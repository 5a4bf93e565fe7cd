"""``gansynth benchmark``: arms x training subsets x seeds, paired statistics, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.studies import BenchmarkRequest
from gansynth_cli.common import Hint, Output, examples, table
from gansynth_cli.requests import request_command

if TYPE_CHECKING:
    from gansynth.benchmark.api import Benchmarked


def show(request: BenchmarkRequest, done: Benchmarked, out: Output) -> None:
    """Print the verdict, or a dry run's estimate; raise if a training failed."""
    from gansynth.benchmark.estimate import lines_of_estimate

    document = done.document
    if done.report is None:
        out.result(document, lines_of_estimate(document))
        return
    out.result(_short(document), _lines(document, document["files"]))
    done.report.raise_if_failed()


command = request_command(
    BenchmarkRequest,
    "gansynth.benchmark.api:measure",
    show,
    epilog=examples(
        "gansynth benchmark plan.yaml --dry-run",
        "gansynth benchmark plan.yaml --test-set --executor local:2 -o results/gain",
    ),
)


def _short(document: Mapping[str, Any]) -> dict[str, Any]:
    runs = [{k: v for k, v in run.items() if k != "scores"} for run in document["runs"]]
    return {**document, "runs": runs}


def _lines(document: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    from gansynth.benchmark.report.study import ReportData, ends_of
    from gansynth.benchmark.subject_split import DEVELOPMENT
    from gansynth.metrics.segmentation.measures import NO_CASE
    from gansynth.report.numbers import NOTHING, probability

    yield document["verdict"]["sentence"]
    study = ReportData(document)
    rows: list[tuple[object, ...]] = [
        ("arm", "N", "measure", "difference", "95 % interval", "p (Holm)", "detectable")
    ]
    for arm, n, (key, show) in product(study.others, study.sizes, study.beside().items()):
        node = study.entry("comparisons", arm.key, n, key)
        if node:
            low, high = map(show.difference, ends_of(node))
            numbers = (probability(node["p_holm"]), show.size(node["mde"]))
            span = "too small a design" if low == NOTHING else f"{low} to {high}"
            change = show.difference(node["difference"])
            if change == NOTHING:
                span = NO_CASE if key.startswith("false_alarms") else NOTHING
            rows.append((arm.key, n, f"{show.title}, {show.unit}", change, span, *numbers))
    if len(rows) > 1:
        yield from ("", *table(rows), "")
    yield f"report: {files['report.html']}"
    if missing := sum(run["status"] != "done" for run in document["runs"]):
        yield Hint(f"next: the same command again; {missing} trainings have no result yet")
    elif document["look"]["split"] == DEVELOPMENT:
        yield Hint("next: the same command with --test-set, once the plan is final")
