from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

from gansynth.core.schema import OUTSIDE, Case, Sample, Schema
from gansynth.metrics.comparison import Comparison, measure
from gansynth.metrics.lesions import (
    LOOK,
    PLACES,
    Appearance,
    BoxContrastMetric,
    new_voxels,
    profiles,
)
from tests.spots import picture, spotted

SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "core": 1, "rim": 2}, (1.0, 1.0), "HW")
SHAPE = (64, 64)


def disc(centre, radius):
    at = np.indices(SHAPE) + 0.5
    away = sum((a - c) ** 2 for a, c in zip(at, centre, strict=True))
    return np.asarray(away < radius**2)


def real_case(index):
    """A grainy head with a lesion in it, in units of its own."""
    rng = np.random.default_rng(index)
    labels = np.full(SHAPE, OUTSIDE, np.int16)
    labels[disc((32, 32), 30)] = 0
    centre = (32 + rng.uniform(-10, 10, 2)).tolist()
    labels[disc(centre, rng.uniform(6, 9))] = 2
    labels[disc(centre, 4)] = 1
    grain = np.stack([gaussian_filter(rng.normal(size=SHAPE), 0.7) for _ in range(2)])
    image = 1 + 0.3 * grain / grain.std()
    contrast = rng.uniform(0.8, 1.2)
    image += contrast * gaussian_filter((labels > 0).astype(float), 0.7)
    image *= labels != OUTSIDE
    return Case(f"c{index}", f"s{index}", (rng.uniform(0.5, 3) * image).astype(np.float32), labels)


CASES = [real_case(index) for index in range(60)]
FIRST, KNOWN, OTHERS = CASES[0], CASES[:40], CASES[40:]


def measured(samples, real=KNOWN):
    return Appearance().compute(samples, real, SCHEMA)


def unit_of(case):
    """A deviation of each channel around the lesion."""
    return case.image[:, case.labels == 0].std(axis=1)[:, None, None]


def around(case, voxels):
    """The lesion, and as many voxels around it."""
    lesion = case.labels > 0
    return binary_dilation(lesion, iterations=voxels) if voxels else lesion


@pytest.mark.parametrize(("place", "other", "voxels"), [("edge", "rim", 0), ("rim", "edge", 3)])
def test_a_hard_paste_with_other_intensities_is_out_of_range(place, other, voxels):
    pasted = [Sample(c.image + 2 * unit_of(c) * around(c, voxels), c.labels) for c in OTHERS]
    found = measured(pasted)
    assert (found["lesions"], found["real lesions"]) == (20, 40)
    assert 0.92 <= found["real in range"] <= 0.98
    for channel in SCHEMA.channels:
        assert found[f"{channel} {place} in range"] <= 0.1
        assert found[f"{channel} {place}"] > 1.2 * found[f"{channel} {place} real"]
        assert found[f"{channel} {other} in range"] >= 0.8


def test_gradients_are_in_deviations_of_the_body_per_mm():
    once = profiles(FIRST.image, FIRST.labels, None, SCHEMA)
    scaled = 40 * FIRST.image + 7 * (FIRST.labels != OUTSIDE)
    again = profiles(scaled.astype(np.float32), FIRST.labels, None, SCHEMA)
    assert once.shape == (1, 2, len(PLACES))
    np.testing.assert_allclose(again, once, rtol=1e-3)
    coarse = profiles(FIRST.image, FIRST.labels, None, replace(SCHEMA, spacing=(2.0, 2.0)))
    np.testing.assert_allclose(coarse[..., :2], once[..., :2] / 2)


def test_of_a_lesion_put_into_a_case_only_what_is_new_counts():
    new = disc((12, 32), 5) & (FIRST.labels == 0)
    labels = np.where(new, np.int16(1), FIRST.labels)
    told = {"case": FIRST.id, "lesions": {"donor": "c1"}}
    sample = Sample(FIRST.image + 9 * new[None].astype(np.float32), labels, provenance=told)
    np.testing.assert_array_equal(new_voxels(sample, FIRST), new)
    found = measured([sample])
    assert (found["lesions"], found["T1 edge in range"]) == (1, 0)
    own = {**told, "lesions": {"where": "own"}}
    for change, lesions in (
        ({"provenance": {}}, 2),
        ({"image": FIRST.image, "labels": FIRST.labels, "provenance": own}, 1),
        ({"image": FIRST.image, "labels": FIRST.labels}, 0),
    ):
        assert measured([replace(sample, **change)])["lesions"] == lesions


