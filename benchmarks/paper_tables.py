"""A paper's table with ours beside it, from what the trainings came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from paper_plan import ALL, Arm, Plan

NOT_RUN = "not run: others' code"
Result = Mapping[str, Any]


def key_of(region: str, formula: str) -> str:
    """What a host calls a region in its report."""
    return "foreground" if formula == ALL else region


def dice_of(results: Sequence[Result], key: str) -> str:
    """Mean and deviation over held-out cases, those of all seeds together; a dash for none.

    Args:
        results: of one arm of one host, a seed each.
        key: of the region.
    """
    each = [case.get(key) for one in results for case in one["per_case"].values()]
    known = [value for value in each if value is not None]
    if not known:
        return "-"
    more = f" ± {pstdev(known):.2f}" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{more}"


def rows(
    plan: Plan,
    results: Sequence[Result],
    regions: Mapping[str, str],
    arms: Sequence[Arm] | None = None,
) -> list[tuple[object, ...]]:
    """A line for each arm of each host: what was drawn, Dice, and the paper's.

    Args:
        plan: the table.
        results: as ``bench_papers.py`` writes them.
        regions: name -> formula, as they were asked for.
        arms: shown of others' code; all of the plan's if None. Of ours, those with results.
    """
    names = list(regions)
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
                lines.append((told.title, arm.name, *drawn, *ours, *papers))
            elif told.code == "others" and arm in (arms or plan.arms):
                ours = [NOT_RUN, *("" for _ in names[1:])]
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
