"""nnU-Net's training step with a live bank and its producers, beside the step without.

Real nnU-Net trainers on the same preprocessed phantoms (four channels), one augmentation worker
each. Three sides take turns, block by block: *live* draws a share p of its samples from a bank that
a producer keeps fresh, steered to an overhead of 2 %; *idle* is the same trainer while the producer
rests; *without* is a trainer without synthetic samples, the producer resting too. live / without is
what a user pays; live / idle is the truth beside what the steering itself has measured. The first
steps of a block, from batches made before it, do not count. Before the blocks, and after the
warm-up, the samples that the producer makes in a minute are counted by their numbers.

    python benchmarks/measure/bench_live.py [--blocks 16] [--steps 48] [--warmup 250] [--patch 32]
    python benchmarks/measure/bench_live.py --device cuda --producer-device cuda:0 --patch 128 \
        --spacing 1.2 ...
    python benchmarks/measure/bench_live.py --generator parametric --producers 10 ...

Phantoms of 2.5 mm have 62 x 79 x 63 voxels, of 1.2 mm 129 x 165 x 131: nnU-Net makes the patch no
larger than they are. The document says the patch that it used, and the voxels of a sample.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import paired, print_table, write
from hosts import Host, fit_generator, prepare_data

from gansynth.core.run_folder import MANIFEST

BAR, TARGET = 1.05, 1.02
BUDGET = 0.02
RATIOS = {"p 0.3": "7:3", "p 0.5": "1:1"}
CAPACITY, BATCH = 32, 1
"""Samples; one at a time, so that a few minutes show the steering many stretches of work."""
DROPPED = 8
"""Steps at a block's beginning; nnU-Net's loader holds six batches."""
REST = 1e-6


@dataclass
class Sides:
    """Mean seconds of each block's steps, and of their waiting, per side."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=dict)

    def add(self, side: str, host: Host, steps: int, note: Callable[[float, float], None]) -> None:
        for _ in range(DROPPED):
            note(*host.step())
        host.waits.clear()
        began = time.monotonic()
        for _ in range(steps):
            note(*host.step())
        self.seconds.setdefault(side, []).append((time.monotonic() - began) / steps)
        self.waits.setdefault(side, []).append(float(np.mean(host.waits)))


class Live:
    """A live bank, its producer, and the steering of one trainer."""

    def __init__(self, source: Any, run: Path, root: Path, args: argparse.Namespace) -> None:
        from gansynth.bank.draw_log import DrawCounter
        from gansynth.bank.producer import ProducerConfig
        from gansynth.bank.supervisor import ProducerSupervisor
        from gansynth.bank.throttle import ProducerThrottle
        from gansynth.core.bank_options import RefreshPolicy

        self.bank, self.log, self.resting = root / "bank", root / "draws", False
        root.mkdir()
        config = ProducerConfig(
            run=str(run),
            request=source.request.to_json(),
            target="nnunet",
            bank=str(self.bank),
            frozen=False,
            capacity=args.capacity,
            batch=BATCH,
            device=args.producer_device,
            producers=args.producers,
        )
        self.supervisor = ProducerSupervisor(config, root / "producer.log")
        self.supervisor.wait(args.capacity, 300)
        self.tally = DrawCounter(self.log)
        self.steering = ProducerThrottle(
            self.bank, RefreshPolicy(overhead=args.overhead), lambda: self.tally.update().synthetic
        )

    def rest(self) -> None:
        """Let the producer rest, and wait until it does."""
        from gansynth.bank.store import read_heartbeat
        from gansynth.bank.throttle import ThrottleState, write_throttle_state

        if self.resting:
            return
        self.resting = True
        self.steering.pause()
        write_throttle_state(self.bank, ThrottleState(REST, 0))
        time.sleep(2.5)  # a heartbeat is up to a second old
        while read_heartbeat(self.bank).get("working_since") is not None:
            time.sleep(0.5)

    def work(self) -> None:
        """Let the steering say again how hard the producer works."""
        self.resting = False
        self.steering.resume()

    def count(self, host: Host, seconds: float) -> dict[str, Any]:
        """Train for so long, and count what the producer makes meanwhile."""
        began, first = time.monotonic(), self._newest()
        drawn, steps = self.tally.update().synthetic, 0
        while time.monotonic() - began < seconds:
            self.steering.step(*host.step())
            steps += 1
        took, made = time.monotonic() - began, self._newest() - first
        drawn = self.tally.update().synthetic - drawn
        return {
            "seconds": took,
            "steps": steps,
            "samples": made,
            "samples_per_second": made / took,
            "synthetic_draws_per_second": drawn / took,
        }

    def _newest(self) -> int:
        from gansynth.bank.store import list_samples

        return int(list_samples(self.bank)[-1])

    def voxels(self) -> list[int]:
        """The shape of a sample's image, channels first."""
        from gansynth.bank.store import list_samples, read_sample, sample_path

        newest = list_samples(self.bank)[-1]
        return list(read_sample(sample_path(self.bank, newest)).image.shape)

    def report(self) -> dict[str, Any]:
        """What steering and draw log say of themselves."""
        counts = self.tally.update()
        return {
            **self.steering.summary(),
            "sentence": self.steering.status_line(),
            "draws_per_sample": counts.reuse,
            "realised_share": counts.realised,
            "fell_back": counts.fell_back,
        }


