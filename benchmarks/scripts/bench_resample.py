"""Resampling in a fixed order, beside a matrix product an axis, as it was: CPU seconds, and bits.

Both resample noise of the size of real cases in one process, in turn, with one thread. Before, both
do it in processes of their own, with other numbers of threads and with OpenBLAS' kernels for other
kinds of CPU, and the results are compared by their hash. What OpenBLAS used is read back; a kernel
that this processor cannot run ends its process, and is noted.

    python benchmarks/scripts/bench_resample.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from common import alternate, ratio, write
from threadpoolctl import threadpool_info, threadpool_limits

from gansynth.core.resample import resample
from gansynth.core.schema import content_hash

Array = npt.NDArray[np.float32]
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "picture 512² to 64²": ((1, 512, 512), (64, 64)),
    "photograph 3 x 256² to 128²": ((3, 256, 256), (128, 128)),
    "BraTS case 4 x 155 x 240² from 1 to 1.5 mm": ((4, 155, 240, 240), (103, 160, 160)),
    "MR 4 x 100 x 120² grown by 1.55 to 2": ((4, 100, 120, 120), (155, 240, 240)),
    "CT 400 x 512² halved": ((1, 400, 512, 512), (200, 256, 256)),
}
SETTINGS = (
    {},
    {"OMP_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "2"},
    {"OMP_NUM_THREADS": "8"},
    {"OPENBLAS_CORETYPE": "Prescott"},
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"OPENBLAS_CORETYPE": "Zen"},
    {"OPENBLAS_CORETYPE": "SkylakeX"},
    {"NPY_DISABLE_CPU_FEATURES": "X86_V3"},
)


def multiplied(image: Array, shape: Sequence[int]) -> Array:
    """Resample an image (C, ...) by one matrix product an axis, relative to its corner."""
    old = image.shape[1:]
    corner = image[(slice(None), *[slice(1)] * len(old))]
    image = image - corner
    for axis in sorted(range(len(old)), key=lambda axis: shape[axis] / old[axis]):
        matrix = _weights(old[axis], shape[axis])
        before, after = image.shape[: axis + 1], image.shape[axis + 2 :]
        flat = image.reshape(-1, old[axis], int(np.prod(after)))
        product = flat[..., 0] @ matrix if not after else matrix.T @ flat
        image = np.asarray(product).reshape(*before, shape[axis], *after)
    image += corner
    return image


@cache
def _weights(old: int, new: int) -> Array:
    """Return the matrix (old, new) of an axis: what becomes of single voxels."""
    return in_order(np.eye(old, dtype=np.float32)[None], (old, new))[0]


def in_order(image: Array, shape: Sequence[int]) -> Array:
    """Resample an image (C, ...) as cases are."""
    return resample(image, None, shape)[0]


WAYS: dict[str, Callable[[Array, Sequence[int]], Array]] = {
    "fixed order": in_order,
    "matrix products": multiplied,
}


def noise(shape: Sequence[int]) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def cpu_seconds(way: Callable[[Array, Sequence[int]], Array], image: Array, size: Any) -> float:
    began = time.process_time()
    way(image, size)
    return time.process_time() - began


def timed(rounds: int) -> dict[str, Any]:
    """Median CPU seconds of both ways, for each size, and their ratio."""
    found = {}
    for name, (shape, size) in SIZES.items():
        image = noise(shape)
        sides = {way: partial(cpu_seconds, do, image, size) for way, do in WAYS.items()}
        seconds = alternate(sides, rounds)
        apart = np.abs(in_order(image, size) - multiplied(image, size)).max()
        found[name] = {
            "cpu_seconds": {way: float(np.median(each)) for way, each in seconds.items()},
            "fixed_order_over_products": ratio(*seconds.values()),
            "largest_difference": float(apart),
        }
        print(name, json.dumps(found[name]["cpu_seconds"]), flush=True)
    return found


def result(way: str) -> dict[str, Any]:
    """Return the hash of all that a way makes in this process, and what OpenBLAS used."""
    each = [WAYS[way](noise(shape), size) for shape, size in SIZES.values()]
    pools = [pool for pool in threadpool_info() if pool["internal_api"] == "openblas"]
    used = sorted({f"{pool['architecture']}, {pool['num_threads']}" for pool in pools})
    return {"sha256": content_hash(*each)[:16], "kernel_and_threads": used}


def over_machines() -> list[dict[str, Any]]:
    """Results of both ways in processes of their own."""
    rows = []
    for setting, way in itertools.product(SETTINGS, WAYS):
        line = [sys.executable, __file__, "--result-of", way]
        ended = subprocess.run(line, env={**os.environ, **setting}, capture_output=True, text=True)
        found = json.loads(ended.stdout) if ended.returncode == 0 else {"killed": ended.returncode}
        rows.append({"setting": setting, "way": way, **found})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write ``resample.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds per side")
    parser.add_argument("--result-of", choices=WAYS, help="print that of this process alone")
    asked = parser.parse_args(arguments)
    if asked.result_of:
        print(json.dumps(result(asked.result_of)))
        return
    machines = over_machines()
    different = {
        way: len({row["sha256"] for row in machines if row["way"] == way and "sha256" in row})
        for way in WAYS
    }
    with threadpool_limits(1):  # OpenBLAS' other threads spin while they wait
        sizes = timed(asked.rounds)
    write("resample", {"different_results": different, "machines": machines, "sizes": sizes})


if __name__ == "__main__":
    main()
