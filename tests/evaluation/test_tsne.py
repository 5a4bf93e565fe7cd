import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.report.png import thumbnail
from gansynth_evaluate.maps import embed
from tests.expected import raises_fault


def blobs(count=10, dimensions=80, apart=8.0):
    """Two groups, the first half and the second."""
    found = np.random.default_rng(0).normal(0, 1, (2 * count, dimensions))
    found[count:] += apart / np.sqrt(dimensions) * 2
    return found


@pytest.mark.parametrize(
    ("features", "least", "most"),
    [
        (blobs() * 1e-12, 0.5, 1),
        (blobs() * 1e12, 0.5, 1),
        (blobs(dimensions=1), 0.3, 1),
        (blobs(apart=0), -1, 0.2),
    ],
    ids=["tiny units", "huge units", "one feature", "nothing apart"],
)
def test_groups_that_are_apart_stay_apart_and_no_others(features, least, most):
    from sklearn.metrics import silhouette_score

    places = embed(features)
    assert places.shape == (20, 2)
    assert places.dtype == np.float32
    assert least < silhouette_score(places, [0] * 10 + [1] * 10) < most


def test_the_same_seed_gives_the_same_bits_and_leaves_the_random_state():
    features = blobs(5)
    before: Any = np.random.get_state()  # noqa: NPY002
    one, two = embed(features, seed=3), embed(features, seed=3)
    assert one.tobytes() == two.tobytes()
    after: Any = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1])


HOLED = blobs()
HOLED[7, 3], HOLED[9, 0] = np.nan, np.inf
ALIKE = np.ones((12, 5)) + 1e-9 * np.arange(12)[:, None]
NO_ROWS = "evaluate.map-features-not-rows"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (blobs(5)[:9], "evaluate.map-too-few-images"),
        (HOLED, "evaluate.map-features-not-finite"),
        (ALIKE, "evaluate.map-features-all-same"),
        (np.zeros((12, 5)), "evaluate.map-features-all-same"),
        *[(np.zeros(shape), NO_ROWS) for shape in ((12,), (12, 0), (12, 2, 2))],
    ],
)
def test_too_few_or_broken_features_are_refused(features, expected):
    with raises_fault(expected):
        embed(features)


def read(image, window, labels=None, **more):
    """The thumbnail, and where it is coloured."""
    png = thumbnail(np.asarray(image, np.float32), window, labels, **more)
    found = np.asarray(Image.open(io.BytesIO(png)))
    return found, (found[..., 0] != found[..., 2]).nonzero()


def test_the_slice_with_most_foreground_is_shown_in_its_window():
    image = np.zeros((1, 5, 32, 48)) + np.arange(5)[:, None, None]
    labels = np.zeros((5, 32, 48), np.int16)
    labels[3, 8:16, 8:16] = 1
    labels[1, 8, 8] = 1
    found, outline = read(image, [(0, 4)], labels)
    assert found.shape == (64, 96, 3)
    assert (found[40:] == round(255 * 3 / 4)).all()
    assert (outline[0].min(), outline[0].max()) == (16, 31)
    assert (read(image, [(0, 4)])[0] == round(255 * 2 / 4)).all()
    turned, outline = read(image, [(0, 4)], labels, oriented=True)
    assert np.array_equal(turned, found[::-1, ::-1])
    assert (outline[0].min(), outline[0].max()) == (32, 47)
    # Two channels are side by side, of more the first is shown.
    shown = [read(np.zeros((n, 96, 96)), np.array([(0, 4)] * n))[0].shape for n in (2, 3)]
    assert shown == [(96, 192, 3), (96, 96, 3)]


@pytest.mark.fault(7)
def test_large_images_are_made_small_with_their_labels_and_small_ones_enlarged():
    image = np.zeros((1, 400, 200))
    image[0, 200:] = 1
    labels = np.zeros((400, 200), np.int16)
    labels[200:, :100] = 1
    found, coloured = read(image, [(0, 1)], labels, edge=100)
    assert found.shape == (100, 50, 3)
    assert (found[:50] == 0).all()
    assert (found[50:, 25:] == 255).all()
    assert (coloured[0].min(), coloured[1].max()) == (50, 24)
    # A window without width, and labels of outside, do no harm.
    flat, _ = read(np.ones((1, 20, 30)), [(1, 1)], np.full((20, 30), -1, np.int16))
    assert flat.shape == (60, 90, 3)
    assert (flat == flat[0, 0]).all()
