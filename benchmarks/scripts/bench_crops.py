"""Do crops that are smaller than a tumour show new lesions, and at what price?

Three subjects of BRATS 2015 at 1 mm, crops of cubes; conditions of ``copypaste`` (the drawing of
its samples without its blending). Printed for each size: share of the wanted lesions that are
shown, share of crops whose own lesion could not be taken out, share of crops of the subject that
is the background most often, and CPU seconds of a condition, one thread, of the first half, which
prepares backgrounds, and of the second. ``--as`` names the state of the code; others in the result
stay.

    python benchmarks/scripts/bench_crops.py --home FOLDER --as NAME [--sizes 64 96 128]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from bench_tissue import conditions_of, untrained
from common import known_states, machine, print_table, write
from lesion_data import BRATS, LABELS, brats_table

from gansynth.core.source import CaseSource, SourceRequest
from gansynth.sampling.run_source import open_source

NAME, GENERATOR = "crops", "copypaste"
SPLITS = {
    "brats_2013_pat0003_1": "train",
    "brats_2013_pat0005_1": "train",
    "brats_2013_pat0006_1": "train",
    "brats_2013_pat0004_1": "val",
}


def opened(home: Path) -> CaseSource:
    """The subjects at 1 mm."""
    read = {"allow_absolute": "yes", "labels": LABELS, "spacing": "1", "size": "128,128,128"}
    table = brats_table(home, SPLITS)
    return open_source(SourceRequest("nifti", str(table), read=read))


def measured(source: CaseSource, side: int, count: int) -> dict[str, float]:
    """Draw conditions in cubes, and say what they show."""
    space = replace(source.space, size=(side,) * 3)
    sampler = conditions_of(untrained(GENERATOR, source), source, (), space)
    wanted = shown = stays = 0
    seconds, cases = [], Counter[str]()
    for index in range(count):
        begin = time.thread_time()
        condition = sampler.draw(index)
        seconds.append(time.thread_time() - begin)
        told = condition.provenance["lesions"]
        cases[condition.provenance["case"]] += 1
        stays += "stays" in told
        if told.get("shows") != "nothing":
            wanted += 1
            shown += bool(condition.required("lesion").any())
    half = count // 2
    return {
        "crops": count,
        "share with a lesion": round(sampler.share_with_lesions, 3),
        "wanted lesions shown": round(shown / wanted, 3),
        "own lesion stays": round(stays / count, 3),
        "of one subject": round(max(cases.values()) / count, 3),
        "CPU s, first half": round(sum(seconds[:half]) / half, 3),
        "CPU s, second half": round(sum(seconds[half:]) / (count - half), 3),
    }


def main() -> None:
    """Measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--as", dest="state", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--samples", type=int, default=48, help="of each size")
    args = parser.parse_args()
    if not BRATS.is_dir():
        print("skipped, ../shared/data/brats2015_deepmedic is not there")
        return
    torch.set_num_threads(1)
    states, source = known_states(NAME), opened(args.home.resolve())
    for side in args.sizes:
        row = measured(source, side, args.samples)
        states.setdefault(args.state, {})[f"{side}^3"] = row
        print_table([("size", *row), (side, *row.values())])
        write(NAME, {"machine": machine(), "states": states})


if __name__ == "__main__":
    main()
