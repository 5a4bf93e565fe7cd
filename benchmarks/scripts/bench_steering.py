"""Can the loss on inner folds find a sampler's right number? Planted truth, simulated brains.

Slices of simulated brains have lesions of a known law of contrast and size. A sampler puts lesions
of that law into lesion-free slices of the training subjects, with its contrast, or size, multiplied
by a factor; 1 is right. For each draw of five subjects and each factor, a small U-Net is trained on
half real, half sampled slices of two inner folds, and its loss is measured on the real slices of
the third. Steering would take the factor of the least loss: how often is that within 20 % of 1?
The arm ``blank`` trains seven times with the factor 1: what the loss varies by chance.

    python benchmarks/scripts/bench_steering.py [--draws 12] [--steps 300]
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import machine, write
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from gansynth.core.generator import Batch
from gansynth.core.schema import Schema
from gansynth.metrics.faithfulness import (
    EvaluationSegmenter,
    EvaluationSegmenterOptions,
    train_segmenter,
)
from gansynth.testing.phantoms.brains import PhantomOptions, make_tissues

Array = NDArray[np.float32]
FACTORS = (0.51, 0.64, 0.8, 1.0, 1.25, 1.56, 1.95)
"""Each a quarter larger than the one before it."""
NEAR = (0.8, 1.25)
EDGE, SLICES = 48, 8
"""Pixels of a slice's edge; slices of a subject, half of them with a lesion."""
SUBJECTS, PEOPLE, FOLDS = 40, 5, 3
CONTRAST, CONTRAST_SPREAD, GRAIN = 2.0, 0.2, 0.25
"""Mean contrast of a lesion in deviations of the brain's signal, its variation, and the grain."""
RADIUS = (2.0, 6.0)
BATCH = 4
SCHEMA = Schema(("FLAIR",), {"background": 0, "lesion": 1}, spacing=(4.0, 4.0), axes="HW")


@dataclass(frozen=True, eq=False)
class Picture:
    """A slice, image (EDGE, EDGE) and labels."""

    image: Array
    labels: NDArray[np.int16]


