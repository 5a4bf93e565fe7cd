import hashlib
import itertools
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from gansynth.runtime.errors import UsageFault
from gansynth.testing.phantoms import (
    LABELS,
    PhantomOptions,
    load_atlas,
    make_liver,
    make_phantom,
    make_tissues,
)
from gansynth.testing.phantoms.brains import (
    CONTRASTS,
    JITTER,
    choose_site,
    push_aside,
    random_warp,
    resample,
)

COARSE = PhantomOptions(spacing_mm=4.0)
T1 = PhantomOptions(spacing_mm=4.0, channels=("T1",))
MILLILITRES = 4.0**3 / 1000


def digest(phantom: Any) -> str:
    return hashlib.sha256(phantom.image.tobytes() + phantom.labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(index, 0, COARSE) for index in range(4)]


@pytest.mark.slow
def test_another_process_makes_the_same_phantom(phantoms):
    code = (
        "import hashlib; from gansynth.testing.phantoms import *; "
        "p = make_phantom(3, 0, PhantomOptions(spacing_mm=4.0)); "
        "print(hashlib.sha256(p.image.tobytes() + p.labels.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(phantoms[3])


def test_a_brain_has_a_human_volume_and_keeps_clear_of_the_border(phantoms):
    for phantom in phantoms:
        brain = phantom.image > 0
        assert (brain == brain[0]).all()  # all channels share one mask
        assert 1300 < np.count_nonzero(brain[0]) * MILLILITRES < 2400
        assert np.count_nonzero(phantom.image[:, 1:-1, 1:-1, 1:-1]) == np.count_nonzero(brain)


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


def test_intensities_are_whole_scanner_units(phantoms):
    image = phantoms[0].image
    assert (image == np.round(image)).all()
    assert 300 < image.max() < 5000


def test_no_warp_folds_the_tissue():
    atlas = load_atlas(4.0)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        warp = random_warp(rng, atlas)
        site = choose_site(rng, atlas, warp, resample(atlas.tissue, warp))
        warp = push_aside(rng, site, warp, 4.0)
        # Beyond the grid the pulled-back warp is undefined; two voxels stay clear of it.
        gradient = np.stack([np.stack(np.gradient(component)) for component in warp])
        jacobian = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)))
        assert jacobian[2:-2, 2:-2, 2:-2].min() > 0


def test_the_atlas_is_symmetric_and_the_phantom_is_not(phantoms):
    def likeness(volume) -> float:
        turned = (np.roll(volume[..., ::-1], n, -1) for n in range(-3, 4))
        return max(float(np.corrcoef(volume.ravel(), t.ravel())[0, 1]) for t in turned)

    for phantom in phantoms:
        csf = (phantom.image[2] > np.percentile(phantom.image[2], 97)).astype(np.float32)
        assert likeness(csf) < 0.8
    assert likeness(load_atlas(4.0).tissue[0]) > 0.97


def test_the_affine_puts_the_midline_at_zero():
    atlas = load_atlas(4.0)
    weights = atlas.tissue.sum(axis=(0, 1, 2))
    columns = atlas.affine[0, 3] + atlas.affine[0, 0] * np.arange(len(weights))
    assert abs(np.average(columns, weights=weights)) < 1.0


@pytest.mark.parametrize(
    ("channel", "order"),
    [("T1", (0, 1, 2)), ("T1c", (0, 1, 2)), ("T2", (2, 1, 0)), ("FLAIR", (0, 2, 1))],
)
def test_tissues_are_ordered_as_in_reality_and_jitter_cannot_swap_them(channel, order):
    signals = [CONTRASTS[channel][tissue] for tissue in order]  # of CSF 0, GM 1, WM 2
    for darker, brighter in itertools.pairwise(signals):
        assert darker * (1 + JITTER) < brighter * (1 - JITTER)


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
    with pytest.raises(UsageFault, match="channels"):
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
        {bytes(np.packbits(make(i, seed, T1).image[0] > 0)) for i in range(2) for seed in range(2)}
        for make in (make_tissues, make_phantom)
    )
    assert len(healthy) == len(ill) == 4
    assert healthy.isdisjoint(ill)


def test_a_liver_lies_on_the_right_is_brighter_than_its_lesions_and_has_fat_and_bone_around():
    counts = set()
    for index in range(5):
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
