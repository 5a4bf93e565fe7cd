"""Dataclasses as JSON documents, by their fields and type hints. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)


class Document:
    """A dataclass that is written as a JSON object of its fields, in their order.

    Class keywords:
        optional: fields omitted at their default, so that documents from before such a field do not
            change.
        flatten: fields that are documents themselves, whose keys are merged into this one.
        strict: all other keys are required; else only those of fields without a default.
    """

    _optional: ClassVar[tuple[str, ...]] = ()
    _flatten: ClassVar[tuple[str, ...]] = ()
    _strict: ClassVar[bool] = False

    def __init_subclass__(
        cls, *, optional: tuple[str, ...] = (), flatten: tuple[str, ...] = (), strict: bool = False
    ) -> None:
        super().__init_subclass__()
        cls._optional, cls._flatten, cls._strict = optional, flatten, strict

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document that ``from_json`` reads; its paths are absolute."""
        return _write(self)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read the document of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: keys missing, or unknown, or of another type.
        """
        made: Self = _read(cls, doc)
        return made


def to_json(value: Any) -> Any:
    """Convert a value to a JSON document; objects with their own ``to_json`` use that."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return _write(value)
    if isinstance(value, Mapping):
        return {key: to_json(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def from_json(kind: Any, doc: Any) -> Any:
    """Read the document of a value of type ``kind``, as in a type hint."""
    if type(doc) is kind or kind is Any or isinstance(kind, TypeVar):
        return doc
    if hasattr(kind, "from_json"):
        return kind.from_json(doc)
    if is_dataclass(kind):
        return _read(kind, doc)
    made, parts = get_origin(kind) or kind, get_args(kind)
    if made in (Union, UnionType):
        return doc if type(doc) in parts else from_json(parts[0], doc)
    if made is tuple and isinstance(doc, list | tuple):
        each = parts[:1] * len(doc) if parts[1:] == (...,) else parts
        return tuple(from_json(part, value) for part, value in zip(each, doc, strict=True))
    if made is frozenset and isinstance(doc, list):
        return frozenset(from_json(parts[0], value) for value in doc)
    if made in (Mapping, dict) and isinstance(doc, Mapping):
        return {key: from_json(parts[1], value) for key, value in doc.items()}
    if made is Path and isinstance(doc, str):
        return Path(doc)
    if made is float and type(doc) is int:
        return float(doc)
    if made is Literal and doc in parts:
        return doc
    raise TypeError(f"{doc!r}, expected {kind if parts else made.__name__}")


def _write(value: Any) -> dict[str, Any]:
    optional, flatten = getattr(value, "_optional", ()), getattr(value, "_flatten", ())
    document: dict[str, Any] = {}
    for name, _, usual in _fields(value.__class__):
        field = getattr(value, name)
        if name in flatten:
            document |= to_json(field)
        elif name not in optional or field != usual:
            document[name] = to_json(field)
    return document


def _read(cls: Any, doc: Any) -> Any:
    if not isinstance(doc, Mapping):
        raise TypeError(f"{doc!r}, expected an object")
    values = dict(doc)
    for name, kind, _ in _fields(cls):
        if name in getattr(cls, "_flatten", ()):
            values[name] = {key: values.pop(key) for key, *_ in _fields(kind) if key in values}
    doc = dict(values)
    unknown = doc.keys() - {name for name, *_ in _fields(cls)}
    if unknown:
        raise TypeError(f"unexpected {', '.join(map(repr, sorted(unknown)))}")
    for name, kind, _ in _fields(cls):
        if name in doc:
            try:
                values[name] = from_json(kind, doc[name])
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from error
        elif getattr(cls, "_strict", False) and name not in cls._optional:
            raise KeyError(name)
    return cls(**values)


@cache
def _fields(cls: Any) -> tuple[tuple[str, Any, Any], ...]:
    kinds = get_type_hints(cls)
    described = []
    for field in fields(cls):
        made = field.default_factory
        default = field.default if made is MISSING else made()
        described.append((field.name, kinds[field.name], default))
    return tuple(described)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two JSON documents, a key and its two values each."""
    for key in dict.fromkeys((*before, *now)):
        was, asked = before.get(key), now.get(key)
        if isinstance(was, dict) and isinstance(asked, dict):
            yield from differences(was, asked)
        elif was != asked:
            if was is None:
                yield f"{key} not set there and {asked} here"
            elif asked is None:
                yield f"{key} {was} there and not set here"
            else:
                yield f"{key} {was}, not {asked}"
