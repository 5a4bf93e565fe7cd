"""Single values of a configuration file, typed and checked; a fault names file, key and value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gansynth.runtime.errors import DataFault

Word = TypeVar("Word", bound=str)


@dataclass(frozen=True)
class Values:
    """The assignments of one file; a key that is absent or None has its default."""

    path: Path  # the file
    values: Mapping[str, Any]  # its assignments

    def fault(self, key: str, expected: str) -> DataFault:
        """What is wrong with a key."""
        return DataFault(f"{self.path}: {key} = {self.values.get(key)!r}, expected {expected}")

    def flag(self, key: str, default: bool) -> bool:
        """True or False."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, "True or False")
        return value

    def number(self, key: str, default: float, low: float, high: float = math.inf) -> float:
        """A finite number within limits."""
        value = self._get(key, default)
        if not _is_number(value) or not low <= value <= high:
            upper = "" if math.isinf(high) else f" to {high:g}"
            raise self.fault(key, f"a number from {low:g}{upper}{'' if upper else ' on'}")
        return float(value)

    def whole(self, key: str, default: int, low: int, high: float = math.inf) -> int:
        """A whole number within limits."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            upper = "" if math.isinf(high) else f" to {high:g}"
            raise self.fault(key, f"a whole number from {low}{upper}{'' if upper else ' on'}")
        return value

    def numbers(self, key: str, default: Sequence[float]) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self._get(key, default)
        if not isinstance(value, (list, tuple)) or not all(_is_number(n) for n in value):
            raise self.fault(key, "a list of numbers")
        return tuple(float(n) for n in value)

    def choice(self, key: str, default: Word, known: Sequence[Word]) -> Word:
        """One of some words."""
        value = self._get(key, default)
        for word in known:
            if value == word:
                return word
        raise self.fault(key, f"one of {', '.join(repr(str(word)) for word in known)}")

    def table(self, key: str, default: Mapping[str, Any]) -> Mapping[str, Any]:
        """A dictionary."""
        value = self._get(key, default)
        if not isinstance(value, dict):
            raise self.fault(key, "a dictionary")
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
