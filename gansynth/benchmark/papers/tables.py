"""A paper's table with ours beside it, from what the trainings came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from gansynth.benchmark.papers.plan import ALL, Arm, Plan

NOT_RUN = "not run: others' code"
Result = Mapping[str, Any]


def key_of(region: str, formula: str) -> str:
    """What a host calls a region in its report."""
    return "foreground" if formula == ALL else region


def dice_of(results: Sequence[Result], key: str) -> str:
    """Mean and deviation over held-out cases, those of all seeds together; a dash for none."""
    each = [case.get(key) for one in results for case in one["per_case"].values()]
    known = [value for value in each if value is not None]
    if not known:
        return "-"
    more = f" ± {pstdev(known):.2f}" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{more}"


def figure_of(results: Sequence[Result], key: str) -> str:
    """Mean over seeds of a detector's figure; a dash for none."""
    known = [one["figures"][key] for one in results if one["figures"][key] is not None]
    return f"{fmean(known):.3f}" if known else "-"


def rows(
    plan: Plan,
    results: Sequence[Result],
    regions: Mapping[str, str],
    arms: Sequence[Arm] | None = None,
) -> list[tuple[object, ...]]:
    """A line for each arm of each host: what was drawn, Dice or figures, and the paper's.

    Args:
        results: as ``gansynth papers`` writes them.
        regions: name -> formula, as they were asked for; none of a detector's table.
        arms: shown of others' code; all of the plan's if None. Of ours, those with results; all
            before there are any.
    """
    names = plan.measures
    head = ("host", "arm", "real", "synthetic", *names, *(f"paper {name}" for name in names))
    lines: list[tuple[object, ...]] = [head]
    for host, told in plan.hosts.items():
        for arm in plan.arms:
            found = [one for one in results if (one["host"], one["arm"]) == (host, arm.name)]
            papers = [plan.figure(host, arm, name) or "-" for name in names]
            if found:
                drawn = [
                    sum(one[key] for one in found) for key in ("drawn_real", "drawn_synthetic")
                ]
                ours = [dice_of(found, key_of(*item)) for item in regions.items()]
                ours += [figure_of(found, key) for key in plan.columns.values()]
                lines.append((told.title, arm.name, *drawn, *ours, *papers))
            elif arm in (arms or plan.arms) and (told.code == "others" or not results):
                not_run = NOT_RUN if told.code == "others" else "-"
                ours = [not_run, *("" for _ in names[1:])]
                lines.append((told.title, arm.name, "-", "-", *ours, *papers))
    return lines


def notes(plan: Plan) -> list[str]:
    """What is said below the table: of hosts that are not run, and of those that stand in."""
    lines = []
    for name in plan.others():
        host = plan.hosts[name]
        lines.append(f"{host.title}: {host.why} Instead: {host.instead}.")
    return lines


def steps_of(results: Sequence[Result]) -> list[str]:
    """How many optimiser steps the arms of each host had, if they had not as many."""
    lines = []
    for host in dict.fromkeys(one["host"] for one in results):
        steps = sorted({one["steps"] for one in results if one["host"] == host})
        if len(steps) > 1:
            lines.append(f"{host}: its arms had {', '.join(map(str, steps))} steps, not as many")
    return lines
