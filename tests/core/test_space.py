import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.resample import crop_pad
from gansynth.core.schema import Boxes, Case, Sample, Schema
from gansynth.core.space import FOREGROUND_SHARE, Placement, Space
from gansynth.testing import hosts
from tests.expected import raises_fault

SCHEMA = Schema(
    ("T1", "T2"),
    {"background": 0, "one": 1, "two": 2},
    (3.0, 1.0, 0.5),
    has_outside=True,
    outside_fill=(0.0, 0.0),
)
cut: Any = hosts.cut
WINDOW = ((-1.0, 1.0), (-2.0, 3.0))
SPACES = {
    "native": Space(),
    "crop": Space("crop", (6, 5, 4)),
    "crop larger than the case": Space("crop", (12, 11, 13)),
    "slice": Space("slice", (6, 7)),
    "slice larger than the case": Space("slice", (14, 15)),
}
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def make_case(shape=(9, 8, 10), seed=0) -> Case:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, *shape)).astype(np.float32)
    labels = rng.integers(-1, 3, shape).astype(np.int16)
    image.setflags(write=False)
    labels.setflags(write=False)
    return Case("case", "person", image, labels)


def there_and_back(space: Space, case: Case, placement: Placement) -> Any:
    inside = space.to_generator(case, placement)
    return space.to_host(Sample(inside.image, inside.labels), case.image.shape[1:])


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.sampled_from(["native", "slice", "crop"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_case_fits_any_size_and_comes_back_with_a_window_clipped_to_it(shape, size, grid, seed):
    space = Space(grid, {"native": (), "slice": size[1:], "crop": size}[grid])
    case = make_case(shape, seed)
    placement = space.place(case, np.random.default_rng(seed))
    inside: Any = space.to_generator(case, placement)
    image, labels = cut(case, space, placement)
    assert inside.image.shape == (2, *(space.size or shape))
    assert np.array_equal(inside.image.reshape(image.shape), image)
    assert np.array_equal(inside.labels.reshape(labels.shape), labels)
    back = there_and_back(space, case, placement)
    assert np.array_equal(back.image, image)
    assert np.array_equal(back.labels, labels)
    low, high = (np.array(edge).reshape(2, 1, 1, 1) for edge in zip(*WINDOW, strict=True))
    back = there_and_back(replace(space, window=WINDOW), case, placement)
    assert np.allclose(back.image, np.clip(image, low, high), atol=1e-5)


def test_resampling_there_and_back_keeps_shape_labels_and_smooth_images():
    z, y, x = np.meshgrid(*[np.linspace(0, 1, 8)] * 3, indexing="ij")
    image = np.stack([z + y, x]).astype(np.float32)
    labels = np.kron(np.array([[[0, 1], [2, -1]]] * 2), np.ones((4, 4, 4))).astype(np.int16)
    case = Case("case", "person", image, labels)
    space = Space("resample", (16, 12, 16))
    back = there_and_back(space, case, Placement())
    assert np.array_equal(back.labels, labels)
    assert np.abs(back.image - image).max() < 0.1
    with raises_fault("space.host-shape-missing"):
        space.to_host(Sample(image))


def test_two_thirds_of_the_places_are_centred_on_foreground_of_every_label():
    labels = np.ones((40, 8, 8), np.int16)
    labels[33, 4, 4] = 2
    case, rng = replace(make_case((40, 8, 8)), labels=labels), np.random.default_rng(0)
    places = [Space("slice", (4, 4)).place(case, rng) for _ in range(90)]
    assert sum(place.slice_index == 33 for place in places) > 15
    labels = np.zeros((9, 40, 40), np.int16)
    labels[4, 20, 20] = 1
    case = replace(make_case((9, 40, 40)), labels=labels)
    places = [Space("slice", (5, 5)).place(case, rng) for _ in range(600)]
    centred = sum(place == Placement((18, 18), 4) for place in places)
    assert abs(centred - 600 * FOREGROUND_SHARE) < 60


@pytest.mark.fault(7)
@pytest.mark.parametrize("labels", [None, np.zeros((9, 8, 10), np.int16)])
def test_a_case_without_foreground_is_placed_anywhere(labels):
    case, rng = replace(make_case(), labels=labels), np.random.default_rng(0)
    corners = np.array([Space("crop", (4, 4, 4)).place(case, rng).corner for _ in range(200)])
    assert corners.min(axis=0).tolist() == [0, 0, 0]
    assert corners.max(axis=0).tolist() == [5, 4, 6]


def test_without_randomness_the_middle_is_taken():
    assert Space("crop", (5, 4, 20)).centre(make_case()) == Placement((2, 2, -5))


def test_a_slices_schema_is_two_dimensional_and_a_window_moves_the_fill_of_the_outside():
    schema = SPACES["slice"].generator_schema(SCHEMA)
    assert (schema.axes, schema.spacing) == ("HW", (1.0, 0.5))
    schema = Space(window=WINDOW).generator_schema(SCHEMA)
    assert schema.outside_fill == pytest.approx((0.0, -0.2))


def test_a_window_spans_the_percentiles_of_all_training_cases():
    ramp = np.linspace(0, 1000, 1001, dtype=np.float32).reshape(1, 7, 11, 13)
    cases = [Case("a", "a", ramp), Case("b", "b", ramp - 500)]
    window: Any = Space().with_window(cases, 1, 99).window
    assert window[0] == pytest.approx((-490, 990))
    with raises_fault("space.window-without-cases"):
        Space().with_window([])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"grid": "crop"}, "space.size-below-one"),
        ({"grid": "slice", "size": (0, 4)}, "space.size-below-one"),
        ({"window": ((1.0, 1.0),)}, "space.window-empty"),
        ({"grid": "crop", "size": (4,) * 3, "frame": (4,) * 3}, "space.frame-not-fitting-grid"),
        ({"grid": "resample", "size": (4,) * 3, "frame": (4, 4)}, "space.frame-not-fitting-grid"),
    ],
)
def test_a_space_that_cannot_be_is_refused(arguments, expected):
    with raises_fault(expected):
        Space(**arguments)


