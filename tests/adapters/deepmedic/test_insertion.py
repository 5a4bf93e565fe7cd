import itertools
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.bank.draw_log import summarise
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample, Schema
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth.sampling.sampler import BESIDE
from gansynth_deepmedic.hook import Subepochs
from gansynth_deepmedic.insertion import HostCase, LoadedCase, insert, misfit
from tests.banks import write_bank
from tests.expected import raises_fault

WAYS = tuple(
    tuple(zip(axes, steps, strict=True))
    for axes in itertools.permutations(range(3))
    for steps in itertools.product((1, -1), repeat=3)
)
"""All 48 ways in which a file may lie; the first is straight."""


def volume(
    shape: Sequence[int] = (6, 6, 6),
    *,
    stored: Any = WAYS[0],
    roi: bool = True,
    units: Any = ((2.0, 10.0), (0.5, -1.0)),
    missing: Sequence[int] = (),
    seed: int = 0,
) -> Any:
    """A case of noise in gansynth's axes, and what DeepMedic reads of its files (``loaded``).

    Intensities are about 10, labels 0 to 2, half of the voxels of interest.
    """
    rng = np.random.default_rng(seed)
    image = rng.normal(10, 3, (len(units), *shape)).astype(np.float32)
    labels = rng.integers(0, 3, shape).astype(np.int16)
    region = rng.integers(0, 2, shape).astype(np.int16) if roi else None
    if region is not None:
        labels[region == 0] = 0
    image[list(missing)] = 0
    image[image > 14] = -0.0  # outside of the region nothing changes to the bit
    names = tuple("-" if n in missing else f"/{n}.nii.gz" for n in range(len(units)))
    host = HostCase("pat_1", names, "/l.nii.gz", "/r" if roi else None, tuple(shape), stored, units)

    def filed(array: Any) -> Any:
        """As a file has an array (D, H, W); independent of ``HostCase.view``."""
        turned = array.T.transpose([axis for axis, _ in stored])
        return turned[tuple(slice(None, None, step) for _, step in stored)].copy()

    channels = np.stack([filed(channel) for channel in image])
    inside = None if region is None else filed(region)
    loaded = LoadedCase(channels, filed(labels), inside, None, "pat_1")
    return SimpleNamespace(host=host, image=image, labels=labels, roi=region, loaded=loaded)


def patch(of: Any, corner: Sequence[int] | None, size: Any = None, **provenance: Any) -> Sample:
    """A sample of 100 of label 1, of a whole case without a corner."""
    shape = size or of.host.shape
    place = {"corner": list(corner or ()), "slice_index": None}
    told = {"case": "pat_1", "shape": list(of.host.shape), "placement": place, **provenance}
    image = np.full((len(of.host.channels), *shape), 100, np.float32)
    return Sample(image, np.ones(shape, np.int16), None, told)


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


def wanted(of: Any, sample: Any, corner: Sequence[int], rim: int) -> tuple[Any, Any, Any]:
    """Image, labels and core in gansynth's axes, voxel by voxel."""
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


UNITS = [((1.0, 0.0),) * 2, ((0.0, 3.0), (40.0, -7.0))]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    size=st.tuples(*[st.integers(1, 8)] * 3),
    rim=st.integers(0, 5),
    missing=st.sampled_from([(), (0,)]),
    lies=st.fixed_dictionaries(
        {
            "stored": st.sampled_from(WAYS),
            "seed": st.integers(0, 99),
            "roi": st.booleans(),
            "units": st.sampled_from(UNITS),
        }
    ),
    data=st.data(),
)
def test_any_patch_anywhere(shape, size, rim, missing, lies, data):
    """Of noise, with labels as a generator has them: outside here and there, too."""
    corner = [data.draw(st.integers(1 - s, n - 1)) for s, n in zip(size, shape, strict=True)]
    of, rng = volume(shape, missing=missing, **lies), np.random.default_rng(3)
    base = patch(of, corner, size)
    labels = rng.integers(-1, 3, size).astype(np.int16)
    sample = replace(base, image=rng.normal(size=base.image.shape).astype("f"), labels=labels)
    kept = of.loaded.image.copy(), of.loaded.labels.copy()
    image, labels, core = wanted(of, sample, corner, rim)
    unfit = misfit({"pat_1": of.host}, sample, rim)
    if unfit or not core.any():
        assert not core.any()
        with raises_fault("deepmedic.region-missing"):
            insert(of.host, of.loaded, sample, rim)
        return
    found, view = insert(of.host, of.loaded, sample, rim), of.host.view
    assert np.allclose(view(found.image), image, rtol=1e-6, atol=1e-5)
    same = image == of.image
    assert view(found.image)[same].tobytes() == of.image[same].tobytes()
    assert np.array_equal(view(found.labels), labels)
    assert np.array_equal(view(found.core), core)
    assert (found.image.dtype.name, found.labels.dtype.name) == ("float32", "int16")
    assert found.roi is of.loaded.roi
    assert np.array_equal(kept[0], of.loaded.image)
    assert np.array_equal(kept[1], of.loaded.labels)


