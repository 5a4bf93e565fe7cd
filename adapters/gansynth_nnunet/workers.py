"""In how many processes nnU-Net augments: as many as without gansynth, decided here alone."""

from __future__ import annotations

import os

from gansynth import UsageFault
from gansynth.runtime.machine import cores

WORKERS = "nnUNet_n_proc_DA"
"""nnU-Net's variable for their number; a user's wins."""


def own_workers() -> int:
    """Return the number that nnU-Net's own commands start for each GPU; 0: it augments itself.

    Raises:
        UsageFault: the variable holds no number.
    """
    from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

    try:
        return int(get_allowed_n_proc_DA())
    except ValueError:
        raise UsageFault(
            "nnunet.workers-no-number",
            f"{WORKERS}={os.environ[WORKERS]!r}: nnU-Net stops at it, expected a number of "
            f"processes; set one, or: unset {WORKERS}",
        ) from None


def workers() -> int:
    """Return the number that ``gansynth augment`` gives nnU-Net for each GPU.

    That is its own, but no more than the cores that this process may use: nnU-Net counts those of
    the machine, also in a container with fewer.
    """
    own = own_workers()
    return own if WORKERS in os.environ else min(own, cores())
