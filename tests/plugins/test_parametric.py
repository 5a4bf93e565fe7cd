import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.core.run_folder import MOST_STATE
from gansynth.core.schema import Case, Condition, FloatArray, LabelArray, Schema
from gansynth.imaging.lesion_grain import Look
from gansynth_parametric.model import Parametric, ParametricOptions
from tests.conditions.rooms import with_ball
from tests.expected import raises_fault

SIDE = 48
SCHEMA = Schema(("a", "b"), {"background": 0, "rim": 1, "core": 2}, (1.0, 1.0), "HW")
LEVELS = np.array([[1.0, 2.0, 4.0], [1.0, 0.5, 0.0]])
"""Of each channel (row): tissue, rim, core; noise of deviation 0.1 is added."""


def lesion(index: int) -> LabelArray:
    return with_ball(np.zeros((SIDE, SIDE), np.int16), (20 + index % 8, 24), 9, core=2)


def scene(index: int) -> Case:
    """A body full of tissue with a lesion; both channels have the same grain."""
    labels = lesion(index)
    noise = 0.1 * np.random.default_rng(index).standard_normal(labels.shape)
    image = (LEVELS[:, labels] + noise).astype(np.float32)
    return Case(f"c{index}", f"c{index}", in_air(image), labels)


def in_air(image: FloatArray) -> FloatArray:
    """An image whose outermost voxels show no body."""
    return np.pad(image[:, 2:-2, 2:-2], [(0, 0), (2, 2), (2, 2)])


@pytest.fixture(scope="module")
def generator() -> Any:
    made: Any = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions())
    made.learnt = made.observe(map(scene, range(12)))
    return made


def asked(index: int) -> Any:
    """Of a body without a lesion."""
    labels = lesion(index)
    image = scene(index).image - LEVELS[:, labels] + LEVELS[:, np.zeros_like(labels)]
    return Condition(labels, background=in_air(image.astype(np.float32)), lesion=labels)


def test_no_lesion_is_darker_than_what_training_cases_show(generator):
    darkest = min(scene(index).image.min() for index in range(12))
    dark = replace(asked(1), background=np.full((2, SIDE, SIDE), darkest, np.float32))
    (sample,) = generator.sample([dark], [0])
    assert sample.image.min() == darkest
    assert sample.image.max() > darkest


def test_the_contrast_of_bright_tissue_makes_no_lesion_of_dark_tissue_darker_than_any(generator):
    dim = replace(asked(1), background=asked(1).background - np.array([[[0]], [[0.5]]], np.float32))
    (sample,) = generator.sample([dim], [0])
    assert sample.image[1, lesion(1) == 2].mean() > LEVELS[1, 2] - 0.15


def test_measures_of_many_lesions_in_raw_values_fit_into_a_manifest():
    raw = [replace(case, image=30_000 * case.image) for case in map(scene, range(12))]
    made = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions())
    assert len(json.dumps(made.observe(raw * 17))) < MOST_STATE


def looks(cases: Iterable[Case]) -> list[Look]:
    """What a generator that has seen the cases knows of each of their lesions."""
    made: Any = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions())
    made.observe(cases)
    return [Look.of_row(row[3:], 2, 2, 2) for row in made.table]


def blurred(index: int, width: float, levels: FloatArray = LEVELS) -> Case:
    """A lesion with an edge and a texture as wide as a Gaussian, in tissue of that texture."""
    case, labels = scene(index), lesion(index)
    noise = 0.1 * np.random.default_rng(index).standard_normal(case.image.shape)
    grain = 5 * width * gaussian_filter(noise, (0, width, width))
    smooth = gaussian_filter(levels[:, labels], (0, width, width))
    return replace(case, image=in_air((smooth + grain).astype(np.float32)))


@pytest.mark.parametrize("width", [0.5, 1.5])
def test_edges_and_textures_are_as_wide_as_in_training_lesions(width):
    made: Any = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions())
    made.observe(blurred(index, width) for index in range(12))
    drawn = []
    for index in range(12):
        case = blurred(index, width)
        healthy = blurred(index, width, levels=LEVELS[:, [0, 0, 0]])
        condition = replace(asked(index), background=healthy.image)
        (sample,) = made.sample([condition], [index])
        drawn.append(replace(case, image=sample.image))
    own, real = looks(drawn), looks(blurred(index, width) for index in range(12))
    for measure, apart in (
        (lambda look: look.profile[:6], 0.1),
        (lambda look: look.spread[0], 0.35),
        (lambda look: look.shares[0, 0], 0.15),
    ):
        drew, has = (np.mean([measure(look) for look in side], axis=0) for side in (own, real))
        np.testing.assert_allclose(drew, has, atol=apart)


def test_a_run_without_lesions_is_refused_and_a_state_gives_the_same_samples(generator):
    other = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions())
    with raises_fault("parametric.no-lesions"):
        other.observe([replace(scene(0), labels=None)])
    other.load_state(generator.learnt)
    one, two = (g.sample([asked(1)], [5])[0].image for g in (generator, other))
    assert np.array_equal(one, two)


def test_a_run_of_another_version_is_refused(generator):
    other, learnt = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions()), generator.learnt
    older = [row[:-1] for row in learnt["lesions"]]
    with raises_fault("parametric.lesion-measures-differ"):
        other.load_state(dict(learnt, lesions=older))
