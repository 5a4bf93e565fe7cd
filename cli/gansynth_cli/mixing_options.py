"""Options of ``gansynth augment`` that mean nothing beside others, or where nothing is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gansynth_cli.common import Output
from gansynth_cli.typed import called, typed, typed_options

if TYPE_CHECKING:
    from gansynth.core.adapter import Injection

NEEDS = {
    **dict.fromkeys(("bank_size", "scratch", "frozen", "device", "edits"), "!bank"),
    **dict.fromkeys(("reuse", "refresh", "overhead"), "!bank, !frozen"),
    "restarts": "!bank",
    "how": "conditions",
    "nearest": "output",
}
"""What options take to have an effect; see ``gansynth.runtime.options.Needs``."""
OF_SAMPLES = (
    *("run", "bank", "bank_size", "frozen", "reuse", "refresh", "overhead", "scratch", "restarts"),
    *("strict", "keep_going", "augment_synthetic", "edits", "boxes", "conditions", "how"),
    *("lesions", "weights", "filters", "device"),
)
"""Options about samples."""

nearest_option = click.option(
    "--nearest",
    is_flag=True,
    help="With -o: a ratio that cannot be exact takes the nearest that can, instead of an error.",
)


def warn_of_idle(injection: Injection, out: Output) -> None:
    """Say which options mean nothing where no sample is drawn: at a baseline's ratio, say."""
    from gansynth.runtime.options import idle

    context = click.get_current_context()
    needs = dict.fromkeys(OF_SAMPLES if injection.ratio.p == 0 else (), "!ratio")
    for said in idle(typed_options(context), context.params, needs, typed, called):
        out.reporter.warn(said.partition(";")[0])
