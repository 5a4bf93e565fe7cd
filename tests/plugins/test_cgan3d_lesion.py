from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Condition
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from tests.plugins import toys
from tests.plugins.toys import SIZE, case, cases, step

LESION = {**toys.CGAN, "rim_mm": 2, "local_size": 8}
ROOMY = "what=one,inside=0.5,apart_mm=0"
"""Toy cases are small, their own lesions large."""


def build(**options: Any) -> Any:
    return toys.seen("cgan3d-lesion", **{**LESION, "lesions": ["lesion"], **options})


def asked(seed: int = 0, **changes: Any) -> Any:
    """The lesion of another case, in the tissue of one."""
    own, other = case(seed), case(seed + 2)
    assert own.labels is not None
    lesion = np.where(other.labels == 4, np.int16(4), np.int16(0))
    labels = np.where(lesion > 0, lesion, np.minimum(own.labels, 1))
    made = Condition(labels=labels, background=own.image, lesion=lesion, donor=other.image)
    return replace(made, **changes)


def test_nothing_but_the_lesion_is_drawn_beyond_the_body():
    generator, condition = build(), asked()
    lesion = condition.lesion > 0
    body = np.zeros(SIZE, bool)
    body[:, 6:] = True
    assert (lesion & ~body).any(), "part of the lesion and its rim lie beyond"
    drawn, bounded = (generator.sample([asked(body=b)], [7])[0].image for b in (None, body))
    changed = (bounded != condition.background).any(axis=0)
    np.testing.assert_array_equal(changed & ~body, lesion & ~body)
    assert (drawn != condition.background).any(axis=0)[~body & ~lesion].any()


def test_coarse_is_the_donors_lesion_without_a_network():
    generator, condition = build(stage="coarse"), asked()
    sample = generator.sample([condition], [3])[0]
    lesion = condition.lesion > 0
    assert (sample.image[:, lesion] == condition.donor[:, lesion]).all()
    assert (generator.nets, list(generator.phases())) == ({}, [])
    assert generator.channel_axes() == {}


@pytest.mark.parametrize("stage", ["both", "refine", "coarse"])
def test_samples_do_not_depend_on_their_batch_and_refine_not_on_the_donor(stage, monkeypatch):
    generator, conditions = build(stage=stage), [asked(0), asked(1)]
    drawn = []
    for at_once in (2, 1):
        monkeypatch.setattr(generator, "_at_once", lambda condition, count=at_once: count)
        drawn.append([sample.image for sample in generator.sample(conditions, [3, 4])])
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-5)
    other = generator.sample([asked(donor=conditions[0].donor + 1)], [3])[0]
    assert np.array_equal(other.image, drawn[1][0]) == (stage == "refine")


@pytest.mark.parametrize(
    ("rows", "columns", "accepted"),
    [
        (slice(6, 8), slice(6, 8), True),
        (slice(6, 7), slice(6, 9), False),
        (slice(0, 2), slice(0, 16), False),
    ],
    ids=["lesion", "too few voxels", "at the border"],
)
def test_only_crops_that_show_a_lesion_are_learnt_from(rows, columns, accepted):
    labels = np.ones(SIZE, np.int16)
    labels[rows, columns] = 4
    assert build().accepts(case(labels=labels)) == accepted
    assert not build().accepts(case(labels=None))


def test_holes_hold_the_lesion_and_its_rim_and_are_often_larger():
    generator, larger = build(), 0
    for key in range(8):
        now: Any = step(generator, cases(2))
        now.rng.manual_seed(key)
        hole = generator.inserting.of_step(now).hole[:, 0].numpy()
        for sample, labels in zip(hole, now.batch.labels.numpy(), strict=True):
            distance = distance_transform_edt(labels != 4)
            least, most = ((distance <= reach) & (labels != OUTSIDE) for reach in (2, 5))
            assert (sample | ~least).all()
            assert not (sample & ~most).any()
            larger += int(sample.sum() > least.sum())
    assert 2 < larger < 14


@pytest.mark.parametrize(
    "stage", ["both", *(pytest.param(s, marks=pytest.mark.slow) for s in ("coarse", "refine"))]
)
def test_a_fit_leaves_a_run_that_draws_into_real_cases(toy_fit, tmp_path, stage):
    own = {**LESION, "stage": stage}
    toy_fit(tmp_path / "run", generator="cgan3d-lesion", own=own, edits=None, steps=2)
    opened = load_run(tmp_path / "run", "cpu")
    drawer = Sampler(opened, ToySource(2), SampleRequest(seed=1, lesions=ROOMY))
    sample = next(s for s in drawer.draw(0, 8) if s.provenance["lesions"]["room"])
    steps = [step["edit"] for step in sample.provenance["edits"]]
    assert steps == ["elastic", "scale", "rotate", "clip"]
    background = drawer.matching_real_case(sample).image
    assert 0.2 < (sample.image == background).all(0).mean() < 1
    told, drawn_by = opened.manifest["state"]["lesions"], cast(Any, opened.generator)
    assert drawn_by.inserting.statistics.to_json() == told
    assert np.any(told["means"])
