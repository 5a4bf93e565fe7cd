"""Lesions of one case in the image of another: whose, where, and what comes of it."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_donors import Cut
from gansynth.conditions.lesion_placement import LesionDrawer, LesionOptions, lesion_drawer, no_room
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.edit import Edit, EditResult
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE
from gansynth.core.space import Placement, Space
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
        return replace(super().load(case_id), subject=self.subject(case_id))

    def subject(self, case_id):
        return str(int(case_id[-2:]) // 2)


class Widens(Edit):
    """Labels grow by a voxel on each side; the image stays."""

    name = "widens"

    def draw(self, context, rng):
        return {}

    def apply(self, context, params):
        from scipy.ndimage import binary_dilation

        labels = context.labels
        grown = binary_dilation(labels > 0) & (labels == 0)
        return EditResult(np.where(grown, np.int16(2), labels))


def sampler(text=ROOMY, *, ndim=3, edits=(), source=None, base="healthy", seed=1):
    source = source or ToySource(ndim)
    made = [e if isinstance(e, Edit) else build_edits([e])[0] for e in edits]
    other = Healthy(ndim) if base == "healthy" else None
    return ConditionSampler(
        source, source.space, made, seed=seed, lesions=lesion_drawer(text), base=other
    )


def room_of(condition):
    return condition.provenance["lesions"]["room"]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("text", [ROOMY, f"{ROOMY},what=one", f"{ROOMY},mixing=carve"])
def test_labels_hold_the_lesion_in_the_body_and_the_donor_shows_it_there(ndim, text):
    source: Any = sampler(text, ndim=ndim, edits=EDITS)
    drawn = [source.draw(index) for index in range(6)]
    placed = [c for c in drawn if room_of(c)]
    assert len(placed) >= 4
    for c in placed:
        body = source.source.load(c.provenance["case"])
        new = c.lesion > 0
        assert np.array_equal(c.background, body.image)
        assert np.array_equal(c.labels, np.where(new, c.lesion, body.labels))
        assert new.any()
        assert not new[body.labels == OUTSIDE].any()
        assert c.labels.dtype == c.lesion.dtype == np.int16
        assert c.donor.dtype == np.float32
        assert (c.donor[:, new] != c.background[:, new]).any(axis=0).all()
        outside = body.labels == OUTSIDE
        assert np.array_equal(c.donor[:, outside], c.background[:, outside])


def test_an_unedited_lesion_comes_with_its_own_voxels():
    source: Any = sampler("where=anywhere,inside=1,tries=300")
    placed = [c for c in map(source.draw, range(20)) if room_of(c)]
    assert placed
    for c in placed:
        told = c.provenance["lesions"]
        donor = source.room.source.load(told["donor"])
        found, wanted = (
            np.sort(pair[0][:, pair[1] > 0], axis=1)
            for pair in ((c.donor, c.lesion), (donor.image, donor.labels))
        )
        assert np.array_equal(found, wanted)


def test_it_replays_from_json_to_the_bit():
    for text in (ROOMY, f"{ROOMY},what=one,mixing=carve", "where=own"):
        base = None if text == "where=own" else "healthy"
        source = sampler(text, edits=(*EDITS, Widens()), base=base)
        for index in range(4):
            c = source.draw(index)
            told = json.loads(json.dumps(c.provenance))
            case = source.source.load(told["case"])
            where = Placement.from_json(told["placement"])
            scene = source._scene(case, where, case, index)
            by_name = {edit.name: edit for edit in source.edits}
            again = LesionDrawer().replay(scene, by_name, told)  # whatever its options
            for key in ("labels", "lesion", "donor", "region"):
                assert np.array_equal(getattr(again, key), getattr(c, key)), key
            assert again.told == told["lesions"]
            assert np.array_equal(source.replay(told), c.labels)


def test_the_same_number_gives_the_same_condition_in_any_order():
    first, second = sampler(edits=EDITS), sampler(edits=EDITS)
    second.draw(3)
    one, other = first.draw(2), second.draw(2)
    assert np.array_equal(one.donor, other.donor)
    assert np.array_equal(one.labels, other.labels)
    assert one.provenance == other.provenance


def test_donors_are_training_cases_of_other_people():
    source = Watched()
    drawer = sampler("where=anywhere,apart_mm=0,inside=0.5,tries=100", source=source, base=None)
    drawn = [drawer.draw(index).provenance for index in range(30)]
    pairs = [(p["case"], p["lesions"]["donor"]) for p in drawn if p["lesions"]["room"]]
    assert len(pairs) > 5
    assert len({donor for _, donor in pairs}) > 3
    assert all(source.subject(a) != source.subject(b) for a, b in pairs)
    assert source.opened <= set(source.train_ids)


def test_it_never_comes_near_the_backgrounds_own_lesions():
    source: Any = sampler(
        "where=anywhere,apart_mm=2,inside=0.5,tries=300", base=None, edits=("scale",)
    )
    placed = [c for c in map(source.draw, range(25)) if room_of(c)]
    assert placed
    for c in placed:
        own = source.source.load(c.provenance["case"]).labels > 0
        near = hole(torch.from_numpy(own)[None, None], rim_voxels(2, (1, 1, 1)))[0, 0].numpy()
        assert not (c.lesion > 0)[near].any()
        assert (c.labels > 0)[own].all()


def test_where_no_lesion_has_room_one_is_clipped_to_what_is_left():
    source: Any = sampler("where=anywhere,apart_mm=2,inside=0.9,tries=60", base=None)
    drawn = [c for c in map(source.draw, range(25)) if room_of(c)]
    clipped = [c for c in drawn if c.provenance["lesions"].get("clipped")]
    assert clipped
    for c in clipped:
        told, own = c.provenance["lesions"], source.source.load(c.provenance["case"]).labels
        near = hole(torch.from_numpy(own > 0)[None, None], rim_voxels(2, (1, 1, 1)))[0, 0].numpy()
        assert 0.6 - 1e-4 <= told["inside"] < 1
        assert not (c.lesion > 0)[near | (own == OUTSIDE)].any()
        assert np.array_equal(source.replay(json.loads(json.dumps(c.provenance))), c.labels)
    told = [c.provenance["lesions"] for c in drawn]
    assert all(t["inside"] >= 0.9 for t in told if "clipped" not in t)


def test_where_there_is_no_room_nothing_is_drawn_and_it_is_said():
    source: Any = sampler("apart_mm=50", base=None)
    c = source.draw(0)
    assert not room_of(c)
    assert not c.lesion.any()
    assert np.array_equal(c.donor, c.background)
    assert np.array_equal(c.labels, source.source.load(c.provenance["case"]).labels)
    assert no_room(c.provenance).startswith("no room for a lesion, expected")
    assert not no_room({"lesions": {"room": True}})
    assert np.array_equal(source.replay(c.provenance), c.labels)


def test_of_slices_those_with_a_lesion_are_taken():
    toy: Any = ToySource(3)
    space = Space("slice", (16, 16))
    source: Any = ConditionSampler(
        toy, space, seed=3, lesions=lesion_drawer("where=anywhere,inside=0.5"), base=Healthy(3)
    )
    placed = [c for c in map(source.draw, range(8)) if room_of(c)]
    assert len(placed) > 3
    for c in placed:
        told = c.provenance["lesions"]
        assert (toy.load(told["donor"]).labels[told["slice"]] > 0).any()
        assert c.lesion.shape == (16, 16)


def test_own_draws_the_cases_foreground_anew_in_its_place():
    source: Any = sampler("where=own", base=None, edits=("shift:max_mm=3",))
    for index in range(6):
        c = source.draw(index)
        before = source.source.load(c.provenance["case"]).labels
        told = c.provenance["lesions"]
        assert told["changed"] == (not np.array_equal(before, c.labels))
        gone = (before > 0) & (c.labels == 0)
        assert np.array_equal(c.lesion, np.where(c.labels > 0, c.labels, 0))
        if gone.any():
            assert c.region[gone].all()
            assert np.array_equal(c.region, (c.lesion > 0) | gone)
        assert not c.lesion[before == OUTSIDE].any()


def test_carving_takes_less_than_the_lesion_or_some_of_what_is_around_it():
    source: Any = sampler(f"{ROOMY},mixing=carve")
    placed = [c for c in map(source.draw, range(16)) if room_of(c)]
    within = [c for c in placed if c.provenance["lesions"]["carve_mm"] <= 0]
    around = [c for c in placed if c.provenance["lesions"]["carve_mm"] > 1]
    assert within
    assert around
    assert all(int(c.region.sum()) > int((c.lesion > 0).sum()) for c in around)
    assert all(np.array_equal(c.region, c.lesion > 0) for c in within)
    for c in within:  # what is carved away of the lesion is not shown, either
        told = c.provenance["lesions"]
        cut = Cut(told["donor"], None, told["part"], (1, 2), (), told["margin_mm"])
        back = [-n for n in told["corner"]]
        whole = crop_pad(cut(source.room).labels, back, c.labels.shape, 0)
        carved = (whole > 0) & (c.lesion == 0)
        assert np.array_equal(c.donor[:, carved], c.background[:, carved])


def test_what_is_asked_for_goes_over_what_is_usual_key_by_key():
    drawer = lesion_drawer("where=same,classes=1+2", "apart_mm=7,where=anywhere")
    assert drawer.options == LesionOptions(where="same", classes=(1, 2), apart_mm=7)
    assert lesion_drawer(None).options == LesionOptions()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wher=own", "did you mean 'where'"),
        ("inside=2", "inside: expected a number less than or equal to 1"),
        ("where=there", "where:"),
        ("tries", "'tries' is not one of"),
    ],
    ids=["key", "range", "value", "no-value"],
)
def test_what_is_not_understood_is_refused_in_one_line(text, said):
    with pytest.raises(UsageFault, match="--lesions") as fault:
        lesion_drawer(text)
    assert said.lower() in str(fault.value).lower()
    assert "\n" not in str(fault.value)


def test_labels_that_are_not_there_are_refused():
    with pytest.raises(UsageFault, match=r"--lesions classes=9: \[9\] are no labels"):
        sampler("classes=9").draw(0)
