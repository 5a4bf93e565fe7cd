"""Dictionaries within a configuration file; a fault names the file and the way to the value."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, did_you_mean
from gansynth_deepmedic.literals import excerpt


@dataclass(frozen=True)
class Nested:
    """One value, and where it is."""

    path: Path | None  # the file; None for values that come from no file
    name: str  # the key, ``augm_sample_prms_tr['reflect']`` say
    value: Any  # what is there; None where there is nothing

    @classmethod
    def of(cls, path: Path | None, values: Mapping[str, Any], key: str) -> Nested:
        """The value of a key of the file."""
        return cls(path, key, values.get(key))

    @property
    def given(self) -> bool:
        """Whether there is anything; DeepMedic takes None for nothing."""
        return self.value is not None

    def fault(self, expected: str, near: str = "") -> DataFault:
        """What is wrong with it."""
        where = "" if self.path is None else f"{self.path}: "
        found = excerpt(repr(self.value))
        return DataFault(f"{where}{self.name} is {found}, expected {expected}; correct it.{near}")

    def table(self, known: Collection[str], needed: Collection[str] = ()) -> dict[str, Nested]:
        """A dictionary: each known key's value."""
        if not isinstance(self.value, Mapping):
            raise self.fault(f"a dictionary of {', '.join(known)}")
        for key in self.value:
            if key not in known:
                near = did_you_mean(str(key), known)
                raise self.fault(f"no key but {', '.join(known)} in it, found {key!r}", near)
        for key in needed:
            if key not in self.value:
                raise self.fault(f"also {key!r} in it, None where it is not wanted")
        return {
            key: Nested(self.path, f"{self.name}[{key!r}]", self.value.get(key)) for key in known
        }

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number within limits."""
        if not _is_number(self.value) or not low <= self.value <= high:
            raise self.fault(f"a number{_between(low, high)}")
        return float(self.value)

    def numbers(
        self, count: int, low: float = -math.inf, high: float = math.inf
    ) -> tuple[float, ...]:
        """So many finite numbers within limits."""
        found = self.value
        fine = isinstance(found, list | tuple) and len(found) == count
        if not fine or not all(_is_number(n) and low <= n <= high for n in found):
            raise self.fault(f"{count} numbers{_between(low, high)}")
        return tuple(float(n) for n in found)

    def flag(self) -> bool:
        """True or False, or 1 or 0."""
        if not _is_flag(self.value):
            raise self.fault("True or False")
        return bool(self.value)

    def flags(self, count: int) -> tuple[bool, ...]:
        """So many times True or False, or 1 or 0."""
        found = self.value
        fine = isinstance(found, list | tuple) and len(found) == count
        if not fine or not all(map(_is_flag, found)):
            raise self.fault(f"True or False for each of {count}")
        return tuple(map(bool, found))


def _is_flag(value: object) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _between(low: float, high: float) -> str:
    if math.isinf(low):
        return ""
    return f" from {low:g} on" if math.isinf(high) else f" from {low:g} to {high:g}"
