"""Help in groups, options of a target as flags, and completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from gansynth.runtime.errors import GansynthError

if TYPE_CHECKING:
    from pydantic import BaseModel

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Models = Callable[[Mapping[str, Any]], Mapping[str, "type[BaseModel]"]]
SETTINGS, ONLY_SET = "gansynth_cli.settings", "gansynth_cli.only_set"
"""Keys of a context's further options, and of the names of settings that are no flags."""
ALL = "gansynth_cli.help_all"
"""Key of a context in which the help shows every option."""
HELP_ALL = "--help-all"
HEADINGS = ("Data", "Ratio and schedule", "Samples", "Sample bank", "Target framework", "Run")
"""Headings of the help, in order; options without one are about the run."""


class GroupedCommand(click.Command):
    """A command with many options: its help has a heading for each kind of them.

    Args:
        headings: parameter -> heading.
        first: parameters that ``--help`` shows, beside the settings of a target that is typed;
            ``--help-all`` shows all. None: ``--help`` does, too.
    """

    def __init__(
        self,
        *args: Any,
        headings: Mapping[str, str],
        first: Sequence[str] = (),
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.headings, self.first = headings, first
        shows_all = click.Option(
            [HELP_ALL],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=not first,
            callback=_show_all,
            help="Show every option.",
        )
        self.params.append(shows_all)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write options by group."""
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        short, left_out = bool(self.first) and ALL not in ctx.meta, 0
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is None or not isinstance(parameter, click.Option):
                continue
            name = parameter.name or ""
            heading = self.headings.get(name, "Run")
            if isinstance(parameter, SettingOption):
                heading = parameter.heading
            elif short and name not in self.first and not {"--help", HELP_ALL} & {*parameter.opts}:
                left_out += 1
                continue
            rows.setdefault(heading, []).append(row)
        for heading in filter(rows.get, rows):
            with formatter.section(heading):
                formatter.write_dl(rows[heading])

        if left_out:
            formatter.write_paragraph()
            formatter.write_text(f"{left_out} more: {ctx.command_path} {HELP_ALL}")
        keys = ctx.meta.get(ONLY_SET)
        if keys:
            formatter.write_paragraph()
            formatter.write_text(f"By --set KEY=VALUE only: {', '.join(keys)}.")


def _show_all(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class SettingOption(click.Option):
    """A field of a model of options as a flag; its text is read by that model."""

    def __init__(self, key: str, model: type[BaseModel], default: str, heading: str) -> None:
        from gansynth.runtime.option_kinds import alternatives
        from gansynth.runtime.options import flag_of

        self.key, self.heading = key, heading
        field = model.model_fields[key]
        switch = bool in alternatives(field.annotation)
        given_alone: dict[str, Any] = {"is_flag": False, "flag_value": "yes"} if switch else {}
        super().__init__(
            [flag_of(key), f"setting_{key}"],
            metavar="[yes|no]" if switch else "VALUE",
            help=(field.description or "") + (f"  [default: {default}]" if default else ""),
            **given_alone,
        )


class SettingsCommand(GroupedCommand):
    """A command with further flags: the options of its target, or of all hosts.

    Their texts reach the function among ``settings``, as those of ``--set`` do. A field that is
    called as an option of the command itself is no flag.

    Args:
        models: typed parameters -> heading -> model of options.
    """

    def __init__(self, *args: Any, models: Models, **more: Any) -> None:
        super().__init__(*args, **more)
        self.models = models

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options of the command, then those of the models."""
        return [*super().get_params(ctx), *ctx.meta.get(SETTINGS, ())]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what is typed, also the flags that it brings."""
        from gansynth.runtime.option_kinds import option_rows
        from gansynth.runtime.options import FlagText, put_setting

        ctx.meta[SETTINGS] = flags = list[SettingOption]()
        ctx.meta[ONLY_SET] = only_set = list[str]()
        parser = self.make_parser(ctx)
        parser.ignore_unknown_options = True  # they may be among the flags
        typed, _, _ = parser.parse_args([*args])
        taken = {flag for param in self.params for flag in (*param.opts, *param.secondary_opts)}
        try:
            models = self.models(typed)
        except GansynthError:
            if not ctx.resilient_parsing:  # completion says nothing
                raise
            models = {}
        for heading, model in models.items():
            for key, default, _ in option_rows(model):
                flag = SettingOption(key, model, default, heading)
                if flag.opts[0] in taken:
                    only_set.append(key)
                else:
                    flags.append(flag)
        left: list[str] = super().parse_args(ctx, args)
        settings = ctx.params.setdefault("set", {})
        for flag in flags:
            text = ctx.params.pop(str(flag.name), None)
            if text is not None and not ctx.resilient_parsing:
                put_setting(settings, flag.key, FlagText(text), flag.opts[0])
        return left


def complete_names(*kinds: str) -> Complete:
    """Complete names that plugins registered, e.g. of ``generators``."""

    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
        from gansynth.core.registry import installed

        names = [name for kind in kinds for name in installed().names(kind)]
        return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(begun)]

    return complete


def complete_keys(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the keys of ``--set`` for the generator or framework that is typed already."""
    from gansynth_cli.option_tables import tables_of

    # Behind an unfinished --set, click leaves the arguments unread.
    owners = (ctx.params.get("target"), ctx.params.get("generator"), *ctx.args)
    try:
        rows = [row for table in tables_of(next(filter(None, owners), "")) for row in table.rows]
    except GansynthError:
        return []
    return [
        CompletionItem(f"{key}=", help=meaning) for key, _, meaning in rows if key.startswith(begun)
    ]
