"""A command from the class that says what it takes: options, groups of help, completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from gansynth.core.requests.base import (
    IsFile,
    IsFolder,
    Many,
    Pairs,
    Request,
    marks_of,
    text_of,
)
from gansynth.runtime.option_kinds import alternatives
from gansynth.runtime.options import flag_of, refuse_idle
from gansynth.runtime.progress import alive
from gansynth_cli.common import FILE, FOLDER, PRINTING, Output, reader_of_pairs
from gansynth_cli.help import (
    GroupedCommand,
    Models,
    SettingsCommand,
    complete_keys,
    complete_names,
)

Q = TypeVar("Q", bound=Request)
UNSAID = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)


def request_command(
    model: type[Q],
    work: str,
    show: Callable[..., None],
    *,
    epilog: str,
    models: Models | None = None,
    options: Sequence[Callable[[Any], Any]] = (),
    needs: Mapping[str, str] = MappingProxyType({}),
) -> click.Command:
    """Return the command of a request.

    Args:
        model: its docstring is the command's help.
        work: ``MODULE:NAME`` of the function that the request is handed to.
        show: prints what that returned.
        models: further flags, see ``SettingsCommand``.
        options: that only the terminal has; ``show`` gets their values by name.
        needs: conditions of their effects.
    """
    fields = model.model_fields

    def command(as_json: bool, quiet: bool, **values: Any) -> None:
        context = click.get_current_context()
        typed = {k: v for k, v in values.items() if k in fields and _is_typed(context, k, v)}
        if quiet:
            typed["quiet"] = True
        request = model(**typed)
        terminal = {k: v for k, v in values.items() if k not in fields}
        said = [name for name, value in terminal.items() if _is_typed(context, name, value)]
        refuse_idle(said, dict(vars(request)) | terminal, needs, flag_of, flag_of)
        module, _, name = work.partition(":")
        with alive(request.reporter):
            with request.at_work():
                done = getattr(import_module(module), name)(request)
            show(request, done, Output(as_json, quiet, request), **terminal)

    placed = sorted(fields, key=lambda name: not model.opt(name).heading)  # first below it
    typed = [name for name in placed if name != "quiet" and not model.opt(name).hidden]
    params = [_parameter(model, name) for name in typed]
    params.sort(key=lambda param: not isinstance(param, click.Argument))
    for option in (*options, *PRINTING):
        params += _declared(option)
    shared: dict[str, Any] = {"callback": command, "params": params, "epilog": epilog}
    shared["help"] = model.__doc__
    if models is not None:
        made: click.Command = SettingsCommand(
            None, headings=model.headings, first=model.leading, models=models, **shared
        )
    elif model.headings:
        made = GroupedCommand(None, headings=model.headings, first=model.leading, **shared)
    else:
        made = click.Command(None, **shared)
    made.request, made.show = model, show  # type: ignore[attr-defined]
    return made


def _declared(option: Callable[[Any], Any]) -> Sequence[click.Parameter]:
    def holder() -> None: ...

    declared: Sequence[click.Parameter] = option(holder).__click_params__
    return declared


def _is_typed(context: click.Context, name: str, value: Any) -> bool:
    if name == "set" and value:
        return True  # also by flags
    return context.get_parameter_source(name) not in UNSAID


def _parameter(model: type[Request], name: str) -> click.Parameter:
    field, opt = model.model_fields[name], model.opt(name)
    required, marks = field.is_required(), marks_of(field)
    several = Many in marks
    common: dict[str, Any] = {"metavar": opt.metavar, "type": _type(field, marks)}
    if opt.names:
        common["shell_complete"] = complete_names(*opt.names)
    if opt.keys:
        common["shell_complete"] = complete_keys
    if several:
        common |= {"nargs": -1} if opt.argument else {"multiple": True}
    if opt.argument:
        return click.Argument([name], required=required, **common)
    flags = list(opt.flags) or [flag_of(name)]
    if opt.word:
        common |= {"type": click.Choice(["yes", "no"]), "default": text_of(field.default)}
    elif bool in alternatives(field.annotation):
        if field.default is True:
            flags = [f"{flags[0]}/--no-{flags[0][2:]}"]
        common = {"is_flag": True, "default": field.default}
    elif not (required or several or Pairs in marks):
        common["default"] = field.default
    if opt.alone is not None:
        common |= {"is_flag": False, "flag_value": opt.alone}
    if Pairs in marks:
        common |= {
            "multiple": True,
            "metavar": opt.metavar or "KEY=VALUE",
            "callback": reader_of_pairs(flags[-1], opt.example),
        }
    usual = None if required else field.default
    shown = opt.shown and usual is not False and usual not in (None, (), {}, "")
    return click.Option(
        [*flags, name],
        required=required,
        help=(field.description or "").replace("\n", " "),
        show_default=shown,
        is_eager=opt.eager,
        **common,
    )


def _type(field: FieldInfo, marks: Sequence[Any]) -> Any:
    if IsFolder in marks or IsFile in marks:
        return FOLDER if IsFolder in marks else FILE
    kinds = alternatives(field.annotation)
    for kind in kinds:
        for part in (kind, *get_args(kind)):
            if get_origin(part) is Literal:
                return click.Choice(get_args(part))
    if str in kinds:
        return click.STRING
    lows = [mark.ge for mark in marks if hasattr(mark, "ge")]
    above = [mark.gt for mark in marks if hasattr(mark, "gt")]
    highs = [mark.le for mark in marks if hasattr(mark, "le")]
    least, most = next(iter([*lows, *above]), None), next(iter(highs), None)
    bounds: dict[str, Any] = {"min": least, "max": most}
    bounded = any((lows, highs, above))
    if int in kinds:
        return click.IntRange(**bounds) if bounded else click.INT
    if float in kinds:
        return click.FloatRange(**bounds, min_open=bool(above)) if bounded else click.FLOAT
    return click.STRING
