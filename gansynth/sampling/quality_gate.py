"""Admission to a sample bank: all checks run here, once, so that drawing a sample costs nothing."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gansynth.core.schema import OUTSIDE, Boxes, FloatArray, Mask, Sample, Schema
from gansynth.runtime.errors import DataFault, TrainingFault

CONSTANT = 1e-6  # standard deviation at or below which an image counts as constant
THIN, CLEAR = 4, 1e-3
"""Every so many voxels along each axis that are looked at first, and deviation that suffices there:
with a few millions of voxels to each of these, the whole image has more than ``CONSTANT``."""
WINDOW = 64
"""Samples over which the share of rejections is monitored; more than half stops the producer."""


def validate_sample(
    sample: Sample, schema: Schema, min_size: Sequence[int], dtype: str = "float16"
) -> Sample:
    """Check a sample before it enters a bank; return it with its image as it is stored.

    Args:
        sample: in the host's space, image (C, D, H, W) or (C, H, W).
        min_size: smallest spatial size in voxels, per axis; empty for any.
        dtype: of the stored image.
    """
    import torch

    if sample.provenance.get("reject_reason"):
        raise DataFault(
            "sampling.sample-rejected-by-filter", f"sample: {sample.provenance['reject_reason']}"
        )
    sample.validate(schema)
    size = sample.image.shape[1:]
    if min_size and any(n < least for n, least in zip(size, min_size, strict=True)):
        raise DataFault(
            "sampling.sample-too-small",
            f"sample: too few voxels: {' x '.join(map(str, size))}, expected at least "
            f"{tuple(min_size)}; fit the generator with a larger size",
        )
    # torch's conversion rounds as numpy's does, in a quarter of the time.
    image = np.ascontiguousarray(sample.image)
    stored = torch.from_numpy(image).to(getattr(torch, dtype)).numpy()
    with np.errstate(over="ignore"):  # an overflow becomes infinite
        ends = np.array([image.min(initial=0), image.max(initial=0)]).astype(dtype)
    if not np.isfinite(ends).all():
        raise DataFault(
            "sampling.sample-overflows",
            f"sample: image overflows {dtype}: {float(np.abs(sample.image).max()):g} is its "
            "largest value; store float32, or check the generator",
        )
    inside = np.ones(size, bool) if sample.labels is None else sample.labels != OUTSIDE
    thin = (slice(None, None, THIN),) * len(size)  # mostly enough
    if not _contrast(stored[:, *thin], inside[thin], CLEAR) and not _contrast(stored, inside):
        raise DataFault(
            "sampling.sample-constant",
            "sample: image is constant in every channel, expected contrast; the generator may have "
            "collapsed",
        )
    if sample.boxes is not None:
        _admit_boxes(sample.boxes, size)
    return replace(sample, image=stored)


def _contrast(image: FloatArray, inside: Mask, least: float = CONSTANT) -> bool:
    """Whether a channel varies; mostly only the first one is looked at."""
    for channel in image:
        values = channel[inside]
        if values.size and values.std(dtype=np.float64) > least:
            return True
    return False


def _admit_boxes(boxes: Boxes, size: tuple[int, ...]) -> None:
    axes = len(size)
    if boxes.coords.shape[1] != 2 * axes:
        raise DataFault(
            "sampling.sample-boxes-of-other-axes",
            f"sample: boxes of other axes: {boxes.coords.shape[1]} coordinates, "
            f"expected {2 * axes}",
        )
    inside = (boxes.coords[:, :axes] >= 0) & (boxes.coords[:, axes:] <= np.array(size))
    if not inside.all():  # NaN counts as outside
        raise DataFault(
            "sampling.sample-boxes-outside-image",
            f"sample: boxes leave the image: {int((~inside.all(axis=1)).sum())} of "
            f"{len(boxes.coords)}, the image has {size} voxels, expected all inside",
        )


class QualityGate:
    """Count rejections by reason, and stop a generator whose samples are mostly rejected."""

    def __init__(self, rejected: Counter[str]) -> None:
        self.rejected = rejected
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    def accept(self) -> None:
        """Record an admitted sample."""
        self._recent.append(False)

    def reject(self, fault: DataFault) -> None:
        """Record a rejected sample."""
        self.rejected[reject_reason_of(fault)] += 1
        self._recent.append(True)
        if 2 * sum(self._recent) > WINDOW:
            common = self.rejected.most_common(3)
            reasons = "; ".join([f"{count} times {reason}" for reason, count in common])
            raise TrainingFault(
                "sampling.too-many-samples-rejected",
                f"producer: {sum(self._recent)} of the last {len(self._recent)} samples were "
                f"rejected ({reasons}), the last one: {fault}. Look at the generator's samples: "
                "gansynth sample RUN --sheet; train it longer or again, or admit these: --filter "
                "none; see: gansynth help filters",
            )


def reject_reason_of(fault: DataFault | str) -> str:
    """Return the fault in a few words without numbers, so that equal reasons count as one.

    Numbers stand behind a colon; any others are left out.
    """
    reason = re.split(r", expected|; |\. |: (?=[-\d]|inf|nan)", str(fault), maxsplit=1)[0]
    words = re.sub(r" ?\(-?\d[\d.e+-]*\)|(?<!\w)-?\d[\d.e+-]*", "", reason.removeprefix("sample: "))
    return " ".join(words.split())
