"""Runs a plan with an arm whose samples are chosen by what a host gets wrong, draw by draw.

For each draw, ``gansynth hard-cases`` is run on the draw's own training cases (inner folds, a small
U-Net); an arm of ``--weighted`` then has ``--case-weights`` of its draw.

    python benchmarks/scripts/gain_hard_cases.py PLAN --data FOLDER -o OUT --weighted ARM
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gansynth.core.source import FoldSplit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.run_source import open_source
from gansynth_benchmark import study
from gansynth_benchmark.api import benchmark
from gansynth_benchmark.plan_file import read_plan
from gansynth_benchmark.study import BenchmarkStudy, TrainingPoint
from gansynth_benchmark.subject_split import DEVELOPMENT
from gansynth_evaluate.hard_cases.job import find_failures
from gansynth_evaluate.requests import FailureOptions


def write_weights(plan_study: BenchmarkStudy, draw: int, out: Path) -> dict[str, Any]:
    """Find the hard cases of a draw, unless they are there; return lesions and bins."""
    file = weights_of(out, draw)
    if not file.exists():
        own = plan_study.training_cases(plan_study.plan.sizes[0], draw)
        split = FoldSplit(train=sorted(own), val=sorted(plan_study.test_cases))
        folder = out / f"division_{draw:02d}"
        divided = plan_study.source.divided([split], folder)
        source = open_source(divided)
        find_failures(source, file, FailureOptions(), reporter=NullReporter())
    document = json.loads(file.read_text())
    return {
        "draw": draw,
        "lesions": len(document["lesions"]),
        "missed": sum(not lesion["found"] for lesion in document["lesions"]),
        "false_alarms": len(document["false_alarms"]["pieces"]),
        "risk": document["risk"],
    }


def weights_of(out: Path, draw: int) -> Path:
    """Return the file of a draw's weights."""
    return out / f"weights_{draw:02d}.json"


def use_weights_of_draws(arms: list[str], out: Path) -> None:
    """Have arms take the weights of their draw."""
    of_plan = study.BenchmarkStudy.train

    def train(self: BenchmarkStudy, place: TrainingPoint) -> study.ComputationSpec:
        spec = of_plan(self, place)
        if place.arm in arms:
            weights = weights_of(out, place.draw).absolute()
            spec.document["augment"]["case_weights"] = str(weights)
        return spec

    study.BenchmarkStudy.train = train  # type: ignore[method-assign]


def main() -> None:
    """Find hard cases, run the plan; a second time it goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", required=True, help="KIND:WHERE")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--weighted", nargs="+", required=True, help="arms")
    parser.add_argument("--executor", default="local:1")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    plan = read_plan(args.plan, args.data)
    plan_study = BenchmarkStudy(plan, DEVELOPMENT, args.out / "weighed")
    rows = []
    for draw in range(plan.draws):
        rows.append(write_weights(plan_study, draw, args.out))
        print({key: rows[-1][key] for key in ("draw", "lesions", "missed", "false_alarms")})
    (args.out / "hard_cases.json").write_text(json.dumps(rows, indent=1) + "\n")
    use_weights_of_draws(args.weighted, args.out)
    benchmark(
        args.plan,
        data=args.data,
        out=args.out / "out",
        executor=args.executor,
        pictures=False,
    )


if __name__ == "__main__":
    main()
