"""What grows: `check` and `fit` of 10 to 10,000 cases, banks of 64 to 100,000 samples.

``python benchmarks/scripts/bench_sizes.py [--cases 10 100 1000 10000] [--samples 64 1000 10000
100000]``. Cases are made NIfTI volumes of 16^3 voxels; ``fit`` trains one step. Seconds are the
CPU's of the command and its children. Draws are of a frozen bank of samples of 8^3 voxels.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from common import machine, print_table, write

SMALL = ("steps=1", "batch_size=1", "width=4", "d_width=4", "levels=2", "diversity=0")
DRAWS = 2000


def make_cases(folder: Path, count: int) -> None:
    """Volumes with a cube of label 1, as BraTS names them; those that are there stay."""
    rng = np.random.default_rng(count)
    for number in range(count):
        case = folder / f"case{number:05}"
        if case.exists():
            continue
        case.mkdir()
        image = rng.normal(100, 20, (16, 16, 16)).astype(np.int16)
        labels = np.zeros(image.shape, np.int16)
        z, y, x = rng.integers(2, 10, 3)
        labels[z : z + 4, y : y + 4, x : x + 4] = 1
        image[labels > 0] += 80
        for name, array in (("flair", image), ("seg", labels)):
            nib.Nifti1Image(array, np.eye(4)).to_filename(case / f"{case.name}_{name}.nii.gz")


def run(*words: str) -> tuple[float, float]:
    """CPU seconds and peak MiB of a command and its children."""
    command = [sys.executable, "-m", "gansynth_cli", *words]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"gansynth {words[0]} ended with {child.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def of_cases(folder: Path, count: int) -> dict[str, float]:
    """Check and fit so many cases."""
    data = folder / "cases"
    data.mkdir(exist_ok=True)
    make_cases(data, count)
    checked = run("check", f"nifti:{data}", "-q")
    settings = [word for text in SMALL for word in ("--set", text)]
    out = str(folder / f"run{count}")
    fitted = run("fit", "cgan3d", "--data", f"nifti:{data}", *settings, "-o", out, "-q")
    names = ("check_seconds", "check_mib", "fit_seconds", "fit_mib")
    return {"cases": count, **dict(zip(names, (*checked, *fitted), strict=True))}


def of_bank(folder: Path, count: int) -> dict[str, float]:
    """Fill a frozen bank, open it, draw from it."""
    from gansynth.bank.reader import BankReader, BankSpec, BankWriter
    from gansynth.core.lineage import Lineage
    from gansynth.core.schema import Sample, Schema

    schema = Schema(("FLAIR",), {"background": 0, "lesion": 1}, (1.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    spec = BankSpec(
        schema, Lineage("made", "0", (), {}), "toy", "0" * 64, frozen=True, capacity=count
    )
    path = folder / f"bank{count}"
    began = time.process_time()
    with BankWriter.create(path, spec) as writer:
        for _ in range(count):
            image = rng.normal(size=(1, 8, 8, 8)).astype(np.float32)
            writer.publish(Sample(image, (image[0] > 2).astype(np.int16)), {})
        filled = time.process_time()
        writer.finish()
    finished = time.process_time()
    reader = BankReader(path)
    reader.draw(rng)
    opened = time.process_time()
    for _ in range(DRAWS):
        reader.draw(rng)
    drawn = time.process_time()
    return {
        "samples": count,
        "ms_a_sample_written": 1e3 * (filled - began) / count,
        "finish_seconds": finished - filled,
        "first_draw_seconds": opened - finished,
        "ms_a_draw": 1e3 * (drawn - opened) / DRAWS,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, nargs="*", default=[10, 100, 1000, 10_000])
    parser.add_argument("--samples", type=int, nargs="*", default=[64, 1000, 10_000, 100_000])
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"cases": [], "banks": []}
    with tempfile.TemporaryDirectory() as folder:
        for count in args.samples:
            found["banks"].append(of_bank(Path(folder), count))
        for count in args.cases:
            found["cases"].append(of_cases(Path(folder), count))
    for rows in found.values():
        if rows:
            print_table([tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    write("sizes", {"machine": machine(), **found})


if __name__ == "__main__":
    main()
