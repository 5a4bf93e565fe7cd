"""Put the tables of ``bench_faults.py``, ``bench_process_faults.py`` and ``bench_signals.py`` into
benchmarks/measure/results/faults.md.

python benchmarks/measure/table_faults.py
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
PAGE = RESULTS / "faults.md"
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


def trainings(doc: Mapping[str, Any]) -> str:
    """A line for each real training whose processes were troubled."""
    columns = ("training", "events", "exit codes", "typed", "steps", "counted after the resume")
    lines = [(*columns, "off", "left"), ("---", "--:", "---", *["--:"] * 5)]
    for name, found in doc["trainings"].items():
        codes = Counter(event["code"] for event in found["events"] if event["code"] is not None)
        said = ", ".join(f"{code} ({count} x)" for code, count in sorted(codes.items()))
        counted = f"{found['real']}:{found['synthetic']}" + ("" if found["resumed"] else " (all)")
        steps = f"{found['steps_done']} of {found['steps_asked']}"
        numbers = (len(found["events"]), said or "-", len(found["codes"]), steps, counted)
        lines.append((name, *map(str, numbers), str(found["batches_off"]), str(len(found["left"]))))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def signals(doc: Mapping[str, Any]) -> str:
    """Two lines for each command: exit codes after each signal to all of it, and to a part."""
    numbers = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
    lines = [("command", "sent to", *numbers, "longest end", "wrong")]
    lines.append(("---", "---", *["---"] * len(numbers), "--:", "--:"))
    parts = {"it, its group": ("command", "group"), "a child": ("a child", "largest child")}
    for name, found in doc["commands"].items():
        for part, targets in parts.items():
            shots = [shot for shot in found["signals"] if shot["target"] in targets]
            if not shots:
                continue
            cells = []
            for number in numbers:
                codes = Counter(shot["code"] for shot in shots if shot["signal"] == number)
                cells.append(", ".join(f"{code} ({n} x)" for code, n in codes.items()) or "-")
            longest = max(shot["ended_after"] or float("inf") for shot in shots)
            wrong = sum(bool(shot["wrong"]) for shot in shots)
            lines.append((name, part, *cells, f"{longest:.1f} s", str(wrong)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


BLOCKS = {"faults": tables, "process_faults": trainings, "signals": signals}
"""Results -> what makes the table of ``<!-- NAME table -->``."""


def filled(text: str) -> str:
    """The page with the tables of the results."""
    for name, make in BLOCKS.items():
        begin, end = (f"<!-- {slash}{name.replace('_', ' ')} table -->" for slash in ("", "/"))
        doc = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        head, _, rest = text.partition(f"{begin}\n")
        text = f"{head}{begin}\n{make(doc)}{rest[rest.index(end) :]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
