"""``gansynth augment --export``: what of ``augment`` means something for a data set on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gansynth.errors import UsageFault

if TYPE_CHECKING:
    from gansynth.adapter import Adapter, Content, Injection
    from gansynth.supply import BankSize
    from gansynth_cli.common import Output

SOURCE = ("data", "configuration", "plans", "fold", "subjects", "read", "root")
SAMPLES = ("run", "ratio", "bank", "bank_size", "restarts", "seed", "edits", "device")
SAYING = ("target", "export", "content", "dry_run", "as_json", "quiet", "debug")
MEANT = frozenset((*SOURCE, *SAMPLES, *SAYING))
"""Options that an export heeds; every other one is about a training, which there is none of."""


def run_export(
    adapter: Adapter,
    injection: Injection,
    name: str,
    content: Content | None,
    *,
    dry_run: bool,
    out: Output,
) -> None:
    """Export, and print what came of it.

    Raises:
        GansynthError: what the adapter refuses.
    """
    from gansynth_cli.common import summary

    document = adapter.export(
        injection,
        name,
        content=content or "mixed",
        size=asked_size(injection),
        dry_run=dry_run,
        reporter=out.reporter,
    )
    out.result(document, summary(document))


def asked_size(injection: Injection) -> BankSize | None:
    """``--bank-size``, if it was given."""
    return injection.size if _given(click.get_current_context(), "bank_size") else None


def check_options(export: str | None, content: str | None) -> None:
    """Refuse what an export would ignore, and ``--content`` without an export.

    Raises:
        UsageFault: naming the first option that was given all the same.
    """
    context = click.get_current_context()
    if export is None:
        if content is not None:
            raise UsageFault(
                f"--content {content}: expected --export DatasetNNN_Name beside it; without, "
                "samples are mixed in at --ratio while the host trains"
            )
        return
    for parameter in context.command.params:
        if parameter.name not in MEANT and _given(context, parameter.name):
            raise UsageFault(
                f"--export with {_shown(context, parameter)}: nothing is trained, expected only "
                "what says which samples are written; leave it out"
            )


def _given(context: click.Context, name: str | None) -> bool:
    return name is not None and context.get_parameter_source(name) not in (
        ParameterSource.DEFAULT,
        ParameterSource.DEFAULT_MAP,
        None,
    )


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
