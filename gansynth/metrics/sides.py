"""What an evaluation compares: samples and real crops of one space, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gansynth.core.schema import Case, FloatArray, Sample, Schema
from gansynth.metrics.diversity import Window, window_of
from gansynth.runtime.errors import DataFault
from gansynth.runtime.progress import NullReporter, Reporter

if TYPE_CHECKING:
    from gansynth.metrics.features import Features

T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        splits: of the real people in two, which figures are means over.
        features: steps of the network whose features are compared.
        classifier: steps of each network of the two-sample test.
        judge: steps of each segmenter.
    """

    splits: int = 40
    features: int = 300
    classifier: int = 200
    judge: int = 400


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(20, 80, 60, 100),
    "usual": Effort(),
    "thorough": Effort(100, 1000, 600, 1500),
}


@dataclass
class Sides:
    """Samples and real crops of one space.

    Attributes:
        samples: image (C, D, H, W) or (C, H, W), all of one size.
        real: crops of real cases, of the same size.
        schema: of that space.
        drawn_of: for each sample the person whose case it was drawn of; a name of its own where it
            was drawn of none.
        people: whose each real crop is.
        seed: seeds splits and networks.
        effort: how much is done.
        device: ``auto``, ``cpu``, ``cuda:0``.
        reporter: shows progress.
    """

    samples: Sequence[Sample]
    real: Sequence[Case]
    schema: Schema
    drawn_of: Sequence[str] = ()
    people: Sequence[str] = ()
    seed: int = 0
    effort: Effort = EFFORTS["usual"]
    device: str = "auto"
    reporter: Reporter = field(default_factory=NullReporter)
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.drawn_of:
            self.drawn_of = [f"sample {n}" for n in range(len(self.samples))]
        if not self.people:
            self.people = [case.subject for case in self.real]

    @cached_property
    def window(self) -> Window:
        """The 0.5 and 99.5 percentiles of each channel of the real crops: (C, 2)."""
        return window_of([case.image for case in self.real])

    @cached_property
    def features(self) -> Features:
        """What networks see in images; trained on first use."""
        from gansynth.metrics.features import Features

        return Features(self)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is worked out from both sides, once for whoever asks for it by this key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def rng(self, of: str) -> np.random.Generator:
        """Random numbers of one purpose, the same at every call."""
        return np.random.default_rng([self.seed, *of.encode()])


def check_images(
    images: Sequence[FloatArray], names: Sequence[str], schema: Schema, size: Sequence[int]
) -> None:
    """Refuse images that cannot be compared.

    Args:
        images: (C, D, H, W) or (C, H, W).
        names: what each is called in messages.
        schema: names channels and axes.
        size: spatial size in voxels they must have.

    Raises:
        DataFault: naming the first one that has other channels, another size, numbers that are not
            finite, or nothing but a constant.
    """
    wanted = (len(schema.channels), *size)
    for image, name in zip(images, names, strict=True):
        if image.shape[:1] != wanted[:1]:
            raise DataFault(
                f"{name}: has {len(image)} channel(s), expected {wanted[0]} "
                f"({', '.join(schema.channels)}); choose them with --real-read channels=..."
            )
        if image.shape != wanted:
            raise DataFault(
                f"{name}: is of {_size(image.shape[1:])} voxels, expected {_size(size)}; all "
                "images that are compared must be of one size: evaluate the run instead of a bank, "
                "or bring them to one size first"
            )
        if not np.isfinite(image).all():
            bad = int(image.size - np.isfinite(image).sum())
            raise DataFault(
                f"{name}: holds {bad} NaN or infinite voxel(s), expected finite numbers; draw it "
                "again, or leave it out"
            )
        if image.size and float(image.max()) == float(image.min()):
            raise DataFault(
                f"{name}: is constant ({float(image.min()):g} everywhere), expected an image; a "
                "generator that has collapsed draws such, an empty crop is one: fit it anew, or "
                "leave it out"
            )


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