@pytest.mark.parametrize("lacking", ["lesions", "real lesions"])
def test_no_lesions_and_no_reference_are_said_and_not_guessed(lacking):
    bare = [replace(c, labels=np.minimum(c.labels, 0)) for c in CASES[:6]]
    sample = (bare if lacking == "lesions" else CASES)[5]
    real = (CASES if lacking == "lesions" else bare)[:5]
    samples = [Sample(sample.image, sample.labels)]
    found = measure({"it": Appearance()}, samples, real, SCHEMA)["it"]
    assert (found[lacking], found["in range"]) == (0, None)


LESION = disc((32, 32), 8)


def look(image):
    """The last places of one lesion in a head of deviation 1."""
    labels = np.where(disc((32, 32), 30), LESION, OUTSIDE).astype(np.int16)
    grain = np.random.default_rng(0).normal(size=(1, *SHAPE))
    schema = replace(SCHEMA, channels=("T1",))
    row = profiles((grain + image).astype(np.float32), labels, None, schema)[0, 0]
    return dict(zip(PLACES[LOOK:], row[LOOK:], strict=True))


@pytest.mark.parametrize(("voxels", "halo"), [(0, 0.0), (2, 1.5)])
def test_contrast_and_halo_are_in_deviations_of_the_body(voxels, halo):
    ring = (distance_transform_edt(~LESION) < voxels + 0.5) & ~LESION
    found = look(4.0 * LESION + 1.5 * ring)
    assert found["contrast"] == pytest.approx(4, abs=0.3)
    assert found["halo"] == pytest.approx(halo, abs=0.25)


def test_grain_of_white_noise_is_its_variance_whatever_the_contrast():
    rng = np.random.default_rng(1)
    noisy = [look(9.0 * LESION + 3 * rng.normal(size=SHAPE) * LESION) for _ in range(20)]
    bands = [[found[f"grain {band}"] for band in (2, 3, 4)] for found in noisy]
    np.testing.assert_allclose(np.mean(bands, axis=0), 1 + 9, rtol=0.1)


def smeared(case):
    """The case, blurred around its lesions' edges."""
    near_edge = around(case, 3) & (distance_transform_edt(case.labels > 0) < 3)
    blurred = np.stack([gaussian_filter(channel, 2) for channel in case.image])
    return np.where(near_edge, blurred, case.image)


CHANGES = {
    "nothing": lambda c: c.image,
    "edge": smeared,
    "halo": lambda c: c.image + 2 * unit_of(c) * (around(c, 2) & (c.labels == 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_figures_are_like_other_peoples_unless_something_is_wrong(change):
    samples = [Sample(CHANGES[change](c).astype(np.float32), c.labels) for c in OTHERS]
    compared = Comparison(samples, KNOWN, SCHEMA, [case.subject for case in OTHERS])
    found = {figure.name: figure.finding for figure in Appearance().figures(compared)}
    for channel in SCHEMA.channels:
        for name in ("edge", "contrast", "halo", "grain 4") if change == "nothing" else (change,):
            expected = "like real" if change == "nothing" else "unlike real"
            assert found[f"{channel} {name}"] == expected


BOXED = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("core",))
contrast_of = BoxContrastMetric().compute


def boxed():
    rng, made = np.random.default_rng(0), []
    for index in range(24):
        corner = rng.uniform(9, 28, 2)
        made.append(spotted(index, (*corner, *(corner + rng.uniform(7, 10, 2)))))
    return made


def drawn(made, heeded=True):
    """Samples with lesions in their boxes, or in another's."""
    rng = np.random.default_rng(1)
    pairs = zip(made if heeded else made[5:] + made[:5], made, strict=True)
    return [Sample(picture(s.boxes, (48, 48), rng), None, c.boxes) for s, c in pairs]


def test_lesions_in_boxes_are_told_from_lesions_anywhere():
    real = boxed()
    good, bad = (contrast_of(drawn(real, heeded), real, BOXED) for heeded in (True, False))
    assert good["samples"] > 0.95
    assert good["samples difference low"] > 0.5
    assert good["samples told apart"] > 0.9
    assert bad["samples difference low"] < 0.1
    assert bad["samples told apart"] < 0.7
    assert good["real"] == pytest.approx(bad["real"])
    assert good["real difference"] == pytest.approx(good["real"] - good["real shuffled"])
    # The interval is of people, however many images they have.
    low, high = good["real difference low"], good["real difference high"]
    assert low < good["real difference"] < high
    two = [replace(c, subject=str(i % 2)) for i, c in enumerate(real)]
    few = contrast_of(drawn(real), two, BOXED)
    assert good["real difference"] == pytest.approx(few["real difference"])
    assert few["samples difference low"] == good["samples difference low"]
    assert (few["real difference low"], few["real difference high"]) != (low, high)
