import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.bank.draw_log import summarise
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample, Schema
from gansynth.hosts.mixer import MixerConfig
from gansynth.runtime.errors import DataFault
from gansynth.sampling.sampler import BESIDE
from gansynth_deepmedic.hook import Subepochs
from gansynth_deepmedic.insertion import HostCase, LoadedCase, insert, misfit
from tests.banks import write_bank

Array = npt.NDArray[Any]
WAYS = tuple(
    tuple(zip(axes, steps, strict=True))
    for axes in itertools.permutations(range(3))
    for steps in itertools.product((1, -1), repeat=3)
)
"""All 48 ways in which a file may lie; the first is straight."""


@dataclass(frozen=True)
class Volume:
    """A case as its files (X, Y, Z) have it, and in gansynth's axes (C, D, H, W)."""

    host: HostCase
    image: Array
    labels: Array
    roi: Array | None

    def stored(self, array: Array) -> Array:
        """What a file holds of an array (D, H, W); independent of ``HostCase.view``."""
        turned = array.T.transpose([axis for axis, _ in self.host.stored])
        return turned[tuple(slice(None, None, step) for _, step in self.host.stored)].copy()

    def loaded(self) -> LoadedCase:
        """What DeepMedic would read."""
        roi = None if self.roi is None else self.stored(self.roi)
        image = np.stack([self.stored(channel) for channel in self.image])
        return LoadedCase(image, self.stored(self.labels), roi, None, self.host.id)


def volume(
    name: str = "pat_1",
    shape: Sequence[int] = (6, 5, 7),
    *,
    stored: Sequence[tuple[int, int]] = WAYS[0],
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
        name,
        channels=tuple(names),
        labels=f"/data/{name}/labels.nii.gz",
        roi=f"/data/{name}/roi.nii.gz" if roi else None,
        shape=tuple(shape),
        stored=tuple(stored),
        units=tuple(units),
    )
    return Volume(host, image, labels, region)


def patch(
    of: Volume,
    corner: Sequence[int] | None,
    size: Sequence[int] | None = None,
    *,
    value: float = 100.0,
    **provenance: Any,
) -> Sample:
    """A sample of a case (whole without a corner): one value, outside where there's no interest."""
    shape = tuple(of.host.shape if size is None else size)
    labels = np.ones(shape, np.int16)
    if of.roi is not None:
        first = corner or (0, 0, 0)
        ends = zip(first, shape, of.host.shape, strict=True)
        padded = np.pad(of.roi, [(max(0, -c), max(0, c + n - m)) for c, n, m in ends])
        begin = [max(0, c) for c in first]
        box = tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))
        labels[padded[box] == 0] = -1
    place = {"corner": list(corner or ()), "slice_index": None}
    told = {"case": of.host.id, "shape": list(of.host.shape), "placement": place}
    image = np.full((len(of.host.channels), *shape), value, np.float32)
    return Sample(image, labels, None, told | provenance)


def fading(length: int, before: bool, after: bool, rim: int) -> list[float]:
    """Weights along an axis, the plain way: try rims until half of the voxels are whole."""
    for width in range(rim, -1, -1):
        weights = []
        for place in range(length):
            near = [place] * before + [length - 1 - place] * after
            weights.append(min([1.0] + [(n + 1) / (width + 1) for n in near]))
        if sum(w == 1 for w in weights) * 2 >= length:
            return weights
    raise AssertionError


def wanted(of: Volume, sample: Sample, corner: Sequence[int], rim: int) -> tuple[Any, Any, Any]:
    """Image, labels and core in gansynth's axes, voxel by voxel."""
    assert sample.labels is not None
    image, labels = of.image.copy(), of.labels.copy()
    core = np.zeros(labels.shape, bool)
    ramps, starts = [], []
    for first, n, extent in zip(corner, sample.labels.shape, labels.shape, strict=True):
        seen = range(max(first, 0), min(first + n, extent))
        ramps.append(fading(len(seen), first > 0, first + n < extent, rim))
        starts.append(seen.start)
    for place in np.ndindex(*map(len, ramps)):
        at = tuple(n + start for n, start in zip(place, starts, strict=True))
        there = tuple(n - first for n, first in zip(at, corner, strict=True))
        weight = min(ramp[n] for ramp, n in zip(ramps, place, strict=True))
        if (of.roi is not None and of.roi[at] == 0) or sample.labels[there] == -1:
            continue
        for channel, (scale, offset) in enumerate(of.host.units):
            if of.host.channels[channel] != "-" and scale:
                value = float(sample.image[(channel, *there)]) * scale + offset
                image[(channel, *at)] = weight * value + (1 - weight) * image[(channel, *at)]
        if weight >= 0.5:
            labels[at] = sample.labels[there]
        core[at] = weight == 1
    return image, labels, core


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_patch_anywhere(data):
    """Of noise, with labels as a generator has them: outside here and there, too."""
    shape = data.draw(st.tuples(*[st.integers(1, 7)] * 3))
    size = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    corner = [data.draw(st.integers(1 - s, n - 1)) for s, n in zip(size, shape, strict=True)]
    units = [((1.0, 0.0),) * 2, ((0.0, 3.0), (40.0, -7.0))]
    lies = {"stored": data.draw(st.sampled_from(WAYS)), "seed": data.draw(st.integers(0, 99))}
    lies |= {"roi": data.draw(st.booleans()), "units": data.draw(st.sampled_from(units))}
    of = volume(shape=shape, missing=data.draw(st.sampled_from([(), (0,)])), **lies)
    rng, base = np.random.default_rng(3), patch(of, corner, size)
    assert base.labels is not None
    labels = np.where(base.labels < 0, base.labels, rng.integers(-1, 3, size)).astype(np.int16)
    drawn = rng.normal(size=base.image.shape).astype(np.float32)
    sample, rim = replace(base, image=drawn, labels=labels), data.draw(st.integers(0, 5))
    of.image[of.image > 14] = -0.0  # outside of the region nothing changes to the bit
    real, view = of.loaded(), of.host.view
    kept = real.image.copy(), real.labels.copy()
    image, labels, core = wanted(of, sample, corner, rim)
    if not core.any():
        assert "region of interest" in misfit({of.host.id: of.host}, sample, rim)
        return
    found = insert(of.host, real, sample, rim)
    assert np.allclose(view(found.image), image, rtol=1e-6, atol=1e-5)
    same = image == of.image
    assert view(found.image)[same].tobytes() == of.image[same].tobytes()
    assert np.array_equal(view(found.labels), labels)
    assert found.core is not None
    assert np.array_equal(view(found.core), core)
    assert (found.image.dtype.name, found.labels.dtype.name) == ("float32", "int16")
    assert found.roi is real.roi
    assert np.array_equal(kept[0], real.image)
    assert np.array_equal(kept[1], real.labels)


