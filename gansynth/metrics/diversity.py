"""Are samples as unlike each other as real cases are, or has a generator lost its modes?

Odena et al. 2017 (arXiv:1610.09585), sec. 4.2: the mean MS-SSIM of random pairs of samples, beside
that of random pairs of real images. It is 1 if all are the same image.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gansynth.core.schema import Case, FloatArray, Sample, Schema
from gansynth.metrics.ms_ssim import ms_ssim

PAIRS = 256
"""Most pairs that are compared."""
AT_ONCE = 1 << 20
"""Voxels of images that are compared at once; more are slower, not faster."""
PERCENTILES = (0.5, 99.5)
"""Of real intensities: what images are clipped to, so that no single voxel sets the scale."""

FEW = 8
"""People below which real pairs may be of one person."""

Window = npt.NDArray[np.float32]
"""(C, 2): lowest and highest intensity of each channel."""


@dataclass(frozen=True)
class Likeness:
    """How alike images are.

    Attributes:
        mean: mean MS-SSIM of pairs, 0 to 1; NaN if there is no pair.
        error: standard error of the mean; NaN if there are too few images to tell.
        pairs: how many were compared.
    """

    mean: float
    error: float
    pairs: int


def window_of(images: Sequence[FloatArray]) -> Window:
    """The 0.5 and 99.5 percentiles of each channel of real images (C, D, H, W) or (C, H, W)."""
    channels = zip(*images, strict=True)
    bounds = [np.percentile(np.concatenate([i.ravel() for i in c]), PERCENTILES) for c in channels]
    return np.array(bounds, np.float32)


def windowed(images: Sequence[FloatArray], window: Window) -> Tensor:
    """Images as one float32 tensor (N, C, ...), the window being 0 to 1 and the rest clipped."""
    stacked = torch.from_numpy(np.stack(images))
    shape = (-1, *[1] * (stacked.ndim - 2))
    low, high = (torch.from_numpy(bound.copy()).reshape(shape) for bound in window.T)
    return ((stacked - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def pairwise(
    images: Tensor,
    pairs: int,
    rng: np.random.Generator,
    *,
    owners: Sequence[Hashable] | None = None,
    kinds: Sequence[Hashable] | None = None,
) -> Likeness:
    """Mean MS-SSIM of random pairs of images.

    Args:
        images: float32 (N, C, D, H, W) or (N, C, H, W), 0 to 1.
        pairs: most pairs; all of them if there are no more.
        rng: draws the pairs.
        owners: whose image each is; only those of different owners are paired. None: each image
            is nobody else's.
        kinds: of which kind each is; only those of one kind are paired. None: all are.

    Returns:
        The mean with its standard error by the jackknife over owners: pairs share images, so they
        are no independent draws, and neither are images of one owner.
    """
    whose = _numbered(range(len(images)) if owners is None else owners)
    which = _numbered([0] * len(images) if kinds is None else kinds)
    first, second = np.triu_indices(len(images), 1)
    fit = (whose[first] != whose[second]) & (which[first] == which[second])
    first, second = first[fit], second[fit]
    if not len(first):
        return Likeness(float("nan"), float("nan"), 0)
    if len(first) > pairs:
        kept = rng.choice(len(first), pairs, replace=False)
        first, second = first[kept], second[kept]
    at_once = max(1, AT_ONCE // images[0].numel())
    parts = [
        ms_ssim(images[first[i : i + at_once]], images[second[i : i + at_once]], 1.0)
        for i in range(0, len(first), at_once)
    ]
    found = torch.cat(parts).double().numpy()
    return Likeness(float(found.mean()), _error(found, whose[first], whose[second]), len(found))


def _numbered(names: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _error(
    found: npt.NDArray[np.float64], first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> float:
    """Standard error of the mean over pairs, leaving out each owner in turn with all its pairs."""
    without = []
    for owner in np.union1d(first, second):
        others = found[(first != owner) & (second != owner)]
        if not len(others):
            return float("nan")
        without.append(float(others.mean()))
    n = len(without)
    return float(np.sqrt((n - 1) * np.var(without)))


def owners_of(cases: Sequence[Case]) -> list[str]:
    """Whose each case is: its subject's; its own where there are less than eight subjects.

    Neighbouring slices of one person are near-copies of each other. But a generator that has seen
    few people draws pairs of one person as well, and must not be blamed for it.
    """
    subjects = [case.subject for case in cases]
    return subjects if len(set(subjects)) >= FEW else [case.id for case in cases]


def likenesses(
    samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Mapping[str, float]:
    """Mean MS-SSIM of pairs of samples, and of real cases beside.

    Returns:
        ``{"ms_ssim samples": 0.31, "ms_ssim real": 0.29, ...}`` with their standard errors, and the
        same within each class where cases have classes; NaN where there is no pair.
    """
    window = window_of([case.image for case in real])
    drawn, true = (
        windowed([s.image for s in samples], window),
        windowed([c.image for c in real], window),
    )
    owners = np.array(owners_of(real))
    found: dict[str, float] = {}
    asked = [s.provenance.get("class") for s in samples]
    known = [None if c.label_class is None else schema.classes[c.label_class] for c in real]
    for name in ("", *schema.classes):
        a = [i for i, kind in enumerate(asked) if not name or kind == name]
        b = [i for i, kind in enumerate(known) if not name or kind == name]
        rng = np.random.default_rng(0)
        sides = {
            "samples": pairwise(drawn[a], PAIRS, rng),
            "real": pairwise(true[b], PAIRS, rng, owners=owners[b].tolist()),
        }
        for side, likeness in sides.items():
            of = f"{side} {name}".rstrip()
            found |= {f"ms_ssim {of}": likeness.mean, f"ms_ssim {of} error": likeness.error}
    return found
