import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import (
    class_statistics,
    lesion_drawer,
    no_room,
)
from gansynth.conditions.location_prior import PlacementPrior, depth_of, frame_of
from gansynth.conditions.removal import (
    BORDER,
    REACH,
    Source,
    Tissue,
    fill,
    find_pieces,
    whole_lesions,
)
from gansynth.conditions.sampler import VARIANTS, ConditionSampler
from gansynth.core.case_pool import CaseContext
from gansynth.core.schema import OUTSIDE, Case, Schema
from gansynth.core.source import SourceRequest
from gansynth.core.space import Placement, Space
from gansynth.data.h5 import H5Source, write_h5
from gansynth.testing import ToySource
from gansynth.testing.toy import without_blobs
from tests.conditions.rooms import THREE, Maps, at, body, patients, pool_of, with_ball
from tests.expected import raises_fault

EDITS = ("flip", "rotate", "scale", "elastic")
FLAT = Schema(("T1",), {"bg": 0, "a": 1}, (1.0, 1.0), "HW", has_outside=True)
ROOMY = "where=anywhere,inside=0.6,tries=200"


class Healthy(ToySource):
    """Bodies without lesions, of other people."""

    @property
    def train_ids(self):
        return tuple(f"healthy_{i}" for i in super().train_ids)

    def load(self, case_id):
        case = without_blobs(super().load(case_id.removeprefix("healthy_")), int(case_id[-2:]))
        return replace(case, id=case_id, subject=case_id)


def sampler(text, *, ndim=3, edits=(), source=None, base=True, space=None, prevalence=None) -> Any:
    source = source or ToySource(ndim)
    other = Healthy(ndim) if base else None
    drawer = lesion_drawer(text)
    return ConditionSampler(
        source,
        space or source.space,
        build_edits(edits),
        **{"seed": 1, "lesions": drawer, "base": other, "prevalence": prevalence},
    )


def placed(source: Any, count: int) -> list[Any]:
    """Conditions for whose lesions there was room."""
    drawn = [source.draw(index) for index in range(count)]
    found = [c for c in drawn if c.provenance["lesions"]["room"]]
    assert found
    return found


def own_labels(source, condition):
    return source.cases(condition.provenance["case"]).labels


@pytest.mark.parametrize(
    ("ndim", "text"), [(3, ROOMY), (2, f"{ROOMY},what=one"), (2, f"{ROOMY},mixing=carve")]
)
def test_labels_hold_the_lesion_in_the_body_and_the_donor_shows_it_there(ndim, text):
    source = sampler(text, ndim=ndim, edits=EDITS)
    found = placed(source, 6)
    assert len(found) >= 4
    again = sampler(text, ndim=ndim, edits=EDITS).draw(found[-1].provenance["index"])
    assert np.array_equal(again.donor, found[-1].donor)
    assert again.provenance == json.loads(json.dumps(found[-1].provenance))
    for c in found:
        case, new = source.cases(c.provenance["case"]), c.lesion > 0
        outside = case.labels == OUTSIDE
        assert np.array_equal(c.background, case.image)
        assert np.array_equal(c.labels, np.where(new, c.lesion, case.labels))
        assert new.any()
        assert not new[outside].any()
        assert c.labels.dtype == c.lesion.dtype == np.int16
        assert c.donor.dtype == np.float32
        assert (c.donor[:, new] != c.background[:, new]).any(axis=0).all()
        assert np.array_equal(c.donor[:, outside], c.background[:, outside])


@pytest.mark.parametrize("base", [False, True])
def test_donors_are_training_cases_of_other_people(base):
    seats = {f"p{i // 2}_{i}": (18 + 3 * i, 24) for i in range(6)}
    source = Waves({name: with_ball(body((48, 48)), seat, 4) for name, seat in seats.items()}, FLAT)
    text = "add,where=anywhere,apart_mm=0,inside=0.5,tries=100"
    told = [c.provenance for c in placed(sampler(text, source=source, base=base, ndim=2), 20)]
    donors = [p["lesions"]["donor"] for p in told]
    assert len(set(donors)) > 3
    if base:
        assert all(p["case"] in Healthy().train_ids for p in told)
    else:
        assert all(p["case"][:2] != p["lesions"]["donor"][:2] for p in told)


