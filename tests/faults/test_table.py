"""The matrix itself: no row without a test, and the page has its rows."""

import re
from pathlib import Path

import pytest

from tests.faults.page import PAGE, blocks
from tests.faults.table import ROWS

TESTS = Path(__file__).parents[1]
MARK = re.compile(r"\bfault\(([\d, ]+)")


def test_every_row_is_marked_by_a_test():
    found = {
        int(row)
        for path in TESTS.rglob("test_*.py")
        for rows in MARK.findall(path.read_text("utf-8"))
        for row in rows.split(",")
        if row.strip()
    }
    assert found == set(ROWS)


@pytest.mark.parametrize("name", blocks())
def test_the_page_has_the_table(name):
    assert blocks()[name] in PAGE.read_text("utf-8"), "run: python -m tests.faults.page"
