"""Images and label maps on another grid: means of what is covered, or linear between centres."""

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


def interpolate(image: np.ndarray, shape: tuple[int, ...], mode: str) -> np.ndarray:
    return F.interpolate(torch.from_numpy(image)[None], size=shape, mode=mode)[0].numpy()


@pytest.mark.parametrize(
    ("shape", "size"), [((12, 9, 8), (4, 3, 2)), ((12, 9, 8), (12, 9, 1)), ((12, 15), (4, 5))]
)
def test_whole_factors_agree_with_torch_s_area(shape, size):
    image = noise(*shape)
    np.testing.assert_allclose(bring(image, *size), interpolate(image, size, "area"), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [((4, 5, 6), (8, 13, 6), "trilinear"), ((1, 5, 6), (3, 7, 24), "trilinear"),
     ((7, 5), (21, 16), "bilinear")],
)  # fmt: skip
def test_growing_agrees_with_torch_s_linear(shape, size, mode):
    image = noise(*shape)
    np.testing.assert_allclose(bring(image, *size), interpolate(image, size, mode), atol=1e-5)


def test_a_voxel_on_an_edge_counts_by_the_share_that_lies_within():
    row = np.array([3, 6, 9, 12, 30], np.float32).reshape(1, 5)
    found = bring(row, 2)
    np.testing.assert_allclose(found, [[(3 + 6 + 4.5) / 2.5, (4.5 + 12 + 30) / 2.5]], rtol=1e-6)


@given(EDGES, st.data(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_shrinking_keeps_the_mean(shape, data, seed):
    size = data.draw(st.tuples(*[st.integers(1, n) for n in shape]))
    image = noise(*shape, seed=seed)
    found = bring(image, *size).mean((1, 2, 3))
    np.testing.assert_allclose(found, image.mean((1, 2, 3)), atol=1e-5)


@given(EDGES, EDGES, st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_nothing_lies_beyond_what_was_there(shape, size, nearest, seed):
    image = noise(*shape, seed=seed)
    found = bring(image, *size, nearest=nearest)
    assert found.shape == (2, *size)
    assert found.dtype == np.float32
    assert found.min() >= image.min() - 1e-5
    assert found.max() <= image.max() + 1e-5


@pytest.mark.parametrize("size", [(5, 7), (17, 13), (23, 31)])
@pytest.mark.parametrize("value", [0, 7, -0.3])
def test_a_constant_background_stays_so_to_the_bit(size, value):
    image = np.full((1, 17, 13), value, np.float32)
    image[:, 6:9, 5:8] = noise(3, 3)[:1]
    assert (bring(image, *size)[0, [0, -1]] == np.float32(value)).all()


def test_labels_take_the_one_in_the_middle_of_each_voxel():
    labels = np.arange(15, dtype=np.int16).reshape(3, 5)
    found: Any = resample(labels[None].astype(np.float32), labels, (1, 10))[1]
    assert found.tolist() == [[5, 5, 6, 6, 7, 7, 8, 8, 9, 9]]
    assert found.dtype == np.int16


@pytest.mark.parametrize("edge", [24, 32, 43])
def test_small_labels_keep_their_volume(edge):
    """Over many places: a vote would lose nearly all of these."""
    kept = []
    for seed in range(400):
        labels = np.zeros((96, 96), np.int16)
        row, column = np.random.default_rng(seed).integers(0, 94, 2)
        labels[row : row + 2, column : column + 2] = 1
        kept.append(pick(labels, (edge, edge)).sum() * (96 / edge) ** 2)
    assert np.mean(kept) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 2, 5)])
@pytest.mark.parametrize("nearest", [False, True])
def test_resampling_returns_copies(shape, nearest):
    image, labels = noise(3, 4, 5), np.zeros((3, 4, 5), np.int16)
    before = image.copy()
    made: Any
    for made in resample(image, labels, shape, nearest=nearest):
        made += 1
    assert np.array_equal(image, before)
    assert not labels.any()
