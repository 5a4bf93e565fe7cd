"""Edits that borrow from another case: its choice, the loan, its place."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.shared import (
    Classes,
    chosen_classes,
    close_left,
    keeps_classes,
    keeps_nesting,
    ordered,
    replaced,
)
from gansynth.conditions.location_prior import (
    cached_prior,
    depth_of,
    frame_of,
    learning_cases,
    place_drawer,
    whole,
    whole_frame,
)
from gansynth.core.case_pool import CaseContext, CasePool, body_of
from gansynth.core.edit import CaseEdit, EditContext, EditOptions, EditResult, Params
from gansynth.core.geometry import (
    Matrix,
    Rng,
    affine_coordinates,
    bounding_box,
    centroid,
    mask_of,
    pull_labels,
)
from gansynth.core.resample import crop_pad
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Mask, Schema
from gansynth.core.small_matrices import covariance, principal_axes, product
from gansynth.data.connected_components import LabelComponents
from gansynth.imaging.body_box import BodyBox
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
    case_context: CaseContext, donors: Sequence[str], classes: Sequence[int], rng: Rng
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
    rng: Rng,
    count: int = LENDERS,
) -> list[str]:
    """Return the training cases that may lend, in the order to try.

    Cases without the classes are skipped, except with ``pairs=ordered``. The scene's own subject
    lends only if there is no other. ``count`` limits ``pairs=any``; other values return one case.
    """

    def holds(case_id: str) -> bool:
        return bool(mask_of(case_context.case_pool.label_map(case_id), classes).any())

    own_id = case_context.case.id
    others = case_context.case_pool.others(case_context.case.subject)
    others = tuple(i for i in others if i != own_id) or others
    if options.pairs == "ordered":
        turn = case_context.index if case_context.turn is None else case_context.turn
        return [others[(bisect_left(others, own_id) + turn) % len(others)]]
    if options.pairs == "nearest":
        candidates = set(learning_cases(case_context.case_pool)).intersection(others) or set(others)
        holding = [i for i in sorted(candidates) if holds(i)]
        nearest = _nearest(case_context, holding)[: options.among]
        return [nearest[int(rng.integers(len(nearest)))]] if nearest else []
    lenders: list[str] = []
    # All cases in turn: scenes of other subjects then have the same lenders of the same ``rng``.
    ids = case_context.case_pool.ids
    order = [ids[number] for number in rng.permutation(len(ids))]
    able = set(others)
    for case_id in [case_id for case_id in order if case_id in able][:TRIES]:
        if holds(case_id):
            lenders.append(case_id)
        if len(lenders) == count:  # label maps of the others need not be read
            break
    return lenders


def draw_plane(
    case_pool: CasePool, case_id: str, classes: Sequence[int], depth: float | None, rng: Rng
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


# -- another case's tumour on the brain of this case -----------------------------------------------


class TransplantOptions(DonorEditOptions):
    """Which case lends its tumour, its new place, and the fate of the case's own tumour."""

    own: Literal["remove", "keep"] = Field(
        "remove", description="the case's own voxels of these classes: remove or keep"
    )
    where: Literal["same", "prior", "anywhere"] = Field(
        "same",
        description="same place relative to the body's box; prior: where training cases have "
        "theirs; anywhere in the body",
    )


