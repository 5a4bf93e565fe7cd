"""One GAN training step and its peak memory: cgan3d beside MONAI's parts, equal FLOPs and dtype.

The peer is pix2pix in 3D from MONAI's ``UNet`` (4 levels, 2 residual units) and
``PatchDiscriminator`` (3 layers), LSGAN + L1, Adam, written as a tutorial would: discriminator on
real, on synthetic, then the generator. Ours is the registered ``cgan3d`` through the real training
loop, in one of three shapes: ``pix2pix``, built as the peer is; ``texture``, its default (layers
and a discriminator's head at full resolution, for grain); ``strided``, the default without these.
Widths are chosen so that a step costs the same FLOPs (within 5 %, counted by torch).
Feature matching is off on both sides. Times are alternated in one process; peaks come from fresh
processes.

With ``--growth``: how time and memory of a step grow with the volume, 48^3 to 128^3, each size in a
process of its own, equal widths. Fitted are t = a + b * voxels and the exponent of log t over
log voxels.

    python bench_gan_step.py [--shape strided] [--size 64] [--width 32] [--dtype bf16]
    python bench_gan_step.py --growth [--width 16] [--sizes 48 64 80 96 112 128]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import alternate, print_table, ratio, write
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gansynth.core.generator import Batch
from gansynth.core.registry import installed
from gansynth.core.schema import Schema
from gansynth.nn.networks.blocks import one_hot
from gansynth.training.loop import FitOptions, train

CHANNELS = 2
TOLERANCE = 0.05


PIX2PIX = {
    "levels": 4,
    "style": {
        "g_stem": False,
        "blocks": "residual",
        "d_stem": False,
        "d_down": "strided4",
        "d_norm": "instance",
        "texture_head": False,
    },
    "d_levels": 4,
    "spectral_norm": False,
}
TEXTURE: dict[str, Any] = {"levels": 4, "d_levels": 3}
STRIDED = TEXTURE | {"style": {"g_stem": False, "d_stem": False, "texture_head": False}}
SHAPES: dict[str, dict[str, Any]] = {"pix2pix": PIX2PIX, "texture": TEXTURE, "strided": STRIDED}


def ours(size: int, width: int, d_width: int, shape: str = "pix2pix") -> Any:
    """cgan3d with label and image channels as the peer's: 2 in, 1 out."""
    schema = Schema(("image",), {"background": 0, "organ": 1}, (1.0, 1.0, 1.0))
    cls = installed().generator("cgan3d")
    torch.manual_seed(0)
    return cls(
        schema,
        (size,) * 3,
        cls.Options(width=width, d_width=d_width, feature_matching=0, **SHAPES[shape]),
    )


def batch_of(size: int) -> Batch:
    """One real pair: image (1, 1, D, H, W), labels (1, D, H, W)."""
    rng = torch.Generator().manual_seed(0)
    labels = (torch.rand((1, *(size,) * 3), generator=rng) < 0.3).long()
    return Batch(torch.randn((1, 1, *(size,) * 3), generator=rng), labels)


def our_steps(
    generator: Any, size: int, dtype: str, count: int, device: str = "cpu"
) -> Callable[[], object]:
    """``count`` steps of the real training loop."""
    batch = batch_of(size)
    options = FitOptions(steps=count, batch_size=1, precision=dtype, ema_half_life=1000)

    def run() -> object:
        return train(generator, lambda step, stage, n: batch, options, device=torch.device(device))

    return run


