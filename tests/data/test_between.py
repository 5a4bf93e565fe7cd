"""Labels between labelled slices: linear in shape, within what was drawn, and nothing beyond."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.source import CaseSource, Original, SourceRequest
from gansynth.data.between import interpolate_slices
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.opening import open_source


def discs(*radii: float, centre: tuple[float, float] = (20, 20)) -> np.ndarray:
    """A slice for each radius (D, H, W); none is drawn for 0."""
    h, w = np.indices((41, 41))
    far = np.hypot(h - centre[0], w - centre[1])
    return np.stack([(far <= r) & (r > 0) for r in radii]).astype(np.int16)


def blobs(seed: int) -> np.ndarray:
    """Every third slice of a random shape of three labels within each other."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((16, 32, 32)), 3)
    labels = np.digitize(noise, np.quantile(noise, (0.7, 0.85, 0.95))).astype(np.int16)
    kept = np.zeros_like(labels)
    kept[1::3] = labels[1::3]
    return kept


def test_a_cone_is_restored():
    cone = discs(*np.arange(16, 3, -1))
    sparse = np.where(np.arange(13)[:, None, None] % 4 == 0, cone, 0).astype(np.int16)
    filled = interpolate_slices(sparse)
    assert 2 * (filled & cone).sum() / (filled.sum() + cone.sum()) > 0.98


def test_slices_of_a_cone_lie_within_each_other():
    filled = interpolate_slices(discs(16, 0, 0, 0, 0, 0, 4))
    assert (np.diff(filled, axis=0) <= 0).all()
    assert (np.diff(filled.sum(axis=(1, 2))) < 0).all()


def test_a_shape_on_the_move_is_between_the_two():
    sparse = np.concatenate([discs(10, 0, centre=(20, 16)), discs(10, centre=(20, 24))])
    middle = np.argwhere(interpolate_slices(sparse)[1])
    assert middle.mean(axis=0) == pytest.approx((20, 20), abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_drawn_slices_stay_and_what_is_filled_lies_between_its_neighbours(seed):
    sparse = blobs(seed)
    before = sparse.copy()
    filled = interpolate_slices(sparse)
    assert np.array_equal(sparse, before)
    assert np.array_equal(filled[1::3], sparse[1::3])
    assert set(np.unique(filled)) <= set(np.unique(sparse))
    for first in range(1, 13, 3):
        both = (sparse[first] > 0) & (sparse[first + 3] > 0)
        either = (sparse[first] > 0) | (sparse[first + 3] > 0)
        assert both.any()
        for between in filled[first + 1 : first + 3] > 0:
            assert (between >= both).all()
            assert (between <= either).all()


def test_parts_of_a_tumour_leave_no_gap_between_them():
    parts = discs(18, 0, 0, 9) + discs(10, 0, 0, 4)  # the ring of one slice is clear of the other's
    filled = interpolate_slices(parts)
    whole = interpolate_slices((parts > 0).astype(np.int16))
    assert np.array_equal(filled > 0, whole > 0)
    assert all(set(np.unique(plane)) == {0, 1, 2} for plane in filled)


def test_a_label_that_one_slice_lacks_yields_to_that_of_both():
    apart = interpolate_slices(discs(15, 0, 0, 15) + discs(0, 0, 0, 15))
    assert [int(plane.max()) for plane in apart] == [1, 1, 2, 2]  # in common is none: the nearer
    shared = discs(15, 0, 15)
    shared[2, 18:22, 18:22] = 2
    assert set(np.unique(interpolate_slices(shared)[1])) == {0, 1}


def test_nothing_is_added_beyond_the_first_and_the_last():
    filled = interpolate_slices(discs(0, 0, 9, 0, 9, 0, 0))
    assert filled.any(axis=(1, 2)).tolist() == [False, False, True, True, True, False, False]


def test_slices_further_apart_than_asked_are_not_joined():
    sparse = discs(9, 0, 0, 9, 0, 0, 0, 9)
    assert interpolate_slices(sparse, every=3).any(axis=(1, 2)).tolist() == [True] * 4 + [
        False,
        False,
        False,
        True,
    ]
    assert interpolate_slices(sparse).any(axis=(1, 2)).all()
    assert interpolate_slices(sparse, every=2) is sparse


# -- --read between= -------------------------------------------------------------------------------


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """Two cases of pairs, drawn on every third slice; stored with z downward."""
    affine = np.diag([1.0, 1.0, -2.0, 1.0])
    for seed in (0, 1):
        image = np.random.default_rng(seed).normal(100, 9, (16, 32, 32)).astype(np.float32)
        for part, array in (("images", image), ("labels", blobs(seed).astype(np.uint8))):
            path = tmp_path / f"set/{part}/p{seed}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            stored = np.ascontiguousarray(array[::-1].T)
            path.write_bytes(gzip.compress(nib.Nifti1Image(stored, affine).to_bytes(), 1))
    return tmp_path / "set"


def opened(where: Path, **keys: str) -> CaseSource:
    request = SourceRequest("nifti", str(where), read={"folds": "2", **keys})
    return open_source(request)


def test_read_between_completes_labels_of_cases_and_of_originals(sparse):
    expected = interpolate_slices(blobs(1))
    source = opened(sparse, between="3")
    labels = source.load("p1").labels
    original = source.original("p1")
    assert isinstance(original, Original)
    assert labels is not None
    assert (expected != blobs(1)).any()
    assert np.array_equal(labels, expected)
    assert np.array_equal(original.labels, expected)


def test_without_it_labels_and_record_are_as_ever(sparse):
    source = opened(sparse)
    labels = source.load("p1").labels
    assert labels is not None
    assert np.array_equal(labels, blobs(1))
    assert "between" not in source.space.host


def test_the_record_tells_runs_with_and_without_apart(sparse):
    assert opened(sparse, between="3").space.host["between"] == 3
    assert opened(sparse, between="3").space != opened(sparse).space


def test_between_1_is_refused_with_its_meaning(sparse):
    with pytest.raises(UsageFault, match=r"--read between=1: .*every N-th slice"):
        opened(sparse, between="1")
