from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Case, Condition, LabelArray, Schema
from gansynth.runtime.errors import DataFault
from gansynth_parametric.model import Parametric, ParametricOptions
from tests.conditions.rooms import with_ball

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
    return Case(f"c{index}", f"c{index}", image, labels)


@pytest.fixture(scope="module")
def generator() -> Any:
    made: Any = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions())
    made.learnt = made.observe(map(scene, range(12)))
    return made


def asked(index: int) -> Any:
    """Of a body without a lesion."""
    labels = lesion(index)
    image = scene(index).image - LEVELS[:, labels] + LEVELS[:, np.zeros_like(labels)]
    return Condition(labels, background=image.astype(np.float32), lesion=labels)


def test_each_class_has_its_contrast_and_nothing_beyond_the_mask_changes(generator):
    for index in range(4):
        condition, labels = asked(index), lesion(index)
        (sample,) = generator.sample([condition], [index])
        assert np.array_equal(sample.image[:, labels == 0], condition.background[:, labels == 0])
        for value in (1, 2):
            means = sample.image[:, labels == value].mean(axis=1)
            np.testing.assert_allclose(means, LEVELS[:, value], atol=0.25)


def test_no_lesion_is_darker_than_what_training_cases_show(generator):
    darkest = min(scene(index).image.min() for index in range(12))
    dark = replace(asked(1), background=np.full((2, SIDE, SIDE), darkest, np.float32))
    (sample,) = generator.sample([dark], [0])
    assert sample.image.min() == darkest
    assert sample.image.max() > darkest


def test_the_grain_is_as_loud_in_each_band_as_in_training_lesions(generator):
    rows = []
    for index in range(12):
        (sample,) = generator.sample([asked(index)], [index])
        rows += generator._measured(replace(scene(index), image=sample.image))
    drawn, real = np.array(rows).mean(axis=0), generator.table.mean(axis=0)
    bands = slice(1 + 2 + 16 + 2, 1 + 2 + 16 + 2 + 6)  # of the core: the three finest of five
    np.testing.assert_allclose(drawn[bands], real[bands], atol=0.25)
    assert drawn[-2] > 0.8, "channels with one grain keep it"


def test_a_run_without_lesions_is_refused_and_a_state_gives_the_same_samples(generator):
    other = Parametric(SCHEMA, (SIDE, SIDE), ParametricOptions())
    with pytest.raises(DataFault, match="no lesion of 8 voxels, expected some"):
        other.observe([replace(scene(0), labels=None)])
    other.load_state(generator.learnt)
    one, two = (g.sample([asked(1)], [5])[0].image for g in (generator, other))
    assert np.array_equal(one, two)
