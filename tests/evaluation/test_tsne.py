"""Maps of features, and the pictures on them."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.evaluation.maps import embed
from gansynth.report.png import thumbnail
from gansynth.runtime.errors import DataFault


def blobs(count: int = 20, dimensions: int = 80, apart: float = 8.0) -> Any:
    """Two groups, the first half and the second."""
    rng = np.random.default_rng(0)
    found = rng.normal(0, 1, (2 * count, dimensions))
    found[count:] += apart / np.sqrt(dimensions) * 2
    return found


def silhouette(places: Any) -> float:
    from sklearn.metrics import silhouette_score

    half = len(places) // 2
    return float(silhouette_score(places, [0] * half + [1] * half))


def test_groups_that_are_apart_stay_apart():
    places = embed(blobs())
    assert places.shape == (40, 2)
    assert places.dtype == np.float32
    assert silhouette(places) > 0.5


def test_what_is_not_apart_is_not_torn_apart():
    assert silhouette(embed(blobs(apart=0))) < 0.2


def test_the_same_seed_gives_the_same_bits():
    features = blobs()
    state: Any = np.random.get_state()  # noqa: NPY002
    one, two = embed(features, seed=3), embed(features, seed=3)
    assert one.tobytes() == two.tobytes()
    after: Any = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(state[1], after[1])


def test_equal_images_lie_together_and_the_map_stays_one():
    """As they do where crops of few cases are drawn twice."""
    places = embed(np.repeat(blobs(8), 3, axis=0))
    copies = places.reshape(16, 3, 2)
    assert np.abs(places).max() < 100
    assert silhouette(places) > 0.5
    within, between = copies.std(axis=1).mean(), copies.mean(axis=1).std(axis=0).mean()
    assert within < 0.1 * between


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_units_of_features_do_not_matter(scale):
    assert silhouette(embed(blobs() * scale)) > 0.5


def test_one_feature_is_enough():
    assert silhouette(embed(blobs(dimensions=1))) > 0.3


def test_ten_images_are_enough_and_nine_are_not():
    assert embed(blobs(5)).shape == (10, 2)
    with pytest.raises(DataFault, match="t-SNE: 9 images, fewer than 10"):
        embed(blobs(5)[:9])


def test_features_that_are_not_finite_are_named():
    features = blobs()
    features[7, 3], features[9, 0] = np.nan, np.inf
    with pytest.raises(DataFault, match="features of image 7 and 1 more are not finite"):
        embed(features)


def test_features_without_any_spread_are_refused():
    with pytest.raises(DataFault, match="features of all 12 images are the same"):
        embed(np.ones((12, 5)) + 1e-9 * np.arange(12)[:, None])
    with pytest.raises(DataFault, match="are the same"):
        embed(np.zeros((12, 5)))


@pytest.mark.parametrize("features", [np.zeros(12), np.zeros((12, 0)), np.zeros((12, 2, 2))])
def test_what_is_no_table_is_refused(features):
    with pytest.raises(DataFault, match="expected a row of numbers for each image"):
        embed(features)


# -- pictures --------------------------------------------------------------------------------------


def read(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_slice_with_most_foreground_is_shown_in_its_window():
    image = np.zeros((1, 5, 32, 48), np.float32)
    image[0] += np.arange(5)[:, None, None]
    labels = np.zeros((5, 32, 48), np.int16)
    labels[3, 8:16, 8:16] = 1
    labels[1, 8, 8] = 1
    found = read(thumbnail(image, [(0, 4)], labels))
    assert found.shape == (64, 96, 3)
    assert (found[40:] == round(255 * 3 / 4)).all()
    outline = (found[..., 0] != found[..., 2]).nonzero()
    assert (outline[0].min(), outline[0].max()) == (16, 31)
    assert (read(thumbnail(image, [(0, 4)])) == round(255 * 2 / 4)).all()


@pytest.mark.parametrize(("channels", "width"), [(1, 96), (2, 192), (3, 96), (4, 96)])
def test_two_channels_are_side_by_side_and_of_more_the_first_is_shown(channels, width):
    image = np.arange(channels, dtype=np.float32)[:, None, None] + np.zeros((channels, 96, 96))
    window = np.array([(0, 4)] * channels, float)
    found = read(thumbnail(image.astype(np.float32), window))
    assert found.shape == (96, width, 3)
    assert found[0, 0, 0] == 0
    assert found[0, -1, 0] == (64 if channels == 2 else 0)


def test_only_the_first_channel_has_outlines():
    labels = np.zeros((96, 96), np.int16)
    labels[20:60, 20:60] = 2
    found = read(thumbnail(np.zeros((2, 96, 96), np.float32), [(0, 1)] * 2, labels))
    coloured = (found[..., 0] != found[..., 2]).any(axis=0).nonzero()[0]
    assert (coloured.min(), coloured.max()) == (20, 59)


def test_large_images_are_made_small_with_their_labels():
    image = np.zeros((1, 400, 200), np.float32)
    image[0, 200:] = 1
    labels = np.zeros((400, 200), np.int16)
    labels[200:, :100] = 1
    found = read(thumbnail(image, [(0, 1)], labels, edge=100))
    assert found.shape == (100, 50, 3)
    assert (found[:50] == 0).all()
    assert (found[50:, 25:] == 255).all()
    coloured = (found[..., 0] != found[..., 2]).nonzero()
    assert (coloured[0].min(), coloured[1].max()) == (50, 24)


def test_small_ones_are_enlarged_by_a_whole_number():
    assert read(thumbnail(np.zeros((1, 20, 30), np.float32), [(0, 1)])).shape == (60, 90, 3)


def test_a_window_without_width_and_labels_of_outside_do_no_harm():
    labels = np.full((16, 16), -1, np.int16)
    found = read(thumbnail(np.ones((1, 16, 16), np.float32), [(1, 1)], labels))
    assert (found == found[0, 0]).all()


def test_the_same_image_is_the_same_bytes():
    image = np.random.default_rng(0).random((1, 8, 40, 40), np.float32)
    assert thumbnail(image, [(0, 1)]) == thumbnail(image.copy(), [(0, 1)])
