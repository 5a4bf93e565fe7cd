"""Typed access to a configuration's keys, with defaults for missing ones.

A key of None counts as missing, as in DeepMedic.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, did_you_mean
from gansynth_deepmedic.literals import excerpt

Triple = tuple[int, int, int]


class ConfigKeys:
    """The assignments of a file, or a dictionary in it.

    Args:
        path: the file, for messages and relative paths; None for values without a file.
        values: the assignments.
        within: their key path for messages, e.g. ``augm_sample_prms_tr['reflect']``.
    """

    def __init__(self, path: Path | None, values: Mapping[str, Any], within: str = "") -> None:
        self.path, self.values, self.within = path, values, within

    def has(self, key: str) -> bool:
        """Return whether the key is set."""
        return self.values.get(key) is not None

    def odd(self, key: str, expected: str, hint: str = "correct it") -> DataFault:
        """Return the error for a missing or invalid key."""
        where = "" if self.path is None else f"{self.path}: "
        if not self.has(key) and not self.within:
            near = did_you_mean(key, self.values)
            return DataFault(f"{where}no {key}, expected {expected}; add it.{near}")
        name = f"{self.within}[{key!r}]" if self.within else key
        value = excerpt(repr(self.values.get(key)))
        return DataFault(f"{where}{name} is {value}, expected {expected}; {hint}")

    def _fitting(self, key: str, default: Any, fits: Callable[[Any], bool], expected: str) -> Any:
        """Return a valid value, or the default of a missing key; without default it is required."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not fits(value):
            raise self.odd(key, expected)
        return value

    def whole(
        self, key: str, default: int | None = None, least: int = 1, most: float = math.inf
    ) -> int:
        """A whole number."""
        expected = f"a whole number{_between(least, most)}"
        return int(
            self._fitting(key, default, lambda v: is_whole(v, least) and v <= most, expected)
        )

    def number(
        self, key: str, default: float | None = None, low: float = -math.inf, high: float = math.inf
    ) -> float:
        """A finite number."""
        expected = f"a number{_between(low, high)}"
        return float(
            self._fitting(key, default, lambda v: is_number(v) and low <= v <= high, expected)
        )

    def one_of(self, key: str, allowed: Collection[Any], default: Any = None) -> Any:
        """Return one of the allowed values."""
        return self._fitting(
            key,
            default,
            lambda v: not isinstance(v, list | dict | bool) and v in allowed,
            f"one of {', '.join(map(str, allowed))}",
        )

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return True or False; 0 and 1 are accepted."""
        return bool(self._fitting(key, default, is_flag, "True or False"))

    def text(self, key: str, default: str) -> str:
        """A text that prints on one line."""
        return str(self._fitting(key, default, _is_text, "a text that prints on one line"))

    def file(self, key: str) -> Path:
        """Return a path, relative to the file's folder as in DeepMedic."""
        return self._joined(self._fitting(key, None, _is_path, "the path of a file"))

    def files(self, key: str, expected: str) -> tuple[Path, ...]:
        """Return at least one path, resolved as by ``file``."""
        paths = self._fitting(key, None, lambda v: bool(v) and _all(v, _is_path), expected)
        return tuple(map(self._joined, paths))

    def wholes(self, key: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return whole numbers from 1; at least one without a default."""
        return tuple(
            self._fitting(
                key,
                default,
                lambda v: _all(v, lambda n: is_whole(n, 1)) and (default is not None or bool(v)),
                "a list of whole numbers from 1",
            )
        )

    def triple(self, key: str, default: Triple | None = None) -> Triple:
        """Three whole numbers from 1, along x, y, z."""
        x, y, z = self._fitting(
            key, default, _is_triple, "three whole numbers from 1, along x, y and z"
        )
        return x, y, z

    def triples(self, key: str, default: Sequence[Triple] | None = None) -> tuple[Triple, ...]:
        """Threes of whole numbers from 1."""
        expected = "a list of threes of whole numbers from 1, along x, y and z"
        values = self._fitting(key, default, lambda v: _all(v, _is_triple), expected)
        return tuple((x, y, z) for x, y, z in values)

    def numbers(
        self,
        key: str,
        default: Sequence[float] | None = None,
        count: int | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> tuple[float, ...]:
        """Return finite numbers, ``count`` of them if it is given."""
        expected = f"{'a list of' if count is None else count} numbers{_between(low, high)}"
        values = self._fitting(
            key,
            default,
            lambda v: _all(v, lambda n: is_number(n) and low <= n <= high, count),
            expected,
        )
        return tuple(map(float, values))

    def flags(self, key: str, count: int) -> tuple[bool, ...]:
        """Return ``count`` booleans."""
        expected = f"True or False for each of {count}"
        return tuple(
            map(bool, self._fitting(key, None, lambda v: _all(v, is_flag, count), expected))
        )

    def table(
        self, key: str, allowed: Collection[str], needed: Collection[str] = ()
    ) -> ConfigKeys | None:
        """Return a dictionary of allowed keys, or None if the key is missing.

        Args:
            needed: required keys, which may be None.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.odd(key, f"a dictionary of {', '.join(allowed)}")
        for name in value:
            if name not in allowed:
                near = did_you_mean(str(name), allowed)
                expected = f"no key but {', '.join(allowed)} in it, found {name!r}"
                raise self.odd(key, expected, f"correct it.{near}")
        for name in needed:
            if name not in value:
                raise self.odd(key, f"also {name!r} in it, None where it is not wanted")
        return ConfigKeys(self.path, value, f"{self.within}[{key!r}]" if self.within else key)

    def _joined(self, path: str) -> Path:
        assert self.path is not None, "files are named by files"
        return joined(self.path.parent, path)


def is_whole(value: object, least: int) -> bool:
    """Return whether a value is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_flag(value: object) -> bool:
    """Return whether a value is True, False, 1 or 0."""
    return isinstance(value, int) and value in (0, 1)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_triple(value: object) -> bool:
    return _all(value, lambda n: is_whole(n, 1), 3)


def _all(value: object, fits: Callable[[Any], bool], count: int | None = None) -> bool:
    """Return whether a value is a list of valid items, ``count`` of them if it is given."""
    if not isinstance(value, list | tuple) or count not in (None, len(value)):
        return False
    return all(map(fits, value))


def _between(low: float, high: float) -> str:
    if math.isinf(low):
        return ""
    return f" from {low:g} on" if math.isinf(high) else f" from {low:g} to {high:g}"


def joined(folder: Path, path: str) -> Path:
    """Join a path to a folder unless it is absolute; ``..`` is resolved by name."""
    return Path(os.path.normpath(folder / path))
