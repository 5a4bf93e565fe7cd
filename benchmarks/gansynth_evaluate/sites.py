"""Samples beside the real cases of each site: whose look they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gansynth.core.schema import Case
from gansynth.metrics.comparison import Comparison
from gansynth.metrics.faithfulness import FoldSegmenters, real_dice
from gansynth.metrics.site_gap import FEWEST, SiteMeasures, compared
from gansynth.report.numbers import joined
from gansynth.sampling.evaluation_data import EvaluationData

APART = 3  # separates the random numbers of crops from those of other crops


def crops_by_site(
    gathered: EvaluationData, site_of: Mapping[str, str], number: int, seed: int
) -> dict[str, list[Case]]:
    """Return crops of each site's real cases, seen or not: ``number`` of them at most."""
    cases: dict[str, list[str]] = {}
    for case in sorted({*gathered.known.members, *gathered.known.others}):
        if case in site_of:
            cases.setdefault(site_of[case], []).append(case)
    rng = np.random.default_rng((seed, APART))
    crops = {site: gathered.real(cases[site], number, rng) for site in sorted(cases)}
    return {site: found for site, found in crops.items() if found}


def site_rows(
    gathered: EvaluationData, comparison: Comparison, crops: Mapping[str, Sequence[Case]]
) -> list[dict[str, Any]]:
    """Return for each site how many people it has, how many were seen, and how samples differ."""
    schema, people = comparison.schema, gathered.known.people
    labelled = {name: value for name, value in schema.labels.items() if value > 0}
    drawn = SiteMeasures(schema, labelled)
    for sample, owner in zip(comparison.samples, comparison.drawn_of, strict=True):
        drawn.add(sample, owner)
    rows, seen = [], {people[case] for case in gathered.known.members}
    for site, cases in crops.items():
        real = SiteMeasures(schema, labelled)
        for case in cases:
            real.add(case, people[case.id])
        differences = compared(real, drawn)
        row: dict[str, Any] = {"site": site, "subjects": len(real.rows)}
        row["trained_on"] = len(seen & real.rows.keys())
        row["told"] = any(one.p is not None for one in differences)
        row["differs_in"] = list(dict.fromkeys([one.kind for one in differences if one.shown]))
        rows.append(row)
    return rows


def dice_by_site(
    judges: FoldSegmenters, gathered: EvaluationData, crops: Mapping[str, Sequence[Case]]
) -> dict[str, float | None]:
    """Return the segmenters' mean Dice in each site's real cases, of people they have not seen."""
    people = gathered.known.people
    return {
        site: real_dice(judges, cases, [people[case.id] for case in cases], gathered.schema)
        for site, cases in crops.items()
    }


def site_lines(document: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Yield a line for each site, and whether samples are shown to differ from its cases."""
    dice = (document.get("faithfulness") or {}).get("sites", {})
    for row in document.get("sites", ()):
        kinds = row["differs_in"]
        found = (
            f"samples differ in {joined(kinds, last=', ')}" if kinds else "no difference is shown"
        )
        if not row["told"]:
            found = f"fewer than {FEWEST} subjects of a side, so nothing is told"
        text = (
            f"{row['site']} ({row['subjects']} subjects, {row['trained_on']} trained on): {found}"
        )
        if dice.get(row["site"]) is not None:
            text += f"; Dice of the fold's segmenter there {dice[row['site']]:.2f}"
        yield bool(kinds), f"Site {text}."
