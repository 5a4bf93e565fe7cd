"""Do the statistics of ``gansynth benchmark`` err as often as they say? Simulations, known truth.

Differences between an arm and its control are simulated with known variances of draws, seeds, test
subjects and their interactions (in points of Dice; those called pilot have the seeds' deviation of
a pilot, 0.3 to 0.7 points, and 2 points between subjects), with a true difference of 0 unless said
otherwise:

- compare: false positives at 5 %, coverage of the 95 % interval, equivalence wrongly shown where
  the truth is the margin, power at the minimum detectable effect; for comparison false positives of
  Wilcoxon and of a t test over subjects, and the coverage of a plain percentile bootstrap;
- holm: the share of families of 8 arms against one control in which any true null is rejected;
- variance: the mean of the estimated components over the true ones;
- worth: the coverage of the interval of extra real cases, for two shapes of the learning curve.

    python benchmarks/measure/bench_statistics.py [--scale 1]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import print_table, write
from scipy import stats
from simulated_runs import SimulationDesign, simulated
from table_statistics import parts

from gansynth.metrics.statistics import (
    Floats,
    MeanSquares,
    RunValues,
    VarianceComponents,
    components,
    detectable,
    holm,
)
from gansynth_benchmark.worth import worth

LEVEL, POWER = 0.05, 0.8
DESIGNS = [
    SimulationDesign(3, 2, 20),
    SimulationDesign(3, 2, 40),
    SimulationDesign(5, 2, 20),
    SimulationDesign(10, 1, 30),
]
FEW = [SimulationDesign(2, 2, 20), SimulationDesign(1, 3, 20), SimulationDesign(1, 1, 20)]


def points(
    draw: float, seed: float, case: float, draw_case: float, rest: float
) -> VarianceComponents:
    """Variances from standard deviations."""
    return VarianceComponents(draw**2, seed**2, case**2, draw_case**2, rest**2)


NORMAL: dict[str, VarianceComponents] = {
    "draws dominate": points(1, 0.3, 0.5, 0.3, 0.5),
    "seeds dominate": points(0.1, 1, 0.5, 0.3, 0.5),
    "cases dominate": points(0.1, 0.1, 2, 0.3, 1),
    "balanced": points(0.5, 0.5, 2, 0.5, 1.5),
    "pilot, seeds 0.3": points(0.3, 0.3, 2, 0.5, 1.5),
    "pilot, seeds 0.7": points(0.3, 0.7, 2, 0.5, 1.5),
    "arm does nothing, seeds 0.5": points(0, 0.5, 0, 0, 1.5),
    "arm does nothing, seeds 0.3": points(0, 0.3, 0, 0, 1.5),
    "case noise alone": points(0, 0, 2, 0, 1.5),
    "residual noise alone": points(0, 0, 0, 0, 1.5),
}
SKEWED: dict[str, tuple[VarianceComponents, dict[str, float]]] = {
    "pilot, seeds 0.5, cases skewed 1": (points(0.3, 0.5, 2, 0.5, 1.5), {"case": 1}),
    "pilot, seeds 0.5, all skewed 1": (
        points(0.3, 0.5, 2, 0.5, 1.5),
        {"draw": 1, "seed": 1, "case": 1, "rest": 1},
    ),
    "cases dominate, skewed 2": (points(0.1, 0.1, 2, 0.3, 1), {"case": 2}),
}


def table(values: Floats) -> Floats:
    """The tables that ``compare`` makes of runs."""
    return values[:, 0] if values.shape[1] == 1 else np.asarray(values.mean(axis=2))


# -- compare ---------------------------------------------------------------------------------------


def errors(
    design: SimulationDesign,
    variance: VarianceComponents,
    skewness: dict[str, float],
    number: int,
    seed: int,
) -> dict[str, float]:
    """Shares of experiments in which ``compare`` says this or that."""
    rng = np.random.default_rng(seed)
    values = simulated(variance, design, rng, number=number, skewness=skewness)
    effect = detectable(variance, *design)
    tables = table(values)
    test = MeanSquares.of(tables)
    found = {
        "false_positives": test.p() <= LEVEL,
        "coverage": np.abs(test.mean) <= test.reach(LEVEL),
        "wilcoxon": signed_rank(tables) <= LEVEL,
        "t_over_subjects": stats.ttest_1samp(tables.mean(axis=1), 0, axis=1).pvalue <= LEVEL,
    }
    for sign, name in ((-1, "below"), (1, "above")):
        moved = [replace(test, mean=test.mean + sign * size * effect) for size in (1, 2)]
        found[f"power_{name}"] = moved[0].p() <= LEVEL
        found[f"equivalent_{name}"] = moved[1].equivalence(2 * effect) <= LEVEL
    printed = test.detectable(LEVEL, POWER) / effect
    shares = {name: float(each.mean()) for name, each in found.items()}
    return shares | {
        "power": (shares["power_below"] + shares["power_above"]) / 2,
        "effect": effect,
        "printed_rms": float(np.sqrt((printed**2).mean())),
        "printed_median": float(np.median(printed)),
        "percentile": percentile_coverage(values[:200], rng),
    }


def signed_rank(tables: Floats) -> Floats:
    """Wilcoxon's p of many experiments."""
    return np.asarray(stats.wilcoxon(tables.mean(axis=1), axis=1).pvalue)


