import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.augment import SegmentAugmentation, SegmentChange
from gansynth_deepmedic.engine.cutting import CentreSampling, SegmentCentres, draw_centres
from gansynth_deepmedic.engine.geometry import SegmentGeometry
from gansynth_deepmedic.engine.volumes import RandomAffine, ZScore, matrix, transformed
from tests.adapters.deepmedic.reference.formula import MODULUS, digest, label_map, volume

REFERENCE = json.loads((Path(__file__).parent / "reference/reference.json").read_text())
SMALL = SegmentGeometry.cubes(7, 5)
CFG = Path("/cases/trainConfig.cfg")
SHAPE = (18, 17, 16)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("known", REFERENCE["shares"])
def test_segments_are_shared_out_among_classes_as_deepmedic_does(known):
    sampling = CentreSampling(known["kind"], known["classes"], known["proportions"])
    labels = np.full((20, 20, 20), 0 if known["kind"] == 0 else 99, np.int16)
    for category, present in enumerate(known["present"]):
        value = category if known["kind"] == 3 else int(category == 0)  # foreground comes first
        if present:
            labels[:, :, 4 * category : 4 * category + 4] = value
    sizes, many = SegmentGeometry.cubes(1, 1), known["count"]
    drawn = draw_centres(sampling, sizes, many, rng(), labels=labels, roi=None)
    counts = np.bincount(drawn.categories, minlength=len(known["present"]))
    assert counts.sum() == known["count"]
    assert (counts >= known["least"]).all()
    assert (counts <= known["most"]).all()


def drawn_in(
    roi: Any, core: Any = None, count: int = 300, seed: int = 0, shape: Any = SHAPE
) -> SegmentCentres:
    """Centres in three classes."""
    where: dict[str, Any] = {"labels": label_map(shape), "roi": roi, "core": core, "name": "pat_9"}
    return draw_centres(CentreSampling(classes=3), SMALL, count, rng(seed), **where)


def test_what_does_not_come_out_even_goes_to_classes_at_random():
    found = [tuple(np.bincount(drawn_in(None, None, 10, s).categories)) for s in range(30)]
    assert {tuple(sorted(counts)) for counts in found} == {(3, 3, 4)}
    assert len(set(found)) == 3


@pytest.mark.parametrize("known", REFERENCE["maps"]["rows"])
def test_categories_are_deepmedics_masks(known):
    shape = REFERENCE["maps"]["shape"]
    allowed = volume(shape, 1)[0] < MODULUS / 2 if known["roi"] else np.ones(shape, np.bool_)
    places = CentreSampling(known["kind"], 4).places(label_map(shape), allowed)
    assert [digest(found, "i8") for found in places] == known["voxels"]


def test_centres_lie_in_the_region_of_interest_and_in_their_class():
    roi = (volume(SHAPE, 1)[0] < MODULUS / 3).astype(np.int16)
    found = drawn_in(roi)
    at = tuple(found.voxels.T)
    assert (roi[at] > 0).all()
    np.testing.assert_array_equal(label_map(SHAPE)[at], found.categories)
    assert np.bincount(found.categories).tolist() == [100, 100, 100]
    assert found.restricted
    assert found.voxels.min(axis=0).tolist() == [3, 3, 3]
    assert found.voxels.max(axis=0).tolist() == [14, 13, 12]


def test_a_class_that_the_core_lacks_passes_its_share_on():
    found = drawn_in(None, label_map(SHAPE) == 1, count=50)
    assert found.categories.tolist() == [1] * 50


@pytest.mark.parametrize(
    ("roi", "shape", "says"),
    [
        (np.zeros(SHAPE, np.int16), SHAPE, "no voxel to centre"),
        (None, (18, 6, 16), r"shape \(18, 6, 16\), expected at least a segment's \(7, 7, 7\)"),
    ],
)
def test_a_case_without_a_centre_is_named(roi, shape, says):
    with pytest.raises(DataFault, match=f"pat_9: .*{says}"):
        drawn_in(roi, shape=shape)


@pytest.mark.parametrize("known", REFERENCE["changes"])
def test_segments_are_changed_as_deepmedic_does(known):
    augmentation = SegmentAugmentation.from_values(CFG, {"augm_sample_prms_tr": known["values"]})
    assert augmentation is not None
    change = augmentation.draw(2, rng())
    assert digest(change.of_image(volume((9, 9, 9)))) == known["high"]
    assert digest(change.of_image(volume((7, 7, 7)))) == known["low"]
    assert digest(change.of_labels(label_map((5, 5, 5))), "i2") == known["labels"]


def test_intensities_are_shifted_then_scaled_per_channel():
    change = SegmentChange(np.float32([1, 2]), np.float32([3, 0.5]), (False,) * 3, (0, 0, 0))  # type: ignore
    image = np.ones((2, 3, 3, 3), np.float32)
    np.testing.assert_array_equal(change.of_image(image)[:, 0, 0, 0], [6, 1.5])
    drawn = [SegmentAugmentation.usual().draw(2, rng(seed)) for seed in range(400)]
    shifts, scales = (np.array([getattr(c, name) for c in drawn]) for name in ("shift", "scale"))
    assert np.abs(shifts.mean(axis=0)).max() < 0.01
    np.testing.assert_allclose(shifts.std(axis=0), 0.05, rtol=0.15)
    np.testing.assert_allclose(scales.mean(axis=0), 1, atol=0.002)
    np.testing.assert_allclose(scales.std(axis=0), 0.01, rtol=0.15)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.15


