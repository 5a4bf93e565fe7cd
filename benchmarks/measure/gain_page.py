"""Writes the tables of ``gains/README.md``, and a picture and a list of ``docs/``, from results.

Statistics, verdicts and reports beside the results are made of the scores anew first.

python benchmarks/measure/gain_page.py
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gansynth_benchmark.functions import benchmark
from gansynth_benchmark.suite import sentences

HERE = Path(__file__).parents[1] / "gains"
PAGE = HERE / "README.md"
NAMES = (
    "lgg",
    "lgg_128",
    "lgg_10",
    "lgg_yolo",
    "lgg_nnunet",
    "hippocampus",
    "phantoms",
    "phantoms_longer",
    "figshare",
)
PICTURE = HERE.parents[1] / "docs" / "images" / "gains.svg"
KIND = {"yardstick": "", "rival": ", no network", "gan": ", a GAN"}
HEAD = "▲ gain shown over the usual augmentation, ○ not shown"
SUITE, SUITES = "small_lesions", HERE.parents[1] / "docs" / "benchmark_plan.md"
SAID, END_SAID = "<!-- suite -->\n", "<!-- /suite -->"
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


def picture(_: str) -> str:
    """A forest plot of all arms of the sealed results on gliomas, drawn as reports draw theirs."""
    from gansynth.report.figures import axes_of, svg_of
    from gansynth.report.numbers import with_interval
    from gansynth_benchmark.report.figures import draw_comparison
    from gansynth_benchmark.report.study import ReportData, ends_of

    studies = [
        ReportData(json.loads((HERE / name / "results.json").read_text(encoding="utf-8")))
        for name in NAMES
        if name.startswith("lgg")
    ]
    rows = [
        row
        for study in studies
        for row in ((study, None, {}), *((study, arm, entry) for arm, _, entry in study.entries(
            "comparisons", study.others, study.primary)))
    ]  # fmt: skip
    axes = axes_of(8.6, 0.24 * len(rows) + 0.7)
    axes.set(xlim=(-5, 15), ylim=(len(rows) - 0.4, -0.6))
    labels, numbers = [], []
    for y, (study, arm, entry) in enumerate(rows):
        show = study.show
        if arm is None:
            labels.append(f"{study.document['title']} ({show.title})")
            numbers.append("points (95 % CI)")
            continue
        bare = {key: entry[key] for key in ("difference", "interval", "p_holm", "equivalent")}
        draw_comparison(axes, y, bare, show)
        labels.append(arm.title + KIND[arm.kind])
        values = map(show.difference, (entry["difference"], *ends_of(entry)))
        numbers.append(with_interval(*values))
    axes.axvline(0, color="black", lw=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), labels)
    for label, (_, arm, _) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_weight("bold" if arm is None else "normal")
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(rows)), numbers, fontsize=8)
    for axis in (axes, beside):
        axis.tick_params("y", length=0)
        axis.spines[["left", "right"]].set_visible(False)
    axes.set_xlabel(HEAD)
    return svg_of(axes).decode()


def suites(text: str) -> str:
    """The page of suites with what ours says."""
    document = json.loads((HERE / SUITE / "results.json").read_text(encoding="utf-8"))
    head, _, rest = text.partition(SAID)
    body = "".join(f"- {line}.\n" for line in sentences(document))
    return f"{head}{SAID}{body}{END_SAID}{rest.partition(END_SAID)[2]}"


MADE = {PAGE: page, PICTURE: picture, SUITES: suites}


STATED = ("comparisons", "baselines", "means", "worth", "verdict")


def restated() -> None:
    """Write the statistics of each document's scores, its verdict and its report, as of today."""
    from gansynth_benchmark.analysis import analysed
    from gansynth_benchmark.running import write_results

    for path in sorted(HERE.glob("*/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        name = "report" if path.stem == "results" else path.stem
        if "runs" not in document or not path.with_name(f"{name}.md").is_file():
            continue  # parts that are only read by others
        found = analysed(document)
        document |= {key: found[key] for key in STATED if key in document}
        with TemporaryDirectory() as folder:
            write_results(document, Path(folder), None)
            shutil.copyfile(Path(folder) / "results.json", path)
            shutil.copyfile(Path(folder) / "report.md", path.with_name(f"{name}.md"))


def joined_sets() -> None:
    """Write what the sets of a suite say together."""
    benchmark(HERE / SUITE / "suite.yaml", out=HERE / SUITE, quiet=True)


if __name__ == "__main__":
    restated()
    joined_sets()
    for file, made in MADE.items():
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        file.write_text(made(text), encoding="utf-8")
