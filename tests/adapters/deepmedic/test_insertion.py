from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.schema import Sample
from gansynth.runtime.errors import DataFault
from gansynth.sampling.sampler import BESIDE
from gansynth_deepmedic.insertion import insert, misfit
from tests.adapters.deepmedic.arrays import WAYS, Volume, loaded, patch, volume


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


def noise(of: Volume, corner: Sequence[int], size: Sequence[int]) -> Sample:
    """A patch of noise, with labels as a generator has them: outside here and there, too."""
    rng, base = np.random.default_rng(3), patch(of, corner, size)
    assert base.labels is not None
    labels = np.where(base.labels < 0, base.labels, rng.integers(-1, 3, size)).astype(np.int16)
    return replace(base, image=rng.normal(size=base.image.shape).astype(np.float32), labels=labels)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_patch_anywhere(data):
    shape = data.draw(st.tuples(*[st.integers(1, 7)] * 3))
    size = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    corner = [data.draw(st.integers(1 - s, n - 1)) for s, n in zip(size, shape, strict=True)]
    units = [((1.0, 0.0),) * 2, ((0.0, 3.0), (40.0, -7.0))]
    lies = {"stored": data.draw(st.sampled_from(WAYS)), "seed": data.draw(st.integers(0, 99))}
    lies |= {"roi": data.draw(st.booleans()), "units": data.draw(st.sampled_from(units))}
    of = volume(shape=shape, missing=data.draw(st.sampled_from([(), (0,)])), **lies)
    sample, rim = noise(of, corner, size), data.draw(st.integers(0, 5))
    of.image[of.image > 14] = -0.0  # outside of the region nothing changes to the bit
    real, view = loaded(of), of.host.view
    kept = real.image.copy(), real.labels.copy()
    image, labels, core = wanted(of, sample, corner, rim)
    if not core.any():
        assert "region of interest" in misfit(of.host, sample, rim)
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
    found = insert(of.host, loaded(of), sample)
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
        (replace(FITS, image=FITS.image[:1]), "1 channel(s), expected 2"),
        (replace(FITS, labels=None), "expected 3 axes and labels of that shape"),
        (replace(FITS, labels=np.ones((4, 4, 3), np.int16)), "labels of that shape"),
        (replace(FITS, image=np.full((2, 4, 4, 4), np.nan, np.float32)), "not finite"),
        (patch(OF, (6, 0, 0), (4, 4, 4), label=1), "its place (6, 0, 0) is beyond"),
        (patch(OF, None, (5, 6, 6)), "of shape (5, 6, 6), case 'pat_1' has (6, 6, 6)"),
        (patch(OF, (1, 1, 1), (4, 4, 4), case="pat_7"), "its place in the case 'pat_7'"),
        (patch(OF, (1, 1, 1), (4, 4, 4), placement=SLICE), "no place in a volume"),
        (replace(FITS, labels=np.full((4, 4, 4), -1, np.int16)), "region of interest"),
    ],
    ids=range(9),
)
def test_what_does_not_fit_is_named(sample, words):
    assert words in misfit(OF.host, sample)


OWN = loaded(OF)


def test_a_case_that_has_been_replaced_is_named():
    other, empty = loaded(volume(shape=(6, 6, 5))), np.zeros((6, 6, 6), np.int16)
    with pytest.raises(DataFault, match=r"labels\.nii\.gz: .* shape \(6, 6, 5\).*have changed"):
        insert(OF.host, other, FITS)
    with pytest.raises(DataFault, match=r"roi\.nii\.gz: no region of interest where"):
        insert(OF.host, replace(OWN, roi=empty), FITS)
