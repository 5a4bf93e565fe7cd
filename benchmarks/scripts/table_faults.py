"""Put the table of ``bench_faults.py`` into docs/reliability.md.

python benchmarks/scripts/table_faults.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults table -->\n", "<!-- /faults table -->"
VOLUMES = ("gansynth", "nnU-Net, SimpleITK", "nnU-Net, nibabel", "MONAI", "TorchIO")
SETS = ("gansynth check", "nnU-Net verify")
HARM = ("silently wrong", "out of memory", "crash", "hang", "lost", "code run")
WORDS = {"detected": "found", "no code run": "refused or ignored"}


def cell(found: Mapping[str, Any]) -> str:
    """What a reader made of a row's files; harm in bold."""
    counts = {k: n for k, n in found.items() if k not in ("mib", "words")}
    total = sum(counts.values())
    parts = []
    for how, count in sorted(counts.items(), key=lambda item: item[0] in HARM):
        text = WORDS.get(how, how) if total == 1 else f"{WORDS.get(how, how)} {count}"
        parts.append(f"**{text}**" if how in HARM else text)
    return ", ".join(parts)


def grid(rows: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> str:
    """A table with a column for each reader."""
    lines = [("row and damage", *columns), ("---",) * (1 + len(columns))]
    lines += [(row, *(cell(found[name]) for name in columns)) for row, found in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pairs(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a line for each row and reader."""
    lines = ["| row and damage | read by | what came of it |\n| --- | --- | --- |\n"]
    for row, found in rows.items():
        lines += [f"| {row} | {name} | {cell(one)} |\n" for name, one in found.items()]
    return "".join(lines)


def tables(doc: Mapping[str, Any]) -> str:
    """The three tables of the page."""
    found = doc["results"]
    return "\n".join(
        (
            f"Files, {doc['trials']} random places for each bit flip:\n",
            grid(found["volumes"], VOLUMES),
            "Data sets, before a training:\n",
            grid(found["data sets"], SETS),
            "Arrays and weights:\n",
            pairs({**found["arrays and weights"], **found["kills"]}),
        )
    )


def filled(text: str) -> str:
    """The page with the tables of ``results/faults.json``."""
    doc = json.loads((RESULTS / "faults.json").read_text(encoding="utf-8"))
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}{tables(doc)}{rest[rest.index(END) :]}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
