"""Training and sampling of ``dcgan`` beside a plain-torch DCGAN of equal FLOPs, images a second.

The peer is written as PyTorch's DCGAN tutorial is: two ``nn.Sequential``, images in one tensor in
memory, a loop over Adam steps, no checkpoint, no average of weights, torch's own memory format
(ours has channels last; ``--channels-last`` gives the peer that too); the discriminator is frozen
while the generator learns, and a step's fakes serve both players. Ours is the registered ``dcgan``
inside the real training loop, its batches drawn from ``slices:`` of volumes. Both have the widths
of Han et al. 2018 (half of DCGAN's), batches of 64 and the same FLOPs a step, counted by torch.
Rounds are alternated in one process; a ratio above 1 says that ours is the slower one.

    python benchmarks/bench_dcgan.py [--size 64 128] [--objective gan wgan wgan-gp]
        [--precision auto fp32] [--rounds 7] [--device cpu]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import alternate, paired, print_table, write
from counting import flops
from torch import Tensor, nn

from gansynth.own_source import open_source
from gansynth.precision import resolve
from gansynth.registry import installed
from gansynth.schema import Condition
from gansynth.sources.base import SourceRequest
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache
from gansynth.training import FitOptions, train

BATCH, LATENT, WIDTH, CRITIC = 64, 100, 64, 5
BAR = 1 / 0.9
"""Most seconds of ours over the peer's at 128 x 128, reading slices included."""
VOLUMES, SHAPE, SLICES = 4, (240, 240, 155), "80-149"
HAN: dict[str, Any] = {
    "images": 15_400,
    "epochs": 25,
    "hours": {64: 1.0, 128: 2.0},
    "gpu": "GTX 980",
}
"""Han et al. 2018, sec. 3.2.1 and 4; they name no epochs: 25 is what DCGAN's authors' code has."""
PEAKS = {
    "GTX 980, fp32": (4.6e12, "NVIDIA GeForce GTX 980 whitepaper: 2048 cores x 1126 MHz x 2"),
    "H200, bf16": (989e12, "NVIDIA H200 datasheet, tensor cores, dense"),
}
"""Peak FLOP/s. No training reaches them: what is projected from them is a bound."""


# -- the peer ------------------------------------------------------------------------------------


def widths_of(size: int) -> list[int]:
    """Channels from the finest features to those of 4 x 4."""
    return [min(512, WIDTH * 2**i) for i in range(int(np.log2(size)) - 2)]


def peer_generator(size: int) -> nn.Sequential:
    """Noise (B, 100, 1, 1) in, images (B, 1, size, size) out."""
    wide = widths_of(size)[::-1]
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, wide[0], 4, 1, 0, bias=False)]
    for cin, cout in pairwise(wide):
        layers += [nn.BatchNorm2d(cin), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(wide[-1]), nn.ReLU(True), nn.ConvTranspose2d(wide[-1], 1, 4, 2, 1)]
    return nn.Sequential(*layers)


def peer_critic(size: int, objective: str) -> nn.Sequential:
    """Images in, one number each out."""
    wide = widths_of(size)
    layers: list[nn.Module] = [nn.Conv2d(1, wide[0], 4, 2, 1), nn.ELU(True)]
    for cin, cout in pairwise(wide):
        norm = nn.GroupNorm(1, cout) if objective == "wgan-gp" else nn.BatchNorm2d(cout)
        layers += [nn.Conv2d(cin, cout, 4, 2, 1), norm, nn.ELU(True)]
    return nn.Sequential(*layers, nn.Conv2d(wide[-1], 1, 4, 1, 0))