class Transplant(DonorEdit):
    """Puts the tumour of case A on the brain of case B (Shin et al. 2018; Doncenco 2022).

    The tumour keeps its size and shape and is cut where B's body ends. It lands at the same place
    relative to the body. If too little of it is left, it is moved towards the body's middle. If
    that fails, nothing is changed, and ``why`` gives the reason. B may be free of tumours.
    """

    name: ClassVar[str] = "transplant"
    Options: ClassVar[type[EditOptions]] = TransplantOptions
    options: TransplantOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Draw the lending case (``donor``, ``plane``) and the ``shift`` in voxels."""
        case_context = self.case_context(context)
        chosen = chosen_classes(self.name, self.options.classes, context.schema)
        classes = chosen or list(context.schema.foreground)
        donors = donor_ids(self.options, case_context, classes, rng)
        held = False
        for tries, pull, loan in donor_cases(case_context, donors, classes, rng):
            held = True
            params = {
                "strength": 1.0,
                "tries": tries,
                "classes": chosen,
                "own": self.options.own,
                "donor": loan.case_id,
                "plane": loan.plane,
                "shift": self._shift(loan, case_context, classes, pull, rng),
            }
            if _fits(context, loan, params):
                return params
        why = "too little of it lies in the body" if held else "nobody lends these classes"
        return {"strength": 0.0, "donor": donors[0] if donors else None, "why": why}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        if params["strength"] == 0:
            return replaced(context, context.labels.copy())
        classes = params["classes"] or context.schema.foreground
        case_pool = self.case_context(context).case_pool
        loan = choose_donor(case_pool, params["donor"], params["plane"], classes)
        landed = _landed(context, loan, params)
        return replaced(context, np.where(landed > 0, landed, _bare(context, params)))

    def _shift(
        self, loan: DonorCase, case_context: CaseContext, classes: list[int], pull: float, rng: Rng
    ) -> list[int]:
        if self.options.where == "same":
            relative = loan.frame.relative(np.array([loan.middle]))
            middle = np.array(centroid(case_context.body))
            target = (1 - pull) * frame_of(case_context).voxels(relative)[0] + pull * middle
        else:
            draw = place_drawer(case_context, classes, self.options.where, case_context.body, rng)
            target = np.array(draw(), float)
        shift: list[int] = np.rint(target - np.array(loan.middle)).astype(int).tolist()
        return shift


def _bare(context: EditContext, params: Params) -> LabelArray:
    """The labels without the case's own tumour, if it is to be removed."""
    own_mask = mask_of(context.labels, params["classes"] or context.schema.foreground)
    if params["own"] == "keep" or not own_mask.any():
        return context.labels
    return close_left(context.labels, own_mask, context.schema.spacing)


def _landed(context: EditContext, loan: DonorCase, params: Params) -> LabelArray:
    """Return the part of the loan that lies in the body: int16, 0 elsewhere."""
    labels = context.labels
    placed = crop_pad(loan.labels, [-by for by in params["shift"]], labels.shape, 0)
    return np.where(context.body & (labels != OUTSIDE), placed, np.int16(0))


def _fits(context: EditContext, loan: DonorCase, params: Params) -> bool:
    """Whether enough is left of every class of the loan, and of those that stay."""
    landed, bare = _landed(context, loan, params), _bare(context, params)
    staying = np.where((bare > 0) & (context.labels == bare), bare, np.int16(0))
    over = np.where(landed > 0, landed, bare)
    complete = keeps_classes(loan.labels, landed) and keeps_classes(staying, over)
    return complete and keeps_nesting(loan.labels, over)


# -- a shape between those of two cases ------------------------------------------------------------


WEAKER = (1.0, 0.5, 0.25, 0.125)  # shares of the drawn weight that are tried, in order
TURN = np.cos(np.deg2rad(60))  # cosine of the widest angle that a principal axis is turned by


class InterpolateOptions(DonorEditOptions):
    """Which case lends its shape, and the range of its weight."""

    low: float = Field(0.2, ge=0, le=1, description="smallest weight of the other's shape")
    high: float = Field(0.8, ge=0, le=1, description="largest weight of the other's shape")

    _ordered = model_validator(mode="after")(ordered)


