"""What each edit does, in mm and degrees."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from gansynth.conditions.edits.affine import ScaleOptions, rotation
from gansynth.conditions.edits.elastic import SmoothField
from gansynth.core.edit import EditContext
from gansynth.core.schema import OUTSIDE, LabelArray
from gansynth.runtime.errors import UsageFault

quick = settings(max_examples=15, deadline=None, database=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
spacings = st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.7, 1.3)])


def centre(labels) -> npt.NDArray[np.float64]:
    return np.asarray(np.argwhere(labels).mean(axis=0))


def moved(edit, labels, names, seed=0) -> LabelArray:
    params = edit.draw(EditContext(labels, names), np.random.default_rng(seed))
    return np.asarray(edit.apply(EditContext(labels, names), params).labels)


def as_drawn(**params: Any) -> dict[str, Any]:
    return {"strength": 1.0, "tries": 1, "classes": None, **params}


def test_identity_draws_nothing(make, toy, schema):
    assert make("identity").draw(EditContext(toy(), schema()), np.random.default_rng(0)) == {}


def test_identity_changes_nothing(make, toy, schema):
    assert np.array_equal(make("identity").apply(EditContext(toy(), schema()), {}).labels, toy())


# -- shift --------------------------------------------------------------------------------------


@quick
@given(seed=seeds, spacing=spacings)
def test_shift_moves_the_centroid_by_what_was_drawn_in_mm(seed, spacing, make, ball, schema):
    labels, names, edit = ball(7.0, spacing), schema(3, spacing), make("shift", max_mm=8.0)
    params = edit.draw(EditContext(labels, names), np.random.default_rng(seed))
    after = edit.apply(EditContext(labels, names), params).labels
    shift = (centre(after) - centre(labels)) * spacing
    # Labels live on voxels: half a voxel either way.
    assert (np.abs(shift - params["shift_mm"]) < 0.55 * np.array(spacing)).all()


def test_shift_is_drawn_evenly_within_its_radius(make, ball, schema):
    edit, rng, mask = make("shift", max_mm=8.0), np.random.default_rng(0), ball() > 0
    drawn = np.array([edit.draw_move(mask, schema(), rng, 1.0)["shift_mm"] for _ in range(400)])
    lengths = np.linalg.norm(drawn, axis=1)
    assert lengths.max() <= 8
    assert np.mean(lengths < 4) == pytest.approx(1 / 8, abs=0.05)
    assert np.abs(drawn.mean(axis=0)).max() < 0.8


def test_shift_by_whole_voxels_is_exact(make, toy, schema):
    labels = np.pad(toy().clip(0), 4)
    params = as_drawn(shift_mm=[2.0, -3.0, 4.0])
    after = make("shift").apply(EditContext(labels, schema()), params).labels
    assert np.array_equal(after, np.roll(labels, (2, -3, 4), (0, 1, 2)))


def test_shift_by_half_a_voxel_keeps_the_volume(make, ball, schema):
    params = as_drawn(shift_mm=[0.5, 0.5, 0.0])
    after = make("shift").apply(EditContext(ball(), schema()), params).labels
    assert after.sum() == pytest.approx(ball().sum(), rel=0.01)


# -- scale --------------------------------------------------------------------------------------


@quick
@given(factor=st.floats(0.6, 0.85) | st.floats(1.2, 1.4), spacing=spacings)
def test_scale_changes_a_balls_volume_by_the_cube_of_the_factor(
    factor, spacing, make, ball, schema
):
    labels = ball(11.0, spacing)  # a factor near 1 would not reach half a voxel
    after = moved(make("scale", low=factor, high=factor), labels, schema(3, spacing))
    assert after.sum() / labels.sum() == pytest.approx(factor**3, rel=0.08)


def test_scale_changes_a_discs_area_by_the_square_of_the_factor(make, ball, schema):
    labels = ball(9.0, (1.0, 1.0))
    after = moved(make("scale", low=1.4, high=1.4), labels, schema(2))
    assert after.sum() / labels.sum() == pytest.approx(1.4**2, rel=0.05)


def test_scale_keeps_the_centroid(make, toy, schema):
    labels = np.pad(toy().clip(0), 4)
    after = moved(make("scale", low=1.3, high=1.3), labels, schema())
    assert centre(after) == pytest.approx(centre(labels), abs=0.2)


def test_scale_draws_factors_evenly_in_the_logarithm(make, ball, schema):
    edit, rng, mask = make("scale", low=0.5, high=2.0), np.random.default_rng(0), ball() > 0
    factors = [edit.draw_move(mask, schema(), rng, 1.0)["factor"] for _ in range(400)]
    assert np.mean(np.log(factors)) == pytest.approx(0, abs=0.06)
    assert 0.5 <= min(factors) < 0.55
    assert 1.9 < max(factors) <= 2.0


def test_scale_refuses_an_empty_range():
    with pytest.raises(ValidationError, match=r"low 1\.2 is above high 1\.1"):
        ScaleOptions(low=1.2, high=1.1)


# -- rotate -------------------------------------------------------------------------------------


def test_rotate_turns_a_rod_by_the_angle_despite_anisotropic_voxels(make, schema):
    spacing, shape = (2.0, 1.0, 0.8), (20, 40, 50)
    middle = [(n - 1) / 2 for n in shape]
    d, h, w = ((g - c) * mm for g, c, mm in zip(np.indices(shape), middle, spacing, strict=True))
    labels = ((np.abs(w) < 14) & (np.hypot(d, h) < 4)).astype(np.int16)
    params = as_drawn(angle_deg=40.0, axis=[0.0, 1.0, 0.0], centre=middle)
    after = make("rotate").apply(EditContext(labels, schema(3, spacing)), params).labels
    points = np.argwhere(after) * spacing
    main = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    expected = rotation(math.radians(40), [0.0, 1.0, 0.0]) @ [0.0, 0.0, 1.0]
    assert abs(main @ expected) == pytest.approx(1, abs=2e-3)


@quick
@given(seed=seeds, spacing=spacings)
def test_rotate_keeps_volume_and_centroid(seed, spacing, make, schema, ball):
    labels = np.maximum(ball(9.0, spacing), np.roll(ball(8.0, spacing), 6, 1))
    after = moved(make("rotate", max_deg=180.0), labels, schema(3, spacing), seed)
    assert after.sum() == pytest.approx(labels.sum(), rel=0.06)
    assert centre(after) == pytest.approx(centre(labels), abs=0.3)


def test_rotate_in_the_plane_turns_a_quarter_exactly(make, schema):
    labels = np.zeros((9, 9), np.int16)
    labels[4, 5:8] = 1  # along the second axis
    params = as_drawn(angle_deg=90.0, axis=[], centre=[4.0, 4.0])
    after = make("rotate").apply(EditContext(labels, schema(2)), params).labels
    expected = np.zeros_like(labels)
    expected[1:4, 4] = 1  # against the first: from the second axis on, away from the first
    assert np.array_equal(after, expected)


# -- flip ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.5)])
@pytest.mark.parametrize("about", ["array", "centroid"])
def test_flip_twice_gives_the_original(spacing, about, make, ball, schema):
    labels, names = ball(6.0, spacing), schema(len(spacing), spacing)
    labels[..., labels.shape[-1] // 2 :] *= 2
    edit = make("flip", about=about, probability=1.0)
    params = edit.draw(EditContext(labels, names), np.random.default_rng(3))
    once = edit.apply(EditContext(labels, names), params).labels
    assert not np.array_equal(once, labels)
    assert np.array_equal(edit.apply(EditContext(once, names), params).labels, labels)


def test_flip_is_an_exact_mirror_image(make, toy, schema):
    labels = toy().clip(0)
    after = moved(make("flip", axes=(1,), probability=1.0), labels, schema())
    assert np.array_equal(after, labels[:, ::-1])


def test_flip_keeps_to_its_probability(make, toy, schema):
    edit, rng, labels = make("flip", probability=0.25), np.random.default_rng(0), toy()
    flipped = [edit.draw(EditContext(labels, schema()), rng)["strength"] for _ in range(200)]
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.08)


def test_flip_refuses_an_axis_that_the_arrays_lack(make, toy, schema):
    with pytest.raises(UsageFault, match=r"edit 'flip': axes holds \[2\], expected -2 to 1"):
        make("flip", axes=(0, 2)).draw(EditContext(toy(2), schema(2)), np.random.default_rng(0))


# -- elastic ------------------------------------------------------------------------------------


@quick
@given(
    seed=seeds,
    width=st.floats(4, 40),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (4.0, 0.9, 0.9), (1.0, 2.0)]),
)
def test_elastic_never_folds(seed, width, spacing, make, schema):
    n, shape = len(spacing), tuple(math.ceil(30 / mm) for mm in spacing)
    edit = make("elastic", amplitude_mm=100.0, correlation_mm=width)
    names, everywhere = schema(n, spacing), np.ones(shape, bool)
    params = edit.draw_move(everywhere, names, np.random.default_rng(seed), 1.0)
    pull = edit.coordinates(shape, names, params).astype(np.float64)
    inner = tuple(slice(length - 1) for length in shape)
    rows = [[np.diff(pull[i], axis=j)[inner] for j in range(n)] for i in range(n)]
    assert np.linalg.det(np.moveaxis(np.array(rows), (0, 1), (-2, -1))).min() > 0


def test_elastic_keeps_a_nested_core_whole_and_wrapped(make, toy, schema):
    labels, edit = toy().clip(0), make("elastic", amplitude_mm=100.0, correlation_mm=8.0)
    for seed in range(6):
        after = moved(edit, labels, schema(), seed)
        assert ndimage.label(after == 2)[1] == 1
        around = ndimage.binary_dilation(after == 2) & (after != 2)
        assert set(after[around]) == {1}


def test_elastic_notes_the_amplitude_it_used(make, toy, schema):
    edit = make("elastic", amplitude_mm=100.0, correlation_mm=8.0)
    params = edit.draw(EditContext(toy(), schema()), np.random.default_rng(0))
    assert 0.5 < params["amplitude_mm"] < 3


def test_elastic_displaces_by_the_amplitude_in_mm():
    spacing, shape = (2.0, 1.0, 1.5), (20, 40, 26)
    squares = []
    for seed in range(12):
        pull = SmoothField(seed, shape, spacing, 8.0).coordinates(1.0) - np.indices(shape)
        squares.append((pull * np.reshape(spacing, (3, 1, 1, 1))) ** 2)
    assert np.sqrt(np.mean(squares, axis=(0, 2, 3, 4))) == pytest.approx([1, 1, 1], abs=0.15)


@pytest.mark.parametrize("distance", [6, 12])
def test_elastic_is_smooth_over_its_correlation_length(distance):
    shape, width = (8, 8, 160), 6.0
    fields = [SmoothField(s, shape, (1.0,) * 3, width).coordinates(1.0) for s in range(6)]
    u = np.array(fields) - np.indices(shape)
    found = np.mean(u[..., :-distance] * u[..., distance:]) / np.mean(u**2)
    # White noise smoothed by a Gaussian of that width correlates like exp(-d²/4w²).
    assert found == pytest.approx(math.exp(-((distance / width) ** 2) / 4), abs=0.15)


# -- clip ---------------------------------------------------------------------------------------


def test_clip_keeps_the_largest_body_only(make, schema):
    labels = np.full((6, 20), OUTSIDE, np.int16)
    labels[1:5, 1:12] = labels[1:5, 14:19] = 0
    labels[2:4, 8:12] = labels[2:4, 14:17] = 1
    after = moved(make("clip"), labels, schema(2))
    assert np.array_equal(after[:, :13], labels[:, :13])
    assert not (after[:, 13:] > 0).any()


def test_clip_keeps_its_distance_in_mm(make, schema):
    labels = np.ones((20, 30), np.int16)
    labels[:, :4] = OUTSIDE
    after = moved(make("clip", margin_mm=5.0), labels, schema(2, (2.0, 1.25)))
    assert (after[:, 4:8] == 0).all()  # centres 1.25 to 5 mm from the last one outside
    assert (after[:, 8:] == 1).all()


def test_clip_minds_the_border_if_told_to(make, schema):
    labels = np.ones((20, 30), np.int16)
    expected = np.zeros_like(labels)
    expected[2:-2, 2:-2] = 1
    edit = make("clip", margin_mm=2.0, border=True)
    assert np.array_equal(moved(edit, labels, schema(2)), expected)


def test_clip_halves_a_margin_that_would_cost_a_class(make, toy, schema):
    params = make("clip", margin_mm=64.0).draw(
        EditContext(toy(), schema()), np.random.default_rng(0)
    )
    assert params["margin_mm"] in (8.0, 4.0, 2.0, 1.0)


def test_clip_leaves_a_class_alone_that_lies_elsewhere_altogether(make, schema):
    labels = np.array([[0, 0, 0, OUTSIDE, 1]], np.int16)
    edit = make("clip")
    assert edit.draw(EditContext(labels, schema(2)), np.random.default_rng(0))["margin_mm"] is None
    assert np.array_equal(moved(edit, labels, schema(2)), labels)
