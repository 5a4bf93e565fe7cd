import numpy as np
import pytest

from gansynth.core.schema import OUTSIDE, Schema
from gansynth.data.connected_components import boxes_of
from gansynth.data.label_statistics import LabelPriors, label_share

FLAT = Schema(("T1",), {"background": 0, "edema": 1, "core": 2}, (1.0, 1.0), axes="HW")
SOLID = Schema(("T1",), {"background": 0, "organ": 1, "lesion": 2}, (1.0, 1.0, 1.0))
BODY = Schema(("T1",), {"background": 0, "edema": 1}, (1.0, 1.0), axes="HW", has_outside=True)
EMPTY = np.zeros((32, 32), np.int16)


def blob(seed: int) -> np.ndarray:
    """A disc of edema round a disc of core, somewhere."""
    rng = np.random.default_rng(seed)
    far = np.hypot(*(np.mgrid[:32, :32] - rng.uniform(12, 20, 2)[:, None, None]))
    radius = rng.uniform(5, 9)
    labels: np.ndarray = (far < radius).astype(np.int16) + (far < radius / 2)
    return labels


def in_body(seed: int) -> np.ndarray:
    """Edema in a body that is all round it, outside beyond."""
    far = np.hypot(*(np.mgrid[:32, :32] - 15.5))
    return np.where(far < 15, np.minimum(blob(seed), 1), np.int16(OUTSIDE)).astype(np.int16)


def rare(seed: int) -> np.ndarray:
    """A blob in every other map."""
    return blob(seed) * np.int16(seed % 2)


def tiny(seed: int) -> np.ndarray:
    """A blob in every other map, and in one a label of one voxel."""
    return voxel() if seed == 0 else rare(seed)


def voxel(value: int = 1) -> np.ndarray:
    labels = EMPTY.copy()
    labels[16, 16] = value
    return labels


@pytest.fixture(scope="module")
def priors():
    return LabelPriors.fit(map(blob, range(40)), FLAT)


@pytest.fixture(scope="module")
def many():
    return {maps: LabelPriors.fit(map(maps, range(400)), FLAT) for maps in (blob, rare, tiny)}


@pytest.mark.parametrize("value", [0, 1])
def test_a_hole_takes_the_label_around_it(priors, value):
    whole = blob(100)
    holed = whole.copy()
    holed[tuple(np.argwhere(whole == 2).mean(0).round().astype(int))] = value
    before = holed.copy()
    assert np.array_equal(priors.clean(holed), whole)
    assert np.array_equal(priors.clean(whole), whole)
    assert np.array_equal(holed, before)


def test_a_trace_of_a_label_goes_unless_every_training_map_has_it(priors):
    assert priors.clean(voxel())[16, 16] == 1
    rarely = LabelPriors.fit(map(rare, range(40)), FLAT)
    assert not rarely.clean(voxel()).any()
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


def core_in(edema: np.ndarray, size: int, value: int = 2) -> np.ndarray:
    labels = edema.copy()
    labels[16 : 16 + size, 16 : 16 + size] = value
    return labels


STREWN = EMPTY.copy()
STREWN[::3, ::3] = 1


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (core_in(EMPTY + np.int16(1), 4), "label 1 (edema) has an unusual size: 1008 voxels, "),
        (core_in(np.minimum(blob(0), 1), 1), "label 2 (core) has an unusual size: 1 voxels, "),
        (np.minimum(blob(0), 1), "label 2 (core) is missing, expected in every label map"),
        (EMPTY, "no label is drawn, expected "),
        (core_in(STREWN, 4), "label 1 (edema) has 120 parts, expected at most "),
    ],
    ids=["much", "little", "missing", "nothing", "crumbs"],
)
def test_maps_unlike_all_training_maps_are_rejected(priors, labels, says):
    assert priors.reject_reason(labels).startswith(says)


