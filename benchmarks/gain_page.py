"""Writes the tables of ``gains/README.md``, lines and a picture of ``docs/``, from the results.

Statistics, verdicts and reports beside the results are made of the scores anew first.

python benchmarks/gain_page.py
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent / "gains"
PAGE = HERE / "README.md"
NAMES = (
    *("lgg", "lgg_128", "lgg_10", "lgg_yolo", "lgg_nnunet"),
    *("hippocampus", "phantoms", "phantoms_longer", "figshare"),
)
RESULTS = HERE.parents[1] / "docs" / "results.md"
PICTURE = HERE.parents[1] / "docs" / "images" / "gains.svg"
KIND = {"yardstick": "", "rival": ", no network", "gan": ", a GAN"}
ROW, PLOT, NUMBERS = 24.0, (42.0, 75.0), 78.0
"""Pixels of a row; edges of the plot and start of the numbers, as shares of the width."""
HEAD = "▲ gain shown over the usual augmentation, ○ not shown"
LOOK = "svg { background: var(--ground); font-family: sans-serif } text { font-size: 13px }"
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


def picture(text: str) -> str:
    """A forest plot of all arms of the sealed results on gliomas, made of the report's drawings."""
    from markupsafe import Markup

    from gansynth.benchmark.report.comparing import MARKS
    from gansynth.benchmark.report.study import ReportData, ends_of, finding_of
    from gansynth.report import svg
    from gansynth.report.numbers import plain, with_interval
    from gansynth.report.rendering import template

    axis, y, rows = svg.Axis.over([-5.0, 15.0], *PLOT), 20.0, list[Markup]()
    for name in (name for name in NAMES if name.startswith("lgg")):
        study = ReportData(json.loads((HERE / name / "results.json").read_text(encoding="utf-8")))
        title, show, y = study.root["title"].text, study.show, y + ROW
        rows.append(svg.words(1, y + 4, f"{title} ({show.title})", "on", "start"))
        for arm, _, node in study.entries("comparisons", study.others, study.primary):
            finding, y = finding_of(node, show), y + ROW
            middle, low, high = (show.difference(n) for n in (node["difference"], *ends_of(node)))
            ends, at = [(n.value * n.scale, n) for n in (low, high)], middle.value * middle.scale
            rows += svg.whisker(axis, ends, y)
            rows.append(svg.mark(MARKS[finding], axis.at(at), y, finding.name.lower()))
            rows.append(svg.words(3, y + 4, arm.title + KIND[arm.kind], "", "start"))
            told = plain(with_interval(middle, low, high))
            rows.append(svg.words(NUMBERS, y + 4, told, "on", "start"))
    height = y + ROW
    ticks = [(axis.at(tick), "grid" if tick else "zero") for tick in axis.ticks]
    head = [svg.words(axis.at(t), 16, axis.words(t, sign=True), "") for t in axis.ticks]
    for at, said in ((1, HEAD), (NUMBERS, "points (95 % CI)")):
        head.append(svg.words(at, 16, said, "", "start"))
    style, page = template("style.css"), template("report.html")
    colours = re.findall(r"^:root \{.*?^\}", style, re.DOTALL | re.MULTILINE)[:1]
    rules = [*colours, *re.findall(r"^(?:text|line|use)\b.*", style, re.MULTILINE), LOOK]
    drawn = svg.tag(
        "svg",
        svg.tag("style", Markup("\n".join(rules))),
        *(Markup(shapes) for shapes in re.findall(r"<defs>.*?</defs>", page, re.DOTALL)),
        *(svg.line(x, 26, x, height - 12, kind) for x, kind in ticks),
        *(*head, *rows),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 860 {height:g}",
    )
    return f"{drawn}\n".replace("><", ">\n<")


MADE = {PAGE: page, RESULTS: results, PICTURE: picture}


STATED = ("comparisons", "baselines", "means", "worth", "verdict")


def restated() -> None:
    """Write the statistics of each document's scores, its verdict and its report, as of today."""
    from gansynth.benchmark.analysis import analysed
    from gansynth.benchmark.running import write_results

    for path in sorted(HERE.glob("*/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if "comparisons" not in document:
            continue
        found = analysed(document)
        document |= {key: found[key] for key in STATED if key in document}
        with TemporaryDirectory() as folder:
            write_results(document, Path(folder), None)
            shutil.copyfile(Path(folder) / "results.json", path)
            name = "report" if path.stem == "results" else path.stem
            shutil.copyfile(Path(folder) / "report.md", path.with_name(f"{name}.md"))


if __name__ == "__main__":
    restated()
    for file, made in MADE.items():
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        file.write_text(made(text), encoding="utf-8")
