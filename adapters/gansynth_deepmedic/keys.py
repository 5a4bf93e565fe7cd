"""Values of a configuration's keys by kind, with DeepMedic's defaults where a key is missing.

DeepMedic takes a key of None for a missing one; so does this.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, did_you_mean
from gansynth_deepmedic.literals import excerpt

Triple = tuple[int, int, int]


class Keys:
    """What one file says, read kind by kind."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return self.values.get(key) is not None

    def odd(self, key: str, expected: str, way_out: str = "correct it") -> DataFault:
        """The fault of a key that is missing, or of another kind than expected."""
        if not self.has(key):
            near = did_you_mean(key, self.values)
            return DataFault(f"{self.path}: no {key}, expected {expected}; add it.{near}")
        found = excerpt(repr(self.values[key]))
        return DataFault(f"{self.path}: {key} is {found}, expected {expected}; {way_out}")

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number; required where there is no default."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not is_whole(value, least):
            raise self.odd(key, f"a whole number from {least}")
        return int(value)  # type: ignore[arg-type]

    def one_of(self, key: str, allowed: Collection[Any], default: Any = None) -> Any:
        """One of some values; required where there is no default."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, list | dict | bool) or value not in allowed:
            raise self.odd(key, f"one of {', '.join(map(str, allowed))}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or False; 0 and 1 stand for them."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or value not in (0, 1):
            raise self.odd(key, "True or False")
        return bool(value)

    def text(self, key: str, default: str) -> str:
        """A text that prints on one line."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.odd(key, "a text that prints on one line")
        return value

    def file(self, key: str) -> Path:
        """A path, relative to the file's folder, as DeepMedic resolves it."""
        value = self.values.get(key)
        if not (isinstance(value, str) and value.strip() and value.isprintable()):
            raise self.odd(key, "the path of a file")
        return joined(self.path.parent, value)

    def files(self, key: str, expected: str) -> tuple[Path, ...]:
        """Paths, likewise; at least one."""
        value = self.values.get(key)
        if not isinstance(value, list | tuple) or not value:
            raise self.odd(key, expected)
        for item in value:
            if not (isinstance(item, str) and item.strip() and item.isprintable()):
                raise self.odd(key, expected)
        return tuple(joined(self.path.parent, item) for item in value)

    def wholes(self, key: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """Whole numbers from 1; required, and then at least one, where there is no default."""
        value = self.values.get(key)
        if value is None and default is not None:
            return tuple(default)
        fine = isinstance(value, list | tuple) and all(is_whole(item, 1) for item in value)
        if not fine or (default is None and not value):
            raise self.odd(key, "a list of whole numbers from 1")
        return tuple(value)  # type: ignore[arg-type]

    def triple(self, key: str, default: Triple | None = None) -> Triple:
        """Three whole numbers from 1, along x, y, z."""
        found = self.wholes(key, default)
        if len(found) != 3:
            raise self.odd(key, "three whole numbers from 1, along x, y and z")
        return found[0], found[1], found[2]

    def triples(self, key: str, default: Sequence[Triple] | None = None) -> tuple[Triple, ...]:
        """Threes of whole numbers from 1; required where there is no default."""
        value = self.values.get(key)
        if value is None and default is not None:
            return tuple(default)
        expected = "a list of threes of whole numbers from 1, along x, y and z"
        if not isinstance(value, list | tuple):
            raise self.odd(key, expected)
        for item in value:
            fine = isinstance(item, list | tuple) and len(item) == 3
            if not fine or not all(is_whole(n, 1) for n in item):
                raise self.odd(key, expected)
        return tuple((item[0], item[1], item[2]) for item in value)

    def numbers(self, key: str, least: float = 0.0) -> tuple[float, ...] | None:
        """Numbers; None where the key is missing."""
        value = self.values.get(key)
        if value is None:
            return None
        fine = isinstance(value, list | tuple) and all(is_number(item) for item in value)
        if not fine or not all(item >= least for item in value):
            raise self.odd(key, f"a list of numbers from {least:g}")
        return tuple(float(item) for item in value)


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number, and not below another."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def joined(folder: Path, path: str) -> Path:
    """A path, relative to a folder if it is not absolute; ``..`` go by the names, as DeepMedic."""
    return Path(os.path.normpath(folder / path))
