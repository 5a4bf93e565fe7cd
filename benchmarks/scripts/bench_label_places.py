"""How often ``gansynth check`` takes right label maps for misplaced ones, and finds misplaced ones.

Draws of cases of each real data set are looked at as they are: each warning is a false alarm. Then
their label maps are flipped, turned, swapped or handed to the next case: each warning is a find.

    python benchmarks/scripts/bench_label_places.py [--data ../shared/data] [--draws 100]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write

from gansynth.core.schema import Case
from gansynth.core.source import SourceRequest
from gansynth.data.plausibility import MOST_CASES, as_stored, misplaced
from gansynth.sampling.run_source import open_source

DATA = Path(__file__).parents[2] / "../shared/data"
SETS = {
    "hippocampus": ("msd", "msd_task04_hippocampus"),
    "lgg volumes": ("nifti", "lgg_flair3d128"),
    "lgg slices": ("pictures", "lgg_flair256"),
    "haemorrhage CT": ("pictures", "phe_ct256"),
    "breast ultrasound": ("pictures", "busi256"),
    "foot ulcers": ("pictures", "fuseg128"),
    "tiles": ("pictures", "tiles128"),
}
Change = Callable[[Any], Any]
CHANGES: dict[str, Change] = {
    "flipped y": lambda labels: np.flip(labels, -2),
    "flipped x": lambda labels: np.flip(labels, -1),
    "turned": lambda labels: np.flip(labels, (-1, -2)),
    "swapped": lambda labels: np.swapaxes(labels, -1, -2),
}


def changed(cases: Sequence[Case], change: Change) -> list[Case]:
    """Cases with other label maps, but those whose shape no longer fits."""
    pairs = [(case, np.ascontiguousarray(change(case.labels))) for case in cases]
    return [
        replace(case, labels=labels)
        for case, labels in pairs
        if labels.shape == case.image.shape[1:]
    ]


def in_turn(cases: Sequence[Case]) -> list[Case]:
    """Each case with the label map of the next one of its shape."""
    following = [*cases[1:], cases[0]]
    pairs = zip(cases, following, strict=True)
    return [
        replace(case, labels=other.labels)
        for case, other in pairs
        if other.labels is not None and other.labels.shape == case.image.shape[1:]
    ]


def look(kind: str, where: Path, draws: int) -> dict[str, Any]:
    """Counts of warnings among draws of labelled cases."""
    source = open_source(SourceRequest(kind, str(where), fold="all"))
    rng, found = random.Random(0), {"alarms": 0} | dict.fromkeys((*CHANGES, "next case"), 0)
    ids, seconds = list(source.train_ids), 0.0
    for _ in range(draws):
        cases: list[Case] = []
        for case_id in rng.sample(ids, len(ids)):
            case = as_stored(source, case_id)
            if case.labels is not None and (case.labels > 0).any():
                cases.append(case)
            if len(cases) == MOST_CASES:
                break
        began = time.perf_counter()
        found["alarms"] += bool(misplaced(cases))
        seconds += time.perf_counter() - began
        for name, change in CHANGES.items():
            found[name] += bool(misplaced(changed(cases, change)))
        found["next case"] += bool(misplaced(in_turn(cases)))
    return {"draws": draws, **found, "seconds": round(seconds / draws, 3)}


def main() -> None:
    """Look at each set, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--draws", type=int, default=100)
    asked = parser.parse_args()
    results = {
        name: look(kind, asked.data / folder, asked.draws) for name, (kind, folder) in SETS.items()
    }
    rows = [(name, *row.values()) for name, row in results.items()]
    print_table([("set", *results["tiles"]), *rows])
    write("label_places", {"cases": MOST_CASES, "results": results})


if __name__ == "__main__":
    main()