def test_axes_are_mirrored_planes_and_volumes_turned_as_often_as_asked_for():
    augmentation = SegmentAugmentation(
        reflect=(0.5, 0.0, 1.0), rotate90=(None, (0.5, 0, 0, 0.5), None)
    )
    drawn = [augmentation.draw(1, rng(seed)) for seed in range(400)]
    mirrored = np.array([change.mirrored for change in drawn])
    np.testing.assert_allclose(mirrored.mean(axis=0), [0.5, 0, 1], atol=0.08)
    turned = Counter(change.turned for change in drawn)
    assert set(turned) == {(0, 0, 0), (0, 3, 0)}
    np.testing.assert_allclose(turned[0, 3, 0] / 400, 0.5, atol=0.08)
    share = sum(RandomAffine(prob=0.3).draw(rng(seed)) is not None for seed in range(400)) / 400
    assert abs(share - 0.3) < 0.07
    assert RandomAffine(prob=0.0).draw(rng()) is None


EXAMPLE: dict[str, Any] = {
    "hist_dist": {"shift": {"mu": 0.0, "std": 0.05}, "scale": {"mu": 1.0, "std": 0.01}},
    "reflect": (0.5, 0.0, 0.0),
    "rotate90": {p: {"0": 0.0, "90": 0.0, "180": 0.0, "270": 0.0} for p in ("xy", "yz", "xz")},
}
OLDER: dict[str, Any] = {
    "reflectImagesPerAxis": [1, 0, 0],
    "performIntAugm": True,
    "sampleIntAugmShiftWithMuAndStd": [0.0, 0.05],
    "sampleIntAugmMultiWithMuAndStd": [1.0, 0.01],
}


def test_the_example_configuration_and_older_keys_are_read():
    def found(value: Any) -> SegmentAugmentation | None:
        return SegmentAugmentation.from_values(CFG, {"augm_sample_prms_tr": value})

    assert (
        found(EXAMPLE) == SegmentAugmentation.from_values(CFG, OLDER) == SegmentAugmentation.usual()
    )
    assert found(None) is SegmentAugmentation.from_values(CFG, {}) is None
    turning = {**EXAMPLE["rotate90"], "yz": {"0": 1, "90": 1, "180": 0, "270": 2}}
    turned = found({"rotate90": turning})
    assert turned is not None
    assert turned.rotate90 == (None, (0.25, 0.25, 0, 0.5), None)


READS: dict[str, Callable[[dict[str, Any]], object]] = {
    "augm_sample_prms_tr": lambda values: SegmentAugmentation.from_values(CFG, values),
    "augm_img_prms_tr": lambda values: RandomAffine.from_values(CFG, values, 2),
    "norm_zscore_prms": lambda values: ZScore.from_values(CFG, values, 2),
}
NEGATIVE = {"xy": {"0": 1, "90": -1, "180": 0, "270": 0}, "yz": None, "xz": None}
BOTH = {"apply_to_all_channels": True, "apply_per_channel": [True, True]}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("augm_sample_prms_tr", [], r" is \[\], expected a dictionary"),
        ("augm_sample_prms_tr", {"reflct": None}, r"\['reflct'\] is None, expected no such key"),
        ("augm_sample_prms_tr", {"reflect": (0.5, 0.0)}, r"\['reflect'\]\[2\] is .*more"),
        ("augm_sample_prms_tr", {"hist_dist": {"shift": None}}, r"\['hist_dist'\] .*at least 2"),
        ("augm_sample_prms_tr", {"hist_dist": {"shift": {"mu": 0, "std": "0."}, "scale": None}},
         r"\['hist_dist'\]\['shift'\]\['std'\] is '0.', expected a number"),
        ("augm_sample_prms_tr", {"rotate90": {"xy": None, "yz": None}}, "at least 3 items"),
        ("augm_sample_prms_tr", {"rotate90": NEGATIVE}, r"\['rotate90'\]\['xy'\]\['90'\] is -1"),
        ("augm_img_prms_tr", {}, "at least 1 item"),
        ("augm_img_prms_tr", {"affine": {"prob": 2}},
         r"\['affine'\]\['prob'\] is 2, expected less than or equal to 1"),
        ("augm_img_prms_tr", {"affine": {"max_rot_xyz": 45.0}}, "expected a list"),
        ("augm_img_prms_tr", {"affine": {"interp_order_imgs": 5}}, "0, 1, 2 or 3"),
        ("augm_img_prms_tr", {"affine": {"interp_order_imgs": [1, 1, 1]}},
         "interp_order_imgs for each of 2"),
        ("augm_img_prms_tr", {"affine": {"boundary_mode": "nearst"}}, "expected 'nearest', 'min'"),
        ("augm_img_prms_tr", {"affine": {"max_rot": 3}}, "expected no such key"),
        ("norm_zscore_prms", {"apply_to_all_channels": "yes"}, "True or False"),
        ("norm_zscore_prms", {"apply_per_channel": [True]}, "each of 2"),
        ("norm_zscore_prms", BOTH, "or None with"),
        ("norm_zscore_prms", {"cutoff_percents": [5.0, 101.0]}, "less than or equal to 100"),
        ("norm_zscore_prms", {"cutof_percents": None}, "expected no such key"),
    ],
)  # fmt: skip
def test_odd_augmentation_and_normalisation_are_named(key, value, says):
    with pytest.raises(DataFault, match=rf"^/cases/trainConfig\.cfg: {key}.*{says}"):
        READS[key]({key: value})


