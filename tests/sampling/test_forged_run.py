"""A run whose manifest asks for more memory than its weights or the machine have."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
for folder in sys.argv[1:]:
    try:
        load_run(Path(folder), "cpu")
    except GansynthError as fault:
        print(fault.exit_code, fault)
"""


FORGED: dict[str, tuple[dict[str, Any], int, str]] = {
    "options": ({"width": 1024, "max_width": 4096}, 6, "do not fit the generator"),
    "space": ({"size": [1 << 20, 1 << 20]}, 4, "1048576 x 1048576 voxels"),
}
"""Key of the manifest, what it claims, the exit code, what is said."""


def test_a_forged_run_is_refused_before_memory_is_taken(toy_fit: Any, tmp_path: Path) -> None:
    toy_fit(tmp_path / "run", steps=0)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    for key, (values, _, _) in FORGED.items():
        shutil.copytree(tmp_path / "run", tmp_path / key)
        write_manifest(tmp_path / key, {**manifest, key: {**manifest[key], **values}})
    command = [sys.executable, "-c", LOAD, *(str(tmp_path / key) for key in FORGED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = done.stdout.splitlines()
    for line, (_, code, says) in zip(told, FORGED.values(), strict=True):
        assert line.startswith(f"{code} "), done.stderr
        assert says in line
