"""The tables of docs/statistics.md are those of the simulations' results, and the bars hold there.

``python tests/metrics/stats/test_page.py`` rewrites them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.table_statistics import page

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "statistics.md"
RESULTS = ROOT / "benchmarks" / "results" / "statistics.json"
REGULAR = ("3 x 2 x 20", "3 x 2 x 40", "5 x 2 x 20", "10 x 1 x 30")
WIDE = ("arm does nothing, seeds 0.3", "residual noise alone")
"""Scenarios in which intervals are known to be too wide."""


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    "name", ["false positives", "3 x 2 x 20", "5 x 2 x 20", "holm", "variance", "worth"]
)
def test_the_page_has_what_was_simulated(name):
    part = f"<!-- {name} -->\n{page(results())[name]}\n<!-- /{name} -->"
    assert part in PAGE.read_text(encoding="utf-8"), "run: python tests/metrics/stats/test_page.py"


def regular() -> list[dict[str, Any]]:
    keys = ("draws", "seeds", "subjects")
    every = results()["compare"]
    found = [one for one in every if " x ".join(str(one["design"][k]) for k in keys) in REGULAR]
    assert len(found) == 4 * 13
    return found


def test_false_positives_power_and_coverage_are_within_their_bars():
    for one in regular():
        chance = 2.5 * (0.05 * 0.95 / one["experiments"]) ** 0.5
        assert one["false_positives"] < 0.06 + chance, one["scenario"]
        assert one["coverage"] > 0.93, one["scenario"]
        assert 0.77 - chance < one["power"] < 0.83 + chance, one["scenario"]
        if one["scenario"] not in WIDE:
            assert one["false_positives"] > 0.04 - chance, one["scenario"]
            assert one["coverage"] < 0.97, one["scenario"]


def test_families_stay_at_five_percent():
    for one in results()["holm"]:
        assert one["compare"] < 0.06 + 2.5 * (0.05 * 0.95 / one["experiments"]) ** 0.5


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for key, table in page(results()).items():
        head, _, rest = text.partition(f"<!-- {key} -->\n")
        text = f"{head}<!-- {key} -->\n{table}\n{rest[rest.index(f'<!-- /{key} -->') :]}"
    PAGE.write_text(text, encoding="utf-8")