def run_ratio(source: Any, run: Path, root: Path, args: argparse.Namespace, p: str) -> Any:
    """All blocks at one ratio."""
    from gansynth.core.ratio import Ratio
    from gansynth.hosts.mixing.mixer import MixerConfig

    live = Live(source, run, root, args)
    hosts: list[Host] = []
    try:
        plan = MixerConfig[str](live.bank, Ratio.parse(RATIOS[p]), log=live.log)
        mixed = Host(source, plan, args.device)
        hosts = [mixed, Host(source, None, args.device)]
        for _ in range(args.warmup):
            live.steering.step(*mixed.step())
        counted = live.count(mixed, args.count)
        sides = Sides()
        for block in range(args.blocks):
            order = ["live", "idle", "without"]
            for side in order if block % 2 == 0 else reversed(order):
                if side == "live":
                    live.work()
                    sides.add(side, mixed, args.steps, live.steering.step)
                else:
                    live.rest()
                    host = mixed if side == "idle" else hosts[1]
                    sides.add(side, host, args.steps, lambda begin, end: None)
        live.rest()
        reported, voxels = live.report(), live.voxels()
        patch = list(map(int, mixed.trainer.configuration_manager.patch_size))
    finally:
        for host in hosts:
            host.close()
        live.supervisor.stop()
    return {
        "patch": patch,
        "sample": voxels,
        "counted": counted,
        "seconds_per_step": sides.seconds,
        "loader_wait_seconds": sides.waits,
        "live_over_without": paired(sides.seconds["live"], sides.seconds["without"]),
        "live_over_idle": paired(sides.seconds["live"], sides.seconds["idle"]),
        "idle_over_without": paired(sides.seconds["idle"], sides.seconds["without"]),
        "steering": reported,
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=16, help="per side and ratio")
    parser.add_argument("--steps", type=int, default=48, help="that count, per block")
    parser.add_argument("--warmup", type=int, default=250, help="live steps before the blocks")
    parser.add_argument("--count", type=float, default=60, help="seconds samples are counted for")
    parser.add_argument("--patch", type=int, default=32, help="edge of the patch, at most, voxels")
    parser.add_argument("--cases", type=int, default=10, help="phantoms, at least five")
    parser.add_argument("--prepared", type=Path, help="folder to keep data and generators in")
    parser.add_argument("--generator", default="cgan3d", help="that samples are drawn by")
    parser.add_argument("--producers", default="1", help="processes that draw; auto: as augment")
    parser.add_argument("--spacing", type=float, default=2.5, help="of the phantoms, mm")
    parser.add_argument("--capacity", type=int, default=CAPACITY, help="samples of the bank")
    parser.add_argument("--features", type=int, nargs="+", help="channels of nnU-Net's stages")
    parser.add_argument("--workers", default="1", help="that augment; auto: nnU-Net's own number")
    parser.add_argument("--device", default="cpu", help="nnU-Net's")
    parser.add_argument("--producer-device", default="cpu")
    parser.add_argument("--overhead", type=float, default=BUDGET, help="what the steering aims at")
    parser.add_argument("--ratios", nargs="+", default=list(RATIOS), choices=list(RATIOS))
    return parser.parse_args()


def main() -> None:
    """Run the comparison."""
    args = parse()
    import torch

    from gansynth.bank.producer_count import count_producers
    from gansynth_nnunet.workers import WORKERS, workers

    if args.device == "cpu":
        torch.set_num_threads(1)
    os.environ.pop(WORKERS, None)
    args.workers = workers() if args.workers == "auto" else int(args.workers)
    os.environ[WORKERS] = str(args.workers)
    asked = None if args.producers == "auto" else int(args.producers)
    args.producers = count_producers(asked, args.producer_device, args.workers, args.capacity)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        root = args.prepared or Path(folder)
        source = prepare_data(root, args.patch, args.features, args.spacing, args.cases)
        run = root / f"run of {args.generator}"
        if not (run / MANIFEST).exists():
            fit_generator(source, run, args.generator)
        for p in args.ratios:
            shared = Path("/dev/shm")
            with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as live:
                results[p] = run_ratio(source, run, Path(live) / "live", args, p)
    passed = all(r["live_over_without"]["ratio"] <= BAR for r in results.values())
    document = {
        "spacing_mm": args.spacing,
        "workers": args.workers,
        "device": args.device,
        "producer_device": args.producer_device,
        "generator": args.generator,
        "producers": args.producers,
        "budget": args.overhead,
        "results": results,
        "bar": BAR,
        "target": TARGET,
        "passed": passed,
    }
    write("live" if args.device == "cpu" else "live_cuda", document)
    show(results)
    if not passed:
        raise SystemExit(f"above the bar, {BAR}")


def show(results: dict[str, Any]) -> None:
    """Print what was found."""
    for p, found in results.items():
        rows: list[tuple[object, ...]] = [(p, "s per step", "of that waiting")]
        for side, seconds in found["seconds_per_step"].items():
            wait = float(np.median(found["loader_wait_seconds"][side]))
            rows.append((side, float(np.median(seconds)), wait))
        print_table(rows)
        for name in ("live_over_without", "live_over_idle", "idle_over_without"):
            one = found[name]
            print(f"{name}: {one['ratio']:.3f} ({one['low']:.3f} to {one['high']:.3f})")
        made = found["counted"]
        print(
            f"patch {found['patch']}, sample {found['sample']}: {made['samples']} samples in "
            f"{made['seconds']:.0f} s, {made['samples_per_second']:.2f} a second; "
            f"{made['synthetic_draws_per_second']:.2f} synthetic draws a second"
        )
        said = found["steering"]
        print(
            f"steering: {said['sentence']}; each sample drawn {said['draws_per_sample']:.1f} times"
        )


if __name__ == "__main__":
    main()
