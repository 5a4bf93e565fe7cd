"""Environment of processes that have pretend devices; imports no torch."""

import os
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VARIABLE = "PRETEND_CUDA"
"""Says how many pretend devices a process has."""
PRETENDS = VARIABLE in os.environ
"""Whether this process has pretend devices."""


def environment(devices: int = 1) -> dict[str, str]:
    """Return this process's environment, with pretend devices for Python processes it starts."""
    paths = [str(HERE / "for_children"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(part for part in paths if part)
    return {**os.environ, "PYTHONPATH": path, VARIABLE: str(devices)}