@pytest.mark.parametrize("beside", [False, True])
def test_a_whole_volume_is_the_samples_wherever_there_is_interest(beside):
    of = volume((6, 5, 7), stored=WAYS[13], missing=[0])
    sample = patch(of, None)
    if beside:
        told = {key: sample.provenance[key] for key in ("case", "placement")}
        sample = replace(sample, provenance={"shape": list(of.host.shape), BESIDE: told})
    found = insert(of.host, of.loaded, sample)
    assert (found.core, found.case) == (None, "pat_1")
    image = np.where(of.roi > 0, np.float32(100 * 0.5 - 1), of.image[1])
    assert np.array_equal(of.host.view(found.image), [np.zeros_like(image), image])
    assert np.array_equal(of.host.view(found.labels), np.where(of.roi > 0, 1, of.labels))


OF = volume()
FITS = patch(OF, (1, 1, 1), (4, 4, 4))
OUTSIDE = replace(FITS, labels=np.full((4, 4, 4), -1, np.int16))
ELSEWHERE = patch(OF, (1, 1, 1), (4, 4, 4), case="pat_7")
SLICE = {"corner": [1, 1], "slice_index": 2}


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (replace(FITS, labels=None), "expected 3 axes and labels of that shape"),
        (replace(FITS, labels=np.ones((4, 4, 3), np.int16)), "labels of that shape"),
        (patch(OF, (6, 0, 0), (4, 4, 4)), "its place (6, 0, 0) is beyond"),
        (patch(OF, None, (5, 6, 6)), "of shape (5, 6, 6), case 'pat_1' has (6, 6, 6)"),
        (patch(OF, (1, 1, 1), (4, 4, 4), shape=[9, 9, 9]), "of a volume of shape (9, 9, 9), case"),
        (patch(OF, (1, 1, 1), (4, 4, 4), case=""), "of no case"),
        (ELSEWHERE, "of the case 'pat_7', expected one of the training cases"),
        (patch(OF, (1, 1, 1), (4, 4, 4), placement=SLICE), "of no case"),
        (OUTSIDE, "region of interest"),
    ],
    ids=["no labels", "labels", "beyond", "shape", "volume", "noise", "case", "slice", "outside"],
)
def test_what_does_not_fit_is_named(sample, words):
    assert words in misfit({"pat_1": OF.host}, sample)


def test_a_case_that_has_been_replaced_is_named():
    empty = replace(OF.loaded, roi=np.zeros((6, 6, 6), np.int16))
    with raises_fault("deepmedic.case-files-changed"):
        insert(OF.host, volume((6, 6, 5)).loaded, FITS)
    with raises_fault("deepmedic.region-missing"):
        insert(OF.host, empty, FITS)


@pytest.mark.parametrize(
    ("samples", "drawn", "why"),
    [([ELSEWHERE, OUTSIDE, FITS, FITS], [4] * 10, ""),
     ([ELSEWHERE], [0], "expected one of the training cases")],
    ids=["others fit", "none fits"],
)  # fmt: skip
def test_another_is_drawn_for_one_that_cannot_be_inserted(tmp_path, samples, drawn, why):
    schema = Schema(("a", "b"), {"background": 0, "rim": 1}, (1.0,) * 3, has_outside=True)
    lineage = Lineage("deepmedic:toy", "0", (CaseRecord("pat_1", "pat_1", "1" * 64),))
    pairs: Any = [(sample, {}) for sample in samples]
    bank = write_bank(tmp_path / "bank", schema, lineage, pairs, dtype="float32")
    log = tmp_path / "log"
    plan: Any = MixerConfig(bank, Ratio.parse("1:2"), seed=5, sample_timeout=0.2, log=log)
    mixed = Subepochs(plan, [OF.host], 6)
    for number, synthetic in enumerate(drawn):
        cases = [mixed.load(number, place, lambda case: OF.loaded) for place in range(6)]
        assert sum(bool(case.sample) for case in cases) == synthetic
    assert why in " ".join(summarise(log).reasons)
    assert summarise(log).fell_back == 4 * len(drawn) - sum(drawn)
