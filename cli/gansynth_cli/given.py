"""Which options were typed, and which of them mean nothing beside others."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import click
from click.core import ParameterSource

from gansynth.errors import UsageFault


def given(context: click.Context, name: str | None) -> bool:
    """Whether a parameter was typed."""
    return name is not None and context.get_parameter_source(name) not in (
        ParameterSource.DEFAULT,
        ParameterSource.DEFAULT_MAP,
        None,
    )


def refuse_others(meant: Container[str], said: str) -> None:
    """Refuse the first parameter of this command that was typed and means nothing here.

    Args:
        meant: names of those that mean something.
        said: the message, with ``{}`` where the option goes.

    Raises:
        UsageFault: naming it.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name not in meant and given(context, parameter.name):
            raise UsageFault(said.format(_shown(context, parameter)))


def _shown(context: click.Context, parameter: click.Parameter) -> str:
    """An option as it is typed; host options by their place."""
    value: Any = context.params.get(parameter.name or "")
    if isinstance(parameter, click.Argument):
        return "host options after --"
    return (
        parameter.secondary_opts[0]
        if value is not True and parameter.secondary_opts
        else (parameter.opts[-1])
    )
