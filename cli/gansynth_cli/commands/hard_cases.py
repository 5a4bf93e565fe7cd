"""``gansynth hard-cases``: find hard cases on inner folds, to weight conditions by."""

from __future__ import annotations

from typing import Any

from gansynth.core.requests.data import HardCasesRequest
from gansynth_cli.common import Output, examples, summary, table, then
from gansynth_cli.requests import request_command

SHOWN = 10  # false alarms in the printed table


def show(request: HardCasesRequest, report: dict[str, Any], out: Output) -> None:
    """Print the table of weights, and the next command."""
    weighted = then("sample", "RUN", "--sampling-weights", request.out, "--sheet")
    written = request.out is not None and not request.dry_run
    out.result(report, [*_lines(report), *([weighted] if written else [])])


command = request_command(
    HardCasesRequest,
    "gansynth.evaluation.hard_cases.job:run_hard_cases",
    show,
    epilog=examples(
        "gansynth hard-cases --data msd:Task04_Hippocampus --fold 0 -o failures.json",
        "gansynth hard-cases --data nnunet-raw:004 --inner 3 --write-splits inner.json",
    ),
)


def _lines(report: dict[str, Any]) -> list[str]:
    plain = {key: value for key, value in report.items() if key != "risk"}
    plain["inner"] = ", ".join(f"{row['train']} + {row['val']}" for row in report["inner"])
    if "risk" not in report:
        return summary(plain)
    plain["false_alarms"] = len(report["false_alarms"])
    lines = summary(plain)
    rows = [("", "", "lesions", "missed", "failure", "weight")]
    for factor in report["risk"]["factors"]:
        for row in factor["bins"]:
            numbers = (
                row["lesions"],
                row["missed"],
                f"{row['failure']:.3f}",
                f"{row['ratio']:.2f}",
            )
            rows.append((factor["name"], row["name"], *map(str, numbers)))
    lines += ["", *table(rows)]
    alarms = sorted(report["false_alarms"], key=lambda row: -row["voxels"])[:SHOWN]
    shown = [("false alarms, largest first", "first voxel", "voxels", "place")]
    for row in alarms:
        corner = ",".join(str(first) for first, _ in row["box"])
        place = ",".join(f"{x:.2f}" for x in row["place"])
        shown.append((row["case"], corner, str(row["voxels"]), place))
    return [*lines, "", *table(shown)] if alarms else lines
