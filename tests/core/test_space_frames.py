from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.resample import crop_edge
from gansynth.core.schema import OUTSIDE, Boxes, Case, Sample, Schema
from gansynth.core.space import Placement, Space

SHIN = Space("resample", (54, 128, 128), frame=(108, 256, 256), pad_label=0)
DONCENCO = Space("resample", (64, 240, 240), frame=(95, 240, 240), nearest=True, pad_label=0)
MMGAN = Space("resample", (150, 200, 160), frame=(150, 200, 160), pad_label=0)
BRATS = (155, 240, 240)


def volume(shape, seed=0) -> Any:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    return Case("case", "person", image, rng.integers(0, 3, shape).astype(np.int16))


@pytest.mark.parametrize(
    ("space", "corner", "spacing"),
    [
        (SHIN, (23, -8, -8), (2.0, 2.0, 2.0)),
        (DONCENCO, (30, 0, 0), (95 / 64, 1.0, 1.0)),
        (MMGAN, (2, 20, 40), (1.0, 1.0, 1.0)),
    ],
    ids=["shin2018", "doncenco2022", "mmgan2020"],
)
def test_the_papers_cut_brats_so(space, corner, spacing):
    """108 central slices of 256 x 256; 30 slices off either end; 200 x 160 x 150."""
    assert space.frame_corner(BRATS) == corner
    schema = Schema(("T1",), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0))
    assert space.generator_schema(schema).spacing == pytest.approx(spacing)
    assert space.host_shape(BRATS) == space.frame
    assert Space.from_json(space.to_json()) == space


def test_twice_the_size_and_back_keeps_labels_to_the_bit_and_even_images():
    """Shin's x2: what a generator draws comes back to it as it was."""
    space = Space("resample", (6, 16, 16), frame=(13, 32, 32), pad_label=0)
    labels = np.random.default_rng(1).integers(0, 4, space.size).astype(np.int16)
    image = np.full((1, *space.size), 0.25, np.float32)
    host = space.to_host(Sample(image, labels), space.frame)
    assert host.image.shape[1:] == space.frame
    again: Any = space.to_generator(Case("", "", host.image, host.labels))
    assert np.array_equal(again.labels, labels)
    assert np.array_equal(again.image, image)


def test_the_nearest_voxel_makes_no_new_values_and_is_at_most_half_a_coarse_voxel_off():
    """Doncenco: 95 slices to 64 and back; every slice comes back as one of its neighbours."""
    slices = np.arange(95, dtype=np.float32)
    case = Case("", "", np.broadcast_to(slices[:, None, None], (1, 95, 4, 4)).copy())
    space = Space("resample", (64, 4, 4), frame=(95, 4, 4), nearest=True)
    found = space.to_host(Sample(space.to_generator(case).image), (95, 4, 4)).image[0, :, 0, 0]
    assert set(found.tolist()) <= set(slices.tolist())
    assert np.abs(found - slices).max() <= np.ceil(95 / 64 / 2)
    assert (np.diff(found) >= 0).all()


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_case_fits_any_frame_and_comes_back_exactly_at_its_own_size(shape, frame, near, seed):
    case = volume(shape, seed)
    space = Space("resample", frame, frame=frame, nearest=near, pad_label=0)
    inside = space.to_generator(case)
    corner = space.frame_corner(shape)
    assert np.array_equal(inside.image, crop_edge(case.image, corner, frame))
    found: Any = space.to_host(Sample(inside.image, inside.labels), shape)
    there = tuple(
        slice(max(c, 0), min(c + f, n)) for c, f, n in zip(corner, frame, shape, strict=True)
    )
    mine = tuple(slice(s.start - c, s.stop - c) for s, c in zip(there, corner, strict=True))
    assert np.array_equal(found.image[(slice(None), *mine)], case.image[(slice(None), *there)])
    assert np.array_equal(found.labels[mine], case.labels[there])


def test_beyond_a_smaller_case_the_image_goes_on_and_labels_say_outside():
    case = volume((2, 2, 2))
    inside: Any = Space("resample", (4, 4, 4), frame=(4, 4, 4)).to_generator(case)
    assert inside.image[0, 0, 0, 0] == case.image[0, 0, 0, 0]
    assert inside.image[0, -1, -1, 0] == case.image[0, -1, -1, 0]
    assert (inside.labels == OUTSIDE).sum() == 64 - 8


def test_a_place_is_recorded_that_hosts_find_the_frame_by():
    case = volume((10, 9, 8))
    space = Space("resample", (3, 3, 3), frame=(6, 5, 12))
    placement = space.place(case, np.random.default_rng(0))
    assert placement == Placement((2, 2, -2)) == space.centre(case)
    assert Space("resample", (3, 3, 3)).place(case, np.random.default_rng(0)) == Placement()


@pytest.mark.fault(17)
def test_boxes_are_cut_and_scaled_with_their_frame():
    case = volume((8, 8, 8))
    coords = np.array([[2, 3, 3, 4, 5, 5], [0, 0, 0, 1, 1, 1]], np.float32)
    boxed = Case("", "", case.image, case.labels, Boxes(coords, np.array([0, 1], np.int16)))
    space = Space("resample", (2, 2, 2), frame=(4, 4, 4))
    found: Any = space.to_generator(boxed).boxes
    assert found.coords.tolist() == [[0, 0.5, 0.5, 1, 1.5, 1.5]]


def test_labels_beneath_are_resampled_too():
    shape = (6, 6, 6)
    labels, under = np.zeros((2, *shape), np.int16)
    labels[2:4], under[:] = 1, 5
    image = np.zeros((1, *shape), np.float32)
    case = Case("", "", image, np.where(labels, labels, under), under=under)
    space = Space("resample", (3, 3, 3), frame=shape, window=((0.0, 1.0),))
    inside: Any = space.to_generator(case)
    assert inside.under.shape == (3, 3, 3)
    assert (inside.under == 5).all()
    own = inside.own.labels
    assert set(np.unique(own)) == {0, 1}
    assert np.array_equal(inside.over(own), inside.labels)
