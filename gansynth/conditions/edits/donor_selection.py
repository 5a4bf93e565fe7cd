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
    BodyBox,
    cached_prior,
    depth_of,
    learning_cases,
    whole,
    whole_frame,
)
from gansynth.core.case_pool import CaseContext, CasePool, body_of
from gansynth.core.edit import CaseEdit, EditOptions
from gansynth.core.geometry import Mask, bounding_box, mask_of
from gansynth.core.schema import LabelArray
from gansynth.runtime.options import Needs

TRIES = 8  # tries for one that leaves every class enough of its voxels
LENDERS = 2  # cases that are tried where any will do
DEPTH = 0.1  # how near in depth another case's slice is sought, as a share of the body's length
CELLS = 12  # cells per axis in which two bodies are compared


class DonorOptions(EditOptions):
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


class DonorEditOptions(DonorOptions):
    """Which case lends, and which classes."""

    classes: Classes = Field(
        None, min_length=1, description="label values to take; None takes the whole foreground"
    )


class DonorEdit(CaseEdit):
    """An edit that borrows from another case."""

    Options: ClassVar[type[EditOptions]] = DonorOptions
    options: DonorOptions

    @property
    def in_turns(self) -> bool:
        """With ``pairs=ordered``, n (n - 1) conditions show each pair of n subjects' cases once."""
        return self.options.pairs == "ordered"


@dataclass(frozen=True)
class DonorCase:
    """Labels that a training case lends."""

    case_id: str
    plane: int | None  # which slice, of a space of slices
    # int16 (D, H, W) or (H, W) of the whole case or slice; 0 where nothing is lent
    labels: LabelArray
    frame: BodyBox  # the box around its body

    @property
    def middle(self) -> tuple[float, ...]:
        """Middle of what is lent, in voxels."""
        box = bounding_box(self.labels > 0)
        return tuple((part.start + part.stop - 1) / 2 for part in box)


def choose_donor(
    case_pool: CasePool, case_id: str, plane: int | None, classes: Sequence[int]
) -> DonorCase:
    """Classes of a training case, whole, in the generator's voxels."""
    labels = case_pool.label_map(case_id)
    if plane is not None:
        labels = labels[plane]
    lent = np.where(mask_of(labels, classes), labels, np.int16(0))
    return DonorCase(case_id, plane, lent, whole_frame(case_pool, case_id).last(labels.ndim))


def donor_cases(
    case_context: CaseContext,
    donors: Sequence[str],
    classes: Sequence[int],
    rng: np.random.Generator,
) -> Iterator[tuple[int, float, DonorCase]]:
    """Try donors in turn.

    Yields:
        The number of the try from 1, its pull towards the body's middle (0 to 1, increasing), and
        the loan.
    """
    for tries in range(TRIES if donors and case_context.body.any() else 0):
        donor = donors[tries % len(donors)]
        plane = draw_plane(case_context.case_pool, donor, classes, depth_of(case_context), rng)
        loan = choose_donor(case_context.case_pool, donor, plane, classes)
        if loan.labels.any():
            pull = tries // len(donors) / max(1, TRIES // len(donors) - 1)
            yield tries + 1, pull, loan


def donor_ids(
    options: DonorOptions,
    case_context: CaseContext,
    classes: Sequence[int],
    rng: np.random.Generator,
    count: int = LENDERS,
) -> list[str]:
    """Return the training cases that may lend, in the order to try.

    Cases without the classes are skipped, except with ``pairs=ordered``. The scene's own subject
    lends only if there is no other. ``count`` limits ``pairs=any``; other values return one case.
    """

    def holds(case_id: str) -> bool:
        return bool(mask_of(case_context.case_pool.label_map(case_id), classes).any())

    others = case_context.case_pool.others(case_context.case.subject)
    others = tuple(i for i in others if i != case_context.case.id) or others
    if options.pairs == "ordered":
        turn = case_context.index if case_context.turn is None else case_context.turn
        return [others[(bisect_left(others, case_context.case.id) + turn) % len(others)]]
    if options.pairs == "nearest":
        candidates = set(learning_cases(case_context.case_pool)).intersection(others) or set(others)
        nearest = _nearest(case_context, [i for i in sorted(candidates) if holds(i)])[
            : options.among
        ]
        return [nearest[int(rng.integers(len(nearest)))]] if nearest else []
    drawn = (others[i] for i in rng.permutation(len(others)).tolist())
    return list(islice(filter(holds, islice(drawn, TRIES)), count))


def draw_plane(
    case_pool: CasePool,
    case_id: str,
    classes: Sequence[int],
    depth: float | None,
    rng: np.random.Generator,
) -> int | None:
    """Draw a slice of a training case that holds chosen classes; None in a space of no slices.

    A slice's probability grows with its voxels of the classes; if no slice has any, all are alike.
    Slices at about the same ``depth`` (a relative coordinate, or None) are preferred.
    """
    if case_pool.space.grid != "slice":
        return None
    weights = mask_of(case_pool.label_map(case_id), classes).sum(axis=(1, 2)).astype(float)
    if not weights.any():
        weights[:] = 1
    if depth is not None:
        frame = whole_frame(case_pool, case_id)
        at = (np.arange(len(weights)) + 0.5 - frame.low[0]) / frame.size[0]
        weights *= np.exp(-np.square((at - depth) / DEPTH) / 2) + 1e-3
    return int(rng.choice(len(weights), p=weights / weights.sum()))


# -- whose body is most alike ---------------------------------------------------------------------


@dataclass(frozen=True)
class _BodyShape:
    """A body's size in mm, and the cells of its box that it fills."""

    size: tuple[float, ...]
    cells: Mask

    @classmethod
    def of(cls, body: Mask, spacing: Sequence[float]) -> _BodyShape:
        cut = body[bounding_box(body)] if body.any() else np.ones_like(body)
        at = [((np.arange(CELLS) + 0.5) / CELLS * n).astype(int) for n in cut.shape]
        size = tuple(float(n * mm) for n, mm in zip(cut.shape, spacing, strict=True))
        return cls(size, cut[np.ix_(*at)])

    def overlap(self, shape: _BodyShape) -> float:
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


def _nearest(case_context: CaseContext, others: Sequence[str]) -> list[str]:
    """Sort other cases, the most similar body first."""
    case_pool, shape = case_context.case_pool, _own_shape(case_context)
    return sorted(others, key=lambda i: shape.overlap(_shape_of(case_pool, i)), reverse=True)


def alike(first: CaseContext, second: CaseContext) -> float:
    """Similarity of two scenes' bodies, 0 to 1: intersection over union, centred."""
    return _own_shape(first).overlap(_own_shape(second))


def _shape_of(case_pool: CasePool, case_id: str) -> _BodyShape:
    spacing = _spacing(case_pool)
    return case_pool.learnt(
        f"shape of {case_id}", lambda r: _BodyShape.of(body_of(whole(r, case_id)), spacing)
    )


def _spacing(case_pool: CasePool) -> tuple[float, ...]:
    """Of what ``whole`` gives, mm along D, H, W."""
    return (case_pool if case_pool.space.grid == "resample" else case_pool.cases).schema.spacing


def _own_shape(case_context: CaseContext) -> _BodyShape:
    spacing = _spacing(case_context.case_pool)
    if cached_prior(case_context):
        return _shape_of(case_context.case_pool, case_context.case.id)
    if not case_context.case_pool.space.cuts or not case_context.placement.corner:
        return _BodyShape.of(case_context.body, spacing)
    return _BodyShape.of(np.ones(case_context.shape, bool), spacing)