class Peer:
    """A DCGAN, WGAN or WGAN-GP as a tutorial writes it."""

    def __init__(
        self, images: Tensor, objective: str, precision: str, channels_last: bool = False
    ) -> None:
        size, self.device = images.shape[-1], images.device
        torch.manual_seed(0)
        self.g, self.d = peer_generator(size), peer_critic(size, objective)
        for net in (self.g, self.d):
            net.to(self.device)
            if channels_last:
                net.to(memory_format=torch.channels_last)
        self.images, self.objective = images, objective
        adam = {"gan": (2e-4, (0.5, 0.999)), "wgan-gp": (1e-4, (0.0, 0.9))}.get(objective)
        self.og, self.od = (
            torch.optim.Adam(net.parameters(), adam[0], adam[1])
            if adam
            else torch.optim.RMSprop(net.parameters(), 5e-5)
            for net in (self.g, self.d)
        )
        kind, bf16 = self.device.type, precision == "bf16"
        self.autocast = torch.autocast(kind, torch.bfloat16, enabled=bf16)
        self.bce = nn.BCEWithLogitsLoss()
        self.ones = torch.ones(BATCH, device=self.device)
        self.steps = 0

    def judged(self, images: Tensor) -> Tensor:
        """Values (B,) in float32."""
        values: Tensor = self.d(images).flatten().float()
        return values

    def step(self) -> None:
        """One of the discriminator; one of the generator with it, or every fifth time."""
        self.steps += 1
        pick = torch.randint(len(self.images), (BATCH,), device=self.device)
        real = self.images[pick]
        turn = self.objective == "gan" or self.steps % CRITIC == 0
        noise = torch.randn(BATCH, LATENT, 1, 1, device=self.device)
        with self.autocast, torch.set_grad_enabled(turn):
            fake = self.g(noise).float()
        self.od.zero_grad()
        with self.autocast:
            loss = self.critic_loss(real, fake.detach())
        loss.backward()  # type: ignore[no-untyped-call]
        self.od.step()
        if self.objective == "wgan":
            for p in self.d.parameters():
                p.data.clamp_(-0.01, 0.01)
        if turn:
            self.d.requires_grad_(False)
            self.og.zero_grad()
            with self.autocast:
                value = self.judged(fake)
                loss = self.bce(value, self.ones) if self.objective == "gan" else -value.mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self.og.step()
            self.d.requires_grad_(True)

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Cross-entropy, or the distance with what keeps the critic smooth."""
        on_real, on_fake = self.judged(real), self.judged(fake)
        if self.objective == "gan":
            found: Tensor = self.bce(on_real, self.ones) + self.bce(on_fake, 1 - self.ones)
            return found
        distance = on_fake.mean() - on_real.mean()
        if self.objective == "wgan":
            return distance
        with torch.autocast(self.device.type, enabled=False):
            share = torch.rand(BATCH, 1, 1, 1, device=self.device)
            mixed = (share * real + (1 - share) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(self.d(mixed).sum(), mixed, create_graph=True)
            penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return distance + 10 * penalty

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """``count`` images in one batch."""
        self.g.eval()
        with self.autocast:
            noise = torch.randn(count, LATENT, 1, 1, device=self.device)
            drawn: Tensor = self.g(noise).float().cpu()
        self.g.train()
        return drawn


# -- ours ----------------------------------------------------------------------------------------


def write_volumes(folder: Path) -> None:
    """Volumes of BRATS' shape with one channel: noise, for speed does not depend on content."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
    for number in range(VOLUMES):
        image = rng.normal(100, 10, SHAPE).astype(np.float32)
        labels = np.zeros(SHAPE, np.uint8)
        labels[90:140, 100:140, 60:90] = 1
        for kind, array in (("imagesTr", image), ("labelsTr", labels)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / kind / f"case{number}.nii")


@dataclass
class Ours:
    """``dcgan`` on slices, as ``gansynth fit`` sets it up."""

    size: int
    objective: str
    volumes: Path
    with_mask: bool = False

    def __post_init__(self) -> None:
        read = {"plane": "sagittal", "slices": SLICES, "resize": f"{self.size}x{self.size}"}
        read |= {"folds": str(VOLUMES)}
        request = SourceRequest.parse(f"slices:nifti:{self.volumes}", read=read)
        source = open_source(request)
        self.cache, space = CaseCache(source), source.space
        cls = installed().generator("dcgan")
        own = {"objective": self.objective, "width": WIDTH, "d_activation": "elu"}
        own["d_norm"] = "layer" if self.objective == "wgan-gp" else "batch"  # as the peer's
        options = cls.Options.model_validate({**own, "with_mask": self.with_mask})
        torch.manual_seed(0)
        self.generator = cls(space.generator_schema(source.schema), space.size, options)
        self.batches = CaseBatches(self.cache, space)
        rng = np.random.default_rng(0)
        cases = [self.batches.cut(case, rng) for case in source.train_ids]
        self.generator.observe(cases)
        self.images = torch.from_numpy(np.stack([case.image for case in cases]))

    def run(self, steps: int, precision: Any, device: torch.device) -> Callable[[], object]:
        """Steps of the real loop."""
        options = FitOptions(steps=steps, batch_size=BATCH, precision=precision)
        return lambda: train(self.generator, self.batches, options, device=device)


@contextmanager
def volumes() -> Iterator[Path]:
    """A folder of volumes that goes again."""
    with tempfile.TemporaryDirectory() as folder:
        write_volumes(Path(folder))
        yield Path(folder)


# -- measuring -----------------------------------------------------------------------------------


