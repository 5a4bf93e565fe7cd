"""Does a sample show what its label says? A segmenter trained on the fold's real cases decides.

It is trained on the fold's real training cases and scored on real held-out cases, on samples, and
on samples against every other sample's label. Conditions are moved by flips, rotations, shifts and
elastic edits: where every organ lies in the middle of its crop, labels of different cases overlap
so far that shuffling them would prove nothing (the figure without edits is reported beside it).

    python benchmarks/scripts/bench_label_recovery.py RUN [--steps 400] [--samples 40]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import print_table, write
from measures import label_recovery

from gansynth.core.sample_request import SampleRequest
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.metrics.faithfulness import EvaluationSegmenterOptions, train_segmenter
from gansynth.runtime.progress import RichReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler

MOVED = ("flip", "rotate", "shift", "elastic")
LEAST_OF_REAL, LEAST_OF_SHUFFLED = 0.6, 3.0


def main() -> None:
    """Run the measurement on one run folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="a run folder of gansynth fit")
    parser.add_argument("--root", help="nnU-Net's folders, if they have moved since the fit")
    parser.add_argument("--steps", type=int, default=400, help="steps of the segmenter")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="label_recovery")
    args = parser.parse_args()
    if args.run is None:
        print("skipped: name a run folder made by gansynth fit, e.g. runs/g0")
        return
    run = load_run(args.run)
    request = run.request if args.root is None else replace(run.request, root=args.root)
    source = open_source(request)
    cache, space, schema = CaseCache(source), run.space, run.generator.schema
    batches = CaseBatches(cache, space, seed=args.seed)
    began = time.perf_counter()
    segmenter = train_segmenter(
        batches,
        schema,
        space.size,
        EvaluationSegmenterOptions(steps=args.steps, seed=args.seed),
        device=run.generator.device,
        reporter=RichReporter(),
    )
    seconds = time.perf_counter() - began
    held_out = [space.to_generator(cache(i)) for i in source.held_out_ids]
    real = [(c.image, c.labels) for c in held_out if c.labels is not None]
    found: dict[str, Any] = {}
    for name, edits in (("moved", MOVED), ("as_fitted", None), ("unedited", ())):
        drawn = Sampler(run, source, SampleRequest(edits=edits, seed=args.seed)).draw_raw(
            0, args.samples
        )
        pairs = [(s.image, s.labels) for s in drawn if s.labels is not None]
        found[name] = label_recovery(segmenter, real, pairs, schema)
    moved = found["moved"]
    passed = {
        "of_real": moved["synthetic_over_real"] >= LEAST_OF_REAL,
        "of_shuffled": moved["synthetic_over_shuffled"] >= LEAST_OF_SHUFFLED,
    }
    document = {
        "generator": run.manifest["generator"],
        "fit": {"steps": run.manifest["steps"], "options": run.manifest["options"]},
        "dataset": source.name,
        "fold": source.request.fold,
        "edits_of_moved": list(MOVED),
        "segmenter_steps": args.steps,
        "segmenter_seconds": seconds,
        "results": found,
        "bars": {"of_real": LEAST_OF_REAL, "of_shuffled": LEAST_OF_SHUFFLED},
        "passed": passed,
    }
    write(args.name, document)
    header = ("conditions", "real", "samples", "shuffled", "of real", "of shuffled")
    keys = ("real", "synthetic", "shuffled", "synthetic_over_real", "synthetic_over_shuffled")
    print_table([header, *((name, *(f[k] for k in keys)) for name, f in found.items())])
    if not all(passed.values()):
        raise SystemExit(f"below a bar: {passed}")


if __name__ == "__main__":
    main()
