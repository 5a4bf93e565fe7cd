"""A suite: a file that names plans. Each is run as by itself; then what all say together.

Arms of one name are one arm. Of each plan the smallest size counts: larger ones have the same test
subjects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from gansynth.metrics.segmentation.measures import measure_of, told_first
from gansynth.metrics.statistics import holm
from gansynth.report.numbers import NOTHING, NumberFormat, probability
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, write_bytes_atomic, write_json_atomic
from gansynth.runtime.yaml_text import read_yaml
from gansynth_benchmark.across import expected_effect
from gansynth_benchmark.plan import NAME, ClosedModel
from gansynth_benchmark.plan_file import NEW, first_error
from gansynth_benchmark.report.study import ComparisonOutcome, ReportData, ends_of, finding_of
from gansynth_benchmark.running import FORMAT, RESULTS, read_results

SUITE_HELP = "a suite in YAML, see: gansynth help benchmark_plan suites"
Document = Mapping[str, Any]


class SuiteSet(ClosedModel):
    """A data set of a suite: a plan to run, or the results of one that ran elsewhere."""

    plan: str | None = Field(None, description="YAML file of a plan")
    data: str | None = Field(None, description="KIND:WHERE in place of the plan's")
    results: str | None = Field(None, description="results.json of a plan, in place of running it")

    @model_validator(mode="after")
    def _one(self) -> SuiteSet:
        if (self.plan is None) == (self.results is None):
            raise ValueError("expected plan or results")
        if self.results is not None and self.data is not None:
            raise ValueError("data with results: nothing is run, leave it out")
        return self


class SuitePlan(ClosedModel):
    """A suite; paths are relative to its file."""

    name: str = Field(pattern=NAME, description="of the suite and its folder")
    title: str = Field("", description="of the report")
    sets: tuple[SuiteSet, ...] = Field(min_length=2, description="data sets: see below")


def read_suite(path: Path) -> SuitePlan | None:
    """Read a suite; None if the file is none, since it has no ``sets``."""
    values, _ = read_yaml(path, NEW)
    if not isinstance(values, Mapping) or "sets" not in values:
        return None
    try:
        suite = SuitePlan(**values)
    except ValidationError as error:
        raise UsageFault(
            "benchmark.suite-value-refused", f"{path}: {first_error(error, SUITE_HELP)}"
        ) from None
    for number, one in enumerate(suite.sets):
        file = path.parent / str(one.plan or one.results)
        if not file.is_file():
            raise UsageFault(
                "benchmark.suite-file-missing",
                f"{path}: sets.{number}: {file}: no such file, expected one",
            )
    return suite


def suite_of(suite: SuitePlan, documents: Sequence[Document]) -> dict[str, Any]:
    """Return what the results documents of a suite's sets say together."""
    primary = documents[0]["primary"]
    for document in documents:
        if document["primary"] != primary:
            raise UsageFault(
                "benchmark.suite-primary-measures-differ",
                f"{document['name']}: its primary measure is {document['primary']}, expected "
                f"{primary}, as {documents[0]['name']} has; set `primary` in the plan",
            )
    studies = [ReportData(document) for document in documents]
    rows, measures = [], {}
    for key in told_first(primary):
        measure = documents[0]["measures"].get(key)
        if measure is None or (measure["unit"] and key != primary):
            continue  # voxels of one set mean nothing beside those of another
        measures[key] = measure
        family = list(_rows(studies, key))
        corrected = holm([row["p"] for row in family])
        for row, p in zip(family, corrected, strict=True):
            rows.append({**row, "p_holm": p})
    return {
        "format": FORMAT,
        "name": suite.name,
        "title": suite.title or suite.name,
        "primary": primary,
        "sets": [_set_of(document) for document in documents],
        "rows": rows,
        "measures": measures,
    }


def _set_of(document: Document) -> dict[str, Any]:
    size, key = document["sizes"][0], document["primary"]
    means = {(row["arm"], row["n"], row["measure"]): row["mean"] for row in document["means"]}
    return {
        "name": document["name"],
        "title": document["title"],
        "plan_hash": document["plan_hash"],
        "gansynth": document["gansynth"],
        "host": document["host"]["title"],
        "look": document["look"]["split"],
        "n": size,
        "draws": document["draws"],
        "seeds": document["seeds"],
        "test_subjects": document["data"]["test_subjects"],
        "control": means.get((document["control"], size, key)),
    }


