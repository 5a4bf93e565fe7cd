"""Count our files and functions that one sample on its way into nnU-Net runs through.

``python sample_way.py --data nnunet:004 --generator runs/g0 -o FILE`` trains four steps
at 1:1 and counts in all processes. What runs while modules are imported does not count. Further
options go to ``gansynth augment``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from common import hooked

HOOK = """
import os, sys, threading
root = os.environ["WAY_ROOT"]
log = os.open(os.environ["WAY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
seen = set()

def imports(frame):
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None

def hook(frame, event, argument):
    code = frame.f_code
    if event != "call" or code in seen or not code.co_filename.startswith(root):
        return
    if not imports(frame):
        seen.add(code)
        os.write(log, f"{os.getpid()} {code.co_filename} {code.co_qualname}\\n".encode())

threading.setprofile(hook)
sys.setprofile(hook)
"""
SHELVES = ("gansynth", "plugins", "adapters", "cli", "benchmarks")
QUICK = {"num-epochs": 1, "num-iterations-per-epoch": 4, "num-val-iterations-per-epoch": 1}


def main() -> None:
    """Train and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", type=Path, required=True)
    parsed, words = parser.parse_known_args()
    found = find_spec("gansynth")
    assert found is not None
    assert found.origin is not None
    root = str(Path(found.origin).parents[1]) + os.sep
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        command = [sys.executable, "-m", "gansynth_cli", "augment", "--target", "nnunet", *words]
        command += [word for key, n in QUICK.items() for word in (f"--{key}", str(n))]
        command += ["--ratio", "1:1", "--bank-size", "8", "-o", f"{folder}/out", "--", "-device"]
        environ = hooked(HOOK, Path(folder), WAY_ROOT=root, WAY_LOG=log)
        subprocess.run([*command, "cpu"], env=environ, check=True)
        rows = {tuple(line.split(" ", 2)) for line in Path(log).read_text().splitlines()}
    calls = {(file.removeprefix(root), name) for _, file, name in rows}
    calls = {(file, name) for file, name in calls if file.partition(os.sep)[0] in SHELVES}
    files = sorted({file for file, _ in calls})
    shelves = Counter("/".join(file.split(os.sep)[:2]) for file in files)
    document = {
        "processes": len({pid for pid, *_ in rows}),
        "files": len(files),
        "functions": len(calls),
        "files_by_folder": dict(sorted(shelves.items())),
    }
    parsed.o.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
