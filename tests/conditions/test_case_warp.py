from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.edits.warps import check_warp
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.schema import Case, Schema
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
    """Six cases whose first channel is twice the label, smoothed; the second is noise."""

    def __init__(self, space: Space) -> None:
        self.request = SourceRequest("shown", "toy")
        self._space = space

    name = property(lambda self: "shown:toy")
    space = property(lambda self: self._space)
    train_ids = property(lambda self: tuple(f"case_{i}" for i in range(4)))
    held_out_ids = property(lambda self: ("case_4", "case_5"))

    @property
    def schema(self) -> Schema:
        labels = {"background": 0, "shell": 1, "core": 2, "ignore": IGNORE}
        return Schema(("labels", "noise"), labels, SPACING, has_outside=True, ignore=IGNORE)

    def load(self, case_id: str) -> Case:
        assert case_id in self.train_ids, f"{case_id} is held out"
        labels = np.zeros(SHAPE, np.int16)
        labels[3:11, 4 : 16 + int(case_id[-1]), 5:18] = 1
        labels[5:9, 8:13, 8:14] = 2
        labels[9:11, 14:16, 5:9] = IGNORE
        noise = np.random.default_rng(int(case_id[-1])).normal(0, 1, SHAPE)
        image = np.stack([2.0 * (labels % IGNORE) / 2, noise])
        return Case(case_id, case_id, image.astype(np.float32), labels)


def sampler(space: Space, edit: str) -> ConditionSampler:
    return ConditionSampler(Shown(space), space, build_edits([edit]), moving=True)


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
