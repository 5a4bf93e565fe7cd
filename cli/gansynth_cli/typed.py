"""Which options a user typed, what they are called, and whether they have an effect."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gansynth.runtime.errors import UsageFault

F = TypeVar("F", bound=Callable[..., Any])


def with_needs(needs: Mapping[str, str]) -> Callable[[F], F]:
    """Refuse options that were typed and have no effect beside the others; see ``Needs``.

    Args:
        needs: by the names of the command's parameters.
    """

    def add(function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            from gansynth.runtime.options import refuse_idle

            context = click.get_current_context()
            refuse_idle(typed_options(context), context.params, needs, typed, called)
            return function(*args, **kwargs)

        wrapped.needs = needs  # type: ignore[attr-defined]
        return wrapped  # type: ignore[return-value]

    return add


def typed_options(context: click.Context) -> list[str]:
    """Names of the parameters that the user gave."""
    unsaid = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)
    names = [parameter.name or "" for parameter in context.command.params]
    return [name for name in names if context.get_parameter_source(name) not in unsaid]


def called(name: str) -> str:
    """What the user types for a parameter; host options by their place."""
    context = click.get_current_context()
    parameter = next(one for one in context.command.params if one.name == name)
    if isinstance(parameter, click.Argument):
        return "host options after --"
    off = parameter.secondary_opts and context.params.get(name) is not True
    return parameter.secondary_opts[0] if off else parameter.opts[-1]


def refuse_others(meant: Container[str], said: str) -> None:
    """Refuse the first parameter of this command that was typed and means nothing here.

    Args:
        meant: names of those that mean something.
        said: the message, with ``{}`` where the option goes.

    Raises:
        UsageFault: naming it.
    """
    for name in typed_options(click.get_current_context()):
        if name not in meant:
            raise UsageFault(said.format(called(name)))


def typed(name: str) -> str:
    """An option with its value, as typed."""
    value = click.get_current_context().params.get(name)
    if isinstance(value, Mapping):
        value = tuple(f"{key}={text}" for key, text in value.items())
    values = value if isinstance(value, tuple | list) else (value,)
    shown = " ".join(str(one) for one in values if not isinstance(one, bool))
    return f"{called(name)} {shown}".strip()
