"""Arguments of public functions that are no command's: refused by name, by what their types say."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, ExitStack, contextmanager
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from gansynth.core.requests.base import names_of
from gansynth.core.requests.wording import help_text, meanings_of, parts_of, speaking_python
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.options import flag_of

P = ParamSpec("P")
R = TypeVar("R")
LOOSE: Mapping[Any, Any] = {int: Integral, float: Real, Path: os.PathLike}
"""Type -> what else is taken for it: numbers of numpy, and all that stands for a path."""
LIMITS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}
"""Mark of a number's type, as ``Field(ge=0)`` -> what it demands, in words."""
WIDE = 80
"""Letters of a value that a message shows."""


def with_checked_arguments(
    function: Callable[P, R], name: str = "", options: Any = None
) -> Callable[P, R]:
    """Refuse arguments that a function does not take, misses, or that have another type or size.

    The limits of a number stand in its type, as in a request: ``Annotated[int, Field(ge=0)]``,
    ``PositiveInt``. ``Any``, and types that are known to a type checker only, are not looked at.
    Later errors, also those of entering a block, name arguments instead of flags.

    Args:
        function: or a class, of which a function is made.
        name: of the function, if it is another.
        options: whose keyword-only parameters stand for ``**options``, and whose docstring says
            what else means.
    """
    signature = _signature(function, options)
    kinds = {key: each.annotation for key, each in signature.parameters.items()}
    marked = _signature(function, options, marks=True).parameters.items()
    limits = {key: [*_limits(each.annotation)] for key, each in marked}
    meanings = meanings_of(inspect.getdoc(options) or "") | meanings_of(
        inspect.getdoc(function) or ""
    )
    flags = names_of() | {flag_of(key): key for key in kinds}

    @functools.wraps(function, updated=())
    def call(*args: P.args, **values: P.kwargs) -> R:
        with speaking_python(flags):
            _check(signature, limits, meanings, args, values)
            made = function(*args, **values)
        if inspect.isgeneratorfunction(inspect.unwrap(function)):  # a block of contextmanager's
            return _entered(made, flags)  # type: ignore[arg-type, return-value]
        return made

    call.__name__ = name or function.__name__
    call.__signature__ = signature  # type: ignore[attr-defined]
    before, _, after = parts_of(inspect.getdoc(function) or "")
    call.__doc__ = help_text(
        before, {key: meanings[key] for key in kinds if key in meanings}, after
    )
    return call


def _check(
    signature: inspect.Signature,
    limits: Mapping[str, Sequence[tuple[str, Any]]],
    meanings: Mapping[str, str],
    args: Sequence[Any],
    values: dict[str, Any],
) -> None:
    """Refuse the first argument that is unknown, missing, unnamed, or of another type or size."""
    parameters = signature.parameters
    for key in values:
        if key not in parameters:
            hint = did_you_mean(key, parameters) or f" Expected: {', '.join(parameters)}"
            raise UsageFault("request.field-unknown", f"{key}: unknown.{hint}")
    first = [key for key, each in parameters.items() if each.kind is not each.KEYWORD_ONLY]
    for value in args[len(first) :]:
        raise UsageFault(
            "request.arguments-wrong",
            f"{_brief(value)}: has no name, expected NAME=...; arguments without one: "
            f"{', '.join(first)}",
        )
    for key in first[: len(args)]:
        if key in values:
            raise UsageFault("request.arguments-wrong", f"{key}: given twice, expected it once")
    given = dict(zip(first, args, strict=False)) | values
    for key, each in parameters.items():
        sentence = meanings.get(key, "").replace("``", "").partition(". ")[0].rstrip(".")
        meaning = f" ({sentence})" if sentence else ""
        expected = f"expected {_shown(each.annotation)}{meaning}"
        if key not in given and each.default is each.empty:
            raise UsageFault("request.arguments-wrong", f"{key}: missing, {expected}")
        if key in given and not _fits(given[key], each.annotation):
            shown = f"{key}={_brief(given[key])}: {expected}"
            raise UsageFault("request.argument-type-wrong", shown)
        for mark, limit in limits[key] if isinstance(given.get(key), Real) else ():
            holds, words = LIMITS[mark]
            if not holds(given[key], limit):
                shown = f"{key}={_brief(given[key])}: expected {words} {limit}{meaning}"
                raise UsageFault("request.argument-out-of-range", shown)


def _limits(kind: Any) -> Iterator[tuple[str, Any]]:
    """Yield the limits of a number's type, or of one of a union: ``("ge", 0)``."""
    for mark in getattr(kind, "__metadata__", ()):
        for limit in mark.metadata if isinstance(mark, FieldInfo) else [mark]:
            yield from ((name, getattr(limit, name)) for name in LIMITS if hasattr(limit, name))
    if get_origin(kind) in (Union, UnionType):
        for part in get_args(kind):
            yield from _limits(part)


@contextmanager
def _entered(block: AbstractContextManager[R], flags: Mapping[str, str]) -> Iterator[R]:
    with ExitStack() as stack:
        with speaking_python(flags):
            entered = stack.enter_context(block)
        yield entered


def _signature(
    function: Callable[..., Any], options: Any, *, marks: bool = False
) -> inspect.Signature:
    """Return a signature with types in place of their texts, and all options one by one.

    ``marks``: with what ``Annotated`` adds to a type.
    """
    parameters = []
    for each in inspect.signature(function).parameters.values():
        shared = each.kind is each.VAR_KEYWORD
        named = inspect.signature(options).parameters.values() if shared else [each]
        module = options.__module__ if shared else function.__module__
        for one in named:
            if not shared or one.kind is one.KEYWORD_ONLY:
                parameters.append(one.replace(annotation=_kind(one.annotation, module, marks)))
    return inspect.Signature(parameters)


def _brief(value: Any) -> str:
    shown = " ".join(repr(value).split())
    size = f" of {len(value)}" if isinstance(value, Sized) else ""
    return shown if len(shown) <= WIDE else f"<{type(value).__name__}{size}>"


def _shown(kind: Any) -> str:
    """Return a type as one writes it: names without their modules."""
    if kind is Any:
        return "an object"
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", inspect.formatannotation(kind))


def _kind(annotation: Any, module: str, marks: bool) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        named = SimpleNamespace(__annotations__={"kind": annotation})
        return get_type_hints(named, vars(sys.modules[module]), include_extras=marks)["kind"]
    except NameError:  # for type checkers only: not imported
        return annotation


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
    if taken is tuple and Ellipsis not in parts:  # one type for each item
        return len(items) == len(parts) and all(map(_fits, items, parts))
    return not parts or all(_fits(item, parts[0]) for item in items)
