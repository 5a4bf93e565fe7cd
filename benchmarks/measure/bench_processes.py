"""Count the Python processes of a study of six jobs: two fits, four trainings of the segmenter.

``python benchmarks/measure/bench_processes.py``: phantoms, one plan with ``--executor local:1``
and ``here``. An interpreter that starts counts, and so does a fork of one. Seconds are the CPU's.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import hooked, machine, print_table, write

from gansynth.testing.phantoms import PhantomOptions, write_phantoms

HOOK = """
import os, sys
log = os.open(os.environ["STUDY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
words = " ".join(sys.orig_argv[1:4])
note = lambda what: os.write(log, f"{what} {os.getpid()} {words}\\n".encode())
note("started")
os.register_at_fork(after_in_child=lambda: note("forked"))
"""
PLAN = """
name: processes
data: nifti:{data}
read: {{channels: flair, size: "16"}}
host:
  target: segmenter
  steps: 4
  set: {{network: unet, width: 4, levels: 2, patch: "16"}}
generators:
  small: {{generator: cgan3d, set: {{steps: 2, width: 4, d_width: 4, levels: 2, batch_size: 2}}}}
arms: [default, {{name: samples, generator: small, bank_size: "8"}}]
sizes: [3]
draws: 2
seeds: 1
split: {{pool: 6, development: 0, sealed: 2, seed: 1}}
regions: {{WT: "1"}}
"""


def count(plan: Path, executor: str, folder: Path) -> dict[str, object]:
    """Run the study; count its processes."""
    log = folder / f"{executor.partition(':')[0]}.log"
    words = ("benchmark", str(plan), "--executor", executor, "-o", str(folder / log.stem), "-q")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "gansynth_cli", *words, "--test-set"],
        env=hooked(HOOK, folder, STUDY_LOG=str(log)),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    kinds = Counter(what for what, _, _ in lines)
    return {
        "executor": executor,
        "started": kinds["started"],
        "forked": kinds["forked"],
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        "commands": dict(Counter(words for what, _, words in lines if what == "started")),
    }


def main() -> None:
    """Count, print, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, plan = folder / "phantoms", folder / "plan.yaml"
        write_phantoms("brats", data, 8, 0, PhantomOptions(spacing_mm=8.0, channels=("FLAIR",)))
        plan.write_text(PLAN.format(data=data))
        rows = [count(plan, executor, folder) for executor in ("local:1", "here")]
    print_table([list(rows[0])[:-1], *(list(row.values())[:-1] for row in rows)])
    print(json.dumps([row["commands"] for row in rows], indent=1))
    write("processes", {"machine": machine(), "studies": rows})


if __name__ == "__main__":
    main()
