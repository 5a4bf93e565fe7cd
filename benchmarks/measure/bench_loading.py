"""What feeds a GPU: milliseconds in which the loading threads of a real fit make a step's batch.

Crops of larger cases in memory, four channels, batches of two, four context clusters, read by the
training loop's own loader. Its threads read ahead as fast as they can, since nothing trains; each
number is of ``--steps`` steps after all cases have been seen often enough, the ways in turn.
``cut`` is as ``fit`` does it; ``anew`` makes the context of each crop without the whole case's.
Printed are CPU and wall milliseconds a step by number of threads, and beside an H200's step of one
constant sample (``gpu/README.md``) what eight cores would need for a sample, if each thread had its
own: an eighth of its CPU time, with as many threads.

    python benchmarks/measure/bench_loading.py [--threads 1 2 8] [--sizes 64 128]
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from common import print_table, write

from gansynth.core.generator import ContextOf, Generator, Stage, learn
from gansynth.core.registry import installed
from gansynth.core.schema import Case, LabelArray, Schema
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.testing import ToySource
from gansynth.training.loading import BatchLoader

CASES, BATCH, CLUSTERS, GPU_THREADS = 2, 2, 4, 8
BEFORE = 1 << 20  # number of the first step that does not count
CLASSES = {
    "64": ((72, 80, 64), (144, 160, 128), 4.3),
    "128": ((128, 128, 128), (240, 240, 155), 20.0),
}
"""Crop and case, voxels, and milliseconds of the H200's step of one sample of this class."""


class Large(ToySource):
    """Toy cases of four channels, repeated to a shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(side=16)
        small = {case_id: self._cases[case_id] for case_id in self.train_ids[:CASES]}
        self._cases = {name: self._large(case, shape) for name, case in small.items()}

    @staticmethod
    def _large(case: Case, shape: tuple[int, ...]) -> Case:
        assert case.labels is not None
        own = (slice(None), *map(slice, shape))
        times = [-(-n // edge) for n, edge in zip(shape, case.labels.shape, strict=True)]
        rng = np.random.default_rng(0)
        image = np.tile(np.concatenate([case.image] * 2), (1, *times))[own]
        image = image + 0.1 * rng.standard_normal(image.shape, dtype=np.float32)
        return replace(case, image=image, labels=np.tile(case.labels, times)[own[1:]])

    @property
    def schema(self) -> Schema:
        """Four channels."""
        names = tuple(f"channel {number}" for number in range(4))
        return replace(super().schema, channels=names, outside_fill=(0.0,) * 4)


def fed(
    source: Large, size: tuple[int, ...], *, cut: bool = True, **own: Any
) -> tuple[Generator, CaseBatches]:
    """A generator and batches of a real fit, whose cases have been seen often enough.

    ``own``: options of the generator.
    """
    cls = installed().generator("cgan3d")
    torch.manual_seed(0)
    generator: Generator = cls(source.schema, size, cls.Options(context=CLUSTERS, **own))
    space, cache = Space("crop", size), CaseCache(source, max_bytes=1 << 40)
    crops, rng = CaseBatches(cache, space), np.random.default_rng(0)
    learn(generator, [crops.cut(case_id, rng) for case_id in source.train_ids])

    def anew(case: Case) -> LabelArray | None:
        made: LabelArray | None = generator.context(case)
        return made

    batches = CaseBatches(cache, space, context=ContextOf(generator) if cut else anew)
    for step in range(16 if cut else 1):
        batches(BEFORE + step, Stage(), range(BATCH))
    return generator, batches


def loaded(batches: CaseBatches, steps: int, threads: int) -> dict[str, float]:
    """CPU and wall milliseconds of a step, read by so many threads and not trained on."""
    cpu, began = time.process_time(), time.perf_counter()
    with BatchLoader(torch.device("cpu"), threads) as loader:
        reads: deque[Any] = deque()
        for step in range(steps):
            reads.append(loader.read(partial(_read, batches, step)))
            if len(reads) > threads:
                loader.wait(reads.popleft())
        while reads:
            loader.wait(reads.popleft())
    wall = time.perf_counter() - began
    return {"cpu": 1e3 * (time.process_time() - cpu) / steps, "wall": 1e3 * wall / steps}


def _read(batches: CaseBatches, step: int) -> list[Any]:
    return [batches(step, Stage(), range(BATCH))]


def main() -> None:
    """Measure, print and write ``results/loading.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--sizes", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    rows: list[tuple[object, ...]] = [("crop", "context", "threads", "CPU ms", "wall ms")]
    for name in args.sizes:
        size, shape, gpu = CLASSES[name]
        source = Large(shape)
        sides: dict[str, Callable[[int], dict[str, float]]] = {
            way: partial(loaded, fed(source, size, cut=way == "cut", width=4)[1], args.steps)
            for way in ("cut", "anew")
        }
        taken: dict[str, dict[int, list[dict[str, float]]]] = {
            way: {threads: [] for threads in args.threads} for way in sides
        }
        for _ in range(args.rounds):
            for threads in args.threads:
                for way, side in sides.items():
                    taken[way][threads].append(side(threads))
        entry: dict[str, Any] = {"crop": size, "case": shape, "gpu_step_ms": gpu}
        for way, by_threads in taken.items():
            middle = {
                threads: {key: median(one[key] for one in each) for key in ("cpu", "wall")}
                for threads, each in by_threads.items()
            }
            entry[way] = {str(threads): values for threads, values in middle.items()}
            for threads, values in middle.items():
                rows.append((size, way, threads, values["cpu"], values["wall"]))
            sample = middle[max(middle)]["cpu"] / BATCH
            entry[way]["ms_a_sample_by_8_cores"] = sample / GPU_THREADS
        found[name] = entry
    print_table(rows)
    print_table(
        [
            ("crop", "context", "a sample, CPU ms / 8", "H200's step"),
            *[
                (entry["crop"], way, entry[way]["ms_a_sample_by_8_cores"], entry["gpu_step_ms"])
                for entry in found.values()
                for way in ("cut", "anew")
            ],
        ]
    )
    write("loading", {"batch": BATCH, "steps": args.steps, "rounds": args.rounds, "results": found})


if __name__ == "__main__":
    main()
