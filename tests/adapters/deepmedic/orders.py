"""Running a process of another Python."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any


def run(command: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a process to its end."""
    own: Any = {"capture_output": True, "text": True, "timeout": 600, "check": False}
    return subprocess.run(list(command), env={**os.environ, **environ}, **own)
