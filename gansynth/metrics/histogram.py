"""Are intensities distributed as real ones are, in all of an image and in each of its labels?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, LabelArray, Sample, Schema

MOST = 1_000_000
"""Most voxels of a distribution, evenly spread over the images; more cost time and tell no more."""


def distance(synthetic: npt.NDArray[np.float32], real: npt.NDArray[np.float32]) -> float:
    """1-Wasserstein distance between two sets of intensities, in standard deviations of the real.

    Args:
        synthetic: intensities, of any number.
        real: likewise.

    Returns:
        0 if they are distributed alike, 1 if the real ones would have to move by one standard
        deviation on average; NaN if there are none on one side, or the real ones are all the same.
    """
    from scipy.stats import wasserstein_distance

    if not synthetic.size or not real.size or not (spread := float(np.std(real, dtype=float))):
        return float("nan")
    return float(wasserstein_distance(_thinned(synthetic), _thinned(real))) / spread


def _thinned(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values[:: -(-len(values) // MOST)]


def distances(
    samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Mapping[str, float]:
    """``distance`` per channel, and per label where both sides have them.

    Returns:
        ``{"T1": 0.05, "T1 lesion": 0.2, ...}``; NaN for a label that one side lacks.
    """
    pictures = [s.image for s in samples], [c.image for c in real]
    maps = _maps(samples), _maps(real)
    names = {name: value for name, value in schema.labels.items() if value != schema.ignore}
    found: dict[str, float] = {}
    for channel, title in enumerate(schema.channels):
        found[title] = distance(*(_values(side, channel) for side in pictures))
        if maps[0] is None or maps[1] is None:
            continue
        for name, value in names.items():
            where = ([labels == value for labels in side] for side in (maps[0], maps[1]))
            sides = zip(pictures, where, strict=True)
            found[f"{title} {name}"] = distance(*(_values(i, channel, w) for i, w in sides))
    return found


def _maps(cases: Sequence[Sample] | Sequence[Case]) -> list[LabelArray] | None:
    labels = [case.labels for case in cases if case.labels is not None]
    return labels if len(labels) == len(cases) else None


def _values(
    images: Sequence[FloatArray],
    channel: int,
    where: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> npt.NDArray[np.float32]:
    """Intensities of a channel of all images, or of some places of each."""
    chosen = [image[channel].ravel() for image in images]
    if where is not None:
        chosen = [image[channel][w] for image, w in zip(images, where, strict=True)]
    return np.concatenate(chosen) if chosen else np.zeros(0, np.float32)
