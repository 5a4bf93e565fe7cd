"""Classifier two-sample test: can a small network distinguish samples from real images?

Lopez-Paz & Oquab 2017 (arXiv:1610.06545). Chance accuracy is 0.5. Images of one subject, and
samples of that subject's labels, resemble each other. So they never classify each other, and
permutations move them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.comparison import (
    Comparison,
    Estimate,
    Floats,
    Image,
    Indices,
    Metric,
    drawn_anew,
    halves,
    median_estimate,
    numbered,
)
from gansynth.metrics.features import AT_ONCE, CROP, cosine, descend, pictures
from gansynth.runtime.devices import pick_device, seeded

PERMUTATIONS = 999
DRAWN = 1000  # bootstrap samples of subjects
BATCH, RATE = 32, 3e-3  # batch size and learning rate of the network

Bools = npt.NDArray[np.bool_]


class C2ST(Metric):
    """A classifier's accuracy, with a permutation p and a bootstrap interval over subjects.

    Two networks: each is trained on half of the subjects and tested on the other half.
    """

    name = "c2st-cnn"
    title = "Two-sample test, small network (C2ST)"
    rounds = 2
    least = 16

    def compute(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        comparison = Comparison(samples, real, schema)
        result = classified(comparison)
        return {"accuracy": result.accuracy, "p": result.p(comparison.rng("c2st"))}

    def figures(self, comparison: Comparison) -> list[Estimate]:
        self.check(comparison)
        result = classified(comparison)
        low, high = result.interval(comparison.rng("c2st people"))
        reals = []
        for split in halves(
            comparison.drawn_of, comparison.people, self.rounds, comparison.rng("c2st halves")
        ):
            numbers = [*split.control, *split.real]
            images = [comparison.real[n] for n in numbers]
            owners = [comparison.people[n] for n in numbers]
            first = np.arange(len(numbers)) < len(split.control)
            reals.append(_classify(images, first, owners, comparison).accuracy)
        # A few rounds give no interval, so the range of chance for so few subjects is used.
        reach = 2 * result.error
        what = (
            "accuracy of a convolutional network trained on other subjects' slices; 0.5 is chance"
        )
        return [
            Estimate(
                self.name, "accuracy", self.title, what, "half", result.accuracy, low, high,
                float(np.mean(reals)), min(*reals, 0.5 - reach), max(*reals, 0.5 + reach),
                p=result.p(comparison.rng("c2st")), images=len(result.owner) // 2,
                splits=self.rounds,
            )
        ]  # fmt: skip


def classified(comparison: Comparison) -> Classified:
    """Classify as many samples as real crops."""
    count = min(len(comparison.samples), len(comparison.real))
    images: list[Image] = []
    owners: list[str] = []
    for side, all_images, all_owners in (
        ("samples", comparison.samples, comparison.drawn_of),
        ("real", comparison.real, comparison.people),
    ):
        order = comparison.rng(f"c2st {side}").permutation(len(all_images))
        for number in np.sort(order[:count]):
            images.append(all_images[number])
            owners.append(all_owners[number])
    return _classify(images, np.arange(2 * count) < count, owners, comparison)


def _classify(
    images: Sequence[Image], synthetic: Bools, owners: Sequence[str], comparison: Comparison
) -> Classified:
    """Classify by networks that were not trained on these subjects."""
    planes = pictures([image.image for image in images], comparison.window)
    scores = np.zeros(len(images))
    owner = numbered(owners)
    people = int(owner.max()) + 1
    first = (comparison.rng("c2st folds").permutation(people) < people / 2)[owner]
    halves_of = np.flatnonzero(first), np.flatnonzero(~first)
    for fold, (train, test) in enumerate((halves_of, halves_of[::-1])):
        net = _trained(planes, synthetic, train, comparison, fold)
        scores[test] = _asked(net, planes, test, pick_device(comparison.device))
    return Classified(synthetic, scores, owners)


class Classified:
    """A classifier's predictions for images, and the uncertainty of its accuracy.

    ``synthetic``: (N,), sides. ``scores``: (N,), above 0 synthetic, below 0 real; 0 counts half.
    """

    def __init__(self, synthetic: Bools, scores: Floats, owners: Sequence[str]) -> None:
        self.synthetic, self.signs, self.owner = synthetic, np.sign(scores), numbered(owners)

    @property
    def accuracy(self) -> float:
        """Mean over both sides, each weighted half."""
        return self._balanced(self.synthetic)

    def p(self, rng: np.random.Generator) -> float:
        """Share of permutations, by blocks of a subject, with at least this accuracy."""
        accuracy, as_good = self.accuracy, 0
        for _ in range(PERMUTATIONS):
            as_good += self._balanced(permuted(self.synthetic, self.owner, rng)) >= accuracy - 1e-12
        return (1 + as_good) / (1 + PERMUTATIONS)

    def interval(self, rng: np.random.Generator) -> tuple[float, float]:
        """95 % interval of the accuracy, by resampling subjects."""
        return median_estimate(self._drawn(rng))

    @property
    def error(self) -> float:
        """Standard error of the accuracy."""
        return float(np.std(self._drawn(np.random.default_rng(0))))

    def _drawn(self, rng: np.random.Generator) -> Floats:
        accuracies = []
        for _ in range(DRAWN):
            weights = drawn_anew(self.owner, rng)
            if weights[self.synthetic].any() and weights[~self.synthetic].any():
                accuracies.append(self._balanced(self.synthetic, weights))
        return np.array(accuracies)

    def _balanced(self, synthetic: Bools, weights: Indices | None = None) -> float:
        """Mean share of correct predictions, if the sides were these."""
        right, parts = (1 + np.where(synthetic, self.signs, -self.signs)) / 2, []
        for side in (synthetic, ~synthetic):
            of_side = None if weights is None else weights[side]
            parts.append(float(np.average(right[side], weights=of_side)) if side.any() else 0.5)
        return sum(parts) / 2


def permuted(synthetic: Bools, owner: Indices, rng: np.random.Generator) -> Bools:
    """Permute sides so that all images of a subject on one side move together.

    A subject's two blocks, if it has both, are swapped or not. All other blocks are shuffled.
    """
    people = int(owner.max()) + 1
    images, drawn = np.bincount(owner, minlength=people), np.bincount(owner, synthetic, people)
    both = (drawn > 0) & (drawn < images)
    side = drawn > 0
    alone = np.flatnonzero((images > 0) & ~both)
    side[alone] = side[rng.permutation(alone)]
    swapped = rng.random(people) < 0.5
    return np.where(both[owner], synthetic ^ swapped[owner], side[owner])


class Classifier(nn.Module):
    """Pictures (B, C, H, W) of any size in, one score each out: above 0 means synthetic."""

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
        """Return scores (B,)."""
        logits: Tensor = self.head(self.layers(pictures).mean((2, 3)))
        return logits[:, 0]


def _trained(
    planes: Sequence[Tensor], synthetic: Bools, train: Indices, comparison: Comparison, fold: int
) -> Classifier:
    """Train on balanced batches of both sides; large slices are cropped."""
    device = pick_device(comparison.device)
    with seeded(comparison.seed + fold):
        net = Classifier(planes[0].shape[2]).to(device).train()
    kinds = [train[synthetic[train]], train[~synthetic[train]]]
    if not all(map(len, kinds)):  # all subjects of one side are in the other half
        return net.eval()
    target = (torch.arange(BATCH) < BATCH // 2).float().to(device)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng((comparison.seed, fold, step))
        plane = planes[int(rng.integers(len(planes)))]
        chosen = np.concatenate([rng.choice(kind, BATCH // 2) for kind in kinds])
        batch = _part(plane[torch.from_numpy(chosen)], rng).to(device)
        return F.binary_cross_entropy_with_logits(net(batch), target)

    steps = comparison.effort.classifier
    rate = cosine(RATE, steps)
    descend(net.parameters(), loss, rate, steps, comparison.reporter, "two-sample test")
    return net.eval()


def _part(slices: Tensor, rng: np.random.Generator) -> Tensor:
    """Take one slice of each image (B, S, C, H, W), crop it, and flip it at random."""
    picked = torch.from_numpy(rng.integers(slices.shape[1], size=len(slices)))
    pictures = slices[torch.arange(len(slices)), picked]
    tops, lefts = [int(rng.integers(max(1, n - CROP + 1))) for n in pictures.shape[-2:]]
    part = pictures[..., tops : tops + CROP, lefts : lefts + CROP]
    return part.flip(-1) if rng.random() < 0.5 else part


@torch.no_grad()
def _asked(
    net: Classifier, planes: Sequence[Tensor], test: Indices, device: torch.device
) -> Floats:
    """Mean score over all slices of each image."""
    scores: list[Tensor] = []
    for plane in planes:
        chosen = plane[torch.from_numpy(test)]
        parts = [net(part.to(device)) for part in torch.split(chosen.flatten(0, 1), AT_ONCE)]
        scores.append(torch.cat(parts).cpu().reshape(chosen.shape[:2]).mean(1))
    return torch.stack(scores).mean(0).double().numpy()
