"""``gansynth plugins``: list what is registered, and check it against its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gansynth.errors import IntegrityFault, UsageFault
from gansynth_cli.common import Output, examples, refuse_unknown, set_option, table, with_output

if TYPE_CHECKING:
    from gansynth.registry import Registry
    from gansynth.testing import CheckReport


@click.group(
    invoke_without_command=True,
    epilog=examples("gansynth plugins list", "gansynth plugins check cgan3d"),
)
@click.pass_context
def command(context: click.Context) -> None:
    """List and check what is installed.

    Plugins are found through the entry-point group gansynth. One that does not load is listed with
    its reason; the others go on working.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_plugins)


@command.command("list", epilog=examples("gansynth plugins list", "gansynth plugins list --json"))
@with_output
def list_plugins(out: Output) -> None:
    """List generators, adapters, sources and edits, and broken plugins with their reasons."""
    from gansynth.registry import installed

    found = inventory(installed())
    rows = [
        (kind, name, f"from {plugin}")
        for kind, names in found["found"].items()
        for name, plugin in names.items()
    ]
    rows += [("broken", name, reason) for name, reason in found["broken"].items()]
    out.result(found, table(rows))


@command.command(
    "check",
    epilog=examples(
        "gansynth plugins check cgan3d",
        "gansynth plugins check cgan3d --set width=8 --steps 100 --json",
    ),
)
@click.argument("name", metavar="NAME")
@set_option
@click.option(
    "--steps", type=click.IntRange(min=1), default=60, show_default=True, help="Steps to fit."
)
@with_output
def check(name: str, settings: dict[str, str], steps: int, out: Output) -> None:
    """Check a registered generator against its contract, on toy data in memory.

    NAME is a generator. What an adapter must do is checked on its host's own data: see
    gansynth.testing.check_adapter.
    """
    from gansynth.registry import installed

    registry = installed()
    if name in registry.found["adapters"] and name not in registry.found["generators"]:
        raise UsageFault(
            f"plugins check {name!r}: an adapter is checked on its host's own data, from a test: "
            "gansynth.testing.check_adapter(adapter, workspace=...)"
        )
    from gansynth.settings import parse
    from gansynth.testing import check_generator

    cls = registry.generator(name)
    refuse_unknown(settings, dict.fromkeys(cls.Options.model_fields, ""), of=name)
    options = parse(cls.Options, settings).model_dump()
    out.reporter.say(f"checking {name} on toy cases, {steps} steps each in 3D and 2D")
    report = check_generator(cls, options=options, steps=steps)
    out.result(report.to_json(), lines_of(report))
    if not report.passed:
        failed = ", ".join(check.name for check in report.failed)
        raise IntegrityFault(f"{name}: {len(report.failed)} check(s) failed: {failed}")


def inventory(registry: Registry) -> dict[str, Any]:
    """Names by kind with the plugin that offers them, and what is broken, as JSON."""
    return {
        "found": {
            kind: {name: registry.found[kind][name][0] for name in registry.names(kind)}
            for kind in registry.found
        },
        "broken": dict(registry.broken),
    }


def lines_of(report: CheckReport) -> list[str]:
    """A check report as aligned lines."""
    return table((check.verdict, check.name, check.message) for check in report.checks)
