"""Put the tables of ``bench_evaluate.py`` into benchmarks/measure/results/evaluations.md.

python benchmarks/measure/table_evaluate.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
PAGE = RESULTS / "evaluations.md"
MARKS = {"like real": "", "unlike real": "\\*", "unclear": "?"}
COLUMNS = (
    ("spectrum high", "power at high frequencies", 2),
    ("diversity ms_ssim", "MS-SSIM", 2),
    ("kid trained", "KID", 2),
    ("frechet trained", "Fréchet", 0),
    ("manifold precision", "precision", 2),
    ("manifold coverage", "coverage", 2),
    ("c2st-cnn accuracy", "C2ST CNN", 2),
)
"""Figure, heading, decimals."""
LEGEND = (
    "\\* unlike real, ? unclear; the line of real subjects has the band in which 95 % of their "
    "comparisons lie. Dice: of a segmenter that has not seen the subject, on samples / on real "
    "subjects. Membership: area of the attack by distance to the nearest sample; 0.5 is chance."
)


def tables(doc: Mapping[str, Any]) -> str:
    """A table for each data set."""
    parts = []
    for found in doc["results"].values():
        data = next(iter(found["samples"].values()))["data"]
        people = f"{data['subjects']} subjects fitted on, {data['held_out_subjects']} held out"
        shown = [c for c in COLUMNS if any(c[0] in s["figures"] for s in found["samples"].values())]
        heads = ["samples", *(title for _, title, _ in shown), "Dice", "near-copies", "membership"]
        rows = [heads, ["---"] * len(heads), _real(found, shown)]
        rows += [_row(name, one, shown) for name, one in found["samples"].items()]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"**{_title(found['note'])}** ({people}):\n\n{lines}\n")
    return "\n".join([*parts, LEGEND]) + "\n"


def _title(note: str) -> str:
    return note[0].upper() + note[1:]


def _real(found: Mapping[str, Any], shown: Sequence[tuple[str, str, int]]) -> list[str]:
    """Bands of real subjects, of the first generator's evaluation."""
    one = next(iter(found["samples"].values()))
    bands = []
    for key, _, decimals in shown:
        figure = one["figures"].get(key)
        ends = None if figure is None else (figure["real_low"], figure["real_high"])
        known = ends is not None and None not in ends
        bands.append(" to ".join(f"{end:.{decimals}f}" for end in ends) if known else "–")
    return ["*real subjects*", *bands, "–", "–", "0.50"]


def _row(name: str, found: Mapping[str, Any], shown: Sequence[tuple[str, str, int]]) -> list[str]:
    cells = []
    for key, _, decimals in shown:
        figure = found["figures"].get(key)
        if figure is None or figure["value"] is None:
            cells.append("–")
        else:
            cells.append(f"{figure['value']:.{decimals}f}{MARKS[figure['finding']]}")
    faithful, memory = found["faithfulness"], found["memorisation"]
    dice = "–"
    if faithful.get("synthetic") is not None and faithful.get("real") is not None:
        dice = f"{faithful['synthetic']:.2f} / {faithful['real']:.2f}"
    copies = memory["copies"]
    attack = next((a for a in memory["membership"] if a["attack"] == "distance"), None)
    return [
        name,
        *cells,
        dice,
        "–" if copies is None else f"{copies['count']} of {copies['of']}",
        "–"
        if attack is None
        else f"{attack['auc']:.2f}{MARKS['unlike real'] if attack['low'] > 0.5 else ''}",
    ]


def filled(text: str) -> str:
    """The page with the tables of ``results/evaluate.json``."""
    begin, end = "<!-- evaluate table -->\n", "<!-- /evaluate table -->"
    head, _, rest = text.partition(begin)
    made = tables(json.loads((RESULTS / "evaluate.json").read_text(encoding="utf-8")))
    return f"{head}{begin}{made}{rest[rest.index(end) :]}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
