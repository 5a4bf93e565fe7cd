"""The metric ``seam``: real lesions are in range, pasted ones with a step or a smear are not."""
# mypy: disallow-untyped-calls=False

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from gansynth.core.geometry import Mask
from gansynth.core.schema import OUTSIDE, Case, Sample, Schema
from gansynth.metrics.comparison import load_metrics, measure
from gansynth.metrics.seams import REACH, new_voxels, seam_metric, seams
from gansynth.runtime.errors import UsageFault

SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "core": 1, "rim": 2}, (1.0, 1.0), "HW")
SHAPE = (64, 64)


def disc(centre: Sequence[float], radius: float) -> Mask:
    at = np.indices(SHAPE) + 0.5
    away = sum((a - c) ** 2 for a, c in zip(at, centre, strict=True))
    return np.asarray(away < radius**2)


def real_case(index: int) -> Case:
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


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [real_case(index) for index in range(60)]


def sampled(case: Case, image: npt.NDArray[Any] | None = None) -> Sample:
    return Sample(case.image if image is None else image.astype(np.float32), case.labels)


def around(case: Case, voxels: int) -> Mask:
    """The lesion, and as many voxels around it."""
    assert case.labels is not None
    lesion = case.labels > 0
    return np.asarray(binary_dilation(lesion, iterations=voxels) if voxels else lesion)


def shifted(case: Case, by: float, voxels: int) -> Sample:
    """The region pasted with other intensities, hard: a step at its border."""
    unit = case.image[:, case.labels == 0].std(axis=1)[:, None, None]
    return sampled(case, case.image + by * unit * around(case, voxels))


def test_real_lesions_are_as_steep_as_other_real_ones(cases):
    found = seam_metric([sampled(c) for c in cases[40:]], cases[:40], SCHEMA)
    assert (found["lesions"], found["real lesions"]) == (20, 40)
    assert found["in range"] >= 0.9
    assert 0.92 <= found["real in range"] <= 0.98
    assert found["FLAIR edge"] == pytest.approx(found["FLAIR edge real"], rel=0.15)


def test_with_few_real_lesions_a_further_one_is_not_beyond_their_range(cases):
    few = seam_metric([sampled(c) for c in cases[:9]], cases[:9], SCHEMA)
    assert few["in range"] == 1
    assert few["real in range"] == pytest.approx(7 / 9, abs=0.1)  # between the others' extremes


@pytest.mark.parametrize("place", ["edge", "rim"])
def test_a_hard_paste_with_other_intensities_is_out_of_range(cases, place):
    voxels = {"edge": 0, "rim": 3}[place]
    other = {"edge": "rim", "rim": "edge"}[place]
    found = seam_metric([shifted(c, 2, voxels) for c in cases[40:]], cases[:40], SCHEMA)
    for channel in SCHEMA.channels:
        assert found[f"{channel} {place} in range"] <= 0.1
        assert found[f"{channel} {place}"] > 1.2 * found[f"{channel} {place} real"]
        assert found[f"{channel} {other} in range"] >= 0.8


def test_a_smeared_edge_is_out_of_range_as_well(cases):
    smeared = []
    for case in cases[40:]:
        smooth = gaussian_filter(case.image, (0, 2, 2))
        smeared.append(sampled(case, np.where(around(case, 3), smooth, case.image)))
    found = seam_metric(smeared, cases[:40], SCHEMA)
    assert found["T1 edge in range"] <= 0.1
    assert found["T1 edge"] < found["T1 edge real"]


def test_the_scale_of_intensities_does_not_come_in(cases):
    case = cases[0]
    once = seams(case.image, case.labels, None, SCHEMA)
    scaled = 40 * case.image + 7 * (case.labels != OUTSIDE)
    again = seams(scaled.astype(np.float32), case.labels, None, SCHEMA)
    assert once.shape == (1, 2, 2)
    np.testing.assert_allclose(again, once, rtol=1e-4)