def test_new_lesions_keep_their_distance_from_own_lesions():
    text = "add,where=anywhere,apart_mm=2,inside=0.5,tries=300"
    source = sampler(text, base=False, edits=("scale",), ndim=2)
    for c in placed(source, 16):
        own = own_labels(source, c)
        assert distance_transform_edt(own <= 0)[c.lesion > 0].min() > 2
        assert (c.labels > 0)[own > 0].all()


def test_where_there_is_no_room_nothing_is_drawn_and_it_is_said():
    source = sampler("add,apart_mm=50", base=False, ndim=2)
    c = source.draw(0)
    assert not c.lesion.any()
    assert np.array_equal(c.donor, c.background)
    assert np.array_equal(c.labels, own_labels(source, c))
    assert no_room(c.provenance).startswith("no room for a lesion, expected")
    assert not no_room({"lesions": {"room": True}})


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_backgrounds_own_lesion_is_taken_out_before_a_new_one_is_put_in(ndim):
    source = sampler(f"swap,{ROOMY}", base=False, ndim=ndim)
    for c in placed(source, 6):
        own, case = own_labels(source, c) > 0, source.cases(c.provenance["case"])
        assert np.array_equal(c.labels > 0, c.lesion > 0)
        far = ~binary_dilation(own, np.ones((3,) * ndim), REACH + BORDER)
        assert np.array_equal(c.background[:, far], case.image[:, far])
        beside = ~binary_dilation(own, np.ones((3,) * ndim)) & (c.labels == 0)
        inside, tissue = case.image[0, own].mean(), case.image[0, beside].mean()
        assert abs(c.background[0, own].mean() - tissue) < abs(inside - tissue) / 3


class Waves(Maps):
    """Tissue that has its like in other places."""

    def load(self, case_id):
        case: Any = super().load(case_id)
        rng = np.random.default_rng(int(case_id[-1]))
        waves = 100 + 40 * gaussian_filter(rng.standard_normal(case.labels.shape), 4)
        shown = np.where(case.labels > 0, 140, waves * (case.labels != OUTSIDE))
        return replace(case, image=shown[None].astype(np.float32))


@pytest.mark.parametrize(
    ("seat", "masked", "skull"), [((24, 40), 5, 26), ((8, 31), 8, 30)], ids=["skull", "stripped"]
)
def test_a_lesion_is_taken_out_whole_and_filled_with_tissue_as_deep(seat, masked, skull):
    """A bright lesion: the mask holds its middle, in a bright skull; or it lies beside air."""
    middle = np.hypot(*(np.indices((64, 64)) - 31.5))
    away = np.hypot(*(np.indices((64, 64)) - np.reshape(seat, (2, 1, 1))))
    noise, body = 2 * np.random.default_rng(0).standard_normal((64, 64)), middle <= 30
    levels = np.select([middle > skull, away < 8], [200, 160], 80)
    image = np.where(body, levels + noise, 0).astype(np.float32)[None]
    out = whole_lesions(image, (away < masked) & body, body)
    assert out[(away < 8) & body].all()
    assert not out[middle > skull].any()
    tissue = Tissue(image, body & ~out, body)
    pieces = find_pieces(tissue, out, np.random.default_rng(0))
    assert pieces is not None
    fill(image, pieces, tissue.free, tissue.inside)
    assert abs(image[0][out] - 80).max() < 20
    assert not image[0][~body].any()


@pytest.mark.parametrize("size", [6, 1])
def test_a_lesion_with_nothing_but_air_around_it_becomes_the_tissue_that_it_is_filled_with(size):
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 20:38, 2:38] = 80 + np.random.default_rng(0).standard_normal((18, 36))
    hole = np.zeros((40, 40), bool)
    hole[4 : 4 + size, 4 : 4 + size] = True
    image[0, hole] = 160
    body = image[0] > 0
    fill(image, [(hole, Source((20, 10)))], body & ~hole, body)
    assert abs(image[0, hole] - 80).max() < 5


def test_two_samples_in_a_row_hold_an_edited_lesion_at_two_places_whoever_draws_them():
    drawn = [sampler(ROOMY, edits=EDITS).draw(index).provenance for index in range(6)]
    source = sampler(ROOMY, edits=EDITS)
    assert [source.draw(index).provenance for index in reversed(range(6))] == drawn[::-1]
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        assert first["edits"] == second["edits"]
        assert first["lesions"]["donor"] == second["lesions"]["donor"]
        assert first["lesions"]["corner"] != second["lesions"]["corner"]
    assert len({json.dumps(each["edits"]) for each in drawn}) == 3


