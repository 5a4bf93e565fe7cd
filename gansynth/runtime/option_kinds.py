"""Shared types of option values, and tables of options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

_EXAMPLES = {int: ("1", "2", "3"), float: ("0.5", "1", "2")}
_ONE = {int: "a whole number", float: "a number", str: "a text", bool: "yes or no"}
_MANY = {int: "whole numbers", float: "numbers", str: "names"}
_COUNTS = {2: "two", 3: "three"}


def edges(value: Any, axes: int = 1) -> Any:
    """Parse ``64x64``, ``64,64``, or a list, into a tuple; a single edge holds for all ``axes``."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    bounds = [
        edge.strip() if isinstance(edge, str) else edge
        for part in parts
        for edge in (re.split("[x,]", part.lower()) if isinstance(part, str) else [part])
    ]
    return tuple(bounds * axes if len(bounds) == 1 else bounds)


def is_size(annotation: Any, metadata: Iterable[Any] = ()) -> bool:
    """Whether a type is a size, or a union with one."""
    annotations = (*metadata, *getattr(annotation, "__metadata__", ()))
    checks = [
        getattr(m.func, "func", m.func) for m in annotations if isinstance(m, BeforeValidator)
    ]
    return edges in checks or any(is_size(part) for part in get_args(annotation))


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

    ``usual``: defaults in place of the model's.
    """
    rows = []
    for key, field in model.model_fields.items():
        left_out = field.is_required() or field.default_factory is not None
        default = "" if left_out else _default((usual or {}).get(key, field.default))
        rows.append((key, default, field.description or ""))
    return rows


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None or value == {} else str(value)
