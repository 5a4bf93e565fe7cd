"""Training of ``cpggan`` at full resolution beside a plain-torch PGGAN of equal FLOPs, images/s.

The peer is a minimal PGGAN (Karras et al. 2018, table 2) whose layers see the same box maps: plain
convolutions, pixel norm, minibatch deviation, WGAN-GP with drift, images and maps in one tensor in
memory, a loop over Adam steps; no equalised rate, no checkpoint, no average of weights, torch's
own memory format. Ours is the registered ``cpggan`` inside the real training loop, its batches
read from ``yolo:``, its maps drawn from boxes. Both have the same widths, batches of 16, real
images with another's boxes in the critic (ours by default), and the same FLOPs a step, counted by
torch. Rounds are alternated in one process; a ratio above 1 says that ours is the slower one. An
image counts once for each step that shows it as a real one.

    python benchmarks/bench_cpggan.py [--size 64 128 256] [--precision auto fp32] [--rounds 7]
        [--device cpu] [--tiny]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import alternate, paired, print_table, write
from counting import flops
from torch import Tensor, nn

from gansynth.own_source import open_source
from gansynth.png import png_bytes
from gansynth.precision import resolve
from gansynth.registry import installed
from gansynth.sources.base import SourceRequest
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache
from gansynth.training import FitOptions, train

BATCH, LATENT, GROUP, MISMATCH = 16, 128, 4, 0.5
IMAGES = 64
TARGET = {"images_per_second": 600, "size": 128, "device": "NVIDIA H200"}
"""What is aimed at; a number is in ``results`` only where it was measured."""


# -- the peer ------------------------------------------------------------------------------------


def unit(x: Tensor) -> Tensor:
    """Leaky ReLU, then each pixel's features at length 1."""
    x = F.leaky_relu(x, 0.2)
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def with_maps(x: Tensor, maps: Tensor) -> Tensor:
    """Features and maps side by side."""
    return torch.cat((x, maps.to(x.dtype)), 1)


def shrunk(maps: Tensor, levels: int) -> list[Tensor]:
    """Maps of every resolution, 4 x 4 first."""
    found = [maps]
    for _ in range(levels):
        found.append(F.avg_pool2d(found[-1], 2))
    return found[::-1]


class PeerGenerator(nn.Module):
    """Noise (B, 128) and maps (B, 1, S, S) in, images (B, 1, S, S) out."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Linear(LATENT, widths[0] * 16)
        self.begin = nn.Conv2d(widths[0] + 1, widths[0], 3, padding=1)
        pairs = list(pairwise(widths))
        self.enter = nn.ModuleList(nn.Conv2d(a + 1, b, 3, padding=1) for a, b in pairs)
        self.refine = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1) for _, b in pairs)
        self.image = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, noise: Tensor, maps: Tensor) -> Tensor:
        """Draw."""
        seen = shrunk(maps, len(self.enter))
        noise = noise * torch.rsqrt(noise.square().mean(1, keepdim=True) + 1e-8)
        x = unit(self.first(noise).unflatten(1, (-1, 4, 4)))
        x = unit(self.begin(with_maps(x, seen[0])))
        for enter, refine, maps in zip(self.enter, self.refine, seen[1:], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = unit(refine(unit(enter(with_maps(x, maps)))))
        drawn: Tensor = self.image(x)
        return drawn


class PeerCritic(nn.Module):
    """Images with maps (B, 2, S, S) in, one number each out."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))[::-1]
        self.image = nn.Conv2d(2, widths[-1], 1)
        self.refine = nn.ModuleList(nn.Conv2d(b + 1, b, 3, padding=1) for _, b in pairs)
        self.leave = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairs)
        self.end = nn.Conv2d(widths[0] + 2, widths[0], 3, padding=1)
        self.dense = nn.Linear(widths[0] * 16, widths[0])
        self.head = nn.Linear(widths[0], 1)

    def forward(self, pair: Tensor) -> Tensor:
        """Judge."""
        seen = shrunk(pair[:, 1:], len(self.refine))
        x = F.leaky_relu(self.image(pair), 0.2)
        for refine, leave, maps in zip(self.refine, self.leave, seen[:0:-1], strict=True):
            x = F.leaky_relu(refine(with_maps(x, maps)), 0.2)
            x = F.avg_pool2d(F.leaky_relu(leave(x), 0.2), 2)
        groups = x.float().reshape(-1, GROUP, *x.shape[1:])
        deviation = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        deviation = deviation.repeat_interleave(GROUP).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
        x = torch.cat((x, deviation.to(x.dtype), seen[0].to(x.dtype)), 1)
        x = F.leaky_relu(self.end(x), 0.2)
        value: Tensor = self.head(F.leaky_relu(self.dense(x.flatten(1)), 0.2))
        return value.float()


