"""The tables of docs/evaluate.md are those of the results; the page names every metric."""

import re
import runpy
from pathlib import Path

from gansynth.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evaluate.md"


def test_the_pages_tables_are_those_of_the_results():
    filled = runpy.run_path(str(ROOT / "benchmarks" / "table_evaluate.py"))["filled"]
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python benchmarks/table_evaluate.py"


def test_every_metric_is_on_the_page():
    table = PAGE.read_text(encoding="utf-8").split("## Metrics")[1].split("\n## ")[0]
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.M)
        for name in re.findall("`(.*?)`", row)
    }
    assert named == set(METRICS)
