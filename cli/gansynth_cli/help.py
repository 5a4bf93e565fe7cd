"""Help in groups, and the completion of names and keys."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
GROUPS = {
    "Data": (
        *("data", "configuration", "plans", "fold", "subjects", "read", "synthetic_source"),
        *("root", "extra_source", "extra_source_read", "real", "real_read"),
    ),
    "Ratio and schedule": ("ratio", "schedule", "augment_synthetic", "nearest", "compare"),
    "Samples": (
        *("n", "number", "seed", "classes", "edit", "boxes", "condition_source"),
        *("condition_source_read", "prevalence", "lesions", "sampling_weights", "filter"),
    ),
    "Sample bank": (
        *("generator", "bank", "offline", "bank_size", "reuse", "refresh", "overhead", "bank_dir"),
        *("restarts", "strict", "allow_empty_bank"),
    ),
    "Target framework": (
        *("target", "detector", "engine", "deepmedic", "deepmedic_python", "host_augmentation"),
        *("real_in_generator_space", "export", "content"),
    ),
}
"""Heading -> parameters below it; all others are about the run."""
HOSTS = {
    "detector": "yolo",
    "engine": "deepmedic",
    "deepmedic": "deepmedic",
    "deepmedic_python": "deepmedic",
    "real_in_generator_space": "deepmedic",
    "export": "nnunet",
}
"""Parameter of one target framework -> its name."""


class GroupedCommand(click.Command):
    """A command with many options: its help has a heading for each kind of them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write options by group; those of one framework only where it is the target."""
        target, rows = ctx.params.get("target"), dict[str, list[tuple[str, str]]]()
        for parameter in self.get_params(ctx):
            name, row = parameter.name or "", parameter.get_help_record(ctx)
            heading = next((title for title, names in GROUPS.items() if name in names), "Run")
            shown = isinstance(parameter, click.Option) and HOSTS.get(name, target) == target
            if row is not None and shown:
                rows.setdefault(heading, []).append(row)
        for heading in (*GROUPS, "Run"):
            if heading in rows:
                with formatter.section(heading):
                    formatter.write_dl(rows[heading])
        if any(parameter.name in HOSTS for parameter in self.params):
            more = f"options {target}" if target else "augment --target NAME --help"
            formatter.write_paragraph()
            formatter.write_text(f"More options of the framework: gansynth {more}")


def complete_names(*kinds: str) -> Complete:
    """Complete names that plugins registered, e.g. of ``generators``."""

    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
        from gansynth.core.registry import installed

        names = [name for kind in kinds for name in installed().names(kind)]
        return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(begun)]

    return complete


def complete_keys(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the keys of ``--set`` for the generator or framework that is typed already."""
    from gansynth.evaluation.option_tables import options
    from gansynth.runtime.errors import GansynthError

    # Behind an unfinished --set, click leaves the arguments unread.
    owners = (ctx.params.get("target"), ctx.params.get("generator"), *ctx.args)
    try:
        rows = [row for table in options(next(filter(None, owners), "")) for row in table.rows]
    except GansynthError:
        return []
    return [
        CompletionItem(f"{key}=", help=meaning) for key, _, meaning in rows if key.startswith(begun)
    ]
