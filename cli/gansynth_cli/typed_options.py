"""Options that a user typed: their names, and whether they have an effect."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gansynth.runtime.errors import UsageFault

F = TypeVar("F", bound=Callable[..., Any])


def with_needs(needs: Mapping[str, str]) -> Callable[[F], F]:
    """Refuse typed options that have no effect beside the others; see ``Needs``.

    Args:
        needs: by name of the command's parameters.
    """

    def add(function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            from gansynth.runtime.words import Given

            class Typed(Given):
                def called(self, name: str) -> str:
                    return called(name)

            context = click.get_current_context()
            Typed(context.params, typed_options(context)).refuse_idle(needs)
            return function(*args, **kwargs)

        wrapped.needs = needs  # type: ignore[attr-defined]
        return wrapped  # type: ignore[return-value]

    return add


def typed_options(context: click.Context) -> list[str]:
    """Return the names of the parameters that the user gave."""
    unsaid = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)
    names = [parameter.name or "" for parameter in context.command.params]
    return [name for name in names if context.get_parameter_source(name) not in unsaid]


def called(name: str) -> str:
    """Return what the user types for a parameter."""
    context = click.get_current_context()
    parameter = next(param for param in context.command.params if param.name == name)
    if isinstance(parameter, click.Argument):
        return "host options after --"
    off = parameter.secondary_opts and context.params.get(name) is not True
    return parameter.secondary_opts[0] if off else parameter.opts[-1]


def refuse_others(allowed: Container[str], message: str) -> None:
    """Refuse typed parameters of this command that have no effect here.

    Args:
        allowed: names of parameters that have an effect.
        message: with ``{}`` where the option goes.

    Raises:
        UsageFault: names the first such parameter.
    """
    for name in typed_options(click.get_current_context()):
        if name not in allowed:
            raise UsageFault(message.format(called(name)))
