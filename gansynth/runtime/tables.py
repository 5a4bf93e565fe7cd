"""Cells of CSV files that a spreadsheet takes for text, not for a formula that it runs."""

from __future__ import annotations

import re
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_WRITTEN = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.I)


def cell(value: Any) -> Any:
    """Return a value as it is written: a text that looks like a formula begins with ``'``."""
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def read_cell(text: str) -> str:
    """Return the text that ``cell`` was given; others as they are."""
    return text[1:] if _WRITTEN.match(text) else text
