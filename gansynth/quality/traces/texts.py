"""Texts of any kind: JSON by its keys, tables by their columns, all else line by line."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from typing import Any

from gansynth.quality.traces.look import Look

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_TABLES = {".csv": ",", ".tsv": "\t"}
_CONTROL = bytes(n for n in range(32) if n not in (7, 8, 9, 10, 12, 13, 27))
MOST_LINE = 1 << 20
"""Letters of a line that are looked at at once."""


def is_text(data: bytes, name: str) -> bool:
    """Whether it can be read as text."""
    return decoded(data) is not None


def decoded(data: bytes) -> str | None:
    """Its text; None for bytes that are none."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            with contextlib.suppress(UnicodeDecodeError):
                return data.decode(encoding)
    if data.translate(None, _CONTROL) != data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # Western European, as tables often are; of other bytes half are no letters.
        text = data.decode("latin-1")
        odd = sum(128 <= ord(letter) < 160 for letter in text)
        return text if odd == 0 else None


def read_text(data: bytes, look: Look) -> None:
    """Look through a text file."""
    text = decoded(data) or ""
    suffix = f".{look.name.rpartition('.')[2].lower()}"
    if suffix in _TABLES and _table(text, _TABLES[suffix], look):
        return
    document = _json(text)
    if document is not None:
        _walk(document, "", look)
        return
    for number, line in enumerate(text.splitlines(), 1):
        entry = _json(line)
        if entry is not None:
            _walk(entry, f"line {number}", look)
        else:
            key, _, value = line.partition(":")  # YAML, and what is written alike
            place, value = f"line {number}", value.strip().strip("\"'")
            look.text(place, line[:MOST_LINE], key="")
            _short(place, key, value, look)


def look_through(place: str, key: str, text: str, look: Look) -> None:
    """Look through a text that may be a JSON document."""
    document = _json(text)
    if document is None:
        look.text(place, text, key=key)
    else:
        _walk(document, place, look)


def _short(place: str, key: str, value: str, look: Look) -> None:
    """Short names as the whole value of a key; others were found in the line."""
    if not look.names.within(value):
        for name in look.names.valued(key, value):
            look.odd(place, f"names {name}")


def _json(text: str) -> Any:
    """A JSON object or list; None if it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _walk(value: Any, place: str, look: Look, key: str = "") -> None:
    """Look through a JSON document; a list's entries are values of its key."""
    if isinstance(value, dict):
        for name, entry in value.items():
            where = f"{place}.{name}" if place else name
            look.text(f"key {where!r:.200}", name)
            _walk(entry, where, look, name)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            _walk(entry, f"{place}[{number}]", look, key)
    elif isinstance(value, str):
        look.text(f"value of {place!r:.200}", value, key=key)
    elif isinstance(value, int) and not isinstance(value, bool):
        look.text(f"value of {place!r:.200}", str(value), key=key)


def _table(text: str, delimiter: str, look: Look) -> bool:
    """Look through a table; False if it is none."""
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return False
    head = rows[0] if rows else []
    for number, row in enumerate(rows, 1):
        for column, cell in enumerate(row):
            key = head[column] if column < len(head) and number > 1 else ""
            look.text(f"line {number}, column {column + 1}", cell, key=key)
    return True
