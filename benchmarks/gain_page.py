"""Writes the tables of ``gains/README.md``, and the lines of ``docs/results.md``, from the results.

Verdicts and reports beside the results are worded anew first; no number changes.

python benchmarks/gain_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "gains"
PAGE = HERE / "README.md"
NAMES = (
    *("lgg", "lgg_128", "lgg_10", "lgg_yolo", "lgg_nnunet"),
    *("hippocampus", "phantoms", "phantoms_longer", "figshare"),
)
RESULTS = HERE.parents[1] / "docs" / "results.md"
OURS, END_OURS = "<!-- gains -->\n", "<!-- /gains -->"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"


def section(name: str, doc: Mapping[str, Any]) -> Iterator[str]:
    """What one plan came to."""
    data, look = doc["data"], doc["look"]
    yield f"### {doc['title']}"
    yield ""
    yield doc["verdict"]["sentence"]
    yield ""
    done = sum(run["status"] == "done" for run in doc["runs"])
    yield (
        f"[{name}.yaml]({name}.yaml), [report]({name}/report.md), [results]({name}/results.json). "
        f"{doc['host']['title']}, {doc['host']['steps']} steps; {doc['draws']} draws x "
        f"{doc['seeds']} seed{'s' * (doc['seeds'] > 1)}, {done} of {len(doc['runs'])} trainings "
        f"done; {data['test_subjects']} {look['split']} subjects "
        f"({data['test_cases']} cases), look {look['number']} of this plan."
    )
    yield ""
    yield from table(doc)
    yield ""


def table(doc: Mapping[str, Any]) -> Iterator[str]:
    """Every arm on the primary measure, in points."""
    key, control = doc["primary"], doc["control"]
    difference = f"difference from {control}, 95 % interval"
    yield f"| arm | N | {key} | {difference} | p (Holm) | detectable | realised |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    rows = {(row["arm"], row["n"]): row for row in doc["comparisons"] if row["measure"] == key}
    for mean in (row for row in doc["means"] if row["measure"] == key):
        row = rows.get((mean["arm"], mean["n"]))
        told = ["", "", ""] if row is None else list(compared(row))
        shares = [
            run["realised"]
            for run in doc["runs"]
            if (run["arm"], run["n"]) == (mean["arm"], mean["n"]) and run["status"] == "done"
        ]
        realised = f"{sum(shares) / len(shares):.2f}" if shares else ""
        title = doc["arms"][mean["arm"]]["title"]
        cells = [title, str(mean["n"]), points(mean["mean"]), *told, realised]
        yield f"| {' | '.join(cells)} |"


def compared(row: Mapping[str, Any]) -> Iterator[str]:
    """Difference with its interval, p, what could have been seen."""
    low, high = row["interval"]["low"], row["interval"]["high"]
    yield f"{points(row['difference'], '+')}, {points(low, '+')} to {points(high, '+')}"
    yield "" if row["p_holm"] is None else f"{row['p_holm']:.3f}"
    yield points(row["mde"])


def points(value: float | None, sign: str = "") -> str:
    """A share in points."""
    return "-" if value is None else f"{100 * value:{sign}.1f}"


def page(text: str) -> str:
    """The page with its tables as they ought to be."""
    lines = []
    for name in NAMES:
        path = HERE / name / "results.json"
        if path.is_file():
            lines += section(name, json.loads(path.read_text(encoding="utf-8")))
    head, _, rest = text.partition(BEGIN)
    body = "\n".join(lines)
    return f"{head}{BEGIN}{body}{END}{rest.partition(END)[2]}"


def results(text: str) -> str:
    """The project's own page with a line for each plan."""
    lines = []
    for name in NAMES:
        path = HERE / name / "results.json"
        if path.is_file():
            document = json.loads(path.read_text(encoding="utf-8"))
            sentence = document["verdict"]["sentence"]
            lines.append(
                f"- [{document['title']}](../benchmarks/gains/{name}/report.md): {sentence}"
            )
    head, _, rest = text.partition(OURS)
    body = "".join(f"{one}\n" for one in lines)
    return f"{head}{OURS}{body}{END_OURS}{rest.partition(END_OURS)[2]}"


def worded() -> None:
    """Write the verdict of each results document, and its reports, in today's words."""
    from gansynth.benchmark.report.verdict import verdict
    from gansynth.benchmark.running import write_results

    for path in (HERE / name / "results.json" for name in NAMES):
        if path.is_file():
            document = json.loads(path.read_text(encoding="utf-8"))
            write_results({**document, "verdict": verdict(document)}, path.parent, None)


if __name__ == "__main__":
    worded()
    for file, made in ((PAGE, page), (RESULTS, results)):
        file.write_text(made(file.read_text(encoding="utf-8")), encoding="utf-8")
