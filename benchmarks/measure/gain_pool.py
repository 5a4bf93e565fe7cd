"""Runs a plan some of whose arms have generators fitted on the whole pool, not on the draw alone.

What a generator could gain if it knew the lesions of all other people of a data set: their shapes,
places, sizes, contrasts and textures. The host trains on the draw, as in every other arm. People
who are judged, in development or sealed, are no part of the pool.

    python benchmarks/measure/gain_pool.py PLAN --data FOLDER -o FOLDER --pooled all
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gansynth_benchmark import study
from gansynth_benchmark.functions import benchmark


def fit_on_pool(arms: frozenset[str]) -> None:
    """Have the fits of some arms take all people of the pool."""
    on_draw = study.BenchmarkStudy.fit_of

    def fit_of(
        self: study.BenchmarkStudy, place: study.TrainingPoint
    ) -> study.ComputationSpec | None:
        generator = self.plan.arm(place.arm).generator
        if place.arm not in arms or generator is None:
            return on_draw(self, place)
        cases = tuple(sorted(self.division.cases_of(self.division.pool)))
        seed = study.TrainingPoint("", place.n, place.draw, 0).random
        return self.fit(generator, cases, seed, f"the whole pool, draw {place.draw}")

    study.BenchmarkStudy.fit_of = fit_of  # type: ignore[method-assign]


def main() -> None:
    """Run the plan; a second time it goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", required=True, help="folder with images/ and labels/")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--pooled", nargs="+", required=True, help="arms fitted on the whole pool")
    parser.add_argument("--executor", default="local:2")
    args = parser.parse_args()
    fit_on_pool(frozenset(args.pooled))
    benchmark(
        args.plan,
        data=f"pictures:{args.data}",
        out=args.out,
        executor=args.executor,
        pictures=False,
    )


if __name__ == "__main__":
    main()
