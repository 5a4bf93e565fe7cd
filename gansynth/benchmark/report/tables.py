"""The tables of a report."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gansynth.benchmark.report.study import ReportData, ends_of
from gansynth.report.blocks import Block, Definitions, Paragraph, Table, TableColumn, TableRow
from gansynth.report.document import JsonNode
from gansynth.report.numbers import (
    NOTHING,
    Line,
    LinkedNumber,
    derived,
    joined,
    number,
    of_runs,
    probability,
    time_unit,
    whole,
    with_interval,
)

SPENT = ("train", "fit", "tune")


def means(study: ReportData) -> list[Block]:
    """Return the means of every measure."""
    rows = []
    for arm, n in study.places(study.arms):
        nodes = {name: study.entry("means", arm.key, n, name) for name in study.measures}
        if not any(nodes.values()):
            continue
        runs = next(node["runs"] for node in nodes.values() if node)
        cells: list[Line] = [[whole(study.size_node(n))]]
        for name, show in study.measures.items():
            values = (show.value(nodes[name][k]) for k in ("mean", "low", "high"))
            cells.append(with_interval(*values) if nodes[name] else [NOTHING])
        rows.append(TableRow([*cells, [whole(runs)]], arm.title))
    if not rows:
        return [Paragraph(["No training was finished."], "note")]
    titles = [f"{s.title}, {s.unit}, {'↑' if s.up else '↓'}" for s in study.measures.values()]
    columns = [TableColumn("N", "short"), *map(TableColumn, titles), TableColumn("runs")]
    note = "Means with 95 % confidence intervals. ↑ higher is better, ↓ lower is better."
    known = [study.root["measures"][name] for name in study.measures]
    terms = {text: (node["title"].text, [text]) for node in known if (text := node["says"].text)}
    table = Table("Means of all measures", columns, rows, "grouped")
    words = [Definitions(tuple(terms.values()))] if terms else []
    return [Paragraph([note], "note"), table, *words]


def comparisons(study: ReportData) -> list[Block]:
    """Return every number of every comparison."""
    blocks: list[Block] = []
    for name, show in study.measures.items():
        rows = [
            TableRow(_comparison(study, name, n, node), arm.title, pointer=node.pointer)
            for arm, n, node in study.entries("comparisons", study.arms, name)
            if node
        ]
        caption = f"Comparisons with the control: {show.title}, {show.unit}"
        blocks += [Table.of(caption, rows, "grouped")] if rows else []
    return blocks


def _comparison(
    study: ReportData, measure: str, n: int, node: JsonNode
) -> dict[TableColumn, Line | Markup]:
    show = study.measures[measure]
    low, high = ends_of(node)
    numbers: dict[str, Line] = {
        "arm": [show.value(node["mean_arm"])],
        "control": [show.value(node["mean_control"])],
        "difference": [show.difference(node["difference"])],
        "95 % CI": [show.difference(low), " to ", show.difference(high)],
        "p": [probability(node["p"])],
        "p, Holm": [probability(node["p_holm"])],
        "Wilcoxon p": [probability(node["wilcoxon_p"])],
        "Wilcoxon p, Holm": [probability(node["wilcoxon_p_holm"])],
        "MDE": [show.size(node["mde"])],
        "margin": [show.size(node["margin"])],
        "p, equivalence": [probability(node["equivalence_p"])],
        "standard error": [show.size(node["standard_error"])],
        "degrees of freedom": [number(node["df"], 1)],
        **{key: [whole(node[key])] for key in ("runs", "draws", "seeds", "subjects", "dropped")},
    }
    return {
        TableColumn("N", "short"): [whole(study.size_node(n))],
        **{TableColumn(title): line for title, line in numbers.items()},
        TableColumn("holds for other", "short"): [node["generalises"].text],
    }


def ratios(study: ReportData) -> list[Block]:
    """Return requested and realised shares of synthetic samples."""
    rows = []
    for arm, n in study.places(study.arms):
        runs = study.runs(arm.key, n, status="done")
        if not any(run["asked"].number or run["realised"].number for run in runs):
            continue
        shares = [_share("mean", runs, "asked")]
        shares += [_share(how, runs, "realised") for how in ("mean", "least", "most")]
        of = of_runs(runs, "fell_back")
        lacked = derived("sum", [run["fell_back"] for run in runs], of=of, holder="/runs")
        cells: list[Line] = [[whole(study.size_node(n))], *([share] for share in shares)]
        rows.append(TableRow([*cells, [lacked]], arm.title))
    if not rows:
        return [Paragraph(["No finished training drew synthetic samples."], "note")]
    titles = ("asked, %", "drawn, %", "least, %", "most, %", "samples missing")
    columns = [TableColumn("N", "short"), *map(TableColumn, titles)]
    note = "Where a synthetic sample was missing, a real one was taken instead."
    table = Table("Share of synthetic samples, over finished runs", columns, rows, "grouped")
    return [table, Paragraph([note], "note")]


def _share(how: str, runs: Sequence[JsonNode], key: str) -> LinkedNumber:
    nodes = [run[key] for run in runs]
    return derived(how, nodes, 1, of=of_runs(runs, key), holder="/runs", scale=100.0)


def chosen(study: ReportData) -> list[Block]:
    """Return the arms that inner folds chose for each training subset, for tuned arms."""
    rows: dict[tuple[str, float | None, float | None], TableRow] = {}
    for arm, n in study.places(study.arms):
        for run in study.runs(arm.key, n):
            if run["chosen"]:
                cells: list[Line] = [[whole(run["n"])], [whole(run["draw"])], [run["chosen"].text]]
                key = (arm.key, run["n"].number, run["draw"].number)
                rows.setdefault(key, TableRow(cells, arm.title, pointer=run["chosen"].pointer))
    columns = [
        TableColumn("N", "short"),
        TableColumn("draw", "short"),
        TableColumn("chosen", "words"),
    ]
    caption = "Chosen among arms by inner folds of the training subjects"
    return [Table(caption, columns, list(rows.values()), "grouped")] if rows else []


def costs(study: ReportData) -> list[Block]:
    """Return total hours, and the time of one training of each arm."""
    entries = [entry for entry in study.entries("costs", study.arms) if entry[-1]]
    keys = ("train_s", "fit_s", "tune_s", "added_s")
    unit, length = time_unit(node[key].number for *_, node in entries for key in keys)
    rows = [
        TableRow(
            [[whole(study.size_node(n))], *([number(node[k], 1, scale=1 / length)] for k in keys)],
            arm.title,
            pointer=node.pointer,
        )
        for arm, n, node in entries
    ]
    titles = ("training the host", "fitting the generator", "tuning", "added")
    columns = [TableColumn("N", "short"), *(TableColumn(f"{title}, {unit}") for title in titles)]
    table = Table("What one training takes", columns, rows, "grouped")
    return [Paragraph(_device_hours(study)), *([table] if rows else [])]


def _device_hours(study: ReportData) -> Line:
    """Return the time of use of each kind of device."""
    devices: dict[str, list[JsonNode]] = {}
    for run in study.root["runs"]:
        devices.setdefault(run["device"].text or "unknown device", []).append(run)
    sums: list[Line] = []
    for device, runs in devices.items():
        spent = [run["seconds"][part] for run in runs for part in SPENT]
        unit, length = time_unit([sum(node.number or 0.0 for node in spent)])
        of = of_runs(runs, "seconds", SPENT)
        total = derived("sum", spent, 1, of=of, holder="/runs", scale=1 / length)
        sums.append([total, f" {unit} of {device}"])
    shared = ". A generator that several trainings share is counted for each of them."
    return ["All trainings together: ", *joined(sums), shared]
