"""DeepMedic cases as arrays in memory, and banks of samples that belong into them."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.schema import Sample, Schema
from gansynth_deepmedic.insertion import HostCase, LoadedCase
from tests import banks

Array = npt.NDArray[Any]
STRAIGHT = ((0, 1), (1, 1), (2, 1))
WAYS = tuple(
    tuple(zip(axes, steps, strict=True))
    for axes in itertools.permutations(range(3))
    for steps in itertools.product((1, -1), repeat=3)
)
"""All 48 ways in which a file may lie."""


@dataclass(frozen=True)
class Volume:
    """A case as its files (X, Y, Z) have it, and in gansynth's axes (C, D, H, W)."""

    host: HostCase
    image: Array
    labels: Array
    roi: Array | None


def stored_as(array: Array, stored: Sequence[tuple[int, int]]) -> Array:
    """What a file holds of an array (D, H, W); independent of ``HostCase``."""
    turned = array.T.transpose([axis for axis, _ in stored])
    return turned[tuple(slice(None, None, step) for _, step in stored)].copy()


def volume(
    name: str = "pat_1",
    shape: Sequence[int] = (6, 5, 7),
    *,
    stored: Sequence[tuple[int, int]] = STRAIGHT,
    roi: bool = True,
    units: Sequence[tuple[float, float]] = ((2.0, 10.0), (0.5, -1.0)),
    missing: Iterable[int] = (),
    seed: int = 0,
) -> Volume:
    """A case of noise: intensities about 10, labels 0 to 2, half of the voxels of interest."""
    rng = np.random.default_rng(seed)
    image = rng.normal(10, 3, (len(units), *shape)).astype(np.float32)
    labels = rng.integers(0, 3, shape).astype(np.int16)
    region = rng.integers(0, 2, shape).astype(np.int16) if roi else None
    if region is not None:
        labels[region == 0] = 0
    image[list(missing)] = 0
    names = ["-" if n in missing else f"/data/{name}/{n}.nii.gz" for n in range(len(units))]
    host = HostCase(
        id=name,
        channels=tuple(names),
        labels=f"/data/{name}/labels.nii.gz",
        roi=f"/data/{name}/roi.nii.gz" if roi else None,
        shape=tuple(shape),
        stored=tuple(stored),
        units=tuple(units),
    )
    return Volume(host, image, labels, region)


def loaded(of: Volume) -> LoadedCase:
    """What DeepMedic would read."""
    stored = of.host.stored
    roi = None if of.roi is None else stored_as(of.roi, stored)
    image = np.stack([stored_as(channel, stored) for channel in of.image])
    return LoadedCase(image, stored_as(of.labels, stored), roi, None, of.host.id)


def patch(
    of: Volume,
    corner: Sequence[int] | None,
    size: Sequence[int] | None = None,
    *,
    value: float = 100.0,
    label: int = 1,
    **provenance: Any,
) -> Sample:
    """A sample of a case (whole without a corner): one value, outside where there's no interest."""
    shape = tuple(of.host.shape if size is None else size)
    labels = np.full(shape, label, np.int16)
    for at in np.ndindex(*shape):
        there = tuple(n + c for n, c in zip(at, corner or (0, 0, 0), strict=True))
        beyond = any(n < 0 or n >= m for n, m in zip(there, of.host.shape, strict=True))
        if of.roi is not None and (beyond or of.roi[there] == 0):
            labels[at] = -1
    place = {"corner": list(corner or ()), "slice_index": None}
    told = {"case": of.host.id, "shape": list(of.host.shape), "placement": place}
    image = np.full((len(of.host.channels), *shape), value, np.float32)
    return Sample(image, labels, None, told | provenance)


def write_bank(folder: Path, samples: Sequence[Sample]) -> Path:
    """A frozen bank of these samples."""
    channels = tuple(f"channel_{n}" for n in range(len(samples[0].image) if samples else 2))
    labels = {"background": 0, "rim": 1, "core": 2}
    schema = Schema(channels, labels, (1.0,) * 3, has_outside=True)
    lineage = Lineage("deepmedic:toy", "0", (CaseRecord("pat_1", "pat_1", "1" * 64),))
    pairs: banks.Pairs = [(sample, {}) for sample in samples]
    return banks.write_bank(folder, schema, lineage, pairs, dtype="float32")
