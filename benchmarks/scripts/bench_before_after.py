"""What a change costs on the CPU: this source tree beside an earlier one, in turn.

    git worktree add ../before COMMIT
    python benchmarks/scripts/bench_before_after.py ../before --name before_after

Training steps of the generators, samples, draws from a bank, an evaluation, what drawing costs
nnU-Net's step; or some of ``--parts``.
Each measurement is a process of its own, on one core; the order of the two trees is swapped every
round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import gansynth, paired, print_table, training_step, write

ROOT = Path(__file__).parents[2]
STEPS = 5
GANS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "cgan3d, 48^3, fp32": ("cgan3d", 3, 48, {"batch_size": 1, "precision": "fp32"}),
    "cgan3d, 48^3, bf16": ("cgan3d", 3, 48, {"batch_size": 1, "precision": "bf16"}),
    "cgan3d, 64^2, fp32": ("cgan3d", 2, 64, {"batch_size": 8, "precision": "fp32"}),
    "cgan3d, 64^2, bf16": ("cgan3d", 2, 64, {"batch_size": 8, "precision": "bf16"}),
    "dcgan, 64^2, fp32": ("dcgan", 2, 64, {"batch_size": 16, "precision": "fp32"}),
}


def built(kind: str, dims: int, size: int) -> Any:
    """An untrained generator of one channel and one label."""
    import torch

    from gansynth.core.registry import installed
    from gansynth.core.schema import Schema

    schema = Schema(("T1",), {"background": 0, "organ": 1}, (1.0,) * dims, "DHW"[-dims:])
    cls = installed().generator(kind)
    torch.manual_seed(0)
    return cls(schema, (size,) * dims, cls.Options())


def step(name: str) -> float:
    """Seconds of a step of the training loop, by its own clock, after as many steps."""
    import torch

    from gansynth.core.generator import Batch

    kind, dims, size, told = GANS[name]
    generator = built(kind, dims, size)
    image = torch.randn((told["batch_size"], 1, *(size,) * dims))
    batch = Batch(image, (image[:, 0] > 0.5).long())
    return training_step(generator, lambda *_: batch, STEPS, **told)()


def sample(dims: int, size: int) -> float:
    """Processor seconds of a sample of ``cgan3d``: of eight slices, or of a volume; after one."""
    import torch

    from gansynth.core.generator import move
    from gansynth.core.schema import Condition

    generator = built("cgan3d", dims, size)
    move(generator, torch.device("cpu"))
    labels = np.random.default_rng(0).integers(0, 2, (size,) * dims).astype(np.int16)
    number, seconds = 8 if dims == 2 else 1, []
    for _ in range(6):
        began = time.process_time()
        generator.sample([Condition(labels)] * number, range(number))
        seconds.append(time.process_time() - began)
    return float(np.median(seconds[1:])) / number


def draw(run: str) -> float:
    """Seconds to draw a sample from a frozen bank and mix it into a batch."""
    from gansynth.bank.api import fill_bank
    from gansynth.bank.reader import BankReader

    with tempfile.TemporaryDirectory() as scratch:
        bank = BankReader(fill_bank(run, Path(scratch) / "bank", samples=32))
        names = list(bank.ids())
        began = time.perf_counter()
        for number in range(512):
            bank.read(names[number % len(names)])
        return (time.perf_counter() - began) / 512


def bank_files(edge: int, dims: int, channels: int, held: int, *, reads: bool) -> float:
    """Median seconds to read a sample of a bank in shared memory, or mean seconds to write one."""
    from gansynth.bank.reader import BankReader, BankSpec, BankWriter
    from gansynth.core.lineage import Lineage
    from gansynth.core.schema import Sample, Schema

    names, rng = tuple(f"c{number}" for number in range(channels)), np.random.default_rng(0)
    schema = Schema(names, {"background": 0, "organ": 1}, (1.0,) * dims, "DHW"[-dims:])
    spec = BankSpec(schema, Lineage("toy", "0", ()), "run", "f", True, held)
    image = rng.standard_normal((channels, *(edge,) * dims), dtype=np.float32)
    sample = Sample(image, (image[0] > 1).astype(np.int16), None, {"case": "phantom"})
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        with BankWriter.create(f"{scratch}/bank", spec) as writer:
            began = time.perf_counter()
            size = getattr(writer, "next_size", 0)
            if size:  # before samples had files of their own
                for _ in range(0, held, size):
                    writer.publish([(sample, {})] * size)
            else:
                for _ in range(held):
                    writer.publish(sample, {})
            wrote = (time.perf_counter() - began) / held
        # As hosts do: eight segments were kept open, and some samples wait for their batch.
        reader = BankReader(f"{scratch}/bank", **({"handles": 8} if size else {}))
        ids, seconds, batch = reader.ids(), [], deque[Any](maxlen=8)
        for number in rng.integers(held, size=400 if reads else 0).tolist():
            began = time.perf_counter()
            batch.append(reader.read(ids[number]))
            seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) if reads else wrote


def evaluation(run: str) -> float:
    """Seconds of a quick evaluation, of the whole command."""
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        gansynth("evaluate", run, "--preset", "quick", "-n", "16", "-o", f"{scratch}/e", "-q")
        return time.perf_counter() - began


def injection(run: str) -> float:
    """nnU-Net's step at p 0.5 over its step without, as this tree's own script measures it."""
    script = next(Path("benchmarks").rglob("bench_injection.py"))
    with tempfile.TemporaryDirectory() as scratch:
        told = {**os.environ, "BENCH_RESULTS": scratch}
        words = [sys.executable, str(script), "--rounds", "40"]
        subprocess.run(words, env=told, stdout=sys.stderr)  # 1: above the bar, by a few steps
        found = json.loads(Path(scratch, "injection.json").read_bytes())
    return float(found["step_over_without"]["p 0.5"]["ratio"])


def in_tree(tree: Path, part: str, run: Path) -> float:
    """Measure a part in a process that imports this source tree."""
    folders = [tree, *(tree / name for name in ("plugins", "adapters", "cli", "benchmarks"))]
    path = ":".join(map(str, (*folders, Path(__file__).parent)))
    told = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, str(tree), "--part", part, "--run", str(run)]
    done = subprocess.run(words, env=told, cwd=tree, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


PARTS: dict[str, Callable[[str], float]] = {
    "sample, 64^2": lambda run: sample(2, 64),
    "sample, 96^3": lambda run: sample(3, 96),
    "draw from a bank": draw,
    "evaluate, quick": evaluation,
    "nnU-Net's step at 1:1 over without": injection,
}
BANKS = {"4x96^3": (96, 3, 4, 32), "64^3": (64, 3, 1, 64), "256^2": (256, 2, 1, 512),
         "64^2": (64, 2, 1, 2048)}  # fmt: skip
for _name, _bank in BANKS.items():
    for _verb, _reads in (("read", True), ("write", False)):
        PARTS[f"bank, {_verb} {_name}"] = lambda run, b=_bank, r=_reads: bank_files(*b, reads=r)


def main() -> None:
    """Measure both trees, and write ``results/NAME.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="before_after")
    parser.add_argument("--parts", nargs="+", choices=(*GANS, *PARTS), default=[*GANS, *PARTS])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        seconds = PARTS[args.part](str(args.run)) if args.part in PARTS else step(args.part)
        print(json.dumps(seconds))
        return
    sides = {"before": args.before.resolve(), "after": ROOT}
    seconds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        fit = ("fit", "cgan3d", "--data", "example:2d", "-o", str(run))
        gansynth(*fit, "--set", "steps=4", "-q")
        for part in args.parts:
            found: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(args.rounds):
                for name in list(sides) if number % 2 == 0 else reversed(sides):
                    found[name].append(in_tree(sides[name], part, run))
            seconds[part] = found
            print(part, {k: float(np.median(v)) for k, v in found.items()}, file=sys.stderr)
    ratios = {part: paired(found["after"], found["before"]) for part, found in seconds.items()}
    commits = {
        name: subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=tree, capture_output=True, text=True
        ).stdout.strip()
        for name, tree in sides.items()
    }
    document = {"commits": commits, "seconds": seconds, "after_over_before": ratios}
    write(args.name, document)
    rows: list[tuple[object, ...]] = [("what", "after / before", "low", "high")]
    rows += [(part, r["ratio"], r["low"], r["high"]) for part, r in ratios.items()]
    print_table(rows)


if __name__ == "__main__":
    main()
