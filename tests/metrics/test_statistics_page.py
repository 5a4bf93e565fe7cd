"""The tables of docs/statistics.md are those of the simulations' results.

``python tests/metrics/test_statistics_page.py`` rewrites them.
"""

import json
from pathlib import Path

from benchmarks.scripts.table_statistics import page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "statistics.md"
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "statistics.json").read_text("utf-8"))


def filled(text: str) -> str:
    for key, table in page(RESULTS).items():
        head, _, rest = text.partition(f"<!-- {key} -->\n")
        text = f"{head}<!-- {key} -->\n{table}\n{rest[rest.index(f'<!-- /{key} -->') :]}"
    return text


def test_the_page_has_what_was_simulated():
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python tests/metrics/test_statistics_page.py"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
