"""Shared parts of edits that borrow from another case: its choice, the loan, its place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.shared import Classes
from gansynth.conditions.location_prior import (
    Frame,
    at_hand,
    depth_of,
    looked_at,
    whole,
    whole_frame,
)
from gansynth.core.edit import EditOptions, SceneEdit
from gansynth.core.geometry import Mask, bounding_box, mask_of
from gansynth.core.scene import CasePool, Scene, body_of
from gansynth.core.schema import LabelArray
from gansynth.runtime.options import Needs

TRIES = 8
"""Tries for one that leaves every class enough of its voxels."""
LENDERS = 2
"""Cases that are tried where any will do."""
DEPTH = 0.1
"""How near in depth another case's slice is sought, as a share of the body's length."""
CELLS = 12
"""Cells per axis in which two bodies are compared."""


class LenderOptions(EditOptions):
    """Which case lends."""

    needs: ClassVar[Needs] = {"among": "pairs=nearest"}

    pairs: Literal["any", "ordered", "nearest"] = Field(
        "any",
        description="lending case: any of another subject; ordered: every case borrows from every "
        "other, pair by pair, over the conditions. nearest: the one with the most similar body",
    )
    among: int = Field(
        1, ge=1, description="of pairs=nearest: drawn among that many with the most similar bodies"
    )


class BorrowOptions(LenderOptions):
    """Which case lends, and which classes."""

    classes: Classes = Field(
        None, min_length=1, description="label values to take; None takes the whole foreground"
    )


class Borrowing(SceneEdit):
    """An edit that borrows from another case."""

    Options: ClassVar[type[EditOptions]] = LenderOptions
    options: LenderOptions

    @property
    def in_turns(self) -> bool:
        """With ``pairs=ordered``, n (n - 1) conditions show each pair of n subjects' cases once."""
        return self.options.pairs == "ordered"


@dataclass(frozen=True)
class Loan:
    """Labels that a training case lends.

    Attributes:
        plane: which slice, of a space of slices.
        labels: int16 (D, H, W) or (H, W) of the whole case or slice; 0 where nothing is lent.
        frame: the box around its body.
    """

    case_id: str
    plane: int | None
    labels: LabelArray
    frame: Frame

    @property
    def middle(self) -> tuple[float, ...]:
        """Middle of what is lent, in voxels."""
        box = bounding_box(self.labels > 0)
        return tuple((part.start + part.stop - 1) / 2 for part in box)


def lend(room: CasePool, case_id: str, plane: int | None, classes: Sequence[int]) -> Loan:
    """Classes of a training case, whole, in the generator's voxels."""
    labels = room.label_map(case_id)
    if plane is not None:
        labels = labels[plane]
    lent = np.where(mask_of(labels, classes), labels, np.int16(0))
    return Loan(case_id, plane, lent, whole_frame(room, case_id).last(labels.ndim))


def loans(
    scene: Scene, donors: Sequence[str], classes: Sequence[int], rng: np.random.Generator
) -> Iterator[tuple[int, float, Loan]]:
    """Try donors in turn.

    Yields:
        The number of the try from 1, its pull towards the body's middle (0 to 1, increasing), and
        the loan.
    """
    for tries in range(TRIES if donors and scene.body.any() else 0):
        donor = donors[tries % len(donors)]
        plane = draw_plane(scene.room, donor, classes, depth_of(scene), rng)
        loan = lend(scene.room, donor, plane, classes)
        if loan.labels.any():
            pull = tries // len(donors) / max(1, TRIES // len(donors) - 1)
            yield tries + 1, pull, loan


def lenders(
    options: LenderOptions,
    scene: Scene,
    classes: Sequence[int],
    rng: np.random.Generator,
    count: int = LENDERS,
) -> list[str]:
    """Return the training cases that may lend, in the order to try.

    Cases without the classes are skipped, except with ``pairs=ordered``. The scene's own subject
    lends only if there is no other. ``count`` limits ``pairs=any``; other values return one case.
    """

    def holds(case_id: str) -> bool:
        return bool(mask_of(scene.room.label_map(case_id), classes).any())

    others = scene.room.others(scene.case.subject)
    others = tuple(i for i in others if i != scene.case.id) or others
    if options.pairs == "ordered":
        turn = scene.index if scene.turn is None else scene.turn
        return [others[(bisect_left(others, scene.case.id) + turn) % len(others)]]
    if options.pairs == "nearest":
        candidates = set(looked_at(scene.room)).intersection(others) or set(others)
        nearest = _nearest(scene, [i for i in sorted(candidates) if holds(i)])[: options.among]
        return [nearest[int(rng.integers(len(nearest)))]] if nearest else []
    drawn = (others[i] for i in rng.permutation(len(others)).tolist())
    return list(islice(filter(holds, islice(drawn, TRIES)), count))