class Peer:
    """MONAI's parts, one training step as a tutorial writes it."""

    def __init__(
        self,
        width: int,
        dtype: str,
        condition: int = CHANNELS,
        ndim: int = 3,
        device: str = "cpu",
    ) -> None:
        from monai.networks.nets import PatchDiscriminator, UNet

        torch.manual_seed(0)
        channels = tuple(width * 2**i for i in range(4))
        self.g = UNet(ndim, condition, 1, channels, (2, 2, 2), num_res_units=2).to(device)
        judge = PatchDiscriminator(ndim, width, in_channels=condition + 1, num_layers_d=3)
        self.d = judge.to(device)
        self.og = torch.optim.Adam(self.g.parameters(), 2e-4, (0.5, 0.999))
        self.od = torch.optim.Adam(self.d.parameters(), 2e-4, (0.5, 0.999))
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16")

    def judge(self, image: Tensor, condition: Tensor) -> Tensor:
        logits: Tensor = self.d(torch.cat((image, condition), 1))[-1].float()
        return logits

    def step(self, condition: Tensor, image: Tensor) -> None:
        with self.autocast:
            fake = self.g(condition).float()
            real_logits = self.judge(image, condition)
            fake_logits = self.judge(fake.detach(), condition)
            d_loss = 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())
        self.od.zero_grad(set_to_none=True)
        d_loss.backward()  # type: ignore[no-untyped-call]
        self.od.step()
        with self.autocast:
            g_loss = (self.judge(fake, condition) - 1).square().mean()
            g_loss = g_loss + 100 * (fake - image).abs().mean()
        self.og.zero_grad(set_to_none=True)
        g_loss.backward()
        self.og.step()


def peer_steps(peer: Peer, size: int, count: int, device: str = "cpu") -> Callable[[], object]:
    """``count`` steps of the peer on one batch."""
    batch = batch_of(size)
    assert batch.labels is not None
    condition = one_hot(batch.labels, range(CHANNELS)).to(device)
    image = batch.image.to(device)
    return lambda: [peer.step(condition, image) for _ in range(count)]


def parameters(*nets: torch.nn.Module) -> int:
    """Parameters of networks, together."""
    return sum(p.numel() for net in nets for p in net.parameters())


def flops(step: Callable[[], object]) -> int:
    """FLOPs of one call, counted by torch (2 per multiply-add)."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def match_widths(
    args: argparse.Namespace, target: int, device: str = "cpu"
) -> tuple[int, int, int]:
    """Widths (generator, discriminator) whose step costs what the peer's does, and its FLOPs.

    Built as the peer is, the generator has its width; else a multiple of 8, as the peer's powers of
    two are. The discriminator's, from half to twice that, makes up the difference. The nearest to
    equal widths within 5 % is taken.
    """
    size, shape = args.size, args.shape
    found: list[tuple[int, int, int, int]] = []
    for width in [args.width] if shape == "pix2pix" else range(8, 65, 8):
        for d_width in range(width // 2, 2 * width + 1):
            # In bf16 whatever is timed: in fp32 empty samples are computed along, and no work.
            cost = flops(our_steps(ours(size, width, d_width, shape), size, "bf16", 1, device))
            if abs(cost - target) <= TOLERANCE * target:
                found.append((abs(width - d_width), width, d_width, cost))
            elif cost > target:
                break
    if not found:
        raise SystemExit(f"no widths cost within 5 % of the peer's {target / 1e9:.1f} GFLOP")
    _, width, d_width, cost = min(found)
    return width, d_width, cost


def in_child(
    side: str, args: argparse.Namespace, size: int, widths: tuple[int, int], *, calls: int
) -> dict[str, float]:
    """``measure`` of so many calls, in a fresh process."""
    command = [sys.executable, __file__, "--size", str(size), "--width", str(args.width)]
    command += ["--dtype", args.dtype, "--shape", args.shape, "--child", side]
    command += ["--ours", *map(str, widths), "--calls", str(calls)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Child: resident MiB at the start, its rise, seconds of the quickest call but the first.

    One call is three steps of one training; of several each is a step.
    """
    steps = 3 if args.calls == 1 else 1

    def steps_of(size: int, count: int) -> Callable[[], object]:
        if args.child == "ours":
            generator = ours(size, *args.ours, args.shape)
            return our_steps(generator, size, args.dtype, count)
        return peer_steps(Peer(args.width, args.dtype), size, count)

    steps_of(32, 1)()  # a first step imports modules, whose memory is no feature's
    call = steps_of(args.size, steps)
    seconds = []

    def run() -> None:
        for _ in range(args.calls):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)

    return {**watched(run), "seconds": min(seconds[1:] or seconds)}


