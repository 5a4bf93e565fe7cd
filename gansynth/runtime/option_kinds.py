"""How the text of an option is read, by its field's type; shared types; tables of options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

from gansynth.runtime.yaml_text import parse_yaml

NOTHING = ("none", "null", "~", "")
"""Texts of no value."""
_EXAMPLES = {int: ("1", "2", "3"), float: ("0.5", "1", "2")}
_ONE = {int: "a whole number", float: "a number", str: "a text", bool: "yes or no"}
_MANY = {int: "whole numbers", float: "numbers", str: "names"}
_COUNTS = {2: "two", 3: "three"}


def read_text(field: FieldInfo, value: Any) -> Any:
    """Return what is typed for an option as its value, or as a list of values, still to be checked.

    Several values are separated by commas, numbers also by ``+``, or are a list in YAML. A type
    with a reader of its own (``BeforeValidator``) gets the text.
    """
    if _reads_itself(field.annotation, field.metadata):
        return value
    kinds = alternatives(field.annotation)
    several = tuples_of(field.annotation)
    if not isinstance(value, str):
        return [value] if several and _is_number(value) else value
    of_keys = any(isinstance(kind, type(BaseModel)) for kind in kinds)
    if (several and value[:1] == "[") or (of_keys and value[:1] == "{"):  # as recipes have them
        with suppress(yaml.YAMLError):  # the model says what it expects
            return parse_yaml(value)
    text_itself = str in kinds or Path in kinds or value in choices(field.annotation)
    if value in NOTHING and NoneType in kinds and not text_itself:
        return None
    if several and value.strip():
        item = get_args(several[0])[0]
        numbers = not {int, float}.isdisjoint(alternatives(item)) and not choices(item)
        return [_word(item, part) for part in parts_of(value, numbers=numbers)]
    return _word(field.annotation, value)


def tuples_of(annotation: Any) -> Sequence[Any]:
    """Return the alternatives of a type that hold several values."""
    return [kind for kind in alternatives(annotation) if get_origin(kind) is tuple]


def parts_of(text: str, *, numbers: bool = False) -> list[str]:
    """Split a text at its commas, one of numbers also at ``+``."""
    between = r",|(?<=[\d.\s])\+" if numbers else ","  # 1e+5 is one number
    return [part.strip() for part in re.split(between, text.strip())]


def choices(annotation: Any) -> dict[str, Any]:
    """Return the words that a type offers, or that each of several values may be: text -> value."""
    words: dict[str, Any] = {}
    for kind in alternatives(annotation):
        if get_origin(kind) is Literal:
            words.update({str(word): word for word in get_args(kind)})
        elif get_origin(kind) is tuple:
            words.update(choices(get_args(kind)[0]))
    return words


def _word(annotation: Any, text: str) -> Any:
    """Return the value that a text alone names: a choice that is a number, or one of two kinds."""
    kinds = alternatives(annotation)
    if int in kinds and str in kinds and text.isdecimal():
        return int(text)
    return choices(annotation).get(text, text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def edges(value: Any, axes: int = 1) -> Any:
    """Parse ``64x64``, ``64,64``, or a list, into a tuple; a single edge holds for all ``axes``."""
    parts = value
    if isinstance(value, str):
        parts = parts_of(value.lower().strip("[]").replace("x", ","), numbers=True)
    elif _is_number(value):
        parts = [value]
    if not isinstance(parts, list | tuple):
        return value
    return tuple(parts * axes if len(parts) == 1 else parts)


def is_size(annotation: Any, metadata: Iterable[Any] = ()) -> bool:
    """Whether a type is a size, or a union with one."""
    annotations = (*metadata, *getattr(annotation, "__metadata__", ()))
    checks = [
        getattr(m.func, "func", m.func) for m in annotations if isinstance(m, BeforeValidator)
    ]
    return edges in checks or any(is_size(part) for part in get_args(annotation))


def _reads_itself(annotation: Any, metadata: Iterable[Any] = ()) -> bool:
    """Whether a type, or one of a union, has a reader of its own."""
    marks = (*metadata, *getattr(annotation, "__metadata__", ()))
    if any(isinstance(mark, BeforeValidator) for mark in marks):
        return True
    return any(_reads_itself(part) for part in get_args(annotation))


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return text


Edge = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[tuple[Edge, ...], BeforeValidator(edges)]
"""Voxels along each axis, written ``64x64`` or ``32x64x64``."""
Size2 = Annotated[tuple[Edge, Edge], BeforeValidator(partial(edges, axes=2))]
"""Rows and columns; one number for both."""
Size3 = Annotated[tuple[Edge, Edge, Edge], BeforeValidator(partial(edges, axes=3))]
"""Voxels along z, y, x; one number for all."""
Device = Annotated[str, AfterValidator(_device)]


def form_of(key: str, field: FieldInfo, joint: str) -> str:
    """Describe the form of an option's values, with an example for several."""
    forms = []
    for alternative in alternatives(field.annotation):
        if get_origin(alternative) is tuple:
            kinds = [alternatives(part)[0] for part in get_args(alternative)]
            count = 3 if Ellipsis in kinds else len(kinds)
            example = joint.join(_EXAMPLES.get(kinds[0], ("A", "B", "C"))[:count])
            if is_size(field.annotation, field.metadata):
                example = "x".join(["64"] * count)
            example = field.examples[0] if field.examples else example
            number = "" if Ellipsis in kinds else f"{_COUNTS.get(count, count)} "
            forms.append(f"{number}{_MANY.get(kinds[0], 'values')}, as {key}={example}")
        elif get_origin(alternative) is Literal:
            forms.append(", ".join(map(str, get_args(alternative))))
        elif alternative in _ONE:
            forms.append(_ONE[alternative])
    return f"expected {' or '.join(forms)}" if forms else ""


def alternatives(annotation: Any) -> Sequence[Any]:
    """Return the alternatives of a type: the parts of a union, without their metadata."""
    if get_origin(annotation) in (Union, UnionType):
        return [alternative for part in get_args(annotation) for alternative in alternatives(part)]
    if hasattr(annotation, "__metadata__"):
        return alternatives(get_args(annotation)[0])
    return [annotation]


def size_text(size: Iterable[int]) -> str:
    """Format a size: ``32x64x64``."""
    return "x".join(map(str, size))


def option_rows(
    model: type[BaseModel], usual: Mapping[str, Any] | None = None
) -> list[tuple[str, str, str]]:
    """Return key, default and meaning of all options of a model, as for ``gansynth options``.

    The meaning has every word that may be chosen. ``usual``: defaults in place of the model's.
    """
    rows = []
    for key, field in model.model_fields.items():
        left_out = field.is_required() or field.default_factory is not None
        default = "" if left_out else _default((usual or {}).get(key, field.default))
        meaning, words = field.description or "", choices(field.annotation)
        if not set(words) <= set(re.findall(r"[\w-]+", meaning)):
            meaning = "; ".join(filter(None, [meaning, "one of " + ", ".join(words)]))
        rows.append((key, default, meaning))
    return rows


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None or value == {} else str(value)
