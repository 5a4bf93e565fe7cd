"""Where a GAN's step spends FLOPs and memory, by resolution: cgan3d's shapes beside MONAI's pair.

``python benchmarks/measure/profile_step.py [--size 64]``: one step in bf16 of each side with the
widths that ``bench_gan_step.py`` found for equal FLOPs. Convolutions that are trained are counted:
three times the FLOPs of a pass, bytes of input and output. What autograd keeps is counted once for
a storage: these figures are the same on a busy machine. The milliseconds are those of oneDNN's log,
of one step on one core; ``padded`` are the ones in convolutions whose features are no multiple of
8, which its blocks fill up with zeros.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from bench_gan_step import Peer, our_steps, ours, peer_steps
from common import RESULTS, print_table, write
from torch import Tensor, nn

SIDES = ("texture", "strided", "pix2pix", "MONAI")
SECOND = "-- the second step --"


def profiled(nets: Iterable[nn.Module], step: Callable[[], object]) -> dict[str, Any]:
    """Convolutions of a step by the edge of what they write, and MB that autograd keeps at most."""
    work: defaultdict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def count(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        weight: Any = module.weight
        places = (given[0] if module.transposed else made)[0, 0].numel()
        edge = max(made.shape[-1], given[0].shape[-1])
        one = work[edge]
        one["convolutions"] += 1
        one["gflop"] += 6 * weight.numel() * places / 1e9
        one["mb"] += 2 * (made.numel() + given[0].numel()) / 1e6  # bf16

    hooks = [
        module.register_forward_hook(count)
        for net in nets
        for module in net.modules()
        if isinstance(module, nn.modules.conv._ConvNd)
    ]
    kept: dict[int, tuple[int, int]] = {}
    most = held = 0

    class Kept:
        """A saved tensor; its storage counts while any of them lives."""

        def __init__(self, tensor: Tensor) -> None:
            nonlocal held, most
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            uses, size = kept.get(self.key, (0, tensor.untyped_storage().nbytes()))
            held += size if not uses else 0
            most = max(most, held)
            kept[self.key] = uses + 1, size

        def __del__(self) -> None:
            nonlocal held
            uses, size = kept[self.key]
            kept[self.key] = uses - 1, size
            held -= size if uses == 1 else 0

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda saved: saved.tensor):
        step()
    for hook in hooks:
        hook.remove()
    rows = {
        edge: {**found, "flop_per_byte": found["gflop"] * 1e3 / found["mb"]}
        for edge, found in sorted(work.items(), reverse=True)
    }
    return {"by_edge": rows, "kept_mb": most / 1e6}


def step_of(side: str, args: argparse.Namespace) -> tuple[str, list[nn.Module], Any]:
    """Name, networks and one step of a side."""
    if side == "MONAI":
        peer = Peer(args.width, "bf16")
        return f"MONAI, width {args.width}", [peer.g, peer.d], peer_steps(peer, args.size, 1)
    path = RESULTS / f"gan_step_{side}_bf16_w{args.width}.json"
    widths = json.loads(path.read_text("utf-8"))["widths"]["ours"]
    generator = ours(args.size, *widths, side)
    name = f"cgan3d {side}, widths {widths[0]} and {widths[1]}"
    return name, list(generator.nets.values()), our_steps(generator, args.size, "bf16", 1)


def logged(side: str, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a second step, by oneDNN's log."""
    words = [sys.executable, __file__, "--size", str(args.size), "--width", str(args.width)]
    environ = {**os.environ, "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, "--child", side], env=environ, capture_output=True, text=True, check=True
    )
    found = {"convolutions_ms": 0.0, "padded_ms": 0.0, "others_ms": 0.0}
    for line in done.stdout.partition(SECOND)[2].splitlines():
        if ",exec," not in line:
            continue
        ms = float(line.rpartition(",")[2])
        features = re.search(r"ic(\d+)oc(\d+)_", line)
        found["others_ms" if features is None else "convolutions_ms"] += ms
        if features and any(int(n) % 16 not in (0, 8) for n in features.groups() if int(n) > 3):
            found["padded_ms"] += ms
    return found


def main() -> None:
    """Profile all sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=16, help="the pair's first features")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        step = step_of(args.child, args)[2]
        step()
        print(SECOND, flush=True)
        step()
        return
    found: dict[str, Any] = {}
    for side in SIDES:
        name, nets, step = step_of(side, args)
        found[name] = {**profiled(nets, step), **logged(side, args)}
    rows: list[tuple[object, ...]] = [
        ("side", "edge", "convolutions", "GFLOP", "MB", "FLOP a byte", "autograd keeps, MB")
    ]
    for side, one in found.items():
        kept: object = one["kept_mb"]
        for edge, row in one["by_edge"].items():
            rows.append((side, edge, *row.values(), kept))
            side, kept = "", ""
    print_table(rows)
    times = ("convolutions_ms", "padded_ms", "others_ms")
    print_table([("side", *times), *((n, *(one[t] for t in times)) for n, one in found.items())])
    write("profile_step", {"size": args.size, "dtype": "bf16", "sides": found})


if __name__ == "__main__":
    main()