def draw_plane(
    room: CasePool,
    case_id: str,
    classes: Sequence[int],
    depth: float | None,
    rng: np.random.Generator,
) -> int | None:
    """Draw a slice of a training case that holds chosen classes; None in a space of no slices.

    A slice's probability grows with its voxels of the classes; if no slice has any, all are alike.
    Slices at about the same ``depth`` (a relative coordinate, or None) are preferred.
    """
    if room.space.grid != "slice":
        return None
    weights = mask_of(room.label_map(case_id), classes).sum(axis=(1, 2)).astype(float)
    if not weights.any():
        weights[:] = 1
    if depth is not None:
        frame = whole_frame(room, case_id)
        at = (np.arange(len(weights)) + 0.5 - frame.low[0]) / frame.size[0]
        weights *= np.exp(-np.square((at - depth) / DEPTH) / 2) + 1e-3
    return int(rng.choice(len(weights), p=weights / weights.sum()))


# -- whose body is most alike ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """A body's size in mm, and the cells of its box that it fills."""

    size: tuple[float, ...]
    cells: Mask

    @classmethod
    def of(cls, body: Mask, spacing: Sequence[float]) -> _Shape:
        cut = body[bounding_box(body)] if body.any() else np.ones_like(body)
        at = [((np.arange(CELLS) + 0.5) / CELLS * n).astype(int) for n in cut.shape]
        size = tuple(float(n * mm) for n, mm in zip(cut.shape, spacing, strict=True))
        return cls(size, cut[np.ix_(*at)])

    def overlap(self, shape: _Shape) -> float:
        """Intersection over union in cells, centred on each other."""
        size = [max(pair) for pair in zip(self.size, shape.size, strict=True)]
        mine, theirs = self.on(size), shape.on(size)
        return float((mine & theirs).sum() / max((mine | theirs).sum(), 1))

    def on(self, size: Sequence[float]) -> Mask:
        """Resample to the cells of a box of that size in mm, centred."""
        out, index = np.ones((2 * CELLS,) * len(size), bool), []
        for axis, (extent, length) in enumerate(zip(self.size, size, strict=True)):
            at = ((np.arange(2 * CELLS) + 0.5) / (2 * CELLS) - 0.5) * length / extent + 0.5
            within = ((at >= 0) & (at < 1)).reshape(
                [-1 if a == axis else 1 for a in range(out.ndim)]
            )
            out &= within
            index.append(np.clip((at * CELLS).astype(int), 0, CELLS - 1))
        return np.asarray(out & self.cells[np.ix_(*index)])


def _nearest(scene: Scene, others: Sequence[str]) -> list[str]:
    """Sort other cases, the most similar body first."""
    room, shape = scene.room, _own_shape(scene)
    return sorted(others, key=lambda i: shape.overlap(_shape_of(room, i)), reverse=True)


def alike(first: Scene, second: Scene) -> float:
    """Similarity of two scenes' bodies, 0 to 1: intersection over union, centred."""
    return _own_shape(first).overlap(_own_shape(second))


def _shape_of(room: CasePool, case_id: str) -> _Shape:
    spacing = _spacing(room)
    return room.learnt(
        f"shape of {case_id}", lambda r: _Shape.of(body_of(whole(r, case_id)), spacing)
    )


def _spacing(room: CasePool) -> tuple[float, ...]:
    """Of what ``whole`` gives, mm along D, H, W."""
    return (room if room.space.grid == "resample" else room.source).schema.spacing


def _own_shape(scene: Scene) -> _Shape:
    spacing = _spacing(scene.room)
    if at_hand(scene):
        return _shape_of(scene.room, scene.case.id)
    if not scene.room.space.cuts or not scene.placement.corner:
        return _Shape.of(scene.body, spacing)
    return _Shape.of(np.ones(scene.shape, bool), spacing)
