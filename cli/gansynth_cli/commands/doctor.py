"""``gansynth doctor``: report what this machine has, and what is missing."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import click

from gansynth.runtime.errors import EnvironmentFault
from gansynth_cli.common import Output, examples, root_option, table, then, with_output


@click.command(
    epilog=examples(
        "gansynth doctor --quick --json",
        "gansynth doctor --deepmedic deepmedic --deepmedic-python deepmedic-env/bin/python",
    )
)
@click.option("--quick", is_flag=True, help="Leave out checks that take seconds.")
@root_option
@click.option(
    "--deepmedic",
    metavar="FOLDER",
    help="Checkout of DeepMedic to check, instead of GANSYNTH_DEEPMEDIC.",
)
@click.option(
    "--deepmedic-python",
    metavar="PYTHON",
    help="Python with its TensorFlow, instead of GANSYNTH_DEEPMEDIC_PYTHON, or else this one.",
)
@with_output
def command(
    quick: bool,
    root: str | None,
    deepmedic: str | None,
    deepmedic_python: str | None,
    out: Output,
) -> None:
    """Report what this machine has, and what is missing.

    Every registered target framework is checked, too. Each line that is not ok says how to fix it.
    Exit code 4 if something essential is missing.
    """
    from gansynth.core.adapter import DoctorRequest
    from gansynth.hosts.doctor import examine, host_lines

    paths = {"deepmedic": deepmedic, "python": deepmedic_python}
    settings = {key: value for key, value in paths.items() if value is not None}
    hosts = host_lines(DoctorRequest(root, quick, settings))
    lines = list(itertools.chain(examine(), hosts))
    bad = [line.what for line in lines if line.state == "bad"]
    document = {"ok": not bad, "lines": [asdict(line) for line in lines]}
    hints = [] if bad else [then("demo", "-o", "runs/demo")]
    out.result(document, [*table((line.state, line.what, line.text) for line in lines), *hints])
    if bad:
        raise EnvironmentFault(f"doctor: {', '.join(bad)} not in order; see the lines above")
