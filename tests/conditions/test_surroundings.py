"""New lesions lie on tissue and at depths like those of real ones."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace

import numpy as np
import pytest

from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.conditions.location_prior import PlacementPrior
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.case_pool import CaseContext
from gansynth.core.schema import Case, Schema
from gansynth.core.space import Placement, Space
from gansynth.testing import ToySource

SIDE = {2: 48, 3: 28}
EYE, SKULL = 2, 1


def anatomy(ndim):
    """A head: 0 for air, 1 for skull, 2 for an eye, 3 for the brain."""
    side = SIDE[ndim]
    grid = (np.indices((side,) * ndim) + 0.5) / side - 0.5
    away = np.sqrt((grid**2).sum(axis=0))
    kinds = np.select([away > 0.45, away > 0.37], [0, SKULL], 3)
    eye = np.sqrt(((grid - np.r_[-0.18, np.zeros(ndim - 1)].reshape(-1, *[1] * ndim)) ** 2).sum(0))
    return np.where(eye < 0.15, EYE, kinds)


class Heads(ToySource):
    """Lesions in the brain, off the eye; each subject has a grey scale of its own."""

    def __init__(self, ndim, count=6, seen=1.0):
        super().__init__(ndim)
        kinds, self._cases = anatomy(ndim), {}
        for number in range(count):
            rng = np.random.default_rng(number)
            labels = np.zeros(kinds.shape, np.int16)
            while not labels.any() or (kinds[labels > 0] != 3).any():
                centre = rng.uniform(0, SIDE[ndim], ndim).reshape(-1, *[1] * ndim)
                labels = (np.sqrt(((np.indices(kinds.shape) - centre) ** 2).sum(0)) < 3).astype(
                    np.int16
                )
            grey = np.array([0.0, 3.0, 0.3, 1.0])[kinds] + (kinds > 0) * rng.normal(
                0, 0.1, kinds.shape
            )
            channels = np.stack([grey + labels, np.where(kinds > 0, 4 - grey, 0) + labels]) * seen
            image = (channels * (1 + 9 * number)).astype(np.float32)
            self._cases[f"head_{number}"] = Case(f"head_{number}", f"head_{number}", image, labels)

    @property
    def schema(self):
        return Schema(("a", "b"), {"bg": 0, "tumour": 1}, (1.0,) * len(self._shape),
                      "DHW"[-len(self._shape):])  # fmt: skip

    @property
    def train_ids(self):
        return tuple(self._cases)


def sampler(ndim, text="apart_mm=1", **how):
    return ConditionSampler(Heads(ndim, **how), Space(), seed=3, lesions=lesion_drawer(text))


def on_foreign_tissue(source, count=12):
    kinds, drawn = anatomy(source.schema.ndim), [source.draw(index) for index in range(count)]
    return np.mean([(kinds[c.lesion > 0] != 3).mean() for c in drawn if (c.lesion > 0).any()])


@pytest.mark.parametrize("ndim", [2, 3])
def test_new_lesions_keep_off_tissue_that_surrounds_no_real_one(ndim):
    assert on_foreign_tissue(sampler(ndim, "apart_mm=1,where=anywhere")) > 0.25
    assert on_foreign_tissue(sampler(ndim)) < 0.05


@pytest.mark.parametrize("count", [2, 5])
def test_few_subjects_leave_likely_places(count):
    source = sampler(2, count=count)
    told = [source.draw(index).provenance["lesions"] for index in range(10)]
    assert np.mean([p["room"] for p in told]) > 0.7
    assert all(p["likely"] > 0.7 for p in told if p["room"])


def context(source, change=lambda image: image):
    case = source.cases("head_0")
    case = replace(case, image=change(case.image))
    return CaseContext(case, Placement(), case.image.shape[1:], 0, source.case_pool)


def test_noise_without_a_lesion_has_no_place_for_one():
    source, rng = sampler(2), np.random.default_rng(0)
    noise = rng.choice([0.01, 3.0], (2, 48, 48)) * (anatomy(2) > 0)
    here = context(source, lambda _: noise.astype(np.float32))
    here = replace(here, case=replace(here.case, labels=np.zeros_like(here.labels)))
    assert not source.lesions.draw(here, (), np.random.default_rng(0)).told["room"]


@pytest.mark.parametrize(("turned", "share"), [(False, 1), (True, 0)])
def test_a_background_without_a_lesion_looks_like_training_cases_with_one(turned, share):
    """The eye of a turned head lies elsewhere: its tissue is known, its view is not."""
    source = sampler(2, "apart_mm=1")
    here = context(source, lambda image: np.rot90(image, 2 * turned, (1, 2)).copy())
    here = replace(here, case=replace(here.case, labels=np.zeros_like(here.labels)))
    drawn = [source.lesions.draw(here, (), np.random.default_rng(i)) for i in range(8)]
    assert np.mean([placed.told["room"] for placed in drawn]) == share


def test_a_lesion_prefers_the_places_of_lesions_of_its_size():
    prior = PlacementPrior(np.array([[0.2, 0.2], [0.8, 0.8]]), diameters=np.array([0.05, 0.3]))
    rng = np.random.default_rng(0)
    assert (prior.spread(100, 2, rng, diameter=0.05) < 0.5).mean() > 0.9
    assert (prior.spread(100, 2, rng, diameter=0.3) > 0.5).mean() > 0.9


def test_one_subject_says_nothing_of_how_backgrounds_look():
    source = sampler(2, count=1)
    here = context(source)
    here = replace(here, case=replace(here.case, labels=np.zeros_like(here.labels)))
    assert source.lesions.draw(here, (), np.random.default_rng(0)).told["room"]
