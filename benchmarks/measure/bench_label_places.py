"""How often ``gansynth check`` takes right label maps for misplaced ones, and finds misplaced ones.

Twelve real sets get label maps that are mirrored, turned, moved or of another case, and twelve
are left as they are. Each is looked at as check does it. Sets marked "new" were not used to choose
the figures in ``gansynth.data.plausibility``. Then other draws of cases of each set are looked at.

    python benchmarks/measure/bench_label_places.py [--data ../shared/data] [--draws 10]
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
from gansynth.core.source import Looked, SourceRequest
from gansynth.data.plausibility import FEWEST_CASES, MOST_CASES, Chosen, as_stored, misplaced
from gansynth.sampling.run_source import open_source

DATA = Path(__file__).parents[2] / "../shared/data"
SETS: dict[str, tuple[str, str, dict[str, str]]] = {
    "hippocampus": ("msd", "msd_task04_hippocampus", {}),
    "glioma volumes": ("nifti", "lgg_flair3d128", {}),
    "glioma slices": ("pictures", "lgg_flair256", {}),
    "haemorrhage CT": ("pictures", "phe_ct256", {}),
    "breast ultrasound": ("pictures", "busi256", {}),
    "foot ulcers": ("pictures", "fuseg128", {}),
    "tiles": ("pictures", "tiles128", {}),
    "vessels (new)": ("pictures", "retina", {}),
    "hippocampus, coronal (new)": (
        "slices",
        "msd:msd_task04_hippocampus",
        {"plane": "coronal"},
    ),
    "gliomas, other FLAIR (new)": ("pictures", "lgg_sequences96", {"images": "flair"}),
    "gliomas, T1 (new)": ("pictures", "lgg_sequences96", {"images": "t1"}),
    "gliomas, T1 with contrast (new)": ("pictures", "lgg_sequences96", {"images": "t1c"}),
}
Change = Callable[[Sequence[Case]], list[Case]]


def turned(change: Callable[[Any], Any]) -> Change:
    """Label maps of cases after a change."""
    return lambda cases: [
        replace(case, labels=np.ascontiguousarray(change(case.labels))) for case in cases
    ]


def moved(voxels: int) -> Change:
    """Label maps that lie so many voxels along x beside their place; what leaves is lost."""

    def move(labels: Any) -> Any:
        out = np.zeros_like(labels)
        out[..., voxels:] = labels[..., :-voxels]
        return out

    return turned(move)


def of_another(cases: Sequence[Case]) -> list[Case]:
    """Each case with the label map of one that is far away, cut or filled to its shape."""
    found = []
    for number, case in enumerate(cases):
        other = cases[(number + len(cases) // 2) % len(cases)].labels
        assert case.labels is not None
        assert other is not None
        labels = np.zeros_like(case.labels)
        both = tuple(map(slice, np.minimum(labels.shape, other.shape)))
        labels[both] = other[both]
        found.append(replace(case, labels=labels))
    return found


MIRRORED = turned(lambda labels: np.flip(labels, -1))
TURNED = turned(lambda labels: np.flip(labels, (-1, -2)))
WRONG: tuple[tuple[str, str, Change], ...] = (
    ("hippocampus", "of another case", of_another),
    ("glioma volumes", "of another case", of_another),
    ("glioma slices", "of another case", of_another),
    ("breast ultrasound", "of another case", of_another),
    ("gliomas, other FLAIR (new)", "of another case", of_another),
    ("glioma slices", "mirrored", MIRRORED),
    ("glioma slices", "moved by 24 mm", moved(24)),  # of about 1 mm
    ("glioma volumes", "mirrored", MIRRORED),
    ("glioma volumes", "moved by 24 mm", moved(12)),
    ("hippocampus", "turned", TURNED),
    ("breast ultrasound", "mirrored", MIRRORED),
    ("vessels (new)", "mirrored", MIRRORED),
)


def opened(data: Path, name: str) -> Any:
    """The whole data set, on one side."""
    kind, where, read = SETS[name]
    inner, colon, folder = where.rpartition(":")
    return open_source(SourceRequest(kind, f"{inner}{colon}{data / folder}", read=read, fold="all"))


def chosen(source: Any, ids: Sequence[str], most: int = MOST_CASES) -> list[Case]:
    """As many labelled cases as check looks at, spread over some."""
    cases: list[Case] = []
    for case_id in Chosen(ids).ranked():
        case = as_stored(source, case_id)
        if case.labels is not None and (case.labels > 0).any():
            cases.append(case)
        if len(cases) == most:
            break
    return sorted(cases, key=lambda case: ids.index(case.id))


def word(looked: Looked) -> str:
    """What is said in one word."""
    return "wrong" if looked.wrong else "cannot tell" if looked.unclear else "right"


def draws_of(cases: Sequence[Case], change: Change | None, draws: int) -> dict[str, int]:
    """How often each word is said of other draws of half as many cases."""
    found = {"wrong": 0, "cannot tell": 0, "right": 0}
    for number in range(draws):
        some = random.Random(number).sample(list(cases), max(FEWEST_CASES, len(cases) // 2))
        found[word(misplaced(some if change is None else change(some)))] += 1
    return found


def main() -> None:
    """Look at each set, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--draws", type=int, default=10)
    asked = parser.parse_args()
    cases = {}
    for name in SETS:
        source = opened(asked.data, name)
        cases[name] = chosen(source, source.train_ids)
    rows: list[dict[str, Any]] = []
    right: list[tuple[str, str, Change | None]] = [(name, "right", None) for name in SETS]
    for name, laid, change in [*WRONG, *right]:
        drawn = cases[name] if change is None else change(cases[name])
        began = time.process_time()
        looked = misplaced(drawn)
        seconds = round(time.process_time() - began, 2)
        row = {"set": name, "labels": laid, "cases": len(drawn), "said": word(looked)}
        row |= {"words": looked.wrong or looked.unclear, "cpu_seconds": seconds}
        rows.append(row | {"half of them": draws_of(cases[name], change, asked.draws)})
    print_table([tuple(rows[0]), *[tuple(map(str, row.values())) for row in rows]])
    seen = [row["said"] == "wrong" for row in rows]
    summary = {
        "seen": sum(seen[: len(WRONG)]),
        "of": len(WRONG),
        "false": sum(seen[len(WRONG) :]),
        "of_right": len(SETS),
    }
    print(summary)
    write("label_places", {"cases": MOST_CASES, **summary, "rows": rows})


if __name__ == "__main__":
    main()
