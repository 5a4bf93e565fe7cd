"""The matrix: no row without a test, and the page has it. ``python -m tests.faults.test_table``
writes the page.
"""

import json
import re
from pathlib import Path

import pytest

from tests.faults.table import ROWS

TESTS = Path(__file__).parents[1]
RESULTS = TESTS.parent / "benchmarks" / "measure" / "results"
PAGE = RESULTS / "faults.md"
MARK = re.compile(r"\bfault\(([\d, ]+)")


def table(*rows: tuple[object, ...]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def faults() -> str:
    rows = ((row, fault, wanted) for row, (fault, wanted) in ROWS.items())
    return table(("row", "fault", "expected"), ("--:", "---", "---"), *rows)


def kills() -> str:
    """What became of kills."""
    found = json.loads((RESULTS / "kills.json").read_text("utf-8")).items()
    rows = ((name, one["kills"], one["finished"], len(one["lost"])) for name, one in found)
    return table(("command", "SIGKILLs", "finished", "lost"), ("---", *["--:"] * 3), *rows)


def fuzzed() -> str:
    """What became of mutants; ``python -m tests.fuzz --write`` makes them."""
    heads = ["mutants", "read", "typed error", "other exception", "crash"]
    heads += ["> 10 s", "> 1 GB", "written outside"]
    formats = json.loads((RESULTS / "fuzz.json").read_text("utf-8"))["formats"]
    counts = {name: [*one.values()][: len(heads)] for name, one in formats.items()}
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [(name, *(f"{count:,}" for count in one)) for name, one in counts.items()]
    return table(("format", *heads), ("---", *["--:"] * len(heads)), *rows)


TABLES = {"faults": faults, "kills": kills, "fuzz table": fuzzed}


def block(name: str) -> str:
    return f"<!-- {name} -->\n{TABLES[name]()}\n<!-- /{name} -->"


def write_page() -> None:
    page = PAGE.read_text("utf-8")
    for name in TABLES:
        before, after = re.split(f"<!-- {name} -->.*<!-- /{name} -->", page, flags=re.DOTALL)
        page = f"{before}{block(name)}{after}"
    PAGE.write_text(page, "utf-8")


def test_every_row_is_marked_by_a_test():
    marked = [row for path in TESTS.rglob("test_*.py") for row in MARK.findall(path.read_text())]
    assert set(map(int, re.findall(r"\d+", " ".join(marked)))) == set(ROWS)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_table(name):
    assert block(name) in PAGE.read_text("utf-8"), "run: python -m tests.faults.test_table"


if __name__ == "__main__":
    write_page()