def test_a_label_that_some_training_maps_lack_may_be_missing(many):
    assert not many[rare].reject_reason(EMPTY)
    said = many[tiny].reject_reason(voxel())
    assert said == "foreground covers 1 voxels, expected at least 71 as in the training label maps"


def strewn(count: int, seed: int = 0) -> np.ndarray:
    """So many voxels of edema, anywhere."""
    labels = EMPTY.copy()
    labels.flat[np.random.default_rng(seed).choice(labels.size, count, replace=False)] = 1
    return labels


def refused(priors: LabelPriors, drawn: np.ndarray) -> str:
    """Why a map that was drawn enters no bank."""
    cleaned = priors.clean(drawn)
    return priors.noise(drawn, cleaned) or priors.reject_reason(cleaned)


def test_strewn_voxels_are_refused_though_a_training_map_has_a_label_of_one(many):
    priors = many[tiny]
    assert all(refused(priors, strewn(n, seed)) for n in (1, 3, 20, 50) for seed in range(5))
    said = priors.noise(strewn(8), strewn(8))  # whatever cleaning takes
    assert said.startswith("foreground is strewn about: 8 voxels with ")


@pytest.mark.parametrize("maps", [blob, rare, tiny])
def test_maps_of_the_same_kind_are_no_noise(many, maps):
    assert {refused(many[maps], maps(i)) for i in range(401, 500)} == {""}


def test_labels_that_samples_show_half_as_often_or_too_large_are_told(priors):
    warnings = priors.compare(rare(i) for i in range(64))["warnings"]
    assert "label 1 (edema) is in 50% of 64 samples, expected about 100%" in warnings[0]
    larger = [np.kron(blob(i), np.ones((2, 2))).astype(np.int16) for i in range(64)]
    warnings = priors.compare(larger)["warnings"]
    assert [w.split(" covers")[0] for w in warnings] == ["label 1 (edema)", "label 2 (core)"]
    assert priors.compare([EMPTY] * 7)["warnings"] == []  # few samples say nothing


def test_no_training_map_says_nothing():
    priors = LabelPriors.fit([], FLAT)
    assert (priors.noise(strewn(40), blob(0)), priors.reject_reason(blob(0))) == ("", "")
    assert np.array_equal(priors.clean(blob(0)), blob(0))


def test_each_part_of_each_label_has_a_box():
    labels = np.zeros((10, 12), np.int16)
    labels[1:3, 2:6] = 1
    labels[5, 5] = labels[6, 6] = 2  # one part, across a corner
    labels[9, 11] = 2
    boxes = boxes_of(labels, FLAT)
    assert boxes.coords.tolist() == [[1, 2, 3, 6], [5, 5, 7, 7], [9, 11, 10, 12]]
    assert boxes.labels.tolist() == [1, 2, 2]
    assert boxes_of(labels, FLAT, least=2).labels.tolist() == [1, 2]
    volume = np.zeros((4, 5, 6), np.int16)
    volume[1:3, 0:2, 5] = 2
    assert boxes_of(volume, SOLID).coords.tolist() == [[1, 0, 5, 3, 2, 6]]
    assert boxes_of(volume * 0, SOLID).coords.shape == (0, 6)


CLASSED, NOISE, EVEN = [[1, 1, 9], [3, 3, 9]], [[1, 3, 9], [1, 3, 9]], [[2, 2, 9], [2, 2, 9]]
LABELLED = np.array([[0, 0, OUTSIDE], [1, 1, OUTSIDE]], np.int16)


@pytest.mark.parametrize(
    ("channels", "share"),
    [([CLASSED], 1), ([NOISE], 0), ([CLASSED, NOISE], 0.5), ([EVEN], 0)],
    ids=["flat labels", "noise", "both", "even"],
)
def test_label_share_is_the_variance_that_labels_explain(channels, share):
    image = np.array(channels, np.float32)
    cases = [(image[..., :1], LABELLED[:, :1]), (image, LABELLED)]
    assert label_share(cases) == label_share(cases[1:]) == pytest.approx(share)
    assert np.isnan(label_share([]))