def compared(ours: Ours, precision: str, args: argparse.Namespace) -> dict[str, Any]:
    """Training and sampling of both at one size, objective and precision."""
    device, steps = torch.device(args.device), CRITIC * args.fives
    resolved = resolve(precision, device)  # type: ignore[arg-type]
    images = (ours.images - ours.images.mean()) / ours.images.std()
    peer = Peer(images.to(device), ours.objective, resolved, args.channels_last)
    mine = ours.run(steps, precision, device)
    sides = {"ours": mine, "peer": lambda: [peer.step() for _ in range(steps)]}
    costs = {side: flops(run) / steps for side, run in sides.items()}
    seconds = alternate(sides, args.rounds, warmup=1)
    rates = {side: BATCH * steps / median(found) for side, found in seconds.items()}
    return {
        "size": ours.size,
        "objective": ours.objective,
        "precision": resolved,
        "gflop_per_step": {side: cost / 1e9 for side, cost in costs.items()},
        "flops_equal": abs(costs["ours"] / costs["peer"] - 1) < 1e-3,
        "seconds": seconds,
        "images_per_second": rates,
        "time_ours_over_peer": paired(seconds["ours"], seconds["peer"]),
        "reading_ms_per_batch": 1e3 * reading(ours),
        "sampling": sampling(ours, peer, args.rounds),
    }


def reading(ours: Ours) -> float:
    """Seconds a batch of 64 slices takes to draw, once they are at hand."""
    stage = ours.generator.stages()[0]
    found = alternate({"read": lambda: ours.batches(0, stage, range(BATCH))}, 9)
    return median(found["read"])


def sampling(ours: Ours, peer: Peer, rounds: int) -> dict[str, Any]:
    """Images drawn a second: one at a time, and as many as are asked for at once."""
    found = {}
    for count in (1, BATCH):
        asked = [Condition() for _ in range(count)]
        calls = BATCH // count
        sides = {
            "ours": lambda asked=asked, calls=calls: [
                ours.generator.sample(asked, range(len(asked))) for _ in range(calls)
            ],
            "peer": lambda count=count, calls=calls: [peer.sample(count) for _ in range(calls)],
        }
        seconds = alternate(sides, rounds, warmup=1)
        found[f"batch {count}"] = {
            "images_per_second": {k: BATCH / median(v) for k, v in seconds.items()},
            "time_ours_over_peer": paired(seconds["ours"], seconds["peer"]),
        }
    return found


def projected(found: dict[str, Any]) -> dict[str, Any]:
    """Hours of Han's training at the measured rate, and what peak FLOP/s would allow at best."""
    shown = HAN["images"] * HAN["epochs"]
    total = found["gflop_per_step"]["ours"] * 1e9 * shown / BATCH
    return {
        "note": "projection, not a measurement; peaks are bounds that no training reaches",
        "images_shown": shown,
        "hours_here": shown / found["images_per_second"]["ours"] / 3600,
        "hours_han": HAN["hours"].get(found["size"]),
        "petaflop": total / 1e15,
        "least_hours": {name: total / peak / 3600 for name, (peak, _) in PEAKS.items()},
        "sources": {name: source for name, (_, source) in PEAKS.items()},
    }


def main() -> None:
    """Run every comparison asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--objective", nargs="+", default=["gan", "wgan", "wgan-gp"])
    parser.add_argument("--precision", nargs="+", default=["auto", "fp32"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--fives", type=int, default=1, help="times five steps in a round")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels-last", action="store_true", help="the peer's layout too")
    parser.add_argument("--name", default="dcgan")
    args = parser.parse_args()
    results = []
    with volumes() as folder:
        for size in args.size:
            for objective in args.objective:
                for precision in args.precision:
                    found = compared(Ours(size, objective, folder), precision, args)
                    results.append({**found, "projection": projected(found)})
                    print_table(rows(results[-1:]))
    write(args.name, {"bar": BAR, "batch": BATCH, "width": WIDTH, "han": HAN, "results": results})
    print_table(rows(results))


def rows(results: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """A line for each comparison."""
    head = (
        *("size", "objective", "precision", "GFLOP/step: ours, peer", "img/s: ours", "peer"),
        *("time ours/peer", "95 %", "read ms", "sample img/s 64: ours", "peer", "h here", "Han"),
    )
    lines: list[tuple[object, ...]] = [head]
    for r in results:
        cost, rate, t = r["gflop_per_step"], r["images_per_second"], r["time_ours_over_peer"]
        drawn = r["sampling"][f"batch {BATCH}"]["images_per_second"]
        lines.append((
            r["size"], r["objective"], r["precision"], f"{cost['ours']:.2f}, {cost['peer']:.2f}",
            rate["ours"], rate["peer"], t["ratio"], f"{t['low']:.3f} to {t['high']:.3f}",
            r["reading_ms_per_batch"], drawn["ours"], drawn["peer"],
            r["projection"]["hours_here"], r["projection"]["hours_han"],
        ))  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