class Peer:
    """A PGGAN at its last resolution, as one would write it down."""

    def __init__(self, images: Tensor, maps: Tensor, widths: Sequence[int], precision: str) -> None:
        torch.manual_seed(0)
        self.device = images.device
        self.g = PeerGenerator(widths).to(self.device)
        self.d = PeerCritic(widths).to(self.device)
        self.og, self.od = (
            torch.optim.Adam(net.parameters(), 1e-3, (0.0, 0.99)) for net in (self.g, self.d)
        )
        self.images, self.maps = images, maps
        bf16 = precision == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def step(self) -> None:
        """One of the generator, then one of the critic on what was drawn."""
        pick = torch.randint(len(self.images), (BATCH,), device=self.device)
        real = torch.cat((self.images[pick], self.maps[pick]), 1)
        maps = real[:, 1:]
        self.d.requires_grad_(False)
        self.og.zero_grad()
        with self.autocast:
            drawn = self.g(torch.randn(BATCH, LATENT, device=self.device), maps).float()
            fake = torch.cat((drawn, maps), 1)
            loss = -self.d(fake).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.og.step()
        self.d.requires_grad_(True)
        self.od.zero_grad()
        with self.autocast:
            loss = self.critic_loss(real, fake.detach())
        loss.backward()  # type: ignore[no-untyped-call]
        self.od.step()

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Distance, gradient penalty, drift; half of what is not real has another's boxes."""
        maps = real[:, 1:].reshape(-1, GROUP, *real[:, 1:].shape[1:]).roll(1, 1).flatten(0, 1)
        wrong = torch.cat((real[:, :1], maps), 1)
        on_real, on_fake, on_wrong = self.d(torch.cat((real, fake, wrong))).chunk(3)
        other = torch.lerp(on_fake.mean(), on_wrong.mean(), MISMATCH)
        with torch.autocast(self.device.type, enabled=False):
            shares = torch.rand(2, BATCH, 1, 1, 1, device=self.device)
            fake = torch.where(shares[0] < MISMATCH, wrong, fake)
            mixed = (shares[1] * real + (1 - shares[1]) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(self.d(mixed).sum(), mixed, create_graph=True)
            penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        found: Tensor = other - on_real.mean() + 10 * penalty + 1e-3 * on_real.square().mean()
        return found


# -- ours ----------------------------------------------------------------------------------------


def write_set(folder: Path, size: int) -> Path:
    """A YOLO data set of noise with one box each, for speed does not depend on content."""
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 1)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size, size)).astype(np.uint8)
            (folder / "images" / split / f"{split}{number}.png").write_bytes(png_bytes(pixels))
            (folder / "labels" / split / f"{split}{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    text = "train: images/train\nval: images/val\nnames: [lesion]\nchannels: 1\n"
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


class Ours:
    """``cpggan`` as ``gansynth fit`` sets it up, at its last stage."""

    def __init__(self, data: Path, size: int) -> None:
        request = SourceRequest.parse(f"yolo:{data}", read={"size": f"{size}x{size}"})
        source = open_source(request)
        space = source.space
        cls = installed().generator("cpggan")
        given = {"mismatch": MISMATCH, "minibatch": GROUP, "latent": LATENT, "fade_images": 0}
        torch.manual_seed(0)
        self.generator: Any = cls(
            space.generator_schema(source.schema), space.size, cls.Options.model_validate(given)
        )
        self.batches = CaseBatches(CaseCache(source), space)
        rng = np.random.default_rng(0)
        cases = [self.batches.cut(case, rng) for case in source.train_ids]
        self.generator.observe(cases)
        self.last = self.generator.stages()[-1]
        self.generator.stages = lambda: [self.last]
        self.images = torch.from_numpy(np.stack([case.image for case in cases]))
        self.widths: tuple[int, ...] = self.generator.growth.widths

    def run(self, steps: int, precision: Any, device: torch.device) -> Callable[[], object]:
        """Steps of the real loop."""
        options = FitOptions(
            steps=steps, batch_size=BATCH, precision=precision, ema_half_life=10_000
        )
        return lambda: train(self.generator, self.batches, options, device=device)

    def reading(self) -> float:
        """Milliseconds a batch takes to read, once the files are at hand."""
        found = alternate({"read": lambda: self.batches(0, self.last, range(BATCH))}, 9)
        return 1e3 * median(found["read"])


# -- measuring -----------------------------------------------------------------------------------


def compared(ours: Ours, size: int, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """Training of both at one size and precision."""
    device, steps = torch.device(args.device), args.steps
    resolved = resolve(precision, device)  # type: ignore[arg-type]
    images = (ours.images - ours.images.mean()) / ours.images.std()
    maps = torch.zeros_like(images)
    low, high = round(0.4 * size), round(0.6 * size)
    maps[:, :, low:high, low:high] = 1
    peer = Peer(images.to(device), maps.to(device), ours.widths, resolved)

    def theirs() -> None:
        for _ in range(steps):
            peer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    sides = {"ours": ours.run(steps, precision, device), "peer": theirs}
    costs = {side: flops(run) / steps for side, run in sides.items()}
    seconds = alternate(sides, args.rounds, warmup=1)
    return {
        "size": size,
        "precision": resolved,
        "device": str(device),
        "steps_a_round": steps,
        "gflop_per_step": {side: cost / 1e9 for side, cost in costs.items()},
        "flops_equal": abs(costs["ours"] / costs["peer"] - 1) < 1e-2,
        "seconds": seconds,
        "images_per_second": {k: BATCH * steps / median(v) for k, v in seconds.items()},
        "time_ours_over_peer": paired(seconds["ours"], seconds["peer"]),
        "reading_ms_per_batch": ours.reading(),
    }


def main() -> None:
    """Run every comparison asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--precision", nargs="+", default=["auto", "fp32"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="see that it runs; no results")
    parser.add_argument("--name", default="cpggan")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.rounds, args.steps, args.name = [16], 2, 2, f"tiny_{args.name}"
    results: list[dict[str, Any]] = []
    for size in args.size:
        with tempfile.TemporaryDirectory() as folder:
            ours = Ours(write_set(Path(folder), size), size)
            for precision in args.precision:
                results.append(compared(ours, size, precision, args))
                print_table(rows(results[-1:]))
    document = {"batch": BATCH, "target": TARGET, "results": results}
    if not args.tiny:
        write(args.name, document)
    print_table(rows(results))


def rows(results: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """A line for each comparison."""
    head = ("size", "precision", "GFLOP/step: ours, peer", "img/s: ours", "peer")
    lines: list[tuple[object, ...]] = [(*head, "time ours/peer", "95 %", "read ms")]
    for r in results:
        cost, rate, t = r["gflop_per_step"], r["images_per_second"], r["time_ours_over_peer"]
        lines.append((
            r["size"], r["precision"], f"{cost['ours']:.3f}, {cost['peer']:.3f}", rate["ours"],
            rate["peer"], t["ratio"], f"{t['low']:.3f} to {t['high']:.3f}",
            r["reading_ms_per_batch"],
        ))  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
