import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.schema import OUTSIDE, Schema
from gansynth.data.connected_components import boxes_of
from gansynth.data.label_statistics import LabelPriors, label_share

FLAT = Schema(("T1",), {"background": 0, "edema": 1, "core": 2}, (1.0, 1.0), axes="HW")
SOLID = Schema(("T1",), {"background": 0, "organ": 1, "lesion": 2}, (1.0, 1.0, 1.0))
BODY = Schema(
    ("T1",), {"background": 0, "edema": 1}, (1.0, 1.0), axes="HW", has_outside=True
)  # fmt: skip


def blob(seed: int, size: int = 32) -> np.ndarray:
    """A disc of edema round a disc of core, somewhere."""
    rng = np.random.default_rng(seed)
    far = np.hypot(*(np.mgrid[:size, :size] - rng.uniform(12, 20, 2)[:, None, None]))
    labels = np.zeros((size, size), np.int16)
    radius = rng.uniform(5, 9)
    labels[far < radius] = 1
    labels[far < radius / 2] = 2
    return labels


def in_body(seed: int) -> np.ndarray:
    """Edema in a body that is all round it, outside beyond."""
    far = np.hypot(*(np.mgrid[:32, :32] - 15.5))
    return np.where(far < 15, np.minimum(blob(seed), 1), np.int16(OUTSIDE)).astype(np.int16)


def rare(seed: int) -> np.ndarray:
    """A blob in every other map."""
    return blob(seed) * np.int16(seed % 2)


def with_voxels(*at: tuple[int, int]) -> np.ndarray:
    """A map with single voxels of edema."""
    labels = np.zeros((32, 32), np.int16)
    for place in at:
        labels[place] = 1
    return labels


@pytest.fixture(scope="module")
def priors():
    return LabelPriors.fit(map(blob, range(40)), FLAT)


@pytest.mark.parametrize("value", [0, 1])
def test_a_hole_takes_the_label_around_it(priors, value):
    whole = blob(100)
    holed = whole.copy()
    holed[tuple(np.argwhere(whole == 2).mean(0).round().astype(int))] = value
    assert np.array_equal(priors.clean(holed), whole)


def test_a_trace_of_a_label_goes_unless_every_training_map_has_it(priors):
    labels = with_voxels((16, 16))
    assert priors.clean(labels)[16, 16] == 1
    rarely = LabelPriors.fit(map(rare, range(40)), FLAT)
    assert not rarely.clean(labels).any()
    least = rarely.priors[0].range[0]
    labels = np.zeros((32, 64), np.int16)
    labels[2, : least - 1] = labels[20, : least - 2] = 1  # only crumbs make it more
    assert not rarely.clean(labels).any()


def test_outside_is_touched_only_where_the_body_encloses_it():
    priors = LabelPriors.fit(map(in_body, range(40)), BODY)
    whole = in_body(100)
    specked = whole.copy()
    specked[8, 8] = specked[24, 15] = OUTSIDE
    specked[0, 0] = 1  # and a speck of label out there
    assert np.array_equal(priors.clean(specked), whole)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), axes=st.sampled_from([(17, 23), (8, 9, 7)]))
def test_cleaning_a_clean_map_changes_nothing(seed, axes):
    rng = np.random.default_rng(seed)
    schema = FLAT if len(axes) == 2 else SOLID
    coarse = [rng.integers(0, 3, (3,) * len(axes)).repeat(3, 0)[:3] for _ in range(5)]
    priors = LabelPriors.fit((c.astype(np.int16) for c in coarse), schema)
    noise = rng.integers(0, 3, axes).astype(np.int16)
    before = noise.copy()
    cleaned = priors.clean(noise)
    assert np.array_equal(priors.clean(cleaned), cleaned)
    assert np.array_equal(noise, before)
    assert cleaned.dtype == np.int16


def much() -> np.ndarray:
    labels = np.ones((32, 32), np.int16)
    labels[10:14, 10:14] = 2
    return labels


def little() -> np.ndarray:
    labels: np.ndarray = np.minimum(blob(0), 1)
    labels[16, 16] = 2
    return labels


@pytest.mark.parametrize(
    ("labels", "begins", "ends"),
    [
        (much(), "label 1 (edema) has an unusual size: 1008 ", "as in the training label maps"),
        (little(), "label 2 (core) has an unusual size: 1 voxels", "as in the training label maps"),
        (np.minimum(blob(0), 1), "label 2 (core) is missing, expected in every label map",
         "as in the training ones"),
        (np.zeros((32, 32), np.int16), "no label is drawn, expected ", ""),
    ],
    ids=["much", "little", "missing", "nothing"],
)  # fmt: skip
def test_maps_unlike_all_training_maps_are_rejected(priors, labels, begins, ends):
    reject_reason = priors.reject_reason(labels)
    assert reject_reason.startswith(begins)
    assert reject_reason.endswith(ends)


def test_a_label_that_some_training_maps_lack_may_be_missing():
    assert not LabelPriors.fit(map(rare, range(40)), FLAT).reject_reason(
        np.zeros((32, 32), np.int16)
    )
    said = LabelPriors.fit(map(tiny, range(400)), FLAT).reject_reason(with_voxels((16, 16)))
    assert said == "foreground covers 1 voxels, expected at least 71 as in the training label maps"