def _rows(studies: Sequence[ReportData], key: str) -> Iterator[dict[str, Any]]:
    """Yield each arm on a measure: its effect on each set, and over them."""
    titles: dict[str, str] = {}
    for study in studies:
        for arm in study.others:
            titles.setdefault(arm.key, arm.title)
    show = NumberFormat.of(studies[0].document["measures"][key], key)
    for name, title in titles.items():
        effects, values, errors = [], [], []
        findings = dict.fromkeys(("helped", "harmed", "unclear"), 0)
        for study in studies:
            entry = study.entry("comparisons", name, study.sizes[0], key)
            finding = finding_of(entry, show)
            if finding is ComparisonOutcome.MISSING:
                continue
            low, high = ends_of(entry)
            effects.append(
                {
                    "set": study.document["name"],
                    "difference": entry["difference"],
                    "low": low,
                    "high": high,
                    "finding": finding.words,
                }
            )
            if entry["standard_error"] is not None:  # of fewer trainings, nothing is known
                values.append(entry["difference"])
                errors.append(entry["standard_error"])
            findings[_WORDS.get(finding, "unclear")] += 1
        if effects:
            least, most = measure_of(key).bounds
            over = expected_effect(values, errors, most - least).to_json()
            yield {"arm": name, "title": title, "measure": key, "sets": effects, **over, **findings}


_WORDS = {ComparisonOutcome.GAIN: "helped", ComparisonOutcome.LOSS: "harmed"}


# -- the report ------------------------------------------------------------------------------------


def write_suite(document: Document, folder: Path) -> dict[str, Path]:
    """Write ``results.json`` and ``report.md``, and return the files by name."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = {"results": folder / RESULTS, "report.md": folder / "report.md"}
    write_json_atomic(files["results"], document)
    text = "\n".join([f"# {document['title']}", "", *report_lines(document)])
    write_bytes_atomic(files["report.md"], f"{text}\n".encode())
    return files


def sentences(document: Document) -> Iterator[str]:
    """Yield what each arm may be expected to do on a further set, by the primary measure."""
    show = _shown(document, document["primary"])
    for row in document["rows"]:
        if row["measure"] != document["primary"]:
            continue
        count = len(row["sets"])
        counts = f"helped on {row['helped']}, harmed on {row['harmed']}, unclear on "
        counts += f"{row['unclear']} of {count} sets"
        if row["next_low"] is None:
            sets = f"{count} set{'s' if count > 1 else ''}"
            yield f"{row['title']}: {counts}; {sets} cannot tell what to expect of another"
            continue
        yield (
            f"{row['title']}: on a new set of this kind expect {show.title} "
            f"{show.difference(row['mean'])} {show.unit} ({show.difference(row['next_low'])} to "
            f"{show.difference(row['next_high'])}); {counts}"
        )


def report_lines(document: Document) -> Iterator[str]:
    """Yield the report in Markdown: sets, the expected effects, and the sets' own."""
    for line in sentences(document):
        yield f"- {line}."
    yield ""
    yield "| set | host | N | draws x seeds | test subjects | control | split |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    show = _shown(document, document["primary"])
    for one in document["sets"]:
        size = f"{one['draws']} x {one['seeds']}"
        cells = [one["title"], one["host"], one["n"], size, one["test_subjects"]]
        yield _line([*cells, show.value(one["control"]), one["look"]])
    for key in document["measures"]:
        rows = [row for row in document["rows"] if row["measure"] == key]
        if rows:
            yield from _table(rows, document["sets"], _shown(document, key))


def _table(rows: Sequence[Document], sets: Sequence[Document], show: NumberFormat) -> Iterator[str]:
    yield ""
    yield f"**{show.title}**, {show.unit}, differences from the control with 95 % intervals:"
    yield ""
    names = [one["name"] for one in sets]
    head = ["arm", *names, "mean of such sets", "p (Holm)", "spread", "a new set"]
    yield _line(head)
    yield _line(["---"] * len(head))
    for row in rows:
        of_set = {one["set"]: one for one in row["sets"]}
        cells = [row["title"]]
        for name in names:
            one = of_set.get(name)
            cells.append(NOTHING if one is None else _span(show, one, "difference", "low", "high"))
        cells.append(_span(show, row, "mean", "low", "high"))
        cells += [probability(row["p_holm"]), show.size(row["spread"])]
        low, high = show.difference(row["next_low"]), show.difference(row["next_high"])
        cells.append(NOTHING if row["next_low"] is None else f"{low} to {high}")
        yield _line(cells)


def _span(show: NumberFormat, row: Document, middle: str, low: str, high: str) -> str:
    text = show.difference(row[middle])
    if row[low] is None:
        return text
    return f"{text} ({show.difference(row[low])} to {show.difference(row[high])})"


def _shown(document: Document, key: str) -> NumberFormat:
    return NumberFormat.of(document["measures"][key], key)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def known_document(path: Path) -> Document:
    """Read the results of a plan. Raises UsageFault: the file holds something else."""
    document: Document = read_results(path)
    for key in ("comparisons", "means", "arms", "primary"):
        if key not in document:
            raise UsageFault(
                "benchmark.results-file-lacks-key",
                f"{path}: has no {key}, expected results.json of gansynth benchmark",
            )
    return document