def healthy_slices(subject: int) -> list[Array]:
    """Return the lesion-free slices of a simulated brain, mean 0 and deviation 1 in the brain."""
    volume = make_tissues(subject, 0, PhantomOptions(spacing_mm=4.0, channels=("FLAIR",))).image[0]
    middle = len(volume) // 2
    found = []
    for plane in volume[middle - SLICES // 2 : middle + SLICES // 2]:
        framed = np.zeros((EDGE, EDGE), np.float32)
        height, width = min(plane.shape[0], EDGE), min(plane.shape[1], EDGE)
        top, left = (plane.shape[0] - height) // 2, (plane.shape[1] - width) // 2
        at = ((EDGE - height) // 2, (EDGE - width) // 2)
        cut = plane[top : top + height, left : left + width]
        framed[at[0] : at[0] + height, at[1] : at[1] + width] = cut
        brain = framed > 0
        framed[brain] = (framed[brain] - framed[brain].mean()) / framed[brain].std()
        framed[~brain] = framed[brain].min()
        found.append(framed)
    return found


def with_lesion(image: Array, rng: np.random.Generator, contrast: float, size: float) -> Picture:
    """Put a lesion of the law into a slice, its contrast and size multiplied by factors."""
    radius = size * rng.uniform(*RADIUS)
    mean = contrast * CONTRAST * max(0.5, rng.normal(1, CONTRAST_SPREAD))
    places = np.argwhere(ndimage.binary_erosion(image > image.min(), iterations=3))
    centre = places[rng.integers(len(places))]
    away = np.stack(np.indices(image.shape), -1) - centre
    angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    turned = away @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    distance = np.hypot(turned[..., 0], turned[..., 1] / ratio)
    bumps = ndimage.gaussian_filter(rng.normal(size=image.shape), 2.0)
    inside = distance * (1 + bumps / (4 * bumps.std())) < radius
    inside &= image > image.min()
    share = ndimage.gaussian_filter(inside.astype(np.float32), 0.7)
    look = mean + GRAIN * rng.normal(size=image.shape)
    changed = np.asarray(image + share * look, np.float32)
    return Picture(changed, inside.astype(np.int16))


def real_slices(subject: int, slices: list[Array]) -> list[Picture]:
    """Return a subject's real slices: every other one has a lesion of the law."""
    rng = np.random.default_rng((1, subject))
    return [
        with_lesion(image, rng, 1.0, 1.0)
        if number % 2
        else Picture(image, np.zeros(image.shape, np.int16))
        for number, image in enumerate(slices)
    ]


def mixed_batches(
    real: list[Picture], free: list[Array], factors: tuple[float, float], seed: int
) -> Any:
    """Return batches of half real slices, half slices with and without a sampled lesion."""

    def batch(step: int, stage: object, samples: range) -> Batch:
        rng = np.random.default_rng((seed, step))
        chosen = [real[i] for i in rng.integers(len(real), size=len(samples) // 2)]
        for number in range(len(samples) - len(chosen)):
            image = free[rng.integers(len(free))]
            empty = Picture(image, np.zeros(image.shape, np.int16))
            chosen.append(with_lesion(image, rng, *factors) if number % 2 else empty)
        images = torch.from_numpy(np.stack([picture.image for picture in chosen])[:, None])
        labels = torch.from_numpy(np.stack([picture.labels for picture in chosen]).astype(np.int64))
        return Batch(images, labels)

    return batch


def inner_loss(segmenter: EvaluationSegmenter, pictures: list[Picture]) -> float:
    """Return cross-entropy and 1 - Dice of the lesion over all pixels of held-out slices."""
    images = torch.from_numpy(np.stack([picture.image for picture in pictures])[:, None])
    labels = torch.from_numpy(np.stack([picture.labels for picture in pictures]).astype(np.int64))
    with torch.no_grad():
        logits = segmenter.net(images).float()
    share = logits.softmax(1)[:, 1]
    overlap = 2 * (share * labels).sum() / (share.sum() + labels.sum())
    return float(F.cross_entropy(logits, labels) + 1 - overlap)


def losses_of(draw: int, what: str, subjects: list[list[Array]], steps: int) -> list[float]:
    """Return the inner folds' mean loss of each factor for a draw of subjects."""
    people = np.random.default_rng((2, draw)).choice(SUBJECTS, PEOPLE, replace=False)
    real = {person: real_slices(person, subjects[person]) for person in people}
    losses = []
    for number, factor in enumerate(FACTORS):
        factors = {"contrast": (factor, 1.0), "size": (1.0, factor), "blank": (1.0, 1.0)}[what]
        folds = []
        for fold in range(FOLDS):
            held_out = people[fold::FOLDS]
            own = [person for person in people if person not in held_out]
            # Of blank alone the seed differs: what it finds is chance.
            seed = zlib.crc32(f"{draw} {fold} {number if what == 'blank' else ''}".encode())
            segmenter = train_segmenter(
                mixed_batches(
                    [picture for person in own for picture in real[person]],
                    [image for person in own for image in subjects[person][::2]],
                    factors,
                    seed,
                ),
                SCHEMA,
                (EDGE, EDGE),
                EvaluationSegmenterOptions(steps=steps, batch_size=BATCH, width=8, seed=seed),
            )
            pictures = [picture for person in held_out for picture in real[person]]
            folds.append(inner_loss(segmenter, pictures))
        losses.append(float(np.mean(folds)))
    return losses


def summary(rows: list[list[float]]) -> dict[str, Any]:
    """Return what steering would have chosen in each draw, and the mean loss of each factor."""
    losses = np.array(rows)
    chosen = [FACTORS[i] for i in losses.argmin(axis=1)]
    gain = losses[:, FACTORS.index(1.0)] - losses.min(axis=1)
    return {
        "losses": np.round(losses, 4).tolist(),
        "mean_loss": dict(
            zip(map(str, FACTORS), losses.mean(axis=0).round(4).tolist(), strict=True)
        ),
        "chosen": chosen,
        "within_20_percent": round(float(np.mean([NEAR[0] <= c <= NEAR[1] for c in chosen])), 3),
        "mean_loss_above_chosen": round(float(gain.mean()), 4),
    }


def main() -> None:
    """Measure all three, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    torch.set_num_threads(1)
    subjects = [healthy_slices(subject) for subject in range(SUBJECTS)]
    found: dict[str, Any] = {}
    for what in ("contrast", "size", "blank"):
        rows = []
        for draw in range(args.draws):
            rows.append(losses_of(draw, what, subjects, args.steps))
            print(what, draw, [round(loss, 3) for loss in rows[-1]], flush=True)
        found[what] = summary(rows)
        print(what, {k: v for k, v in found[what].items() if k != "losses"}, flush=True)
    setting = {"draws": args.draws, "steps": args.steps, "people": PEOPLE, "factors": FACTORS}
    write("steering", {"machine": machine(), "setting": setting, "found": found})


if __name__ == "__main__":
    main()