def test_crumbs_of_the_right_area_are_a_flaw(priors):
    labels = np.zeros((32, 32), np.int16)
    labels[::3, ::3] = 1
    labels[10:14, 10:14] = 2
    assert "label 1 (edema) has " in priors.reject_reason(labels)


def tiny(seed: int) -> np.ndarray:
    """A blob in every other map, and in one a label of one voxel."""
    return with_voxels((16, 16)) if seed == 0 else rare(seed)


def strewn(count: int, seed: int = 0) -> np.ndarray:
    """So many voxels of edema, anywhere."""
    labels = np.zeros((32, 32), np.int16)
    labels.flat[np.random.default_rng(seed).choice(labels.size, count, replace=False)] = 1
    return labels


def refused(priors: LabelPriors, drawn: np.ndarray) -> str:
    """Why a map that was drawn enters no bank."""
    cleaned = priors.clean(drawn)
    return priors.noise(drawn, cleaned) or priors.reject_reason(cleaned)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 20, 50])
def test_strewn_voxels_are_refused_though_a_training_map_has_a_label_of_one(count):
    priors = LabelPriors.fit(map(tiny, range(400)), FLAT)
    assert all(refused(priors, strewn(count, seed)) for seed in range(20))
    if count == 20:  # whatever cleaning takes
        said = priors.noise(strewn(8), strewn(8))
        assert said.startswith("foreground is strewn about: 8 voxels with ")


@pytest.mark.parametrize("maps", [blob, rare, tiny])
def test_maps_of_the_same_kind_are_no_noise(maps):
    priors = LabelPriors.fit(map(maps, range(400)), FLAT)
    drawn = [maps(i) for i in range(401, 500)]
    assert {refused(priors, labels) for labels in drawn} == {""}


def test_a_label_that_samples_show_half_as_often_or_too_large_is_told(priors):
    warnings = priors.compare(rare(i) for i in range(64))["warnings"]
    assert "label 1 (edema) is in 50% of 64 samples, expected about 100%" in warnings[0]
    larger = [np.kron(blob(i), np.ones((2, 2))).astype(np.int16) for i in range(64)]
    warnings = priors.compare(larger)["warnings"]
    assert [w.split(" covers")[0] for w in warnings] == ["label 1 (edema)", "label 2 (core)"]


@pytest.mark.parametrize("samples", [0, 7])
def test_few_samples_say_nothing(priors, samples):
    compared = priors.compare(np.zeros((32, 32), np.int16) for _ in range(samples))
    assert compared["warnings"] == []
    assert json.loads(json.dumps(compared)) == compared


def test_no_training_map_says_nothing():
    priors = LabelPriors.fit([], FLAT)
    assert priors.noise(strewn(40), blob(0)) == ""
    assert priors.reject_reason(blob(0)) == ""
    assert np.array_equal(priors.clean(blob(0)), blob(0))


def test_each_part_of_each_label_has_a_box():
    labels = np.zeros((10, 12), np.int16)
    labels[1:3, 2:6] = 1
    labels[5, 5] = labels[6, 6] = 2  # one part, across a corner
    labels[9, 11] = 2
    boxes = boxes_of(labels, FLAT)
    assert boxes.coords.tolist() == [[1, 2, 3, 6], [5, 5, 7, 7], [9, 11, 10, 12]]
    assert (boxes.labels.tolist(), boxes.labels.dtype.name) == ([1, 2, 2], "int16")
    assert boxes_of(labels, FLAT, least=2).labels.tolist() == [1, 2]
    volume = np.zeros((4, 5, 6), np.int16)
    volume[1:3, 0:2, 5] = 2
    assert boxes_of(volume, SOLID).coords.tolist() == [[1, 0, 5, 3, 2, 6]]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6)], ids=["2d", "3d"])
def test_a_map_without_labels_has_no_box(shape):
    boxes = boxes_of(np.full(shape, OUTSIDE, np.int16), FLAT)
    assert (boxes.coords.shape, boxes.coords.dtype.name) == ((0, 2 * len(shape)), "float32")
    assert (boxes.labels.shape, boxes.labels.dtype.name) == ((0,), "int16")


CLASSED, NOISE, EVEN = [[1, 1, 9], [3, 3, 9]], [[1, 3, 9], [1, 3, 9]], [[2, 2, 9], [2, 2, 9]]
LABELLED = np.array([[0, 0, OUTSIDE], [1, 1, OUTSIDE]], np.int16)


@pytest.mark.parametrize(
    ("channels", "share"), [([CLASSED], 1), ([NOISE], 0), ([CLASSED, NOISE], 0.5)]
)
def test_label_share_is_one_for_flat_labels_and_zero_for_noise(channels, share):
    image = np.array(channels, np.float32)
    assert label_share([(image, LABELLED)]) == pytest.approx(share)
    assert label_share([(image[..., :1], LABELLED[:, :1]), (image, LABELLED)]) == pytest.approx(
        share
    )


def test_even_images_have_nothing_explained_and_no_images_no_share():
    assert label_share([(np.array([EVEN], np.float32), LABELLED)]) == 0
    assert np.isnan(label_share([]))
