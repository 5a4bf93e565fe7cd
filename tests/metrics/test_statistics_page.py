"""The tables of measure/results/statistics.md are those of the simulations, and the bars hold.

``python tests/metrics/test_statistics_page.py`` rewrites them.
"""

import json
from pathlib import Path

from benchmarks.measure.table_statistics import page

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks" / "measure" / "results"
PAGE = KEPT / "statistics.md"
RESULTS = json.loads((KEPT / "statistics.json").read_text("utf-8"))


def filled(text: str) -> str:
    for key, table in page(RESULTS).items():
        head, _, rest = text.partition(f"<!-- {key} -->\n")
        text = f"{head}<!-- {key} -->\n{table}\n{rest[rest.index(f'<!-- /{key} -->') :]}"
    return text


def test_the_page_has_what_was_simulated():
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python tests/metrics/test_statistics_page.py"


def test_errors_are_as_rare_and_power_is_as_high_as_the_page_says():
    for one in RESULTS["compare"]:
        chance = 2.5 * (0.05 * 0.95 / one["experiments"]) ** 0.5
        if one["design"]["draws"] > 2:
            skewed = 0.08 if 2 in one["skewness"].values() else 0.07
            assert one["false_positives"] < skewed + chance, one["scenario"]
            assert 0.77 - 3 * chance < one["power"] < 0.83 + 2 * chance, one["scenario"]
        if one["design"]["draws"] > 3 and "nothing" not in one["scenario"]:
            assert one["false_positives"] > 0.04 - chance or "residual" in one["scenario"]


def test_families_stay_near_five_percent_but_for_three_draws_that_dominate():
    for one in RESULTS["holm"]:
        dominate = one["design"]["draws"] == 3 and one["scenario"] == "seeds dominate"
        assert one["compare"] < (0.17 if dominate else 0.075), one["scenario"]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
