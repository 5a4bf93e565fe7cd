"""Nodes of a results document that know their place in it: a JSON pointer.

Pointers are those of RFC 6901. A number derived from many values names them with one pattern in
the pointer's URI form, with alternatives in braces: ``/runs/{0,3}/seconds/{train,fit}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# Characters that RFC 3986 allows in a fragment, except the comma: it separates alternatives.
_SAFE = "~!$&'()*+;=:@?"


@dataclass(frozen=True)
class JsonNode:
    """One place of a JSON document; the value of a missing place is None.

    Attributes:
        pointer: RFC 6901; empty for the document itself.
    """

    value: Any
    pointer: str = ""

    def __getitem__(self, key: str | int) -> JsonNode:
        """Return a member by name, or an item by its index; never raises."""
        value = None
        if isinstance(self.value, dict) and isinstance(key, str):
            value = self.value.get(key)
        elif isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            value = self.value[key]
        return JsonNode(value, f"{self.pointer}/{_token(key)}")

    def __iter__(self) -> Iterator[JsonNode]:
        """Iterate over the items of a list; other values have none."""
        for index in range(len(self.value) if isinstance(self.value, list) else 0):
            yield self[index]

    def __bool__(self) -> bool:
        """Whether the place has content; 0 and false count as content."""
        return self.value is not None and self.value not in ("", [], {})

    def members(self) -> Iterator[tuple[str, JsonNode]]:
        """Yield names and members of an object; other values have none."""
        for key in self.value if isinstance(self.value, dict) else ():
            yield key, self[key]

    @property
    def number(self) -> float | None:
        """The value as a finite number, or None."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            return None
        return float(self.value) if math.isfinite(self.value) else None

    @property
    def text(self) -> str:
        """A text or a number as text; empty for other values."""
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float):
            return ""
        return str(self.value)


def _token(key: str | int) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def fragment(pointer: str) -> str:
    """Return a pointer in the form it has behind ``#`` in a URI (RFC 6901, section 6)."""
    return quote(pointer, safe=_SAFE + "/,")


def pattern(*steps: str | int | Sequence[str | int]) -> str:
    """Return one pattern for the places at these steps; a sequence gives alternatives."""
    parts = []
    for step in steps:
        if isinstance(step, str | int):
            parts.append(quote(_token(step), safe=_SAFE))
        else:
            parts.append("{" + ",".join(quote(_token(s), safe=_SAFE) for s in step) + "}")
    return "/" + "/".join(parts)
