"""Seconds of an evaluation: 1,000 samples in two dimensions, 100 in three, part by part.

Samples are of ``elastic``, which needs no fit, on simulated gliomas: axial slices of 64 x 64, and
volumes of 32 x 32 x 32 voxels of 4 mm, two channels, 24 people. ``gansynth evaluate`` is run as a
user runs it, without thumbnails; what it takes to draw the samples stands apart.

    python benchmarks/bench_evaluate_time.py [--slices 1000] [--volumes 100] [--effort usual]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import print_table, write

PEOPLE, SPACING_MM = 24, 4.0


def timed(folder: Path, name: str, number: int, source: list[str], effort: str) -> dict[str, Any]:
    """Fit, evaluate, and read the seconds."""
    run = folder / name
    call("fit", "elastic", *source, "-o", str(run))
    began = time.perf_counter()
    call("evaluate", str(run), "-n", str(number), "--effort", effort, "--no-pictures")
    whole = time.perf_counter() - began
    found = json.loads((run / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    seconds = found["seconds"]
    return {
        "samples": found["images"]["samples"],
        "real": found["images"]["real"],
        "size": found["images"]["size"],
        "seconds": seconds,
        "evaluating": round(sum(seconds.values()) - seconds["samples"], 1),
        "whole_command": round(whole, 1),
    }


def call(*words: str) -> None:
    """Run gansynth as a user does."""
    line = [sys.executable, "-m", "gansynth_cli", *words, "-q"]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Write ``results/evaluate_time.json``."""
    from gansynth.phantoms import PhantomOptions, write_gliomas

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--volumes", type=int, default=100)
    parser.add_argument("--effort", default="usual")
    parser.add_argument("--name", default="evaluate_time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        options = PhantomOptions(spacing_mm=SPACING_MM, channels=("FLAIR", "T1c"))
        write_gliomas(folder / "gliomas", PEOPLE, options=options)
        where = f"nifti:{folder / 'gliomas'}"
        how = ("--read", "plane=axial", "--read", "slices=30%-70%", "--read", "resize=64x64")
        flat = ["--data", f"slices:{where}", *how]
        solid = ["--data", where, "--read", "size=32,32,32"]
        found = {
            "2D": timed(folder, "flat", args.slices, flat, args.effort),
            "3D": timed(folder, "solid", args.volumes, solid, args.effort),
        }
    write(args.name, {"effort": args.effort, "people": PEOPLE, "results": found})
    parts = list(dict.fromkeys(part for one in found.values() for part in one["seconds"]))
    rows = [(part, *(one["seconds"].get(part, "") for one in found.values())) for part in parts]
    heads = (f"{one['samples']} of {one['size']}" for one in found.values())
    print_table([("seconds", *heads), *rows])


if __name__ == "__main__":
    main()
