"""Place boxes in a real image: where their class occurs, away from the body's outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gansynth.conditions.location_prior import PlacementPrior, ball_in, depth_of, depths, frame_of
from gansynth.core.body_mask import share_inside
from gansynth.core.case_pool import CaseContext
from gansynth.core.geometry import Mask, Matrix
from gansynth.core.schema import Boxes

TRIES = 200  # places that are tried for a box
APART = 0.25  # distance kept from other boxes, as a share of the longer side


@dataclass(frozen=True)
class PlacedBoxes:
    """Boxes at their places in a scene."""

    boxes: Boxes  # those that have room
    present: Boxes  # the scene's own, without those that new boxes cover
    body: Mask  # bool, where lesions of the new ones' classes may lie
    # shift of each requested box in voxels along each axis; None where it was left out
    moved: list[list[float] | None]


def place_boxes(
    requested: Boxes, case_context: CaseContext, rng: np.random.Generator, *, as_asked: bool
) -> PlacedBoxes:
    """Place boxes where training cases have those of their class (``PlacementPrior``).

    A box lies in the body. Its lesion is at least as far from the body's outline as nine in ten of
    its class. It comes near no other box, but may cover one of the scene's own. With ``as_asked``,
    it stays at its requested place if there is room.
    """
    frame, deep = frame_of(case_context), depths(case_context.body, frame_of(case_context))
    n, case_boxes = deep.ndim, case_context.case.boxes
    present = (
        Boxes(np.zeros((0, 2 * n), np.float32), np.zeros(0, np.int16))
        if case_boxes is None
        else case_boxes
    )
    body, labels = np.zeros(deep.shape, bool), []
    rows: list[Matrix] = []
    moved: list[list[float] | None] = []
    for box, label in zip(
        requested.coords.astype(np.float64), requested.labels.tolist(), strict=True
    ):
        prior = PlacementPrior.learn_boxes(case_context.case_pool, label)
        allowed, middle = prior.allowed(deep), (box[:n] + box[n:]) / 2
        places = frame.voxels(prior.spread(TRIES, n, rng, depth=depth_of(case_context))) + 0.5
        shifts = np.concatenate([np.zeros((int(as_asked), n)), places - middle])
        moved.append(None)
        for shift in shifts:
            new = box + np.tile(shift, 2)
            others = [*rows, *present.coords[~_covered(new, present)]]
            if _inside(new, case_context.body, allowed) and not any(_near(new, o) for o in others):
                moved[-1] = shift.tolist()
                rows.append(new)
                labels.append(label)
                left = ~_covered(new, present)
                present = Boxes(present.coords[left], present.labels[left])
                body |= allowed
                break
    coords = np.array(rows, np.float32).reshape(-1, 2 * n)
    return PlacedBoxes(Boxes(coords, np.array(labels, np.int16)), present, body, moved)


def _inside(box: Matrix, body: Mask, allowed: Mask) -> bool:
    n = body.ndim
    if (box[:n] < 0).any() or (box[n:] > body.shape).any():
        return False
    at, lesion = ball_in(box, body.shape)
    return bool(allowed[at][lesion].all()) and share_inside(body, box) == 1


def _covered(box: Matrix, boxes: Boxes) -> Mask:
    """Mark the boxes that lie within another one."""
    n = len(box) // 2
    low, high = boxes.coords[:, :n], boxes.coords[:, n:]
    return np.asarray((low >= box[:n]).all(axis=1) & (high <= box[n:]).all(axis=1))


def _near(box: Matrix, rival: Matrix) -> bool:
    n = len(box) // 2
    apart = APART * (box[n:] - box[:n]).max()
    low, high = box[:n] - apart, box[n:] + apart
    return bool((np.maximum(low, rival[:n]) < np.minimum(high, rival[n:])).all())
