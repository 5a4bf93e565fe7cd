"""The tables of ``docs/reliability.md``: ``python -m tests.faults.page`` writes them."""

import json
import re
from pathlib import Path

from tests.faults.table import ROWS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
KILLS = ROOT / "benchmarks" / "results" / "kills.json"


def blocks() -> dict[str, str]:
    """The tables by name: of the rows, and of what became of kills."""
    lines = {
        "faults": ["| row | fault | expected |", "| --: | --- | --- |"],
        "kills": ["| command | SIGKILLs | finished | lost |", "| --- | --: | --: | --: |"],
    }
    lines["faults"] += [f"| {row} | {fault} | {wanted} |" for row, (fault, wanted) in ROWS.items()]
    for name, found in json.loads(KILLS.read_text("utf-8")).items():
        cells = name, found["kills"], found["finished"], len(found["lost"])
        lines["kills"].append(f"| {' | '.join(map(str, cells))} |")
    tables = {name: "\n".join(rows) for name, rows in lines.items()}
    return {name: f"<!-- {name} -->\n{rows}\n<!-- /{name} -->" for name, rows in tables.items()}


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    for name, table in blocks().items():
        before, after = re.split(f"<!-- {name} -->.*<!-- /{name} -->", text, flags=re.DOTALL)
        text = f"{before}{table}{after}"
    PAGE.write_text(text, "utf-8")
