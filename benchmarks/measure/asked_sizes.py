"""Are lesions as large as was asked for? ``--edit size:like=A..B`` of ``parametric``, on real data.

    gansynth fit parametric --data pictures:FOLDER -o RUN
    python benchmarks/measure/asked_sizes.py NAME=RUN [NAME=RUN ...] [-n 100]

Of each sample: what was asked of its donor's lesions, what the edit made of them, and what lies in
the sample in the end, where a lesion may be clipped by the body. Lesions that the edit leaves as
they are (at the crop's edge, or without room) count with what they are.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, print_table, write

from gansynth.core.requests.samples import SampleRunRequest
from gansynth.data.connected_components import LabelComponents
from gansynth.sampling.open_run import load_run
from gansynth.sampling.request_checks import read_request
from gansynth.sampling.run_source import open_moved
from gansynth.sampling.sample import NEAR
from gansynth.sampling.sampler import Sampler

RANGES = ("10..40", "40..160", "160..640")
FACTORS = (3, 8)  # longest factors on lengths: the default, and the most


def of_range(run: Path, asked: str, factor: int, number: int) -> dict[str, Any]:
    """Draw samples, and compare their lesions with what was asked for."""
    words = SampleRunRequest(run=run, edit=(f"size:like={asked},max_factor={factor}",), quiet=True)
    opened = load_run(run, "cpu")
    source = open_moved(opened, None, None)
    samples = Sampler(opened, source, read_request(words, 0)).draw_raw(0, number)
    pairs, left, counts, there = list[tuple[int, int]](), 0, list[int](), list[int]()
    for sample in samples:
        steps = [step for step in sample.provenance["edits"] if "asked" in step["params"]]
        for step in steps:
            each = list(zip(step["params"]["asked"], step["params"]["voxels"], strict=True))
            pairs += [pair for pair in each if pair[0] is not None]
            left += [pair[0] for pair in each].count(None)
        assert sample.labels is not None
        sizes = LabelComponents.of(np.asarray(sample.labels > 0)).sizes
        counts.append(len(sizes))
        there += sizes.tolist()
    ratio = np.array([made / wanted for wanted, made in pairs])
    low, high = map(int, asked.split(".."))
    inside = np.array([low <= size <= high for size in there])
    return {
        "asked": asked,
        "max_factor": factor,
        "samples": len(samples),
        "lesions_asked": len(pairs),
        "left_as_they_are": left,
        "median_of_achieved_over_asked": round(float(np.median(ratio)), 3),
        "within_25_percent": round(float(((ratio < NEAR) & (ratio > 1 / NEAR)).mean()), 3),
        "median_voxels_in_samples": float(np.median(there)),
        "in_range_in_samples": round(float(inside.mean()), 3),
        "lesions_a_sample": round(float(np.mean(counts)), 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("-n", type=int, default=100)
    args = parser.parse_args()
    rows = []
    for text in args.runs:
        name, _, run = text.partition("=")
        for factor, asked in itertools.product(FACTORS, RANGES):
            rows.append({"data": name, **of_range(Path(run), asked, factor, args.n)})
    print_table([tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    write("asked_sizes", {"machine": machine(), "ranges": rows})


if __name__ == "__main__":
    main()