@pytest.mark.parametrize(
    ("ndim", "text"), [(3, "pairs=nearest"), (3, "pairs=ordered"), (2, "pairs=any")]
)
def test_edits_of_lesions_that_hang_on_the_background_are_each_samples_own(ndim, text):
    space = Space("slice", (24, 24)) if ndim == 2 else None
    source = sampler(f"{ROOMY},{text}", edits=EDITS, source=ToySource(3), space=space)
    told = [json.dumps(c.provenance["edits"]) for c in placed(source, 6) if c.lesion.any()]
    assert len(set(told)) == len(told)


def tumours() -> Waves:
    return Waves({f"p{i}": with_ball(body((64, 64)), (20 + i, 22), 9) for i in range(3)}, FLAT)


def test_crops_that_a_tumour_fills_show_the_tissue_that_other_crops_of_the_case_show_there():
    crops = Space("crop", (12, 12))
    source, other = [
        sampler(f"swap,{ROOMY}", base=False, source=tumours(), space=crops) for _ in range(2)
    ]
    drawn = [source.draw(index) for index in range(80)]
    assert np.array_equal(other.draw(79).background, drawn[79].background)
    seen: dict[tuple[str, int, int], set[float]] = {}
    full = []
    for c in drawn:
        assert "stays" not in c.provenance["lesions"]
        assert np.array_equal(c.labels > 0, c.lesion > 0)
        case, (y, x) = c.provenance["case"], c.provenance["placement"]["corner"]
        own = source.source.maps[case][y : y + 12, x : x + 12] > 0
        full.append(bool(own.all()))
        assert not (abs(c.background[0] - 140) < 1e-3)[own].any()
        for row, column in np.argwhere(own):
            at = (case, y + row, x + column)
            seen.setdefault(at, set()).add(float(c.background[0, row, column]))
    assert any(full)
    assert 1 < max(map(len, seen.values())) <= VARIANTS


@pytest.mark.parametrize("crop", [(24, 24), (64, 64)])
def test_bodies_and_emptied_backgrounds_are_made_once_for_all_trainings(
    tmp_path, monkeypatch, crop
):
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", 0.0)
    monkeypatch.setattr(Waves, "held_out_ids", ())
    write_h5(tumours(), tmp_path / "cases.h5")

    def drawn() -> Any:
        cases = H5Source(SourceRequest("h5", str(tmp_path / "cases.h5")))
        source = sampler(f"swap,{ROOMY}", base=False, source=cases, space=Space("crop", crop))
        return [source.draw(index) for index in range(20)]

    first = drawn()
    for work in ("without_lesions", "shown_body"):
        monkeypatch.delattr(f"gansynth.conditions.sampler.{work}")
    for one, again in zip(first, drawn(), strict=True):
        assert one.provenance == again.provenance
        np.testing.assert_array_equal(one.background, again.background)
        np.testing.assert_array_equal(one.labels, again.labels)


def test_bodies_that_fill_little_of_the_crop_are_backgrounds_as_often_as_larger_ones():
    maps = {}
    for number, side in enumerate((26, 28, 30)):
        small = with_ball(body((side, side)), (12, 12), 3)
        maps[f"p{number}"] = np.pad(small, (0, 72 - side), constant_values=OUTSIDE)
    source = sampler(
        f"swap,{ROOMY}", base=False, source=Waves(maps, FLAT), space=Space("crop", (64, 64))
    )
    used = Counter(source.draw(index).provenance["case"] for index in range(60))
    assert sorted(used) == ["p0", "p1", "p2"]
    assert min(used.values()) > 10


def test_the_edge_of_a_picture_is_not_that_of_a_crop_and_cuts_lesions_no_more_than_the_body_may():
    ball = with_ball(np.zeros((72, 72), np.int16), (36, 36), 10)
    ball[:, -2:] = OUTSIDE  # the body ends at the other three edges of the picture
    source = sampler(
        "add,inside=0.9,where=anywhere,tries=200",
        base=False,
        source=Waves({f"p{number}": ball for number in range(3)}, FLAT),
        space=Space("crop", (72, 72)),
    )
    for c in placed(source, 12):
        assert (c.lesion > 0).sum() >= 0.9 * (ball > 0).sum()


