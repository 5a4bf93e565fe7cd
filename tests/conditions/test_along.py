"""Cases moved whole: image and labels through one map, looked up beyond a crop's border."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.edits.along import Mover, check_moving
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.schema import OUTSIDE, Case, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Placement, Space
from gansynth.runtime.errors import UsageFault

SPACING = (2.0, 1.0, 1.0)
SHAPE = (14, 24, 26)
IGNORE = 3
SPACES = {
    "native": Space(),
    "crop": Space("crop", (10, 16, 16)),
    "padded": Space("crop", (18, 30, 30)),
    "slice": Space("slice", (16, 18)),
    "resample": Space("resample", (12, 20, 20)),
    "squashed": Space("crop", (10, 16, 16), window=((-1.0, 3.0), (-4.0, 4.0))),
}


def labels_of(case_id: str) -> np.ndarray[Any, Any]:
    number = int(case_id[-1])
    labels = np.zeros(SHAPE, np.int16)
    labels[3:11, 4 : 16 + number, 5:18] = 1
    labels[5:9, 8:13, 8:14] = 2
    labels[9:11, 14:16, 5:9] = IGNORE
    return labels


class Shown(CaseSource):
    """Six cases whose first channel is twice the label, smoothed; the second is noise.

    Args:
        space: the generator's.
        outside: label -1 around a body that leaves no face of the array but two.
        bare: the number of cases, from the first on, without any foreground.
    """

    def __init__(self, space: Space, *, outside: bool = False, bare: int = 0) -> None:
        self.request = SourceRequest("shown", "toy")
        self._space, self._outside, self._bare = space, outside, bare

    @property
    def name(self) -> str:
        return "shown:toy"

    @property
    def schema(self) -> Schema:
        labels = {"background": 0, "shell": 1, "core": 2, "ignore": IGNORE}
        fill = (-5.0, 0.0) if self._outside else None
        return Schema(
            ("labels", "noise"), labels, SPACING, has_outside=True, outside_fill=fill, ignore=IGNORE
        )

    @property
    def space(self) -> Space:
        return self._space

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(f"case_{i}" for i in range(4))

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return ("case_4", "case_5")

    def load(self, case_id: str) -> Case:
        assert case_id in self.train_ids, f"{case_id} is held out"
        labels = labels_of(case_id)
        if int(case_id[-1]) < self._bare:
            labels[:] = 0
        noise = np.random.default_rng(int(case_id[-1])).normal(0, 1, SHAPE)
        image = np.stack([2.0 * (labels % IGNORE) / 2, noise])
        if self._outside:
            labels[:, :3], labels[:, -4:], labels[..., -5:] = OUTSIDE, OUTSIDE, OUTSIDE
            image[:, labels == OUTSIDE] = np.array([[-5.0], [0.0]])
        return Case(case_id, case_id, image.astype(np.float32), labels)


def sampler(space: Space, *edits: str, seed: int = 0, **source: Any) -> ConditionSampler:
    asked = build_edits(edits or ("elastic", "scale", "rotate"))
    return ConditionSampler(Shown(space, **source), space, asked, seed=seed, moving=True)


def shifted(
    space: Space, voxels: Sequence[float], placement: Placement, case: Case, schema: Schema
) -> Any:
    """A place in a case after it has been moved by a whole number of voxels."""
    spacing = schema.spacing[-len(voxels) :]
    mm = [n * size for n, size in zip(voxels, spacing, strict=True)]
    steps = [{"edit": "shift", "params": {"strength": 1, "classes": None, "shift_mm": mm}}]
    mover = Mover(space, space.generator_schema(schema))
    return mover(case, placement, {"shift": build_edits(["shift"])[0]}, steps)


# -- together --------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", ["elastic", "flip:probability=1", "rotate", "scale", "shift"])
@pytest.mark.parametrize("grid", SPACES)
def test_the_image_shows_what_the_labels_say(grid, edit):
    drawn = sampler(SPACES[grid], edit)
    agreed, moved = [], 0
    for index in range(6):
        c = drawn.draw(index)
        assert c.moved is not None
        assert c.labels is not None
        low, high = (SPACES[grid].window or ((-1.0, 1.0),))[0]
        shown = (c.moved[0] + 1) / 2 * (high - low) + low > 0.5
        meant = np.isin(c.labels, (1, 2))
        if meant.sum() > 20:
            agreed.append(2 * (shown & meant).sum() / (shown.sum() + meant.sum()))
        assert c.moved.dtype == np.float32
        assert c.labels.dtype == np.int16
        moved += c.provenance["moved"]["voxels"] > 0
    assert moved >= 4
    assert len(agreed) >= 3
    # The nearest of a coarser grid and the splines of its image part ways at jagged borders.
    assert np.mean(agreed) > (0.9 if grid in ("resample", "slice") else 0.95), agreed


@pytest.mark.parametrize("grid", ["native", "crop", "slice"])
def test_a_seed_asks_for_the_shapes_that_it_asks_of_any_generator(grid):
    space, edits = SPACES[grid], build_edits(["elastic", "rotate"])
    plain = ConditionSampler(Shown(space), space, edits, seed=3)
    asked = [c for c in map(plain.draw, range(8)) if c.labels is not None and (c.labels > 0).any()]
    assert len(asked) >= 3
    for wanted in asked:
        found = sampler(space, "elastic", "rotate", seed=3).draw(wanted.provenance["index"])
        assert found.provenance["edits"] == wanted.provenance["edits"]
        assert found.latent_seed == wanted.latent_seed
        assert wanted.moved is None


def test_one_edit_gives_the_very_labels_that_it_gives_any_generator():
    space = SPACES["native"]
    edit = "elastic:amplitude_mm=1"  # not so far that the mirrored border came into it
    plain = ConditionSampler(Shown(space), space, build_edits([edit]), seed=3)
    for index in range(4):
        wanted, found = plain.draw(index).labels, sampler(space, edit, seed=3).draw(index)
        assert wanted is not None
        assert found.labels is not None
        labels = np.where(found.labels == IGNORE, 0, found.labels)
        assert (wanted != labels).mean() < 0.002  # at the edge of what is ignored


def test_conditions_are_replayed():
    drawn = sampler(SPACES["crop"])
    for index in range(3):
        c = drawn.draw(index)
        told = json.loads(json.dumps(c.provenance))
        assert c.labels is not None
        assert np.array_equal(drawn.replay(told), c.labels)
        again = sampler(SPACES["crop"]).draw(index).moved
        assert again is not None
        assert c.moved is not None
        assert np.array_equal(again, c.moved)


def test_what_is_to_be_ignored_moves_along_and_stays_so():
    found = [sampler(SPACES["native"], "elastic").draw(i).labels for i in range(3)]
    for labels in found:
        assert labels is not None
        assert 0.5 < (labels == IGNORE).sum() / (labels_of("case_0") == IGNORE).sum() < 2


# -- borders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["crop", "slice", "padded", "squashed"])
def test_a_crop_shows_what_lies_beyond_its_border(grid):
    space, source = SPACES[grid], Shown(SPACES[grid])
    case = source.load("case_1")
    slice_index = 6 if grid == "slice" else None
    corner: tuple[int, ...] = (2, 4, 5) if grid != "padded" else (-2, -3, -2)
    by: tuple[int, ...] = (-2, 3, -4)
    if grid == "slice":
        corner, by = corner[1:], by[1:]
    found = shifted(space, by, Placement(corner, slice_index), case, source.schema)
    there = tuple(c - n for c, n in zip(corner, by, strict=True))
    wanted = space.to_generator(case, Placement(there, slice_index))
    assert wanted.labels is not None
    inside: Any = np.True_  # what the crop was padded with stays
    if grid == "padded":
        beyond = space.padding(case.image.shape[1:], Placement(corner))
        assert beyond is not None
        inside = ~beyond
        assert (found.labels[beyond] == OUTSIDE).all()
        assert not found.image[:, beyond].any()
    assert np.array_equal(np.where(inside, found.labels, 0), np.where(inside, wanted.labels, 0))
    assert np.allclose(np.where(inside, found.image - wanted.image, 0), 0, atol=1e-5)


def test_a_whole_case_is_mirrored_at_its_border():
    space = SPACES["native"]
    source = Shown(space)
    case = source.load("case_1")
    found = shifted(space, (0, 0, 3), Placement(), case, source.schema)
    assert np.allclose(found.image[..., :3], case.image[..., 3:0:-1], atol=1e-5)
    assert found.told == {"mm": 3.0, "voxels": 3.0}


@pytest.mark.parametrize("grid", ["native", "padded"])
def test_beyond_a_body_that_is_cut_out_there_is_nothing(grid):
    space = SPACES[grid]
    source = Shown(space, outside=True)
    case = source.load("case_1")
    corner = (-2, -3, -2) if grid == "padded" else ()
    found = shifted(space, (0, -6, 0), Placement(corner), case, source.schema)
    last = slice(-9, -3) if grid == "padded" else slice(-6, None)
    assert (found.labels[:, last] == OUTSIDE).all()
    fill = np.array([-5.0, 0.0])[:, None]
    assert (found.image[:, found.labels == OUTSIDE] == fill).all()


def test_outside_moves_with_the_body():
    space = SPACES["native"]
    source = Shown(space, outside=True)
    case = source.load("case_1")
    found = shifted(space, (0, 2, 0), Placement(), case, source.schema)
    assert case.labels is not None
    assert np.array_equal(found.labels[:, 2:] == OUTSIDE, case.labels[:, :-2] == OUTSIDE)


# -- nothing to move, and what cannot be asked -----------------------------------------------------


@pytest.mark.parametrize("grid", ["native", "slice"])
def test_a_place_without_foreground_is_moved_too(grid):
    drawn = sampler(SPACES[grid], bare=4)
    found = [drawn.draw(i) for i in range(4)]
    assert all(not (c.labels > 0).any() for c in found if c.labels is not None)
    assert min(c.provenance["moved"]["voxels"] for c in found) > 0.5


def test_an_edit_that_changes_nothing_leaves_the_case():
    c = sampler(SPACES["crop"], "flip:probability=0").draw(0)
    placement = Placement.from_json(c.provenance["placement"])
    real = SPACES["crop"].to_generator(Shown(SPACES["crop"]).load(c.provenance["case"]), placement)
    assert c.moved is not None
    assert np.array_equal(c.moved, real.image)
    assert c.provenance["moved"] == {"mm": 0.0, "voxels": 0.0}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("identity", "--edit identity"),
        ("transplant", "--edit transplant"),
        ("enlarge", "--edit enlarge"),
        ("components", "--edit components"),
        ("size", "--edit size"),
        ("place", "--edit place"),
        ("elastic:classes=1", "--edit elastic:classes=..."),
    ],
)
def test_an_edit_that_leaves_the_image_behind_is_refused(edit, said):
    with pytest.raises(UsageFault, match="moves real images whole") as caught:
        check_moving("elastic", build_edits(["rotate", edit]))
    assert str(caught.value).startswith(said)
    check_moving("elastic", build_edits(["elastic", "flip", "rotate", "scale", "shift"]))
