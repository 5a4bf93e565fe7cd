"""How often does a benchmark of arms that do not differ show a difference? Real scores, shuffled.

Within each draw of a finished plan, the arms' trainings are dealt out to the arms at random, all
seeds of a draw alike. Then no arm differs from its control, while draws, people and trainings vary
as they do. Each shuffle is analysed as the plan was: every arm against the control on the primary
measure, Holm's correction over them. Printed: the share of shuffles in which any difference is
shown at 5 %, with its 95 % interval (Wilson), and what it is without Holm's correction.

Then studies of an arm against itself: plans with two seeds a draw hold two trainings of one arm on
the same cases, which differ by chance alone. Studies of some draws and seeds are dealt from such
pairs, with random signs. Printed: the share in which a difference is shown, and (in brackets) in
which it would be if the test did not ask for three trainings, by plan and of all.

    python benchmarks/measure/bench_shuffled.py [--shuffles 1000] [--only shuffled|itself]
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write
from scipy.stats import binomtest

from gansynth.metrics.statistics import (
    MeanSquares,
    RunValues,
    compare,
    holm,
    mean_test,
    paired,
)
from gansynth_benchmark.analysis import matrices_of

LEVEL, MARGIN = 0.05, 0.01
GAINS = Path(__file__).parents[1] / "gains"
PLANS = (
    "lgg/results",
    "lgg_10/results",
    "lgg_128/results",
    "lgg_yolo/results",
    "lgg_nnunet/results",
    "lgg_match/development",
    "busi_match/development",
    "busi_match/sealed",
    "lgg_unlabelled/development",
    "busi_controls/development",
)


TWICE = (
    "lgg/results",
    "lgg_10/results",
    "hippocampus/results",
    "figshare/results",
    "phantoms_longer/results",
)
"""Plans with two seeds a draw."""
SIZES = tuple(itertools.product((1, 2, 3, 5, 10, 21), (1, 2, 3)))
"""Draws and seeds of a study."""


def by_arm(name: str) -> tuple[str, dict[str, RunValues]]:
    """The control of a plan, and the values of each arm on the primary measure."""
    document = json.loads((GAINS / f"{name}.json").read_text(encoding="utf-8"))
    found = {}
    for (arm, _, measure), runs in matrices_of(document).items():
        if measure == document["primary"]:
            found[arm] = runs
    return document["control"], found


def blocks(arms: dict[str, RunValues]) -> dict[str, dict[int, Any]]:
    """Values (seeds, subjects) of each arm by draw; draws alone that every arm has finished."""
    rows: dict[str, dict[int, Any]] = {}
    for arm, runs in arms.items():
        rows[arm] = {}
        for draw in set(runs.draws):
            rows[arm][draw] = runs.values[np.array(runs.draws) == draw]
    seeds = max(len(values) for of_arm in rows.values() for values in of_arm.values())
    ended = [{d for d, values in r.items() if len(values) == seeds} for r in rows.values()]
    whole = sorted(set.intersection(*ended))
    return {arm: {draw: of_arm[draw] for draw in whole} for arm, of_arm in rows.items()}


def shuffled(rows: dict[str, dict[int, Any]], rng: np.random.Generator) -> dict[str, list[Any]]:
    """The values of each arm, draw by draw, dealt out anew within each draw."""
    names = sorted(rows)
    dealt: dict[str, list[Any]] = {name: [] for name in names}
    for draw in sorted(rows[names[0]]):
        for name, other in zip(names, rng.permutation(names).tolist(), strict=True):
            dealt[name].append(rows[other][draw])
    return dealt


def p_values(dealt: dict[str, list[Any]], control: str, subjects: tuple[str, ...]) -> list[float]:
    """The p of each arm against the control."""
    runs = {}
    for arm, values in dealt.items():
        draws = [number for number, each in enumerate(values) for _ in each]
        seeds = [seed for each in values for seed in range(len(each))]
        runs[arm] = RunValues(np.concatenate(values), tuple(draws), tuple(seeds), subjects)
    others = [each for arm, each in runs.items() if arm != control]
    return [compare(each, runs[control], margin=MARGIN).p for each in others]


def pairs_of(name: str) -> list[list[Any]]:
    """What two trainings of one arm differ by (subjects), by draw."""
    document = json.loads((GAINS / f"{name}.json").read_text(encoding="utf-8"))
    found: dict[tuple[int, int], list[Any]] = {}
    for (_, n, measure), runs in matrices_of(document).items():
        if measure == document["primary"]:
            for draw in set(runs.draws):
                values = runs.values[np.array(runs.draws) == draw]
                if len(values) > 1:
                    found.setdefault((n, draw), []).append(values[1] - values[0])
    return list(found.values())


def against_itself(pairs: list[list[Any]], draws: int, seeds: int, rng: np.random.Generator) -> Any:
    """A study that compares an arm with itself: values (trainings, subjects) without an effect."""
    rows = []
    for which in rng.choice(len(pairs), draws, replace=draws > len(pairs)):
        own = pairs[which]
        for pair in rng.choice(len(own), seeds, replace=seeds > len(own)):
            rows.append(own[pair] * rng.choice((-1, 1)))
    return np.array(rows)


def of_nothing(name: str, studies: int) -> dict[str, Any]:
    """How often studies of each size show a difference of an arm from itself."""
    pairs, found = pairs_of(name), {}
    for draws, seeds in SIZES:
        rng = np.random.default_rng(0)
        shown = without = 0
        for _ in range(studies):
            rows = against_itself(pairs, draws, seeds, rng)
            keys = list(itertools.product(range(draws), range(seeds)))
            subjects = [str(number) for number in range(rows.shape[1])]
            arm = RunValues(rows, *(tuple(each) for each in zip(*keys, strict=True)), subjects)
            differences = paired(arm, replace(arm, values=0 * rows))
            # As ``compare`` does, whose other numbers take a hundred times as long.
            test = mean_test(differences)
            shown += test is not None and bool(test.p() < LEVEL)
            without += bool(MeanSquares.of(differences.table()).p() < LEVEL)
        found[f"{draws}x{seeds}"] = {"shown": shown / studies, "untold": without / studies}
    return found


def shuffle_plans(shuffles: int) -> None:
    """Deal the trainings of every plan to its arms at random."""
    results = {}
    for name in PLANS:
        control, arms = by_arm(name)
        rows, subjects = blocks(arms), arms[control].subjects
        rng = np.random.default_rng(0)
        shown = without = 0
        for _ in range(shuffles):
            found = p_values(shuffled(rows, rng), control, subjects)
            shown += min(holm(found)) < LEVEL
            without += min(found) < LEVEL
        interval = binomtest(shown, shuffles).proportion_ci(method="wilson")
        results[name] = {
            "arms": len(rows),
            "draws": len(rows[control]),
            "subjects": len(subjects),
            "shown": shown / shuffles,
            "low": float(interval.low),
            "high": float(interval.high),
            "without_holm": without / shuffles,
        }
    titles = ["plan", "arms", "draws", "people", "shown", "from", "to", "without Holm"]
    print_table([titles, *[[name, *row.values()] for name, row in results.items()]])
    write("shuffled", {"shuffles": shuffles, "results": results})


def compare_with_itself(studies: int) -> None:
    """Compare arms with themselves, in as many studies of each plan."""
    blank = {name: of_nothing(name, studies // len(TWICE)) for name in TWICE}
    lines = [["draws x seeds", *TWICE, "all"]]
    whole = {}
    for size in blank[TWICE[0]]:
        cells = [blank[name][size] for name in TWICE]
        whole[size] = {key: float(np.mean([each[key] for each in cells])) for key in cells[0]}
        told = [f"{each['shown']:.3f} ({each['untold']:.3f})" for each in (*cells, whole[size])]
        lines.append([size, *told])
    print_table(lines)
    write("against_itself", {"studies": studies, "plans": blank, "all": whole})


def main() -> None:
    """Shuffle every plan, then compare arms with themselves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shuffles", type=int, default=1000)
    parser.add_argument("--only", choices=("shuffled", "itself"))
    args = parser.parse_args()
    if args.only != "itself":
        shuffle_plans(args.shuffles)
    if args.only != "shuffled":
        compare_with_itself(args.shuffles)


if __name__ == "__main__":
    main()
