"""A run whose manifest asks for more memory than its weights or the machine have."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.run_folder import write_manifest

LOAD = """
import resource, sys
from pathlib import Path
import torch
from gansynth.core.registry import installed
from gansynth.runtime.errors import GansynthError
from gansynth.sampling.open_run import load_run
installed().generator("cgan3d")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + (512 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    load_run(Path(sys.argv[1]), "cpu")
except GansynthError as fault:
    print(fault)
    sys.exit(fault.exit_code)
"""


@pytest.mark.parametrize(
    ("key", "values", "code", "says"),
    [
        ("options", {"width": 1024, "max_width": 4096}, 6, "do not fit the generator"),
        ("space", {"size": [1 << 20, 1 << 20]}, 4, "1048576 x 1048576 voxels"),
    ],
)
def test_a_forged_run_is_refused_before_memory_is_taken(
    toy_fit: Any, tmp_path: Path, key: str, values: dict[str, Any], code: int, says: str
) -> None:
    run, forged = tmp_path / "run", tmp_path / "forged"
    toy_fit(run, steps=2)
    shutil.copytree(run, forged)
    manifest = json.loads((run / "manifest.json").read_text())
    write_manifest(forged, {**manifest, key: {**manifest[key], **values}})
    command = [sys.executable, "-c", LOAD, str(forged)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, says in done.stdout) == (code, True), (done.stdout, done.stderr)
