from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.edits.warps import CaseWarp, check_warp
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.schema import OUTSIDE, Case, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Placement, Space
from gansynth.runtime.errors import UsageFault

SPACING = (2.0, 1.0, 1.0)
SHAPE = (14, 24, 26)
IGNORE = 3
NATIVE = Space()
SPACES = {
    "native": NATIVE,
    "crop": Space("crop", (10, 16, 16)),
    "padded": Space("crop", (18, 30, 30)),
    "slice": Space("slice", (16, 18)),
    "resample": Space("resample", (12, 20, 20)),
    "squashed": Space("crop", (10, 16, 16), window=((-1.0, 3.0), (-4.0, 4.0))),
}


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

    name = property(lambda self: "shown:toy")
    space = property(lambda self: self._space)
    train_ids = property(lambda self: tuple(f"case_{i}" for i in range(4)))
    held_out_ids = property(lambda self: ("case_4", "case_5"))

    @property
    def schema(self) -> Schema:
        labels = {"background": 0, "shell": 1, "core": 2, "ignore": IGNORE}
        fill = (-5.0, 0.0) if self._outside else None
        channels = ("labels", "noise")
        return Schema(channels, labels, SPACING, has_outside=True, outside_fill=fill, ignore=IGNORE)

    def load(self, case_id: str) -> Case:
        assert case_id in self.train_ids, f"{case_id} is held out"
        labels = np.zeros(SHAPE, np.int16)
        labels[3:11, 4 : 16 + int(case_id[-1]), 5:18] = 1
        labels[5:9, 8:13, 8:14] = 2
        labels[9:11, 14:16, 5:9] = IGNORE
        if int(case_id[-1]) < self._bare:
            labels[:] = 0
        noise = np.random.default_rng(int(case_id[-1])).normal(0, 1, SHAPE)
        image = np.stack([2.0 * (labels % IGNORE) / 2, noise])
        if self._outside:
            labels[:, :3], labels[:, -4:], labels[..., -5:] = OUTSIDE, OUTSIDE, OUTSIDE
            image[:, labels == OUTSIDE] = np.array([[-5.0], [0.0]])
        return Case(case_id, case_id, image.astype(np.float32), labels)


def sampler(
    space: Space, *edits: str, seed: int = 0, moving: bool = True, **source: Any
) -> ConditionSampler:
    asked = build_edits(edits or ("elastic", "scale", "rotate"))
    return ConditionSampler(Shown(space, **source), space, asked, seed=seed, moving=moving)


def shifted(
    source: Shown, voxels: Sequence[float], corner: Sequence[int] = (), index: int | None = None
) -> Any:
    """A place in ``case_1`` after it has been moved by a whole number of voxels."""
    space, schema = source.space, source.schema
    mm = [n * size for n, size in zip(voxels, schema.spacing[-len(voxels) :], strict=True)]
    steps = [{"edit": "shift", "params": {"strength": 1, "classes": None, "shift_mm": mm}}]
    mover = CaseWarp(space, space.generator_schema(schema))
    placement = Placement(tuple(corner), index)
    return mover(source.load("case_1"), placement, {"shift": build_edits(["shift"])[0]}, steps)


@pytest.mark.parametrize("edit", ["elastic", "flip:probability=1", "rotate", "scale", "shift"])
@pytest.mark.parametrize("grid", SPACES)
def test_the_image_shows_what_the_labels_say(grid, edit):
    drawn = sampler(SPACES[grid], edit)
    low, high = (SPACES[grid].window or ((-1.0, 1.0),))[0]
    agreed, moved = [], 0
    for index in range(6):
        c: Any = drawn.draw(index)
        shown = (c.moved[0] + 1) / 2 * (high - low) + low > 0.5
        meant = np.isin(c.labels, (1, 2))
        if meant.sum() > 20:
            agreed.append(2 * (shown & meant).sum() / (shown.sum() + meant.sum()))
        assert (c.moved.dtype, c.labels.dtype) == (np.float32, np.int16)
        moved += c.provenance["moved"]["voxels"] > 0
    assert moved >= 4
    assert len(agreed) >= 3
    # The nearest of a coarser grid and the splines of its image part ways at jagged borders.
    assert np.mean(agreed) > (0.9 if grid in ("resample", "slice") else 0.95), agreed


