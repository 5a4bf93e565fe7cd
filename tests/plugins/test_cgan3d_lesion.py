from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Stage, TrainingStep
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Case, Condition
from gansynth.core.source import SourceRequest
from gansynth.data.batches import batch_of
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth_cgan3d.lesion import CGAN3DLesion
from gansynth_cgan3d.options import CGAN3DLesionOptions
from tests.plugins import toys

SIZE = (18, 22)
TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 2, "local_size": 8}
LESION = {**TINY, "rim_mm": 2}
ROOMY = "what=one,inside=0.5,apart_mm=0"
"""Toy cases are small, their own lesions large."""
SCHEMA = replace(toys.SCHEMA, labels={"background": 0, "organ": 1, "lesion": 2})


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    own = CGAN3DLesionOptions.model_validate({**LESION, "lesions": ("lesion",), **options})
    generator = CGAN3DLesion(SCHEMA, SIZE, own)
    generator.observe([case(i) for i in range(3)])
    return generator


def case(seed: int, *, at: tuple[int, int] = (9, 11), radius: float = 3.5) -> Case:
    """An organ with a lesion in it, outside at the left; lesions are bright."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SIZE)
    labels = np.where(columns < 3, OUTSIDE, np.where(rows > 3, 1, 0)).astype(np.int16)
    lesion = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 <= radius**2
    # Lopsided, so that it is not its own mirror image.
    lesion |= (np.abs(rows - at[0] - 1) <= 1) & (np.abs(columns - at[1] - 3) <= bool(radius) * 3)
    labels[lesion & (labels != OUTSIDE) & (radius > 0)] = 2
    image = rng.standard_normal((2, *SIZE)).astype(np.float32) + 3 * (labels == 2)
    image[:, labels == OUTSIDE] = np.array(SCHEMA.outside_fill)[:, None]
    return Case(f"c{seed}", f"c{seed}", image.astype(np.float32), labels)


def asked(seed: int = 0, **changes: Any) -> Any:
    """The lesion of another case, in a case that has none of its own."""
    own, other = case(seed, radius=0), case(seed + 100)
    assert own.labels is not None
    own.labels[own.labels == 2] = 1
    lesion = np.where(other.labels == 2, np.int16(2), np.int16(0))
    labels = np.where(lesion > 0, lesion, own.labels)
    made = Condition(labels=labels, background=own.image, lesion=lesion, donor=other.image)
    return replace(made, **changes)


def batch(which: range) -> Batch:
    return batch_of([case(i, at=(6 + i, 8 + 2 * i)) for i in which])


def step(which: range = range(2), key: int = 5) -> Any:
    rng = torch.Generator().manual_seed(key)
    return TrainingStep(batch(which), Stage(), 0, 0, rng, 5, total=len(which))


def within(mask: np.ndarray, reach: float) -> np.ndarray:
    """Voxels no further from a mask than so many."""
    points, at = np.argwhere(mask), np.moveaxis(np.indices(mask.shape), 0, -1)
    distance = np.linalg.norm(at[..., None, :] - points, axis=-1).min(-1)
    near: np.ndarray = distance <= reach
    return near


def test_nothing_but_the_lesion_is_drawn_beyond_the_body():
    generator, condition = build(), asked()
    lesion = condition.lesion > 0
    body = np.zeros(SIZE, bool)
    body[:, 11:] = True
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
    ("at", "radius", "accepted"),
    [((9, 11), 3.5, True), ((9, 11), 0.0, False), ((0, 21), 2.0, False), ((9, 11), 1.0, True)],
)
def test_only_crops_that_show_a_lesion_are_learnt_from(at, radius, accepted):
    assert build().accepts(case(0, at=at, radius=radius)) == accepted
    assert not build().accepts(replace(case(0), labels=None))


def test_the_answer_is_not_in_what_it_starts_from():
    generator, now = build(), step()
    insertion = generator.inserting.of_step(now)
    lesion = (now.batch.labels == 2)[:, None].expand_as(insertion.start)
    assert (insertion.start != now.batch.image)[lesion].all()
    assert (insertion.start == now.batch.image)[~insertion.hole.expand_as(lesion)].all()
    # Of another contrast, but of lesions: they are bright.
    assert (insertion.start[lesion].mean() - 3).abs() < 2


def test_holes_hold_the_lesion_and_its_rim_and_are_often_larger():
    generator, larger = build(), 0
    for key in range(8):
        now = step(key=key)
        hole = generator.inserting.of_step(now).hole[:, 0].numpy()
        for sample, labels in zip(hole, now.batch.labels.numpy(), strict=True):
            inside = labels != OUTSIDE
            least, most = within(labels == 2, 2) & inside, within(labels == 2, 5) & inside
            assert (sample | ~least).all()
            assert not (sample & ~most).any()
            larger += int(sample.sum() > least.sum())
    assert 2 < larger < 14


TOYS = SourceRequest("toy", "2")


@pytest.mark.parametrize(
    "stage", ["both", *(pytest.param(s, marks=pytest.mark.slow) for s in ("coarse", "refine"))]
)
def test_a_fit_leaves_a_run_that_draws_into_real_cases(toy_source, tmp_path, stage):
    loop = {"steps": "2", "batch_size": "2", "precision": "fp32"}
    settings = {key: str(value) for key, value in {**LESION, "stage": stage, **loop}.items()}
    asked: dict[str, Any] = {"settings": settings, "edits": None, "device": "cpu"}
    fit("cgan3d-lesion", TOYS, tmp_path / "run", **asked, reporter=NullReporter())
    opened = load_run(tmp_path / "run", "cpu")
    drawer = Sampler(opened, open_source(TOYS), SampleRequest(seed=1, lesions=ROOMY))
    sample = next(s for s in drawer.draw(0, 8) if s.provenance["lesions"]["room"])
    steps = [step["edit"] for step in sample.provenance["edits"]]
    assert steps == ["elastic", "scale", "rotate", "clip"]
    background = drawer.matching_real_case(sample).image
    assert 0.2 < (sample.image == background).all(0).mean() < 1
    told, drawn_by = opened.manifest["state"]["lesions"], cast(Any, opened.generator)
    assert drawn_by.inserting.statistics.to_json() == told
    assert np.any(told["means"])
