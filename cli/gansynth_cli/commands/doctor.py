"""``gansynth doctor``: report what this machine has, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gansynth.core.requests.hosts import DoctorRequest
from gansynth.runtime.errors import EnvironmentFault
from gansynth_cli.common import Output, examples, table, then
from gansynth_cli.requests import request_command

if TYPE_CHECKING:
    from gansynth.runtime.machine import DoctorLine
    from gansynth.runtime.options import OptionModel


def options_of_hosts(typed: Mapping[str, Any]) -> dict[str, type[OptionModel]]:
    """Return the options of every host's check."""
    from gansynth.hosts.data_sets.doctor import host_options

    return {f"Options of {name}": model for name, model in host_options().items()}


def show(request: DoctorRequest, lines: list[DoctorLine], out: Output) -> None:
    """Print the lines, and raise if something essential is missing."""
    bad = [line.what for line in lines if line.state == "bad"]
    hints = [] if bad else [then("demo", "-o", "runs/demo")]
    cures = {line.what: f"      {line.cure}" for line in lines if line.cure}
    rows = [*table((line.state, line.what, line.found) for line in lines), *[""] * bool(cures)]
    for what, cure in cures.items():
        rows += [f"{what}:", cure]
    document = {"ok": not bad, "lines": [asdict(line) for line in lines]}
    out.result(document, [*rows, *hints])
    if bad:
        raise EnvironmentFault(
            "command.environment-not-in-order",
            f"doctor: {', '.join(bad)} not in order; see the lines above",
        )


command = request_command(
    DoctorRequest,
    "gansynth.hosts.data_sets.data_commands:run_doctor",
    show,
    models=options_of_hosts,
    epilog=examples(
        "gansynth doctor --quick --json",
        "gansynth doctor --deepmedic deepmedic --deepmedic-python deepmedic-env/bin/python",
    ),
)