def percentile_coverage(values: Floats, rng: np.random.Generator) -> float:
    """Coverage of the plain bootstrap: draws, seeds and subjects drawn again, percentiles."""
    _, draws, seeds, subjects = values.shape
    inside = []
    for one in values:
        draw = rng.integers(draws, size=(500, draws, 1))
        chosen = one[draw, rng.integers(seeds, size=(500, draws, seeds))]  # (500, a, b, subjects)
        weights = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=500) / subjects
        means = (chosen.mean(axis=(1, 2)) * weights).sum(axis=1)
        low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
        inside.append(low <= 0 <= high)
    return float(np.mean(inside))


def compared(number: int) -> list[dict[str, Any]]:
    """All scenarios in all designs."""
    scenarios = {name: (variance, {}) for name, variance in NORMAL.items()} | SKEWED
    places = [(design, name) for design in DESIGNS for name in scenarios]
    places += [(design, name) for design in FEW for name in FEW_SCENARIOS]
    rows = []
    for seed, (design, name) in enumerate(places):
        variance, skewness = scenarios[name]
        if design.draws == 1:
            # What holds for this draw alone: it is no part of what is random.
            variance = replace(variance, draw=None)
        if design.draws == design.seeds == 1:
            variance = replace(variance, seed=None)
        rows.append(
            {
                "design": design._asdict(),
                "scenario": name,
                "skewness": skewness,
                "variance": asdict(variance),
                "experiments": number,
                **errors(design, variance, skewness, number, seed),
            }
        )
    return rows


# -- holm ------------------------------------------------------------------------------------------


