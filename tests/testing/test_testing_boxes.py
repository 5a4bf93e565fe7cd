"""Checks of generators that are asked for boxes: an honest one passes, each cheat fails by name."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.schema import Boxes
from gansynth.testing import check_generator
from tests.spots import Spots, boxes_of


class Blind(Spots):
    """Draws lesions anywhere."""

    def one(self, condition, seed):
        anywhere = boxes_of((4, 4, 10, 10))
        return replace(super().one(replace(condition, boxes=anywhere), seed), boxes=condition.boxes)


class Elsewhere(Spots):
    """Heeds boxes, in a corner."""

    def one(self, condition, seed):
        drawn, coords = super().one(condition, seed), condition.boxes.coords
        if not len(coords):
            return drawn
        low = 2 + float(coords.sum()) % 4
        corner = boxes_of((low, 2, low + 5, 8))
        moved = super().one(replace(condition, boxes=corner), seed)
        return replace(drawn, image=moved.image)


class Quiet(Spots):
    """Shrinks boxes without a word."""

    def one(self, condition, seed):
        drawn = super().one(condition, seed)
        coords = condition.boxes.coords.copy()
        coords[:, 0] += 0.5
        return replace(drawn, boxes=Boxes(coords, condition.boxes.labels))


class Grows(Spots):
    """Says that it shrinks them, and lets them grow."""

    def one(self, condition, seed):
        drawn = super().one(condition, seed)
        coords = condition.boxes.coords + np.float32(0.5)
        told = {**drawn.provenance, "tightened_to": [1.0] * len(coords)}
        return replace(drawn, boxes=Boxes(coords, condition.boxes.labels), provenance=told)


class Mute(Spots):
    def one(self, condition, seed):
        return replace(super().one(condition, seed), boxes=None)


class Turns(Spots):
    """Exchanges the classes."""

    def one(self, condition, seed):
        boxes = condition.boxes
        turned = Boxes(boxes.coords, boxes.labels[::-1])
        return replace(super().one(condition, seed), boxes=turned)


class Writes(Spots):
    def one(self, condition, seed):
        drawn = super().one(replace(condition, boxes=condition.boxes), seed)
        kept = Boxes(condition.boxes.coords.copy(), condition.boxes.labels)
        drawn = replace(drawn, boxes=kept)
        condition.boxes.coords[:, 0] -= 0.25
        return drawn


def failed(cls, **options):
    report = check_generator(cls, ndim=(2,), options=options)
    return [check.name for check in report.failed]


def test_an_honest_one_passes_in_2d_and_3d_and_is_asked_for_boxes():
    report = check_generator(Spots)
    assert report.passed, report.failed
    passed = {check.name for check in report.checks if check.verdict == "passed"}
    asked = ("boxes kept", "boxes matter", "boxes act in place", "boxes untouched")
    assert {f"{axes}d: {name}" for axes in (2, 3) for name in asked} <= passed


def test_one_that_shrinks_boxes_and_says_so_passes():
    assert failed(Spots, tighten=True) == []


@pytest.mark.parametrize(
    ("cheat", "names"),
    [
        (Blind, ["boxes matter", "boxes act in place"]),
        (Elsewhere, ["boxes act in place"]),
        (Quiet, ["boxes kept"]),
        (Grows, ["boxes kept"]),
        (Mute, ["boxes kept"]),
        (Turns, ["boxes kept"]),
        (Writes, ["boxes untouched"]),
    ],
    ids=lambda v: getattr(v, "__name__", "fails"),
)
def test_a_cheat_fails_the_checks_that_are_meant_for_it(cheat, names):
    assert set(failed(cheat)) == {f"2d: {name}" for name in names}
