import numpy as np
from scipy import ndimage

from gansynth.data.nifti import interpolate_slices
from tests.data.sets import opened, save
from tests.expected import raises_fault


def discs(*radii: float) -> np.ndarray:
    """A slice for each radius (D, H, W); none is drawn for 0."""
    far = np.hypot(*(np.indices((41, 41)) - 20))
    return np.stack([(far <= r) & (r > 0) for r in radii]).astype(np.int16)


def blobs(seed: int) -> np.ndarray:
    """Every third slice of a random shape of three labels within each other."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((16, 32, 32)), 3)
    labels = np.digitize(noise, np.quantile(noise, (0.7, 0.85, 0.95))).astype(np.int16)
    kept = np.zeros_like(labels)
    kept[1::3] = labels[1::3]
    return kept


def filled(labels: np.ndarray, **options: int) -> list[bool]:
    return [bool(plane.any()) for plane in interpolate_slices(labels, **options)]


def test_a_cone_is_restored():
    cone = discs(*np.arange(16, 3, -1))
    sparse = np.where(np.arange(13)[:, None, None] % 4 == 0, cone, 0).astype(np.int16)
    found = interpolate_slices(sparse)
    assert 2 * (found & cone).sum() / (found.sum() + cone.sum()) > 0.98
    assert (np.diff(found, axis=0) <= 0).all()
    assert (np.diff(found.sum(axis=(1, 2))) < 0).all()


def test_a_label_that_one_slice_lacks_yields_to_that_of_both():
    apart = interpolate_slices(discs(15, 0, 0, 15) + discs(0, 0, 0, 15))
    assert [int(plane.max()) for plane in apart] == [1, 1, 2, 2]  # in common is none: the nearer
    shared = discs(15, 0, 15)
    shared[2, 18:22, 18:22] = 2
    assert set(np.unique(interpolate_slices(shared)[1])) == {0, 1}


def test_nothing_is_added_beyond_the_first_and_the_last_nor_where_they_are_too_far_apart():
    assert filled(discs(0, 0, 9, 0, 9, 0, 0)) == [False, False, True, True, True, False, False]
    sparse = discs(9, 0, 0, 9, 0, 0, 0, 9)
    assert filled(sparse) == [True] * 8
    assert filled(sparse, every=3) == [*[True] * 4, *[False] * 3, True]


def test_read_between_completes_labels_of_cases_and_of_originals(tmp_path):
    expected = interpolate_slices(blobs(1))
    for seed in (0, 1):  # stored with z downward
        image = np.random.default_rng(seed).normal(100, 9, (16, 32, 32)).astype(np.float32)
        for part, array in (("images", image), ("labels", blobs(seed).astype(np.uint8))):
            stored = np.ascontiguousarray(array[::-1].T)
            save(tmp_path / part / f"p{seed}.nii.gz", stored, np.diag([1.0, 1.0, -2.0, 1.0]))
    source = opened(tmp_path, folds="2", between="3")
    assert (expected != blobs(1)).any()
    assert np.array_equal(source.load("p1").labels, expected)
    assert np.array_equal(source.files("p1").arrays()[1], expected)
    with raises_fault("options.value-invalid"):
        opened(tmp_path, folds="2", between="1")
