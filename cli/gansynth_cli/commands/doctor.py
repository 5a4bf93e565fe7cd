"""``gansynth doctor``: report what this machine has, and what is missing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import EnvironmentFault
from gansynth_cli.common import Output, examples, root_option, table, then, with_output
from gansynth_cli.help import SettingsCommand

if TYPE_CHECKING:
    from gansynth.runtime.options import OptionModel


def options_of_hosts(typed: Mapping[str, Any]) -> dict[str, type[OptionModel]]:
    """Return the options of every host's check."""
    from gansynth.hosts.doctor import host_options

    return {f"Options of {name}": model for name, model in host_options().items()}


@click.command(
    cls=SettingsCommand,
    models=options_of_hosts,
    epilog=examples(
        "gansynth doctor --quick --json",
        "gansynth doctor --deepmedic deepmedic --deepmedic-python deepmedic-env/bin/python",
    ),
)
@click.option("--quick", is_flag=True, help="Leave out checks that take seconds.")
@root_option
@with_output
def command(quick: bool, root: str | None, settings: Mapping[str, str], out: Output) -> None:
    """Report what this machine has, and what is missing.

    Every registered target framework is checked, too. Each line that is not ok says how to fix it.
    Exit code 4 if something essential is missing.
    """
    from gansynth.core.host_commands import DoctorRequest
    from gansynth.hosts.doctor import examine, host_lines

    hosts = host_lines(DoctorRequest(root, quick), settings)
    lines = list(itertools.chain(examine(), hosts))
    bad = [line.what for line in lines if line.state == "bad"]
    document = {"ok": not bad, "lines": [asdict(line) for line in lines]}
    hints = [] if bad else [then("demo", "-o", "runs/demo")]
    out.result(document, [*table((line.state, line.what, line.text) for line in lines), *hints])
    if bad:
        raise EnvironmentFault(f"doctor: {', '.join(bad)} not in order; see the lines above")