@pytest.mark.parametrize("beside", [False, True])
def test_a_whole_volume_is_the_samples_wherever_there_is_interest(beside):
    of = volume(stored=WAYS[13], missing=[0])
    sample = patch(of, None)
    if beside:
        told = {key: sample.provenance[key] for key in ("case", "placement")}
        sample = replace(sample, provenance={"shape": list(of.host.shape), BESIDE: told})
    found = insert(of.host, of.loaded(), sample)
    assert of.roi is not None
    assert (found.core, found.case) == (None, of.host.id)
    image = np.where(of.roi > 0, np.float32(100 * 0.5 - 1), of.image[1])
    assert np.array_equal(of.host.view(found.image), [np.zeros_like(image), image])
    assert np.array_equal(of.host.view(found.labels), np.where(of.roi > 0, 1, of.labels))


SLICE = {"corner": [1, 1], "slice_index": 2}
OF = volume(shape=(6, 6, 6))
FITS = patch(OF, (1, 1, 1), (4, 4, 4))


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (replace(FITS, labels=None), "expected 3 axes and labels of that shape"),
        (replace(FITS, labels=np.ones((4, 4, 3), np.int16)), "labels of that shape"),
        (patch(OF, (6, 0, 0), (4, 4, 4)), "its place (6, 0, 0) is beyond"),
        (patch(OF, None, (5, 6, 6)), "of shape (5, 6, 6), case 'pat_1' has (6, 6, 6)"),
        (patch(OF, (1, 1, 1), (4, 4, 4), case="pat_7"), "of the case 'pat_7', expected one of the"),
        (patch(OF, (1, 1, 1), (4, 4, 4), placement=SLICE), "of no case"),
        (replace(FITS, labels=np.full((4, 4, 4), -1, np.int16)), "region of interest"),
    ],
    ids=range(7),
)
def test_what_does_not_fit_is_named(sample, words):
    assert words in misfit({OF.host.id: OF.host}, sample)


def test_a_case_that_has_been_replaced_is_named():
    other, empty = volume(shape=(6, 6, 5)).loaded(), np.zeros((6, 6, 6), np.int16)
    with pytest.raises(DataFault, match=r"labels\.nii\.gz: .* shape \(6, 6, 5\).*have changed"):
        insert(OF.host, other, FITS)
    with pytest.raises(DataFault, match=r"roi\.nii\.gz: no region of interest where"):
        insert(OF.host, replace(OF.loaded(), roi=empty), FITS)


def subepochs(folder: Path, samples: Sequence[Sample], count: int) -> Any:
    """How many of six cases are synthetic at 1:2, and what the log says."""
    schema = Schema(("a", "b"), {"background": 0, "rim": 1}, (1.0,) * 3, has_outside=True)
    lineage = Lineage("deepmedic:toy", "0", (CaseRecord("pat_1", "pat_1", "1" * 64),))
    pairs: Any = [(sample, {}) for sample in samples]
    bank = write_bank(folder / "bank", schema, lineage, pairs, dtype="float32")
    plan: Any = MixerConfig(bank, Ratio.parse("1:2"), seed=5, patience=0.2, log=folder / "log")
    mixed = Subepochs(plan, [OF.host], 6)
    loaded = [
        [mixed.load(n, place, lambda case: OF.loaded()) for place in range(6)] for n in range(count)
    ]
    return [sum(bool(case.sample) for case in cases) for cases in loaded], summarise(folder / "log")


def test_another_is_drawn_for_one_that_cannot_be_inserted(tmp_path):
    outside = replace(FITS, labels=np.full((4, 4, 4), -1, np.int16))
    unfit = [patch(OF, (1, 1, 1), (4, 4, 4), case="pat_9"), outside]
    found, log = subepochs(tmp_path / "fits", [*unfit, FITS, FITS], 10)
    assert (found, log.fell_back) == ([4] * 10, 0)
    found, log = subepochs(tmp_path / "unfit", unfit[:1], 1)
    assert found == [0]
    assert "expected one of the training cases" in next(iter(log.reasons))