@pytest.mark.parametrize("grid", ["native", "crop", "slice"])
def test_moving_sampler_draws_the_same_edits_as_any_other(grid):
    edits = ("elastic", "rotate")
    plain = sampler(SPACES[grid], *edits, seed=3, moving=False)
    asked = [c for c in map(plain.draw, range(8)) if c.labels is not None and (c.labels > 0).any()]
    assert len(asked) >= 3
    for wanted in asked:
        found = sampler(SPACES[grid], *edits, seed=3).draw(wanted.provenance["index"])
        assert found.provenance["edits"] == wanted.provenance["edits"]
        assert found.latent_seed == wanted.latent_seed
        assert wanted.moved is None


@pytest.mark.parametrize("grid", ["crop", "slice", "padded", "squashed"])
def test_a_crop_shows_what_lies_beyond_its_border(grid):
    source = Shown(SPACES[grid])
    case, index = source.load("case_1"), 6 if grid == "slice" else None
    corner: tuple[int, ...] = (2, 4, 5) if grid != "padded" else (-2, -3, -2)
    by: tuple[int, ...] = (-2, 3, -4)
    if grid == "slice":
        corner, by = corner[1:], by[1:]
    found = shifted(source, by, corner, index)
    there = Placement(tuple(c - n for c, n in zip(corner, by, strict=True)), index)
    wanted: Any = source.space.to_generator(case, there)
    inside: Any = np.True_  # what the crop was padded with stays
    if grid == "padded":
        beyond: Any = source.space.padding(case.image.shape[1:], Placement(corner))
        inside = ~beyond
        assert (found.labels[beyond] == OUTSIDE).all()
        assert not found.image[:, beyond].any()
    assert np.array_equal(np.where(inside, found.labels, 0), np.where(inside, wanted.labels, 0))
    assert np.allclose(np.where(inside, found.image - wanted.image, 0), 0, atol=1e-5)


@pytest.mark.parametrize("grid", ["native", "padded"])
def test_moved_images_are_filled_outside_the_body(grid):
    corner = (-2, -3, -2) if grid == "padded" else ()
    found = shifted(Shown(SPACES[grid], outside=True), (0, -6, 0), corner)
    last = slice(-9, -3) if grid == "padded" else slice(-6, None)
    assert (found.labels[:, last] == OUTSIDE).all()
    fill = np.array([-5.0, 0.0])[:, None]
    assert (found.image[:, found.labels == OUTSIDE] == fill).all()


def test_an_edit_that_changes_nothing_leaves_the_case():
    c: Any = sampler(SPACES["crop"], "flip:probability=0").draw(0)
    placement = Placement.from_json(c.provenance["placement"])
    real = SPACES["crop"].to_generator(Shown(NATIVE).load(c.provenance["case"]), placement)
    assert np.array_equal(c.moved, real.image)
    assert c.provenance["moved"] == {"mm": 0.0, "voxels": 0.0}


@pytest.mark.parametrize(
    "edit",
    ["identity", "transplant", "enlarge", "components", "size", "place", "elastic:classes=1"],
)
def test_an_edit_that_leaves_the_image_behind_is_refused(edit):
    with pytest.raises(UsageFault, match="moves real images whole") as caught:
        check_warp("elastic", build_edits(["rotate", edit]))
    assert str(caught.value).startswith(f"--edit {edit.replace('=1', '=...')}")
    check_warp("elastic", build_edits(["elastic", "flip", "rotate", "scale", "shift"]))
