"""Arguments of public functions that are no command's: refused by name if their type is wrong."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from gansynth.runtime.errors import UsageFault, brief, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
LOOSE: Mapping[Any, Any] = {int: Integral, float: Real, Path: os.PathLike}
"""Type -> what else is taken for it: numbers of numpy, and all that stands for a path."""


def with_checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse arguments that a function does not take, misses, or that have another type.

    ``Any``, and types that are known to a type checker only, are not looked at.

    Raises:
        UsageFault: later, from a call; it names the argument, its value and its type.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **values: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **values)
        except TypeError as error:
            raise UsageFault("request.arguments-wrong", f"{error}") from None
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            kind = _kind(parameter.annotation, function.__module__)
            if parameter.kind is parameter.VAR_KEYWORD:
                _check_options(value, *get_args(kind))
            else:
                _check(name, value, kind)
        return function(*args, **values)

    return call


def _check_options(values: Mapping[str, Any], options: type) -> None:
    kinds = {name: text.__forward_arg__ for name, text in options.__annotations__.items()}
    for name, value in values.items():
        if name not in kinds:
            hint = did_you_mean(name, kinds)
            raise UsageFault("request.field-unknown", f"{name}: unknown.{hint}")
        _check(name, value, _kind(kinds[name], options.__module__))


def _check(name: str, value: Any, kind: Any) -> None:
    if not _fits(value, kind):
        shown = " ".join(brief(repr(value)).split())
        raise UsageFault(
            "request.argument-type-wrong",
            f"{name}={shown}: expected {inspect.formatannotation(kind)}",
        )


def _kind(annotation: Any, module: str) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        named = SimpleNamespace(__annotations__={"kind": annotation})
        return get_type_hints(named, vars(sys.modules[module]))["kind"]
    except (NameError, TypeError):  # for type checkers only: not imported, or an alias in quotes
        return Any


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if kind is None or kind is NoneType:
        return value is None
    if isinstance(value, bool) and kind is not bool:
        return False
    taken = LOOSE.get(kind, origin or kind)
    if not isinstance(taken, type):
        return True
    if not isinstance(value, taken) or (taken is Sequence and isinstance(value, str | bytes)):
        return False
    items = value if taken in (Sequence, tuple) and isinstance(value, Sequence) else ()
    return not parts or all(_fits(item, parts[0]) for item in items)