def test_gradients_are_per_mm(cases):
    case = cases[0]
    fine = seams(case.image, case.labels, None, SCHEMA)
    coarse = seams(case.image, case.labels, None, replace(SCHEMA, spacing=(2.0, 2.0)))
    np.testing.assert_allclose(coarse, fine / 2)


def test_of_a_lesion_put_into_a_case_only_what_is_new_counts(cases):
    case = cases[0]
    new = disc((12, 32), 5) & (case.labels == 0)
    labels = np.where(new, np.int16(1), case.labels)
    told = {"case": case.id, "lesions": {"donor": "c1"}}
    sample = Sample(case.image + 9 * new[None].astype(np.float32), labels, provenance=told)
    np.testing.assert_array_equal(new_voxels(sample, case), new)
    found = seam_metric([sample], [case, *cases[1:]], SCHEMA)
    assert (found["lesions"], found["T1 edge in range"]) == (1, 0)
    unknown = replace(sample, provenance={})
    assert seam_metric([unknown], [case, *cases[1:]], SCHEMA)["lesions"] == 2
    redrawn = Sample(case.image, case.labels, provenance={**told, "lesions": {"where": "own"}})
    assert seam_metric([redrawn], cases, SCHEMA)["lesions"] == 1
    nothing_new = Sample(case.image, case.labels, provenance=told)
    assert seam_metric([nothing_new], cases, SCHEMA)["lesions"] == 0


def test_what_belongs_to_another_lesion_is_left_out():
    lesion = disc((32, 20), 6)
    bright = disc((32, 32), 6) & ~lesion
    grain = np.random.default_rng(0).normal(1, 0.1, (1, *SHAPE))
    image = (grain + lesion + 50 * bright).astype(np.float32)
    labels = np.where(disc((32, 32), 30), lesion, OUTSIDE).astype(np.int16)
    together = seams(image, labels, lesion, SCHEMA)[0]
    labels[bright] = 2
    alone = seams(image, labels, lesion, SCHEMA)[0]
    assert (alone * 3 < together).all()


def test_each_piece_is_a_lesion_and_crumbs_are_none():
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.int16)
    labels[disc((16, 16), 6) | disc((48, 48), 6)] = 1
    labels[30, 2:6] = 1
    image = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    assert seams(image, labels, None, SCHEMA).shape == (2, 2, 2)


def test_rims_end_within_reach_on_coarse_slices():
    """With slices far apart the steps outwards are those of the finest axis."""
    rng = np.random.default_rng(0)
    labels = np.zeros((7, *SHAPE), np.int16)
    labels[2:5, disc((32, 32), 8)] = 1
    image = rng.normal(0, 0.1, (1, *labels.shape)).astype(np.float32)
    schema = Schema(("T1",), SCHEMA.labels, (5.0, 1.0, 1.0))
    plain = seams(image, labels, None, schema)[0, 0]
    ring = disc((32, 32), 8 + REACH - 2)
    stepped = seams((image + 2 * ring).astype(np.float32), labels, None, schema)[0, 0]
    assert stepped[1] > 2 * plain[1]


def test_no_lesions_and_no_reference_are_said_and_not_guessed(cases):
    bare = Sample(cases[0].image, np.minimum(cases[0].labels, 0))
    measured = measure({"seam": seam_metric}, [bare], cases[:5], SCHEMA)["seam"]
    assert (measured["lesions"], measured["in range"]) == (0, None)
    tumour_free = [replace(c, labels=np.minimum(c.labels, 0)) for c in cases[:5]]
    measured = measure({"seam": seam_metric}, [sampled(cases[7])], tumour_free, SCHEMA)["seam"]
    assert (measured["real lesions"], measured["in range"]) == (0, None)
    with pytest.raises(UsageFault, match="samples have no label maps, expected those of"):
        seam_metric([Sample(cases[0].image)], cases, SCHEMA)


def test_it_is_installed():
    assert load_metrics(["seam"]) == {"seam": seam_metric}
