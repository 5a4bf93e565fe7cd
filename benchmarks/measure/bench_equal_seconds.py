"""What do equal seconds of training buy? ``cgan3d`` beside MONAI's pair, trained as pix2pix.

Budgets are seconds of one thread's processor time. Each side is trained once, and snapshots are
taken at every budget; evaluation costs nothing. Both sides see the same conditions (labels, and the
intensity clusters that a fit adds by default), batches and precision, without augmentation. Ours
are sampled from averaged weights, as in every fit; the pair has none, as a tutorial would write it.

Samples are of held-out people's conditions, and are held against those people's images:

- spectrum: mean over bands of |log of the ratio of mean radial powers|, 95 % interval;
- recovery: Dice of a segmenter trained on the real training cases, on samples over real;
- C2ST: accuracy of a small network that tells samples from real images; 0.5 is chance.

Training images are the scale. A side is a name and options:

    OMP_NUM_THREADS=1 python benchmarks/measure/bench_equal_seconds.py 2d|3d [--budgets 30 120 600]
        [--sides pair default: strided:g_stem=no,d_stem=no,texture_head=no]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from bench_gan_step import Peer
from bench_realism import DATA, hippocampus
from common import print_table, write
from measures import distances, label_recovery

from gansynth.core.generator import Stage, learn
from gansynth.core.schema import Case, Condition, FloatArray, Sample
from gansynth.core.source import SourceRequest
from gansynth.fitting.setup import FitJob, resolve
from gansynth.metrics.c2st import classified
from gansynth.metrics.comparison import Comparison
from gansynth.metrics.faithfulness import EvaluationSegmenterOptions, train_segmenter
from gansynth.runtime.devices import native_bf16
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loop import train
from gansynth_cgan3d.whole import CGAN3D

BATCH, LOOKS = {"2d": 8, "3d": 2}, {"2d": 10, "3d": 1}
"""Real cases a step; steps between two looks of our side at the clock."""
PAIR_WIDTH = 32
CPU = torch.device("cpu")
Draw = Callable[[], list[FloatArray]]
"""() -> images (C, ...) of the held-out conditions."""


class Spent(Exception):
    """The last budget is spent."""


# -- the data --------------------------------------------------------------------------------------


def request(kind: str, data: Path) -> SourceRequest:
    """Hippocampi: axial slices at 64 x 64, or whole crops at 48^3."""
    if kind == "2d":
        return hippocampus(data, data)
    task = data / "msd_task04_hippocampus"
    read = {"whole": "48,48,48"}
    return SourceRequest("msd", str(task), subjects=str(task / "subjects.csv"), read=read)


def job_of(args: argparse.Namespace, options: Mapping[str, str]) -> FitJob:
    """A fit as a user begins it, with all training cases read."""
    settings = {"batch_size": BATCH[args.kind], "sample_every": LOOKS[args.kind], "steps": 10**9}
    texts = {**{key: str(value) for key, value in settings.items()}, **options}
    job = resolve("cgan3d", request(args.kind, args.data), texts, None, "cpu")
    learn(job.generator, job.observed(np.random.default_rng(0)))
    return job


class Judge:
    """Held-out cases, and a segmenter trained on the training cases."""

    def __init__(self, job: FitJob, number: int) -> None:
        self.schema, self.job = job.generator.schema, job
        self.real = self.cases(job.source.held_out_ids, number)
        context = job.generator.context
        self.conditions = [Condition(case.labels, context=context(case)) for case in self.real]
        options = EvaluationSegmenterOptions()
        self.segmenter = train_segmenter(job.batches, self.schema, job.space.size, options)

    def cases(self, ids: Sequence[str], number: int) -> list[Case]:
        """Some cases, evenly spread."""
        chosen = ids[:: max(1, len(ids) // number)][:number]
        return [self.job.crops.cut(case_id, np.random.default_rng(0)) for case_id in chosen]

    def __call__(self, images: Sequence[FloatArray], of: Sequence[Case]) -> dict[str, Any]:
        """Measure images that have the labels of these cases."""
        samples = [Sample(i, c.labels, None, {}) for i, c in zip(images, of, strict=True)]
        pairs, real = ([(x.image, x.labels) for x in side] for side in (samples, self.real))
        owners = [case.subject for case in of]
        comparison = Comparison(samples, self.real, self.schema, owners, device="cpu")
        found = classified(comparison)
        low, high = found.interval(np.random.default_rng(0))
        spectra = distances({"": images}, [c.image for c in self.real], self.schema.spacing)
        return {
            "spectrum": asdict(spectra[""]["spectrum"]),
            "recovery": label_recovery(self.segmenter, real, pairs, self.schema),
            "c2st": {"value": found.accuracy, "low": low, "high": high},
        }


# -- the sides -------------------------------------------------------------------------------------


class Clock:
    """Processor seconds of a training; at each budget its samples are measured, off the clock."""

    def __init__(self, budgets: Sequence[float], judge: Judge) -> None:
        self.left, self.judge, self.measured = list(budgets), judge, dict[str, Any]()
        self.began = time.process_time()

    def check(self, steps: int, draw: Draw) -> None:
        """Measure if it is time. Raises Spent: it was the last budget."""
        now = time.process_time()
        if now - self.began < self.left[0]:
            return
        spent = {"steps": steps, "spent": now - self.began}
        found = {**spent, **self.judge(draw(), self.judge.real)}
        self.measured[f"{self.left.pop(0):g}"] = found
        print(steps, found, flush=True)
        if not self.left:
            raise Spent
        self.began += time.process_time() - now


def ours(job: FitJob, clock: Clock) -> None:
    """Train by the real loop; its previews, of averaged weights, look at the clock."""

    def draw() -> list[FloatArray]:
        conditions = clock.judge.conditions
        return [s.image for s in job.generator.sample(conditions, range(len(conditions)))]

    callbacks = TrainingCallbacks(preview=lambda step: clock.check(step, draw))
    train(job.generator, job.batches, job.options, callbacks=callbacks)


def pair(job: FitJob, clock: Clock) -> None:
    """Train MONAI's pair on the same batches and conditions."""
    ours = cast(CGAN3D, job.generator)
    channels, ndim = len(ours.condition_channels), ours.schema.ndim
    peer = Peer(PAIR_WIDTH, "bf16" if native_bf16(CPU) else "fp32", channels, ndim)

    @torch.no_grad()
    def draw() -> list[FloatArray]:
        asked = [ours.encoded(ours.inputs_of([c])) for c in clock.judge.conditions]
        with peer.autocast:
            return [peer.g(condition)[0].float().numpy() for condition in asked]

    for step in count():
        clock.check(step, draw)
        batch = job.batches(step, Stage(), range(job.options.batch_size))
        peer.step(ours.encoded(ours.inputs_of_batch(batch)), batch.image)