@each_space
def test_a_space_comes_back_from_json(space):
    whole = replace(space, window=WINDOW, host={"plans": "p"})
    assert Space.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    older = whole.to_json()
    assert not {"frame", "nearest"} & set(older)


def test_cropping_beyond_the_array_gives_only_fill():
    assert (crop_pad(np.ones((2, 3)), (5, 5), (2, 2), -3.0) == -3).all()


def boxed_case(seed: int, shape=(9, 8, 10)) -> Case:
    """One box of whole voxels, and an image that is 1 in it."""
    rng = np.random.default_rng(seed)
    low = [int(rng.integers(0, n - 2)) for n in shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, shape, strict=True)]
    image = np.zeros((1, *shape), np.float32)
    image[0][tuple(map(slice, low, high))] = 1
    coords = np.array([[*low, *high]], np.float32)
    return Case("case", "person", image, None, Boxes(coords, np.array([3], np.int16)))


def bounds(image) -> list[list[float]]:
    """The smallest box around what is bright, none if nothing is."""
    where = np.argwhere(image > 0.5)
    return [[*where.min(0), *(where.max(0) + 1)]] if len(where) else []


@pytest.mark.fault(17)
@each_space
def test_a_box_stays_around_its_voxels(space):
    for seed in range(12):
        case = boxed_case(seed)
        inside: Any = space.to_generator(case, space.place(case, np.random.default_rng(seed)))
        assert inside.boxes.coords.tolist() == bounds(inside.image[0])
        assert inside.boxes.labels.tolist() == [3] * len(inside.boxes.coords)
        if space is SPACES["slice larger than the case"]:
            back: Any = space.to_host(Sample(inside.image, None, inside.boxes))
            assert back.boxes.coords.tolist() == bounds(back.image[0])


def test_a_resampled_box_is_scaled_and_comes_back():
    case: Any = boxed_case(1)
    space, coords = Space("resample", (18, 4, 5)), case.boxes.coords
    inside: Any = space.to_generator(case)
    np.testing.assert_allclose(inside.boxes.coords, coords * np.tile([2, 0.5, 0.5], 2), rtol=1e-6)
    back: Any = space.to_host(Sample(inside.image, None, inside.boxes), case.image.shape[1:])
    np.testing.assert_allclose(back.boxes.coords, coords, rtol=1e-6)