def test_a_replaced_lesion_lies_where_the_old_one_was():
    source = sampler("in-place,inside=0.5", base=False, ndim=2)
    for c in placed(source, 6):
        assert ((own_labels(source, c) > 0) & (c.lesion > 0)).any()


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_prevalence_sets_the_share_of_samples_with_a_lesion(share):
    source = sampler(ROOMY, base=False, ndim=2, prevalence=share)
    shown = [(c.labels > 0).any() for c in placed(source, 40)]
    assert abs(np.mean(shown) - share) < 0.2
    whole = ConditionSampler(ToySource(3), Space("slice", (16, 16)), prevalence=share)
    shown = [(np.asarray(whole.draw(index).labels) > 0).any() for index in range(20)]
    assert abs(np.mean(shown) - share) < (0.2 if share == 0.5 else 0.1)


def test_a_sham_is_tissue_where_a_lesion_would_be_and_its_label_is_background():
    source = sampler(f"swap,sham=0.9,what=one,{ROOMY}", ndim=2)
    drawn = placed(source, 12)
    shams = [c for c in drawn if c.provenance["lesions"].get("shows") == "sham"]
    assert shams
    for c in shams:
        assert not (c.labels > 0).any()
        changed = (c.donor != c.background).any(axis=0)
        assert changed.any()
        assert not changed[c.lesion == 0].any()


@pytest.mark.parametrize(
    ("text", "expected", "names"),
    [
        ("wher=own", "options.word-unknown-or-repeated", "'where'"),
        ("inside=2", "options.value-invalid", ": inside: "),
        ("tries", "options.word-unknown-or-repeated", "'tries'"),
        ("classes=9", "conditions.lesion-labels-unknown", "[9]"),
    ],
)
def test_wrong_lesion_options_are_refused_in_one_line(text, expected, names):
    with raises_fault(expected, names=names) as fault:
        sampler(text, ndim=2).draw(0)
    assert f"--lesions {text}" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_classes_have_the_mean_and_deviation_of_their_training_voxels():
    tumours = pool_of(patients())
    cases = [tumours.cases(case_id) for case_id in tumours.ids]
    means, deviations = class_statistics(tumours)
    for row, value in enumerate((1, 2)):
        voxels = np.concatenate([case.image[:, case.labels == value] for case in cases], axis=1)
        assert means[row] == pytest.approx(voxels.mean(1), abs=1e-4)
        assert deviations[row] == pytest.approx(voxels.std(1), abs=1e-4)


# -- where real ones do not lie --------------------------------------------------------------------

SIDE = 48
EYE, SKULL, BRAIN = 2, 1, 3


def anatomy():
    """A head: 0 for air, 1 for skull, 2 for an eye, 3 for the brain."""
    grid = (np.indices((SIDE, SIDE)) + 0.5) / SIDE - 0.5
    away = np.sqrt((grid**2).sum(axis=0))
    kinds = np.select([away > 0.45, away > 0.37], [0, SKULL], BRAIN)
    eye = np.sqrt((grid[0] + 0.18) ** 2 + grid[1] ** 2)
    return np.where(eye < 0.15, EYE, kinds)


KINDS = anatomy()


class Heads(ToySource):
    """Lesions in the brain, off the eye; each subject has a grey scale of its own.

    ``aside``: columns from the middle of the head to a lesion's at least.
    """

    def __init__(self, count=6, aside=0.0):
        super().__init__(2)
        self._cases = {}
        for number in range(count):
            rng = np.random.default_rng(number)
            labels = np.zeros(KINDS.shape, np.int16)
            while not labels.any() or (KINDS[labels > 0] != BRAIN).any():
                centre = rng.uniform(0, SIDE, 2).reshape(-1, 1, 1)
                if abs(centre[1, 0, 0] - SIDE / 2) < aside:
                    continue
                away = np.sqrt(((np.indices(KINDS.shape) - centre) ** 2).sum(0))
                labels = (away < 3).astype(np.int16)
            noise = (KINDS > 0) * rng.normal(0, 0.1, KINDS.shape)
            grey = np.array([0.0, 3.0, 0.3, 1.0])[KINDS] + noise
            channels = np.stack([grey + labels, np.where(KINDS > 0, 4 - grey, 0) + labels])
            image = (channels * (1 + 9 * number)).astype(np.float32)
            self._cases[f"head_{number}"] = Case(f"head_{number}", f"head_{number}", image, labels)

    schema = property(lambda self: Schema(("a", "b"), {"bg": 0, "tumour": 1}, (1.0, 1.0), "HW"))
    train_ids = property(lambda self: tuple(self._cases))


