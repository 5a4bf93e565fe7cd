"""The metric ``c2st-cnn``: a small convolutional network tells synthetic from real by slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.metrics.c2st import C2ST, Bools, Judged
from gansynth.metrics.comparison import Image
from gansynth.metrics.encoder import CROP
from gansynth.metrics.estimate import Floats, Indices
from gansynth.metrics.features import AT_ONCE, pictures
from gansynth.metrics.sides import Sides
from gansynth.runtime.devices import pick_device, seeded

BATCH, RATE = 32, 3e-3


class NetworkC2ST(C2ST):
    """Two networks, each trained on one half of the people and asked about the other half."""

    title = "Two-sample test, small network (C2ST)"
    said = "a convolutional network trained on other people's slices"
    rounds = 2

    def judged(
        self, images: Sequence[Image], synthetic: Bools, owners: Sequence[str], sides: Sides
    ) -> Judged:
        """By networks that have not seen them."""
        planes = pictures([image.image for image in images], sides.window)
        said = np.zeros(len(images))
        parts = _parted(owners, sides.rng("c2st folds"))
        for fold, (learnt, asked) in enumerate((parts, parts[::-1])):
            net = _trained(planes, synthetic, learnt, sides, fold)
            said[asked] = _asked(net, planes, asked, pick_device(sides.device))
        return Judged(synthetic, lambda _: said, owners)


class Classifier(nn.Module):
    """Pictures (B, C, H, W) of any size in, one number each out: above 0 for synthetic."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (12, 24, 48)
        layers: list[nn.Module] = []
        for n, width in enumerate(widths):
            before = channels if not n else widths[n - 1]
            layers += [nn.Conv2d(before, width, 3, 2 if n else 1, 1), nn.GroupNorm(4, width)]
            layers += [nn.LeakyReLU(0.1)]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(widths[-1], 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Numbers (B,)."""
        found: Tensor = self.head(self.layers(pictures).mean((2, 3)))
        return found[:, 0]


def _parted(owners: Sequence[str], rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Numbers of the images of either half of the people."""
    names, whose = np.unique(np.array(owners), return_inverse=True)
    first = rng.permutation(len(names)) < len(names) / 2
    return np.flatnonzero(first[whose]), np.flatnonzero(~first[whose])


def _trained(
    planes: Sequence[Tensor], synthetic: Bools, learnt: Indices, sides: Sides, fold: int
) -> Classifier:
    """Trained on as many slices of either side; parts of large ones."""
    device = pick_device(sides.device)
    with seeded(sides.seed + fold):
        net = Classifier(planes[0].shape[2]).to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-2)
    kinds = [learnt[synthetic[learnt]], learnt[~synthetic[learnt]]]
    if not all(map(len, kinds)):  # one side's people all lie in the other half
        return net.eval()
    target = (torch.arange(BATCH) < BATCH // 2).float().to(device)
    steps = sides.effort.classifier
    with sides.reporter.task(steps, "two-sample test") as bar:
        for step in range(steps):
            rng = np.random.default_rng((sides.seed, fold, step))
            plane = planes[int(rng.integers(len(planes)))]
            chosen = np.concatenate([rng.choice(kind, BATCH // 2) for kind in kinds])
            batch = _part(plane[torch.from_numpy(chosen)], rng).to(device)
            loss = F.binary_cross_entropy_with_logits(net(batch), target)
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 + np.cos(np.pi * step / steps)) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            bar.advance(1, loss=float(loss.detach()))
    return net.eval()


def _part(slices: Tensor, rng: np.random.Generator) -> Tensor:
    """Of each image (B, S, C, H, W) one slice, and of that a part, mirrored or not."""
    picked = torch.from_numpy(rng.integers(slices.shape[1], size=len(slices)))
    pictures = slices[torch.arange(len(slices)), picked]
    tops, lefts = (int(rng.integers(max(1, n - CROP + 1))) for n in pictures.shape[-2:])
    part = pictures[..., tops : tops + CROP, lefts : lefts + CROP]
    return part.flip(-1) if rng.random() < 0.5 else part


@torch.no_grad()
def _asked(
    net: Classifier, planes: Sequence[Tensor], asked: Indices, device: torch.device
) -> Floats:
    """Mean over all slices of each image."""
    found: list[Tensor] = []
    for plane in planes:
        own = plane[torch.from_numpy(asked)]
        parts = [net(part.to(device)).cpu() for part in torch.split(own.flatten(0, 1), AT_ONCE)]
        found.append(torch.cat(parts).reshape(own.shape[:2]).mean(1))
    return torch.stack(found).mean(0).double().numpy()


network_c2st = NetworkC2ST()
