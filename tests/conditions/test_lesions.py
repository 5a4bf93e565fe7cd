"""Lesions of one case in the image of another: whose, where, and what comes of it."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import (
    LesionOptions,
    class_statistics,
    lesion_drawer,
    no_room,
)
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.edit import Edit, EditResult
from gansynth.core.schema import OUTSIDE
from gansynth.core.space import Space
from gansynth.data.blending import hole, rim_voxels
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ToySource
from gansynth.testing.toy import without_blobs

EDITS = ("flip", "rotate", "scale", "elastic")
ROOMY = "where=anywhere,inside=0.6,tries=200"


class Healthy(ToySource):
    """Bodies without lesions, of other people."""

    @property
    def train_ids(self):
        return tuple(f"healthy_{i}" for i in super().train_ids)

    def load(self, case_id):
        case = without_blobs(super().load(case_id.removeprefix("healthy_")), int(case_id[-2:]))
        return replace(case, id=case_id, subject=case_id)


class Watched(ToySource):
    """Says which cases were opened; one person for every two cases."""

    def __init__(self, ndim=3):
        super().__init__(ndim)
        self.opened: set[str] = set()

    def load(self, case_id):
        self.opened.add(case_id)
        return replace(super().load(case_id), subject=str(int(case_id[-2:]) // 2))

    def header(self, case_id):
        return replace(super().header(case_id), subject=str(int(case_id[-2:]) // 2))


class Widens(Edit):
    """Labels grow by a voxel on each side; the image stays."""

    name = "widens"

    def draw(self, context, rng):
        return {}

    def apply(self, context, params):
        grown = binary_dilation(context.labels > 0) & (context.labels == 0)
        return EditResult(np.where(grown, np.int16(2), context.labels))


def sampler(
    text=ROOMY, *, ndim=3, edits=(), source=None, base=True, space=None, prevalence=None
) -> Any:
    source = source or ToySource(ndim)
    made = [e if isinstance(e, Edit) else build_edits([e])[0] for e in edits]
    other = Healthy(ndim) if base else None
    drawer = lesion_drawer(text)
    return ConditionSampler(
        *(source, space or source.space, made),
        **{"seed": 1, "lesions": drawer, "base": other, "prevalence": prevalence},
    )


def placed(source: Any, count: int) -> list[Any]:
    """Conditions for whose lesions there was room."""
    drawn = [source.draw(index) for index in range(count)]
    found = [c for c in drawn if c.provenance["lesions"]["room"]]
    assert found
    return found


def near(labels: Any) -> Any:
    """Voxels within 2 mm of foreground."""
    mask = torch.from_numpy(labels > 0)[None, None]
    return hole(mask, rim_voxels(2, (1, 1, 1)))[0, 0].numpy()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("text", [ROOMY, f"{ROOMY},what=one", f"{ROOMY},mixing=carve"])
def test_labels_hold_the_lesion_in_the_body_and_the_donor_shows_it_there(ndim, text):
    source = sampler(text, ndim=ndim, edits=EDITS)
    found = placed(source, 6)
    assert len(found) >= 4
    for c in found:
        body, new = source.cases(c.provenance["case"]), c.lesion > 0
        outside = body.labels == OUTSIDE
        assert np.array_equal(c.background, body.image)
        assert np.array_equal(c.labels, np.where(new, c.lesion, body.labels))
        assert new.any()
        assert not new[outside].any()
        assert c.labels.dtype == c.lesion.dtype == np.int16
        assert c.donor.dtype == np.float32
        assert (c.donor[:, new] != c.background[:, new]).any(axis=0).all()
        assert np.array_equal(c.donor[:, outside], c.background[:, outside])


@pytest.mark.parametrize(
    "text",
    [ROOMY, f"{ROOMY},what=one,mixing=carve", "where=own", "inside=0.6,tries=200",
     f"match,sham=0.5,{ROOMY}"],
)  # fmt: skip
def test_a_lesion_is_drawn_the_same_again_and_recorded_as_json(text):
    healthy = text != "where=own" and "match" not in text
    c = sampler(text, edits=(*EDITS, Widens()), base=healthy).draw(2)
    assert json.loads(json.dumps(c.provenance)) == c.provenance
    other = sampler(text, edits=(*EDITS, Widens()), base=healthy).draw(2)
    assert np.array_equal(other.donor, c.donor)
    assert other.provenance == c.provenance


@pytest.mark.parametrize("base", [False, True])
def test_donors_are_training_cases_of_other_people(base):
    source = Watched()
    drawing = sampler(
        "add,where=anywhere,apart_mm=0,inside=0.5,tries=100", source=source, base=base
    )
    told = [c.provenance for c in placed(drawing, 30)]
    assert len({p["lesions"]["donor"] for p in told}) > 3
    assert all(p["lesions"]["donor"] in source.train_ids for p in told)
    assert source.opened <= set(source.train_ids)
    if base:
        assert all(p["case"] in Healthy().train_ids for p in told)
    else:
        assert not [
            p
            for p in told
            if source.header(p["case"]).subject == source.header(p["lesions"]["donor"]).subject
        ]


def test_new_lesions_keep_their_distance_from_own_lesions():
    text = "add,where=anywhere,apart_mm=2,inside=0.5,tries=300"
    source = sampler(text, base=False, edits=("scale",))
    for c in placed(source, 25):
        own = source.cases(c.provenance["case"]).labels
        assert not (c.lesion > 0)[near(own)].any()
        assert (c.labels > 0)[own > 0].all()


def test_where_no_lesion_has_room_one_is_clipped_to_what_is_left():
    source = sampler("add,where=anywhere,apart_mm=2,inside=0.9,tries=60", base=False)
    found = placed(source, 25)
    clipped = [c for c in found if c.provenance["lesions"].get("clipped")]
    assert clipped
    for c in clipped:
        own = source.cases(c.provenance["case"]).labels
        assert 0.6 - 1e-4 <= c.provenance["lesions"]["inside"] < 1
        assert not (c.lesion > 0)[near(own) | (own == OUTSIDE)].any()
    told = [c.provenance["lesions"] for c in found]
    assert all(t["inside"] >= 0.9 for t in told if "clipped" not in t)


def test_where_there_is_no_room_nothing_is_drawn_and_it_is_said():
    source = sampler("add,apart_mm=50", base=False)
    c = source.draw(0)
    assert not c.lesion.any()
    assert np.array_equal(c.donor, c.background)
    assert np.array_equal(c.labels, source.cases(c.provenance["case"]).labels)
    assert no_room(c.provenance).startswith("no room for a lesion, expected")
    assert not no_room({"lesions": {"room": True}})


def test_of_slices_those_with_a_lesion_are_taken():
    source = sampler("where=anywhere,inside=0.5", space=Space("slice", (16, 16)))
    for c in (c for c in placed(source, 8) if c.lesion.any()):
        told = c.provenance["lesions"]
        labels: Any = ToySource(3).load(told["donor"]).labels
        assert (labels[told["slice"]] > 0).any()
        assert c.lesion.shape == (16, 16)


def own_lesion(source, condition):
    return source.cases(condition.provenance["case"]).labels > 0


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_backgrounds_own_lesion_is_taken_out_before_a_new_one_is_put_in(ndim):
    source = sampler(f"match,{ROOMY}", base=False, ndim=ndim)
    for c in placed(source, 6):
        own, case = own_lesion(source, c), source.cases(c.provenance["case"])
        assert np.array_equal(c.labels > 0, c.lesion > 0)
        far = ~binary_dilation(own, np.ones((3,) * ndim))
        assert np.array_equal(c.background[:, far], case.image[:, far])
        inside, tissue = case.image[0, own].mean(), case.image[0, far & (c.labels == 0)].mean()
        assert abs(c.background[0, own].mean() - tissue) < abs(inside - tissue) / 3


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_prevalence_sets_the_share_of_samples_with_a_lesion(share):
    source = sampler(ROOMY, base=False, ndim=2, prevalence=share)
    shown = [(c.labels > 0).any() for c in placed(source, 40)]
    assert abs(np.mean(shown) - share) < 0.2


def test_whole_images_are_of_cases_with_a_lesion_as_often_as_is_requested():
    space = Space("slice", (16, 16))
    made: list[Any] = [
        [ConditionSampler(ToySource(3), space, prevalence=p).draw(i).labels for i in range(30)]
        for p in (0.0, 1.0)
    ]
    shares = [np.mean([(labels > 0).any() for labels in drawn]) for drawn in made]
    assert shares[0] < 0.1
    assert shares[1] == 1


def test_a_sham_is_tissue_where_a_lesion_would_be_and_its_label_is_background():
    source = sampler(f"match,sham=0.9,what=one,{ROOMY}", ndim=2)
    drawn = placed(source, 12)
    shams = [c for c in drawn if c.provenance["lesions"].get("shows") == "sham"]
    assert shams
    for c in shams:
        assert not (c.labels > 0).any()
        changed = (c.donor != c.background).any(axis=0)
        assert changed.any()
        assert not changed[c.lesion == 0].any()


def test_a_replaced_lesion_lies_where_the_old_one_was():
    source = sampler("replace,inside=0.5", base=False, ndim=2)
    for c in placed(source, 8):
        assert (own_lesion(source, c) & (c.lesion > 0)).any()


def test_a_lesion_without_tissue_like_its_rim_stays_and_the_sample_is_rejected():
    class Unlike(ToySource):
        def load(self, case_id):
            case: Any = super().load(case_id)
            spot = case.labels > 0
            rim = binary_dilation(spot, iterations=9) & ~binary_dilation(spot, iterations=2)
            labels = np.where(rim, np.int16(OUTSIDE), case.labels)
            return replace(case, labels=labels)

    c = sampler(f"match,{ROOMY}", base=False, ndim=2, source=Unlike(2)).draw(0)
    assert "cannot be taken out" in no_room(c.provenance)


def test_own_draws_the_cases_foreground_anew_in_its_place():
    source = sampler("where=own", base=False, edits=("shift:max_mm=3",))
    for index in range(6):
        c = source.draw(index)
        before = source.cases(c.provenance["case"]).labels
        assert c.provenance["lesions"]["changed"] == (not np.array_equal(before, c.labels))
        gone = (before > 0) & (c.labels == 0)
        assert np.array_equal(c.lesion, np.where(c.labels > 0, c.labels, 0))
        assert not gone.any() or np.array_equal(c.region, (c.lesion > 0) | gone)
        assert not c.lesion[before == OUTSIDE].any()


def test_lesion_options_override_defaults_key_by_key():
    drawer = lesion_drawer("where=same,classes=1+2", "apart_mm=7,where=anywhere")
    assert drawer.options == LesionOptions(where="same", classes=(1, 2), apart_mm=7)
    assert lesion_drawer(None).options == LesionOptions()
    assert all(field.description for field in LesionOptions.model_fields.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wher=own", "did you mean 'where'"),
        ("inside=2", "inside: expected a number less than or equal to 1"),
        ("where=there", "where:"),
        ("tries", "'tries' is not one of"),
        ("classes=9", "classes=9: [9] are no labels"),
    ],
)
def test_wrong_lesion_options_are_refused_in_one_line(text, said):
    with pytest.raises(UsageFault, match="--lesions") as fault:
        sampler(text).draw(0)
    assert said.lower() in str(fault.value).lower()
    assert "\n" not in str(fault.value)


def test_classes_have_the_mean_and_deviation_of_their_training_voxels(tumours):
    cases = [tumours.cases(case_id) for case_id in tumours.ids]
    means, deviations = class_statistics(tumours)
    for row, value in enumerate((1, 2)):
        voxels = np.concatenate([case.image[:, case.labels == value] for case in cases], axis=1)
        assert means[row] == pytest.approx(voxels.mean(1), abs=1e-4)
        assert deviations[row] == pytest.approx(voxels.std(1), abs=1e-4)