def in_heads(text="apart_mm=1", count=6) -> Any:
    return ConditionSampler(Heads(count), Space(), seed=3, lesions=lesion_drawer(text))


def room(source, seed=0, change=lambda image: image):
    """Whether there is room for a lesion in a head without one, whose image was changed."""
    case = source.cases("head_0")
    image = change(case.image)
    case = replace(case, image=image, labels=np.zeros_like(case.labels))
    here = CaseContext(case, Placement(), image.shape[1:], 0, source.case_pool)
    return source.lesions.draw(here, (), np.random.default_rng(seed)).provenance["room"]


def on_both_sides(new: Any) -> bool:
    """Whether more than a seventh of a lesion lies on either side of the head's middle."""
    right = (np.nonzero(new)[1] >= SIDE / 2).mean()
    return bool(min(right, 1 - right) > 1 / 7)


def on_the_skull(new: Any) -> bool:
    return bool(np.isin(SKULL, KINDS[new]))


def off_the_brain(new: Any) -> float:
    return float((KINDS[new] != BRAIN).mean())


@pytest.mark.parametrize(
    ("astray", "most"), [(on_both_sides, 0), (on_the_skull, 0), (off_the_brain, 0.05)]
)
def test_large_lesions_keep_off_where_training_lesions_do_not_lie(astray, most):
    heads, edits, shares = Heads(12, aside=7), build_edits(("scale:low=3,high=4",)), []
    for text in ("apart_mm=1,where=anywhere", "apart_mm=1"):
        source = ConditionSampler(heads, Space(), edits, seed=3, lesions=lesion_drawer(text))
        drawn: list[Any] = list(map(source.draw, range(40)))
        lesions = [c.lesion > 0 for c in drawn if c.lesion.any()]
        shares.append(np.mean(list(map(astray, lesions))))
    assert shares[0] > 0.1
    assert shares[1] <= most


@pytest.mark.parametrize(("turned", "share"), [(False, 1), (True, 0)])
def test_a_background_without_a_lesion_looks_like_training_cases_with_one(turned, share):
    """The eye of a turned head lies elsewhere: its tissue is known, its view is not."""
    source = in_heads()

    def turn(image):
        return np.rot90(image, 2 * turned, (1, 2)).copy()

    assert np.mean([room(source, seed, turn) for seed in range(8)]) == share


def test_noise_has_no_place_for_a_lesion_and_one_subject_says_nothing_of_how_heads_look():
    noise = np.random.default_rng(0).choice([0.01, 3.0], (2, SIDE, SIDE)) * (KINDS > 0)
    assert not room(in_heads(), change=lambda _: noise.astype(np.float32))
    assert room(in_heads(count=1))


def test_a_lesion_prefers_the_places_of_lesions_of_its_size():
    prior = PlacementPrior(np.array([[0.2, 0.2], [0.8, 0.8]]), diameters=np.array([0.05, 0.3]))
    rng = np.random.default_rng(0)
    assert (prior.spread(100, 2, rng, diameter=0.05) < 0.5).mean() > 0.9
    assert (prior.spread(100, 2, rng, diameter=0.3) > 0.5).mean() > 0.9


def test_a_slice_takes_the_lesions_of_its_depth():
    deep, shallow = (with_ball(body((20, 24, 28)), seat, 2) for seat in ((5, 6, 21), (15, 6, 6)))
    pool = pool_of(Maps({"p0": deep, "p1": shallow}, THREE), Space("slice", (24, 28)))
    here = at(pool, "p0", placement=Placement((0, 0), 5))
    prior, frame, depth = PlacementPrior.learn(pool), frame_of(here), depth_of(here)
    assert depth == pytest.approx((5.5 - 1) / 18)
    rng = np.random.default_rng(0)
    drawn = [prior.draw(here.body, rng, frame=frame, depth=depth)[1] > 14 for _ in range(60)]
    either = [prior.draw(here.body, rng, frame=frame)[1] > 14 for _ in range(60)]
    assert np.mean(drawn) > 0.85
    assert 0.3 < np.mean(either) < 0.7
