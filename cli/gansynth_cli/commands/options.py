"""``gansynth options``: print the options of generators, frameworks and other plugins."""

from __future__ import annotations

import click

from gansynth_cli.common import Hint, Output, examples, with_output
from gansynth_cli.help import complete_names

KINDS = ("generators", "adapters", "sources", "edits", "filters", "metrics", "recipes")


@click.command(epilog=examples("gansynth options cgan3d", "gansynth options nnunet --json"))
@click.argument("name", metavar="NAME", shell_complete=complete_names(*KINDS))
@with_output
def command(name: str, out: Output) -> None:
    """Print the options of a generator, framework, source, edit or filter.

    NAME is a registered name (see: gansynth plugins), or lesions, boxes, hard-cases. Each option
    has its key, its default and its meaning; of a recipe, the value that it sets.
    """
    from gansynth.evaluation.option_tables import options

    tables = options(name)
    lines = repr(tables).splitlines()
    if tables[0].kind in ("generator", "recipe"):
        typed = tables[0].typed.partition(";")[0].removesuffix(" --set KEY=VALUE")
        lines.append(Hint(f"next: {typed} --data KIND:WHERE -o runs/{name}"))
    out.result({"name": name, "tables": tables.to_json()}, lines)