class Interpolate(DonorEdit):
    """Interpolates shapes of two subjects by signed distances (Raya and Udupa 1990), by class.

    The other shape is first aligned with the case's. Of three alignments the one with most overlap
    counts: centroid on centroid, with principal axes turned as well, or the same place in the body.
    Distances to the border of every class, also of background, are then mixed. A voxel takes the
    class it is deepest in. A weight of 0 gives the case's own shape, 1 the other's. A mixture is
    drawn again, nearer to the own shape, if a class is lost, exposed or in more pieces than in both
    subjects. If none is good, nothing is changed.
    """

    name: ClassVar[str] = "interpolate"
    Options: ClassVar[type[EditOptions]] = InterpolateOptions
    options: InterpolateOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Draw ``weight`` and the lending case (``donor``, ``plane``); ``matrix`` aligns it."""
        labels, case_context = context.labels, self.case_context(context)
        chosen = chosen_classes(self.name, self.options.classes, context.schema)
        classes = chosen or list(context.schema.foreground)
        own_labels = np.where(mask_of(labels, classes), labels, np.int16(0))
        weight = float(rng.uniform(self.options.low, self.options.high))
        tries, donors = 0, list[str]()
        if own_labels.any():
            donors = donor_ids(self.options, case_context, classes, rng)
        for donor in donors:
            plane = draw_plane(case_context.case_pool, donor, classes, depth_of(case_context), rng)
            loan = choose_donor(case_context.case_pool, donor, plane, classes)
            if set(np.unique(loan.labels)) != set(np.unique(own_labels)) | {0}:
                continue
            matrix, centre = _aligned(own_labels, loan, context.schema, case_context)
            params: dict[str, Any] = {"classes": chosen, "donor": donor, "plane": plane}
            params |= {"matrix": matrix.tolist(), "centre": list(centre)}
            lent = _brought(loan, params, own_labels.shape)
            mixer = _ShapeInterpolator(own_labels, lent, context.schema.spacing)
            for share in WEAKER:
                tries += 1
                params |= {"strength": share, "tries": tries, "weight": weight * share}
                after = _written(context, mixer(weight * share), params)
                if _mixes_well(labels, own_labels, loan, after):
                    return params
        return {"strength": 0.0, "tries": tries}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        labels, schema = context.labels, context.schema
        if params["strength"] == 0:
            return replaced(context, labels.copy())
        classes = params["classes"] or schema.foreground
        own_labels = np.where(mask_of(labels, classes), labels, np.int16(0))
        case_pool = self.case_context(context).case_pool
        loan = choose_donor(case_pool, params["donor"], params["plane"], classes)
        lent = _brought(loan, params, own_labels.shape)
        mixer = _ShapeInterpolator(own_labels, lent, schema.spacing)
        return replaced(context, _written(context, mixer(params["weight"]), params))


class _ShapeInterpolator:
    """Mixes two label maps of one shape; distances are measured once."""

    def __init__(self, own_labels: LabelArray, lent: LabelArray, spacing: Sequence[float]) -> None:
        self.box = bounding_box((own_labels > 0) | (lent > 0), margin=1)
        self.shape = own_labels.shape
        a, b = own_labels[self.box], lent[self.box]
        self.values = np.unique(np.concatenate([np.unique(a), np.unique(b), [0]]))
        self.ends = [
            np.stack([_signed(cut == value, spacing) for value in self.values]) for cut in (a, b)
        ]

    def __call__(self, weight: float) -> LabelArray:
        mixed = (1 - weight) * self.ends[0] + weight * self.ends[1]
        out = np.zeros(self.shape, np.int16)
        out[self.box] = self.values[mixed.argmin(axis=0)]
        return out


def _signed(mask: Mask, spacing: Sequence[float]) -> FloatArray:
    """Distance in mm to the border of a mask: below 0 inside, above 0 outside."""
    far = math.hypot(*np.multiply(mask.shape, spacing))
    if mask.all() or not mask.any():
        return np.full(mask.shape, -far if mask.any() else far, np.float32)
    return _to_border(~mask, spacing) - _to_border(mask, spacing)


def _to_border(mask: Mask, spacing: Sequence[float]) -> FloatArray:
    """Distance in mm of a mask's voxels to its border, half a voxel before the next voxel."""
    from scipy.ndimage import distance_transform_edt

    away, there = distance_transform_edt(mask, sampling=spacing, return_indices=True)
    half = np.zeros(mask.shape)
    for axis, mm in enumerate(spacing):
        here = np.arange(mask.shape[axis]).reshape(
            [-1 if a == axis else 1 for a in range(mask.ndim)]
        )
        half += np.square((there[axis] - here) * mm**2)
    half = np.sqrt(half) / np.maximum(away, 1e-9) / 2
    return np.asarray(np.where(mask, away - half, 0), np.float32)


