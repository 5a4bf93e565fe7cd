from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gansynth.testing.phantoms import (
    LABELS,
    PhantomOptions,
    make_liver,
    make_phantom,
    make_tissues,
)
from tests.expected import raises_fault

COARSE = PhantomOptions(spacing_mm=6.0)
T1 = PhantomOptions(spacing_mm=6.0, channels=("T1",))
MILLILITRES = 6.0**3 / 1000


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(index, 0, COARSE) for index in range(3)]


def test_a_brain_has_a_human_volume_and_keeps_clear_of_the_border(phantoms):
    for phantom in phantoms:
        brain = phantom.image > 0
        assert (brain == brain[0]).all()  # all channels share one mask
        assert 1300 < np.count_nonzero(brain[0]) * MILLILITRES < 2400
        assert np.count_nonzero(phantom.image[:, 1:-1, 1:-1, 1:-1]) == np.count_nonzero(brain)
        assert (phantom.image == np.round(phantom.image)).all()  # scanner units
        assert 300 < phantom.image.max() < 5000


def test_a_tumour_is_one_piece_inside_the_brain_with_parts_of_a_reasonable_volume(phantoms):
    ranges = {"oedema": (5, 250), "core": (0.5, 80), "enhancing": (1, 80)}  # ml
    for phantom in phantoms:
        assert (phantom.image[:, phantom.labels > 0] > 0).all()
        assert ndimage.label(phantom.labels > 0)[1] == 1
        for name, (low, high) in ranges.items():
            assert low < np.count_nonzero(phantom.labels == LABELS[name]) * MILLILITRES < high, name
        core = phantom.labels == LABELS["core"]
        shell = ndimage.binary_dilation(core) & ~core
        assert (phantom.labels[shell] == LABELS["enhancing"]).all()


def test_the_tumour_looks_like_one_in_each_channel(phantoms):
    for phantom in phantoms:
        healthy = (phantom.labels == 0) & (phantom.image[0] > 0)
        t1, t1c, t2, flair = (
            {name: float(c[phantom.labels == k].mean()) for name, k in LABELS.items() if k}
            | {"healthy": float(c[healthy].mean()), "bright": float(np.percentile(c[healthy], 90))}
            for c in phantom.image
        )
        assert t1c["enhancing"] > max(1.2 * t1c["healthy"], 1.5 * t1c["core"])
        assert flair["oedema"] > flair["bright"]
        assert t2["oedema"] > t2["healthy"]
        assert t1["core"] < t1["oedema"] < t1["healthy"]


def test_a_channel_does_not_depend_on_the_others_asked_for(phantoms):
    some = make_phantom(0, 0, replace(COARSE, channels=("FLAIR", "T1")))
    assert np.array_equal(some.image, phantoms[0].image[[3, 0]])


@pytest.mark.parametrize("channels", [("T1", "PD"), (), ("T1", "T1")])
def test_unknown_and_repeated_sequences_are_refused(channels):
    with raises_fault("testing.phantom-channels-not-distinct"):
        PhantomOptions(channels=channels)


def test_tissues_are_the_whole_brain_and_look_like_a_gliomas_away_from_it():
    for index in range(2):
        tissues = make_tissues(index, 0, T1)
        assert np.array_equal(tissues.labels > 0, tissues.image[0] > 0)
        shares = np.bincount(tissues.labels.ravel())[1:] / np.count_nonzero(tissues.labels)
        assert shares[0] < shares[2]
        assert all(0.01 < share < 0.75 for share in shares)  # coarse voxels hold little pure CSF
        means = [float(tissues.image[0][tissues.labels == k].mean()) for k in (1, 2, 3)]
        assert means == sorted(means)
        phantom = make_phantom(index, 0, T1)
        far = (phantom.image[0] > 0) & ~ndimage.binary_dilation(phantom.labels > 0, iterations=3)
        low, high = np.percentile(phantom.image[0][far], (30, 85))
        assert means[1] / means[2] == pytest.approx(low / high, abs=0.2)


def test_nobody_is_in_both_sets():
    healthy, ill = (
        {bytes(np.packbits(make(i, s, T1).image[0] > 0)) for i, s in ((0, 0), (1, 0), (0, 1))}
        for make in (make_tissues, make_phantom)
    )
    assert len(healthy) == len(ill) == 3
    assert healthy.isdisjoint(ill)


def test_a_liver_lies_on_the_right_is_brighter_than_its_lesions_and_has_fat_and_bone_around():
    counts = set()
    for index in range(3):
        phantom = make_liver(index, 0, PhantomOptions(spacing_mm=6.0))
        image, lesions = phantom.image[0], phantom.labels > 0
        around = ndimage.binary_dilation(lesions, iterations=2) & ~lesions
        healthy = np.median(image[around])
        assert 60 < healthy < 110
        assert image[lesions].mean() < healthy - 15
        smooth = ndimage.gaussian_filter(image, 1)
        parts = ndimage.label((smooth > 62) & (smooth < 100))[0]
        liver = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        liver = ndimage.binary_opening(liver) | lesions
        assert liver[..., liver.shape[2] // 2 :].sum() / liver.sum() > 0.85
        assert 0.9 < liver.sum() * np.prod(phantom.spacing) / 1e6 < 2.5  # litres
        assert image.min() == image[0, 0, 0] == -1000
        assert 0.03 < ((image > -150) & (image < -50)).mean() < 0.25
        assert image.max() > 250
        counts.add(ndimage.label(phantom.labels)[1])
    assert counts <= {1, 2, 3, 4}
    assert len(counts) > 1
