"""nnU-Net's training step with a share of its samples from a frozen bank, beside the step without.

All trainers are nnU-Net's own, on the same preprocessed phantoms (four channels), small plans, one
process, no augmentation workers: whatever drawing costs lies in the step. A step is one batch from
nnU-Net's loader (augmentation included: the loader's wait) and one ``train_step``. Sides alternate
step by step. What one draw takes, ``bench_draws.py`` measures.

    python benchmarks/measure/bench_injection.py [--rounds 200] [--patch 48]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, print_table, ratio, write
from hosts import Host, fit_generator, prepare_data

BAR = 1.05
BANK = 48
SIDES = {"p 0.5": "1:1", "p 0.3": "7:3"}
WARMUP = 4


def fill_bank(source: Any, root: Path) -> Path:
    """A frozen bank from a generator fitted for two steps: real shapes, channels and extras."""
    from gansynth.bank.reader import BankSpec, BankWriter
    from gansynth.core.intake import intake_of
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.sampler import Sampler

    run = load_run(fit_generator(source, root / "run"))
    intake = intake_of("nnunet", source)
    spec = BankSpec(
        schema=source.schema,
        lineage=run.lineage,
        run_id=run.run_id,
        generator=run.manifest_sha256,
        frozen=True,
        capacity=BANK,
    )
    writer = BankWriter.create(root / "bank", spec)
    sampler = Sampler(run, source)
    for first in range(0, BANK, 16):
        for sample in sampler.draw(first, 16):
            writer.publish(sample, intake.finalise(sample))
    writer.finish()
    return root / "bank"


def compare(hosts: dict[str, Host], rounds: int) -> dict[str, Any]:
    """Seconds per step and of waiting for the loader, and each side over the one without."""
    seconds = alternate({k: host.step for k, host in hosts.items()}, rounds, warmup=WARMUP)
    waits = {k: host.waits[-rounds:] for k, host in hosts.items()}
    return {
        "seconds_per_step": seconds,
        "loader_wait_seconds": waits,
        "step_over_without": {k: ratio(seconds[k], seconds["without"]) for k in SIDES},
        "loader_wait_over_without": {k: ratio(waits[k], waits["without"]) for k in SIDES},
    }


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="training steps per side")
    parser.add_argument("--patch", type=int, default=48, help="edge of the patch, voxels")
    args = parser.parse_args()
    from gansynth.core.ratio import Ratio
    from gansynth.hosts.mixing.mixer import MixerConfig

    os.environ.update(nnUNet_n_proc_DA="0")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = prepare_data(root, args.patch)
        bank = fill_bank(source, root)
        hosts = {k: Host(source, MixerConfig(bank, Ratio.parse(v))) for k, v in SIDES.items()}
        hosts["without"] = Host(source)
        found = compare(hosts, args.rounds)
        shape = [len(source.schema.channels), *source.space.size]
    steps = found["step_over_without"]
    document = {
        "patch": [args.patch] * 3,
        "batch_size": int(hosts["without"].trainer.batch_size),
        "sample_shape": shape,
        **found,
        "bar": BAR,
        "passed": all(step["ratio"] <= BAR for step in steps.values()),
    }
    write("injection", document)
    rows: list[tuple[object, ...]] = [("step", "s median", "s mean", "loader s median")]
    for name, times in found["seconds_per_step"].items():
        wait = float(np.median(found["loader_wait_seconds"][name]))
        rows.append((name, float(np.median(times)), float(np.mean(times)), wait))
    print_table(rows)
    for name, step in steps.items():
        print(f"{name} / without: {step['ratio']:.3f} ({step['low']:.3f} to {step['high']:.3f})")
    if not document["passed"]:
        raise SystemExit(f"above the bar, {BAR}")


if __name__ == "__main__":
    main()
