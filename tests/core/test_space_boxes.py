from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Boxes, Case, Sample
from gansynth.core.space import Space

SPACES = {
    "native": Space(),
    "crop": Space("crop", (6, 5, 4)),
    "crop larger than the case": Space("crop", (12, 11, 13)),
    "slice": Space("slice", (6, 7)),
    "slice larger than the case": Space("slice", (14, 15)),
}


def make_case(seed: int, shape=(9, 8, 10)) -> Case:
    """One box of whole voxels, and an image that is 1 in it."""
    rng = np.random.default_rng(seed)
    low = [int(rng.integers(0, n - 2)) for n in shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, shape, strict=True)]
    image = np.zeros((1, *shape), np.float32)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    image[0][inside] = 1
    coords = np.array([[*low, *high]], np.float32)
    return Case("case", "person", image, None, Boxes(coords, np.array([3], np.int16)))


def bounds(image) -> list[list[float]]:
    """The smallest box around what is bright, none if nothing is."""
    where = np.argwhere(image > 0.5)
    return [[*where.min(0), *(where.max(0) + 1)]] if len(where) else []


@pytest.mark.fault(17)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
@pytest.mark.parametrize("seed", range(12))
def test_a_box_stays_around_its_voxels(space, seed):
    case = make_case(seed)
    inside: Any = space.to_generator(case, space.place(case, np.random.default_rng(seed)))
    assert inside.boxes.coords.tolist() == bounds(inside.image[0])
    assert inside.boxes.labels.tolist() == [3] * len(inside.boxes.coords)


@pytest.mark.parametrize("seed", range(4))
def test_a_box_comes_back_with_its_slice(seed):
    case, space = make_case(seed), SPACES["slice larger than the case"]
    placement = space.place(case, np.random.default_rng(seed))
    inside = space.to_generator(case, placement)
    back: Any = space.to_host(Sample(inside.image, None, inside.boxes))
    assert back.boxes.coords.tolist() == bounds(back.image[0])


def test_a_resampled_box_is_scaled_and_comes_back():
    case: Any = make_case(1)
    space, coords = Space("resample", (18, 4, 5)), case.boxes.coords
    inside: Any = space.to_generator(case)
    np.testing.assert_allclose(inside.boxes.coords, coords * np.tile([2, 0.5, 0.5], 2), rtol=1e-6)
    back: Any = space.to_host(Sample(inside.image, None, inside.boxes), case.image.shape[1:])
    np.testing.assert_allclose(back.boxes.coords, coords, rtol=1e-6)
