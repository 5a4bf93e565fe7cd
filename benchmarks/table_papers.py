"""The rows of ``gansynth papers`` and ``bench_mmgan_quality.py`` in the table of results."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from gansynth.papers.plan import Figure
from gansynth.papers.tables import key_of


def papers(doc: dict[str, Any]) -> list[str]:
    """Dice of every arm of every host on real held-out cases, and the paper's beside it."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in doc["results"]:
        found.setdefault((one["host"], one["arm"]), []).append(one)
    rows = []
    for (host, arm), results in found.items():
        figures = doc["papers"].get(host, {}).get(arm, {})
        cells, paper = [], []
        for region, each in _measured(doc, results):
            cells.append(f"{region} {_spread(each)}")
            if region in figures:
                paper.append(f"{region} {Figure(mean=figures[region]['mean'])}")
        what = "figures" if doc.get("columns") else "Dice"
        said = f"; the paper's {', '.join(paper)}" if paper else ""
        rows.append(
            f"| {doc['benchmark']}, {doc['scale']} scale, {doc['hosts'][host]}, {arm}, "
            f"{len(results)} seed(s), {doc['held_out_cases']} held-out cases: {what}"
            f"{', mean (range)' if len(results) > 1 else ''} | {', '.join(cells)}{said} | |"
        )
    return rows


def _measured(
    doc: dict[str, Any], results: list[dict[str, Any]]
) -> Iterator[tuple[str, list[float | None]]]:
    """What was measured of an arm's trainings: name, and a value of each."""
    for region, formula in doc["regions"].items():
        key = key_of(region, formula)
        yield region, [one["metrics_on_real_cases"]["dice"][key] for one in results]
    for column, key in doc.get("columns", {}).items():
        yield column, [one["figures"][key] for one in results]


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    more = f" ({min(known):.3f} to {max(known):.3f})" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{more}"


def recipe_sizes(doc: dict[str, Any]) -> list[str]:
    """What each network of the recipes takes at full size."""
    rows = []
    for name, one in doc["networks"].items():
        each = one["memory_variants"]
        memory = {(v["precision"], v["checkpointing"]): v["memory_mib"] for v in each}
        least, most = memory["bf16", True], memory["fp32", False]
        paper = one["paper"]
        said = "".join(
            f"; the paper's {paper[key]} {unit}"
            for key, unit in (("memory_gb", "GB"), ("card_gb", "GB card"), ("hours", "h"))
            if key in paper
        )
        rows.append(
            f"| recipe {name} at full size: TFLOP a step; MiB of it, simulated: fp32, bf16 with "
            f"checkpointing | {one['flops_per_step'] / 1e12:.2f}; {most}, {least}{said} | |"
        )
    return rows


def mmgan_quality(doc: dict[str, Any]) -> list[str]:
    """Dice of each sequence's segmenter on real and on synthetic images."""
    rows = []
    for channel, sides in doc["sequences"].items():
        for name, found in sides.items():
            if name == "steps":
                continue
            dice = ((region, found["dice"].get(region)) for region in doc["regions"])
            cells = (f"{r} {'-' if value is None else format(value, '.3f')}" for r, value in dice)
            rows.append(
                f"| {doc['benchmark']}, {doc['scale']} scale, segmenter of {channel}, {name} "
                f"images: Dice | {', '.join(cells)} | |"
            )
    return rows