def main() -> None:
    """Measure all sides on one data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=tuple(BATCH))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--sides", nargs="+", default=["pair", "default:"])
    parser.add_argument("--budgets", type=float, nargs="+", default=[30, 120, 600])
    parser.add_argument("--number", type=int, default=200, help="most samples of each side")
    parser.add_argument("--name", default="")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"skipped: no data sets in {args.data}; name their folder with --data")
        return
    judge = Judge(job := job_of(args, {}), args.number)
    training = judge.cases(job.source.train_ids, args.number)
    results = {"real": {"": judge([case.image for case in training], training)}}
    for side in args.sides:
        name, _, text = side.partition(":")
        options = dict(item.split("=", 1) for item in text.split(",") if item)
        job = job_of(args, options)
        clock = Clock(args.budgets, judge)
        with suppress(Spent):
            (pair if name == "pair" else ours)(job, clock)
        results[name] = clock.measured
        document = {"kind": args.kind, "batch_size": BATCH[args.kind], "results": results}
        write(args.name or f"equal_seconds_{args.kind}", {"data": job.source.name, **document})
    rows: list[tuple[object, ...]] = [("side", "seconds", "steps", "spectrum", "recovery", "C2ST")]
    for name, found in results.items():
        for seconds, m in found.items():
            recovery = m["recovery"]["synthetic_over_real"]
            figures = m["spectrum"]["value"], recovery, m["c2st"]["value"]
            rows.append((name, seconds, m.get("steps", ""), *figures))
    print_table(rows)


if __name__ == "__main__":
    main()
