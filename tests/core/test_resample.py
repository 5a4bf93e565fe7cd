from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.resample import pick, resample

EDGES = st.tuples(*[st.integers(1, 12)] * 3)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)


def bring(image: np.ndarray, *shape: int, nearest: bool = False) -> np.ndarray:
    return resample(image, None, shape, nearest=nearest)[0]


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [
        ((12, 9, 8), (4, 3, 2), "area"),
        ((12, 15), (4, 15), "area"),
        ((4, 5, 6), (8, 13, 6), "trilinear"),
        ((1, 5, 6), (3, 7, 24), "trilinear"),
        ((7, 5), (21, 16), "bilinear"),
    ],
)
def test_whole_factors_and_growing_agree_with_torch(shape, size, mode):
    image = noise(*shape)
    theirs = F.interpolate(torch.from_numpy(image)[None], size=size, mode=mode)[0].numpy()
    np.testing.assert_allclose(bring(image, *size), theirs, atol=1e-5)


@given(EDGES, EDGES, st.booleans(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_nothing_lies_beyond_what_was_there_and_shrinking_keeps_the_mean(
    shape, size, nearest, seed
):
    image = noise(*shape, seed=seed)
    found = bring(image, *size, nearest=nearest)
    assert found.shape == (2, *size)
    assert found.dtype == np.float32
    assert found.min() >= image.min() - 1e-5
    assert found.max() <= image.max() + 1e-5
    smaller = bring(image, *np.minimum(shape, size)).mean((1, 2, 3))
    np.testing.assert_allclose(smaller, image.mean((1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (23, 31)])
def test_a_constant_background_stays_so_to_the_bit(size):
    image = np.full((1, 17, 13), -0.3, np.float32)
    image[:, 6:9, 5:8] = noise(3, 3)[:1]
    assert (bring(image, *size)[0, [0, -1]] == np.float32(-0.3)).all()


def test_small_labels_keep_their_volume():
    """Over many places: a vote would lose nearly all of these."""
    kept = []
    for seed in range(400):
        labels = np.zeros((96, 96), np.int16)
        row, column = np.random.default_rng(seed).integers(0, 94, 2)
        labels[row : row + 2, column : column + 2] = 1
        kept.append(pick(labels, (43, 43)).sum() * (96 / 43) ** 2)
    assert np.mean(kept) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("nearest", [False, True])
def test_resampling_to_the_same_shape_returns_copies(nearest):
    image, labels = noise(3, 4, 5), np.zeros((3, 4, 5), np.int16)
    before = image.copy()
    made: Any
    for made in resample(image, labels, (3, 4, 5), nearest=nearest):
        made += 1
    assert np.array_equal(image, before)
    assert not labels.any()
