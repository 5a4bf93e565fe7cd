"""Do the label maps that ``dcgan --with-mask`` draws fit the images it draws with them?

A generator is fitted on real hippocampus slices of the training fold, and a segmenter is trained on
the same slices. It is scored on real held-out slices, on samples against the label maps drawn with
them, and on samples against every other sample's label map: how much of the agreement is more than
everything lying in the same place. Samples with a flaw are left out, as a bank leaves them out.

    python benchmarks/bench_mask_recovery.py ../shared/data/msd_task04_hippocampus -o runs/mask
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import print_table, write

from gansynth.fitting import fit
from gansynth.own_source import open_source
from gansynth.quality.faithfulness import Segmenter, SegmenterOptions, mean_dice, train_segmenter
from gansynth.reporting import RichReporter
from gansynth.run import load_run
from gansynth.sampling import SampleDrawer
from gansynth.schema import Schema
from gansynth.sources.base import SourceRequest
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache

READ = {"plane": "axial", "foreground": "with", "min_foreground": "20", "resize": "64x64"}
USUAL: Mapping[str, Mapping[str, Any]] = {
    "wgan-gp": {"steps": 3000, "n_critic": 2, "lr_generator": 4e-4, "lr_discriminator": 4e-4},
    "wgan": {"steps": 8000},
    "gan": {"steps": 4000},
}
LEAST_OF_REAL, LEAST_OF_SHUFFLED = 0.6, 1.5
Scores = npt.NDArray[np.float64]


def main() -> None:
    """Fit, train the judge, score, write."""
    args = _arguments()
    if not args.data.is_dir():
        print(f"skipped: {args.data} is not there; name the folder of MSD's task 4")
        return
    request = SourceRequest.parse(
        f"slices:msd:{args.data}", subjects=str(args.data / "subjects.csv"), read=READ
    )
    out = args.out or Path(tempfile.mkdtemp())
    fitted = _fit(args, request, out)
    run = load_run(out)
    source = open_source(request)
    schema, batches = run.generator.schema, CaseBatches(CaseCache(source), run.space, seed=1)
    began = time.perf_counter()
    options = SegmenterOptions(steps=args.segmenter_steps, batch_size=16, seed=1)
    judge = train_segmenter(batches, schema, run.space.size, options, reporter=RichReporter())
    seconds = time.perf_counter() - began
    drawn = SampleDrawer(run, source, seed=args.seed).draw_raw(0, args.samples)
    kept = [s for s in drawn if not s.provenance.get("flaw")]
    rng = np.random.default_rng(args.seed)
    ids = rng.permutation(np.array(source.held_out_ids))[: args.samples]
    real = [batches.cut(str(i), rng) for i in ids]
    tables = {
        "real": _table(judge, real, schema),
        "samples": _table(judge, kept, schema),
    }
    results = {
        "all": _scored(tables, schema.foreground),
        **{n: _scored(tables, [v]) for n, v in schema.labels.items() if v in schema.foreground},
    }
    whole = results["all"]
    passed = {
        "of_real": whole["samples_over_real"] >= LEAST_OF_REAL,
        "of_shuffled": whole["samples_over_shuffled"] >= LEAST_OF_SHUFFLED,
        "above_shuffled": whole["samples_minus_shuffled"]["low"] > 0,
    }
    document = {
        "generator": "dcgan",
        "dataset": source.name,
        "read": READ,
        "fold": source.fold,
        "train_slices": len(source.train_ids),
        "held_out_slices": len(source.held_out_ids),
        "fit": {**fitted, "options": run.manifest["options"]},
        "segmenter": {"steps": args.segmenter_steps, "seconds": seconds},
        "samples": {"drawn": len(drawn), "without_flaw": len(kept)},
        "results": results,
        "bars": {"of_real": LEAST_OF_REAL, "of_shuffled": LEAST_OF_SHUFFLED},
        "passed": passed,
    }
    write(args.name or f"mask_recovery_{args.objective}", document)
    rows = [
        (name, *(f"{r[k]['mean']:.3f} [{r[k]['low']:.3f}, {r[k]['high']:.3f}]" for k in SHOWN))
        for name, r in results.items()
    ]
    print_table([("labels", *SHOWN), *rows])
    if not all(passed.values()):
        raise SystemExit(f"below a bar: {passed}")


SHOWN = ("real", "samples", "shuffled", "samples_minus_shuffled")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path, help="folder of MSD's task 4, with subjects.csv")
    parser.add_argument("-o", "--out", type=Path, help="run folder; a finished run is used again")
    parser.add_argument("--objective", choices=sorted(USUAL), default="wgan-gp")
    parser.add_argument("--steps", type=int, help="of the generator; else what suits it")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--segmenter-steps", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", help="of the result; mask_recovery_OBJECTIVE if not given")
    return parser.parse_args()


def _fit(args: argparse.Namespace, request: SourceRequest, out: Path) -> dict[str, Any]:
    chosen: dict[str, Any] = {"width": args.width, "batch_size": 32, **USUAL[args.objective]}
    if args.steps is not None:
        chosen["steps"] = args.steps
    settings = {
        "objective": args.objective,
        "with_mask": "yes",
        **{key: str(value) for key, value in chosen.items()},
        **dict(pair.split("=", 1) for pair in args.set),
    }
    report = fit("dcgan", request, out, settings=settings, edits=None, reporter=RichReporter())
    return {key: report[key] for key in ("steps", "seconds", "label_maps")}


def _table(judge: Segmenter, pairs: Sequence[Any], schema: Schema) -> dict[int, Scores]:
    """Dice (N, N) of each image's prediction with each label map, by label value.

    NaN where neither shows the label.
    """
    found = [judge.predict(pair.image) for pair in pairs]
    return {
        value: np.array([[mean_dice(p, pair.labels, [value]) for pair in pairs] for p in found])
        for value in schema.foreground
    }


def _scored(tables: dict[str, dict[int, Scores]], values: Sequence[int]) -> dict[str, Any]:
    """Mean Dice over labels and slices, with 95 % bootstrap intervals over slices."""
    means = {
        name: _mean(np.stack([table[v] for v in values]), axis=0) for name, table in tables.items()
    }
    own = {name: np.diag(mean) for name, mean in means.items()}
    others = means["samples"].copy()
    np.fill_diagonal(others, np.nan)
    shuffled = _mean(others, axis=1)
    figures = {
        "real": _interval(own["real"]),
        "samples": _interval(own["samples"]),
        "shuffled": _interval(shuffled),
        "samples_minus_shuffled": _interval(own["samples"] - shuffled),
    }
    at = {name: figure["mean"] for name, figure in figures.items()}
    return {
        **figures,
        "samples_over_real": at["samples"] / max(at["real"], 1e-9),
        "samples_over_shuffled": at["samples"] / max(at["shuffled"], 1e-9),
    }


def _mean(scores: Scores, axis: int) -> Scores:
    """Mean of what is not NaN; NaN where all of it is."""
    count = np.isfinite(scores).sum(axis)
    mean: Scores = np.where(count > 0, np.nansum(scores, axis) / np.maximum(count, 1), np.nan)
    return mean


def _interval(scores: Scores, draws: int = 5000) -> dict[str, float]:
    scores = scores[np.isfinite(scores)]
    rng = np.random.default_rng(0)
    spread = scores[rng.integers(len(scores), size=(draws, len(scores)))].mean(axis=1)
    low, high = np.percentile(spread, [2.5, 97.5])
    return {"mean": float(scores.mean()), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