def _written(context: EditContext, mixed: LabelArray, params: Params) -> LabelArray:
    """Replace the case's own shape by the mixed one, within the body."""
    own_mask = mask_of(context.labels, params["classes"] or context.schema.foreground)
    left = close_left(context.labels, own_mask, context.schema.spacing)
    within = (context.labels != OUTSIDE) & (context.body | own_mask)
    return np.where((mixed > 0) & within, mixed, left)


def _mixes_well(
    labels: LabelArray, own_labels: LabelArray, loan: DonorCase, after: LabelArray
) -> bool:
    """Whether classes are kept, nested as before, and in no more pieces than in both cases."""

    def pieces(label_map: LabelArray, value: int) -> int:
        return int(LabelComponents.of(label_map == value).sizes.size)

    if not keeps_classes(labels, after) or not keeps_nesting(labels, after):
        return False
    for value in np.unique(own_labels[own_labels > 0]).tolist():
        most = max(pieces(own_labels, value), pieces(loan.labels, value))
        if pieces(after, value) > most:
            return False
    return True


# -- bringing one shape onto another --------------------------------------------------------------


def _aligned(
    own_labels: LabelArray, loan: DonorCase, schema: Schema, case_context: CaseContext
) -> tuple[Matrix, tuple[float, ...]]:
    """Return the matrix (n, n + 1) about a centre, in voxels, with which the loan overlaps most."""
    here, there = own_labels > 0, loan.labels > 0
    middle, lent_middle = np.array(centroid(here)), np.array(centroid(there))
    mm = np.array(schema.spacing)
    turned = _turn(here, there, mm) * mm / mm[:, None]
    at_same = loan.frame.voxels(frame_of(case_context).relative(middle[None]))[0]
    pulls = [
        (np.eye(len(mm)), np.rint(lent_middle - middle)),
        (turned, lent_middle - middle),
        (np.eye(len(mm)), np.rint(at_same - middle)),
    ]
    centre = tuple(middle.tolist())
    matrices = [np.column_stack(pull) for pull in pulls]
    return max(matrices, key=lambda m: _overlap(here, there, m, centre)), centre


def _overlap(here: Mask, there: Mask, matrix: Matrix, centre: tuple[float, ...]) -> float:
    lent = there.astype(np.int16)
    pulled = pull_labels(lent, affine_coordinates(here.shape, matrix, centre)) > 0
    both = int(here.sum()) + int(pulled.sum())
    return 2 * float((here & pulled).sum()) / both


def _turn(here: Mask, there: Mask, mm: Matrix) -> Matrix:
    """The rotation (n, n), in mm, from one mask's principal axes to another's."""
    axes = [_axes(mask, mm) for mask in (here, there)]
    best = np.eye(len(mm))
    if axes[0] is None or axes[1] is None:
        return best
    for signs in itertools.product((1.0, -1.0), repeat=len(mm)):
        turn = product(axes[1] * signs, axes[0].T)
        led = product(axes[0].T, product(turn, axes[0]))
        if np.linalg.det(turn) > 0 and np.all(led.diagonal() >= TURN):
            return np.asarray(turn, np.float64)
    return best


def _axes(mask: Mask, mm: Matrix) -> Matrix | None:
    """Principal axes (n, n) in columns; None of a mask too flat to have them all."""
    points = np.argwhere(mask) * mm
    if len(points) <= len(mm):
        return None
    return principal_axes(covariance(points, least=1))[1]


def _brought(loan: DonorCase, params: Params, shape: Sequence[int]) -> LabelArray:
    """The loan in the scene's array, int16; 0 elsewhere."""
    pull = affine_coordinates(shape, np.array(params["matrix"]), params["centre"])
    return pull_labels(loan.labels, pull)
