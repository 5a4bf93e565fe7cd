"""``gansynth fit``: fit a generator on the training cases of one fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from gansynth.core.requests.fit import FitRequest
from gansynth_cli.common import Output, examples, summary, table, then
from gansynth_cli.requests import request_command
from gansynth_cli.results import counted, lines_of_fit

if TYPE_CHECKING:
    from gansynth.sampling.loaded_run import FittedRun

COLUMNS = ("run", "train_cases", "steps", "seconds", "kept")
"""Columns of the table of a recipe's fitted sets."""

SETTINGS = ("generator", "data", "size", "edits", "fit", "options", "init_from", "recipe")
"""Keys of a dry run's report that ``--verbose`` lists; a recipe's sets and a chain's parts."""
PAPER = {"parameters": "{}", "memory_gb": "{} GB", "card_gb": "a card of {} GB", "hours": "{} h"}
"""Key of a paper's report -> its format."""
PREFIXES = ("", " k", " M", " G", " T", " P", " E", " Z")


def show(request: FitRequest, run: FittedRun, out: Output, *, verbose: bool) -> None:
    """Print the report of a fit."""
    report = run.report
    if report:  # of several processes, the first one reports
        lines = lines_of(report, verbose=verbose)
        if report.get("below_its_size"):
            steps = {"steps": report["steps_to_its_size"]}
            lines.append(out.again(set=dict[str, Any](request.set) | steps))
        out.result(report, lines)


command = request_command(
    FitRequest,
    "gansynth.fitting.command:run_fit",
    show,
    options=[
        click.option("--verbose", is_flag=True, help="With --dry-run: print every setting, too."),
    ],
    needs={"verbose": "dry_run"},
    epilog=examples(
        "gansynth fit cgan3d --data nnunet:004 -c 3d_fullres -o runs/g0 --max-memory 16GB",
        "gansynth fit dcgan --recipe han2018-wgan --data nifti:brats -o runs/han --only Concat-64",
    ),
)


def lines_of(report: Mapping[str, Any], *, verbose: bool = False) -> list[str]:
    """Return the lines of a fit's report, or of a dry run's: time and memory first."""
    if not report.get("dry_run"):
        return lines_of_sets(report) if "sets" in report else list(lines_of_fit(report))
    if "sets" in report:
        lines = lines_of_sets(report)
    else:
        lines = lines_of_cost(report)
        for name, part in report.get("parts", {}).items():
            lines += ["", f"{name}:", *lines_of_cost(part)]
        cases = counted(report["train_cases"], "training case")
        lines += [f"{cases}, {report['held_out_cases']} held out"]
    kept = (*SETTINGS, "sets", "parts")
    settings = summary({key: report[key] for key in kept if key in report})
    return [*lines, *(settings if verbose else [f"{len(settings)} settings, with --verbose"])]


def lines_of_cost(report: Mapping[str, Any]) -> list[str]:
    """Return the cost of a fit beside the paper's."""
    memory = f"{report['memory_mib']} MiB"
    if "device" in report:
        memory += f" on {report['device']}"
    minutes = report["estimated_minutes"]
    time = f"{minutes / 60:.3g} h" if minutes >= 60 else f"{minutes:.3g} min"
    seconds = report.get("seconds_per_step")
    missing = report.get("not_measured", ())
    if any(name.startswith("steps") for name in missing):
        time = f"not known; what was measured takes {time}"
    elif missing:
        time = f"at least {time}"
    if seconds is not None:
        time += f" in all, {seconds:.3g} s a step; {report['time_from']}"
    rows = [
        ("", "here", "paper"),
        ("time", time, _paper(report, "hours")),
        ("memory", memory, _paper(report, "memory_gb", "card_gb")),
    ]
    if "waited_share" in report:
        loading = f"{1e3 * report['loading_seconds_per_step']:.3g} ms a step"
        threads = counted(report["loading_threads"], "thread")
        waits = f"the device waits for it {report['waited_share']:.0%} of the time"
        rows.append(("loading", f"{loading} in {threads}; {waits}", "-"))
    if "parameters" in report:
        nets = ", ".join([f"{name} {_short(n)}" for name, n in report["parameters"].items()])
        rows.append(("parameters", nets or "none", _paper(report, "parameters")))
    if "flops_per_step" in report:
        step, total = _short(report["flops_per_step"]), _short(report["flops_total"])
        rows.append(("work", f"{step}FLOP a step, {total}FLOP in all", "-"))
    return table(rows) if report.get("paper") else table(row[:2] for row in rows[1:])


def _paper(report: Mapping[str, Any], *keys: str) -> str:
    figures = report.get("paper", {})
    known = [PAPER[key].format(figures[key]) for key in keys if key in figures]
    return ", ".join(known) or "-"


def _short(number: float) -> str:
    power = 0
    while abs(number) >= 1000 and power + 1 < len(PREFIXES):
        number, power = number / 1000, power + 1
    return f"{number:.3g}{PREFIXES[power] or ' '}"


def lines_of_sets(report: Mapping[str, Any]) -> list[str]:
    """Return a table with a row for each set of a recipe."""
    dry = report.get("dry_run", False)
    columns = ("train_cases", "steps", "estimated_hours") if dry else COLUMNS
    rows = [("set", *columns, "paper_hours") if dry else ("set", *columns)]
    for name, set_report in report["sets"].items():
        values = dict(set_report, steps=set_report.get("fit", set_report).get("steps"))
        row = [values.get(column) for column in columns]
        row += [set_report["paper"].get("hours")] if dry else []
        rows.append((name, *("-" if value is None else str(value) for value in row)))
    costs = []
    for name, set_report in report["sets"].items() if dry else ():
        if "parameters" in set_report:
            costs += ["", f"{name}:", *lines_of_cost(set_report)]
    lines = table(rows) + costs
    if costs:
        lines.append("")
    lines += [f"left open by the paper: {sentence}" for sentence in report.get("open", ())]
    whole = [each["run"] for each in report["sets"].values() if not each.get("below_its_size")]
    if whole and not dry:
        lines.append(then("sample", whole[0], "--sheet"))
    return lines