def test_planes_that_are_not_square_cannot_be_turned():
    flat = SegmentGeometry((9, 7, 9), (5, 5, 5))
    turning = SegmentAugmentation(rotate90=((0.5, 0.5, 0, 0), None, None))
    with pytest.raises(DataFault, match=r"\['rotate90'\]\['xy'\].*\(9, 7, 9\) are not square"):
        turning.check(flat, CFG)
    SegmentAugmentation(rotate90=((0.5, 0, 0.5, 0), None, (0, 0.5, 0, 0.5))).check(flat, CFG)


@pytest.mark.parametrize("known", REFERENCE["affine"]["rows"])
def test_volumes_are_turned_as_deepmedic_does(known):
    shape, (seed, angles, scaling) = REFERENCE["affine"]["shape"], known["drawn"]
    legacy = np.random.RandomState(seed)  # what DeepMedic draws from
    legacy.random_sample()
    degrees = np.array([legacy.uniform(-angle, angle) for angle in angles])
    change = matrix(degrees, legacy.uniform(1 - scaling, 1 + scaling))
    np.testing.assert_allclose(change, known["matrix"], atol=1e-12)
    image = transformed(volume(shape)[0], change, known["order"], known["mode"])
    np.testing.assert_allclose(image[::5, ::6, ::4].ravel(), known["some"], rtol=1e-5, atol=1e-2)
    labels = transformed(label_map(shape), change, 0, known["mode"])
    assert digest(labels, "i2") == known["labels"]


def test_labels_region_and_core_follow_a_turned_image():
    affine, labels = RandomAffine(prob=1.0, orders=(0,)), label_map((12, 15, 10))
    change = affine.draw(rng(3))
    assert change is not None
    turned = affine.of_labels(labels, change)
    assert not np.array_equal(turned, labels)
    image = affine.of_image(labels[None].astype(np.float32), change)[0]
    np.testing.assert_array_equal(image, turned)
    np.testing.assert_array_equal(affine.of_roi(labels, change), turned)
    mask = affine.of_mask(labels > 0, change)
    assert mask.dtype == np.bool_
    assert (turned[mask] > 0).all()
    everywhere = affine.of_mask(np.ones(labels.shape, np.bool_), change)
    assert not everywhere.all()  # outside of the volume there is no core
    np.testing.assert_array_equal(mask, (turned > 0) & everywhere)


def test_the_affine_of_a_configuration_is_read():
    def found(value: Any) -> RandomAffine | None:
        return RandomAffine.from_values(CFG, {"augm_img_prms_tr": value}, 2)

    values = {"prob": 0.5, "max_rot_xyz": (10, 20, 30), "interp_order_imgs": [2, 1]}
    assert found({"affine": values}) == RandomAffine(0.5, (10.0, 20.0, 30.0), 0.1, (2, 1))
    for nothing in (None, {"affine": None}, {"affine": {"prob": 0.0, "max_scaling": 0.1}}):
        assert found(nothing) is None


@pytest.mark.parametrize("known", REFERENCE["normalisation"]["rows"])
def test_intensities_are_normalised_as_deepmedic_does(known):
    shape = REFERENCE["normalisation"]["shape"]
    score = ZScore.from_values(CFG, {"norm_zscore_prms": known["values"]}, 2)
    assert score is not None
    roi = (label_map(shape) > 0).astype(np.int16) if known["roi"] else None
    image = volume(shape)
    found = score.apply(image, roi)
    np.testing.assert_array_equal(image, volume(shape))
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), known["mean"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), known["std"], rtol=1e-5)
    np.testing.assert_allclose(found[:, 0, 0, :3], known["first"], rtol=1e-5, atol=1e-5)


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    "score", [ZScore(), ZScore(percents=(5, 95), times_std=(3, 3), below_mean=True)]
)
def test_a_channel_without_spread_stays_finite(score):
    image = np.stack([np.zeros((6, 6, 6)), volume((6, 6, 6))[0]]).astype(np.float32)
    found = score.apply(image, None)
    assert np.isfinite(found).all()
    assert (found[0] == 0).all()


def test_nothing_is_normalised_unless_asked_for():
    off = {"apply_to_all_channels": False, "apply_per_channel": None, "cutoff_percents": [5.0, 95]}
    for value in (None, off, {"apply_per_channel": [False, False]}):
        assert ZScore.from_values(CFG, {"norm_zscore_prms": value}, 2) is None
