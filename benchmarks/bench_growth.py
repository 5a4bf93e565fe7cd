"""How a GAN step's time and memory grow with the volume, 48³ to 128³: cgan3d, the real loop.

Each size has a process of its own: a step to warm up, then ``--steps`` timed ones; memory is the
peak above what was there before the first step. Fitted are t = a + b * voxels and the exponent of
log t over log voxels. MONAI's pair beside it, as in ``bench_gan_step.py``.

    python benchmarks/bench_growth.py [--width 16] [--dtype bf16] [--sizes 48,64,80,96,112,128]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from bench_gan_step import Peer, our_steps, ours, watched
from common import print_table, write


def measure(side: str, size: int, width: int, dtype: str, steps: int) -> dict[str, float]:
    """Child: seconds per step (the quickest) and MiB above the start."""
    if side == "ours":
        generator = ours(size, width, width)
        run = our_steps(generator, size, dtype, 1)
    else:
        run = Peer(size, width, dtype).step
    seconds = []

    def all_steps() -> None:
        for _ in range(steps + 1):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)

    rise = watched(all_steps)["rise_mib"]
    return {"seconds": min(seconds[1:]), "rise_mib": rise}


def in_child(side: str, size: int, args: argparse.Namespace) -> dict[str, float]:
    """Run ``measure`` in a fresh process."""
    command = [sys.executable, __file__, "--child", side, "--sizes", str(size)]
    command += ["--width", str(args.width), "--dtype", args.dtype, "--steps", str(args.steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def fitted(voxels: list[int], values: list[float]) -> dict[str, float]:
    """Straight line and exponent."""
    slope, start = np.polyfit(voxels, values, 1)
    exponent = np.polyfit(np.log(voxels), np.log(values), 1)[0]
    return {
        "per_megavoxel": float(slope * 1e6),
        "at_none": float(start),
        "exponent": float(exponent),
    }


def main() -> None:
    """Run all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--sizes", default="48,64,80,96,112,128")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--child", choices=("ours", "peer"))
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    if args.child:
        found = measure(args.child, sizes[0], args.width, args.dtype, args.steps)
        print(json.dumps(found))
        return
    voxels = [size**3 for size in sizes]
    sides: dict[str, Any] = {}
    for side in ("ours", "peer"):
        found = [in_child(side, size, args) for size in sizes]
        sides[side] = {
            "seconds": [f["seconds"] for f in found],
            "rise_mib": [f["rise_mib"] for f in found],
            "time": fitted(voxels, [f["seconds"] for f in found]),
            "memory": fitted(voxels, [f["rise_mib"] for f in found]),
        }
    document = {"sizes": sizes, "width": args.width, "dtype": args.dtype, "sides": sides}
    write(f"growth_{args.dtype}_w{args.width}", document)
    rows: list[tuple[object, ...]] = [("side", *(f"{s}^3" for s in sizes), "exponent")]
    for side, doc in sides.items():
        rows.append((f"{side} s/step", *doc["seconds"], doc["time"]["exponent"]))
        rows.append((f"{side} MiB", *doc["rise_mib"], doc["memory"]["exponent"]))
    print_table(rows)


if __name__ == "__main__":
    main()
