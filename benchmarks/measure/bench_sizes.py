"""What grows with a frozen bank, of 64 to 100,000 samples of 8^3 voxels.

``python benchmarks/measure/bench_sizes.py [--samples 64 1000 10000 100000]``. Seconds are the
CPU's. What grows with the cases is measured by ``bench_cohort.py``.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine, print_table, write

DRAWS = 2000


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
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 1000, 10_000, 100_000])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        banks = [of_bank(Path(folder), count) for count in args.samples]
    print_table([tuple(banks[0]), *(tuple(bank.values()) for bank in banks)])
    write("sizes", {"machine": machine(), "banks": banks})


if __name__ == "__main__":
    main()