def watched(run: Callable[[], object]) -> dict[str, float]:
    """Resident MiB before a call, and its peak's rise above that."""
    before = resident_mib()
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            peak.append(resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    rise = max(peak) - before
    return {"baseline_mib": round(before, 1), "rise_mib": round(rise, 1)}


def resident_mib() -> float:
    """Resident memory of this process now; the kernel's own maximum includes import peaks."""
    import psutil

    return float(psutil.Process().memory_info().rss / 2**20)


def growth(args: argparse.Namespace) -> None:
    """Time and memory of a step at every size."""
    voxels, sides = [size**3 for size in args.sizes], {}
    rows: list[tuple[object, ...]] = [("side", *(f"{s}^3" for s in args.sizes), "exponent")]
    for side in ("ours", "peer"):
        each = [
            in_child(side, args, size, (args.width, args.width), calls=4) for size in args.sizes
        ]
        values = {key: [one[key] for one in each] for key in ("seconds", "rise_mib")}
        line = {"time": fitted(voxels, values["seconds"])}
        line["memory"] = fitted(voxels, values["rise_mib"])
        sides[side] = {**values, **line}
        rows.append((f"{side} s/step", *values["seconds"], line["time"]["exponent"]))
        rows.append((f"{side} MiB", *values["rise_mib"], line["memory"]["exponent"]))
    document = {"sizes": args.sizes, "width": args.width, "dtype": args.dtype, "sides": sides}
    write(f"growth_{args.dtype}_w{args.width}", document)
    print_table(rows)


def fitted(voxels: list[int], values: list[float]) -> dict[str, float]:
    """Straight line and exponent."""
    slope, start = np.polyfit(voxels, values, 1)
    exponent = np.polyfit(np.log(voxels), np.log(values), 1)[0]
    found = {"per_megavoxel": slope * 1e6, "at_none": start, "exponent": exponent}
    return {key: float(value) for key, value in found.items()}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="pix2pix")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32, help="the peer's first features")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8, help="steps per round")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--growth", action="store_true", help="time and memory over --sizes")
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 64, 80, 96, 112, 128])
    parser.add_argument("--child", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--ours", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args)))
        return
    if args.growth:
        growth(args)
        return
    peer = Peer(args.width, args.dtype)
    target = flops(peer_steps(peer, args.size, 1))
    width, d_width, cost = match_widths(args, target)
    generator = ours(args.size, width, d_width, args.shape)
    mine = our_steps(generator, args.size, args.dtype, args.steps)
    sides = {"ours": mine, "peer": peer_steps(peer, args.size, args.steps)}
    seconds = alternate(sides, args.rounds)
    peaks = {
        side: [in_child(side, args, args.size, (width, d_width), calls=1) for _ in range(3)]
        for side in sides
    }
    time_ratio = ratio(seconds["ours"], seconds["peer"])
    rises = {side: min(p["rise_mib"] for p in found) for side, found in peaks.items()}
    document = {
        "size": args.size,
        "dtype": args.dtype,
        "shape": args.shape,
        "widths": {"ours": [width, d_width], "peer": args.width},
        "parameters": {
            "ours": parameters(*generator.nets.values()),
            "peer": parameters(peer.g, peer.d),
        },
        "gflops_per_step": {"ours": cost / 1e9, "peer": target / 1e9},
        "seconds_per_step": {k: [s / args.steps for s in v] for k, v in seconds.items()},
        "time_ours_over_peer": time_ratio,
        "peak_memory": peaks,
        "memory_ours_over_peer": rises["ours"] / rises["peer"],
    }
    write(f"gan_step_{args.shape}_{args.dtype}_w{args.width}", document)
    medians = {k: sorted(v)[len(v) // 2] / args.steps for k, v in seconds.items()}
    print_table(
        [
            ("side", "GFLOP/step", "s/step", "peak rise MiB"),
            ("cgan3d", cost / 1e9, medians["ours"], rises["ours"]),
            ("MONAI", target / 1e9, medians["peer"], rises["peer"]),
            ("ratio", cost / target, time_ratio["ratio"], rises["ours"] / rises["peer"]),
        ]
    )
    print(f"time ratio 95 % interval: {time_ratio['low']:.3f} to {time_ratio['high']:.3f}")


if __name__ == "__main__":
    main()