def families(number: int, arms: int = 8) -> list[dict[str, Any]]:
    """Shares of families in which a true null is rejected, all null or half of them."""
    rows = []
    for design in DESIGNS[0], DESIGNS[2]:
        for name in FAMILIES:
            half = VarianceComponents(*(value / 2 for value in asdict(NORMAL[name]).values()))
            rng = np.random.default_rng(design.draws)
            values = simulated(half, design, rng, number=number * (arms + 1))
            values = values.reshape(number, arms + 1, *values.shape[1:])
            tables = (values[:, 1:] - values[:, :1]).mean(axis=3)
            for shifted in (0, arms // 2):
                moved_by = np.zeros((arms, 1, 1))
                moved_by[:shifted] = 2 * detectable(NORMAL[name], *design)
                wrong = [_family(one, shifted) for one in tables + moved_by]
                rows.append(
                    {
                        "design": design._asdict(),
                        "scenario": name,
                        "arms": arms,
                        "true_effects": shifted,
                        "experiments": number,
                        "compare": float(np.mean([w[0] for w in wrong])),
                        "wilcoxon": float(np.mean([w[1] for w in wrong])),
                    }
                )
    return rows


def _family(tables: Floats, shifted: int) -> tuple[bool, bool]:
    """Whether a true null is rejected after Holm's correction, by either test."""
    ps = MeanSquares.of(tables).p(), signed_rank(tables)
    ours, theirs = (min(holm(p.tolist())[shifted:]) <= LEVEL for p in ps)
    return ours, theirs


# -- variance and worth ----------------------------------------------------------------------------


def estimated(number: int) -> list[dict[str, Any]]:
    """Mean of estimated components over the true ones, before negative ones become 0."""
    rows, truth = [], NORMAL["balanced"]
    for design, kept in (
        (DESIGNS[0], None),
        (DESIGNS[2], None),
        (SimulationDesign(4, 3, 20), UNBALANCED),
    ):
        rng = np.random.default_rng(design.draws)
        found = []
        for values in simulated(truth, design, rng, number=number):
            runs = design.runs(values)
            found.append(components(runs if kept is None else runs.chosen(kept, runs.subjects)))
        each = np.array(found, np.float64)
        true = np.array(list(asdict(truth).values()))
        rows.append(
            {
                "design": design._asdict(),
                "runs": len(kept or design.runs(values).keys),
                "ratio": dict(zip(asdict(truth), (each.mean(0) / true).tolist(), strict=True)),
                "error": dict(
                    zip(asdict(truth), (each.std(0) / true / number**0.5).tolist(), strict=True)
                ),
                "experiments": number,
            }
        )
    return rows


CURVES: dict[str, Callable[[float], float]] = {
    "4 points each time N doubles": lambda n: 76 + 4 * np.log2(n / 6),
    "90 - 34 / sqrt(N)": lambda n: 90 - 34 / np.sqrt(n),
    "flat": lambda n: 80.0,
}


def worths(number: int) -> list[dict[str, Any]]:
    """Coverage of extra real cases; ``worth`` means that the interval holds them."""
    rows = []
    for shape, sizes, n, true in WORTHS:
        for design in DESIGNS[0], DESIGNS[2]:
            rng = np.random.default_rng(design.draws + n)
            found = [_worth(CURVES[shape], sizes, n, true, design, rng) for _ in range(number)]
            rows.append(
                {
                    "curve": shape,
                    "sizes": sizes,
                    "n": n,
                    "true": true,
                    "design": design._asdict(),
                    "experiments": number,
                    "coverage": float(np.mean([f[0] for f in found])),
                    "median": _median([f[1] for f in found]),
                    "said": float(np.mean([f[1] is not None for f in found])),
                    "both_limits": float(np.mean([f[2] for f in found])),
                }
            )
    return rows


def _worth(
    curve: Callable[[float], float],
    sizes: Sequence[int],
    n: int,
    true: int,
    design: SimulationDesign,
    rng: np.random.Generator,
) -> tuple[bool, float | None, bool]:
    # What is easy for one network is easy for all: subjects differ by 6 points in common.
    common = 6 * rng.standard_normal(design.subjects)

    def runs(mean: float) -> RunValues:
        return design.runs(simulated(NORMAL["balanced"], design, rng)[0] + common + mean)

    found = worth({size: runs(curve(size)) for size in sizes}, runs(curve(n + true)), n)
    low, high = (-np.inf if found.low is None else found.low), found.high
    inside = low <= true <= (np.inf if high is None else high)
    return inside, found.cases, found.low is not None and high is not None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


FEW_SCENARIOS = (
    "seeds dominate",
    "cases dominate",
    "balanced",
    "pilot, seeds 0.3",
    "pilot, seeds 0.7",
)
FAMILIES = ("seeds dominate", "pilot, seeds 0.7", "arm does nothing, seeds 0.5")
UNBALANCED = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]
WORTHS = [
    ("4 points each time N doubles", (6, 12, 24), 6, 0),
    ("4 points each time N doubles", (6, 12, 24), 6, 6),
    ("4 points each time N doubles", (6, 12, 24), 12, -3),
    ("4 points each time N doubles", (6, 24), 6, 6),
    ("90 - 34 / sqrt(N)", (6, 12, 24), 6, 4),
    ("90 - 34 / sqrt(N)", (6, 12, 24), 6, 12),
    ("90 - 34 / sqrt(N)", (6, 24), 6, 6),
    ("flat", (6, 12, 24), 6, 6),
]


def main() -> None:
    """Run all simulations and write ``results/statistics.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many experiments")
    parser.add_argument("--name", default="statistics")
    args = parser.parse_args()
    began = time.perf_counter()
    document = {
        "level": LEVEL,
        "bar": "false positives 5 %, coverage 95 %, power at the MDE 80 %",
        "compare": compared(round(3000 * args.scale)),
        "holm": families(round(1500 * args.scale)),
        "variance": estimated(round(4000 * args.scale)),
        "worth": worths(round(500 * args.scale)),
    }
    document["seconds"] = round(time.perf_counter() - began, 1)
    write(args.name, document)
    for part in parts(document):
        print_table(part)
        print()
    print(f"{document['seconds']} s")


if __name__ == "__main__":
    main()
