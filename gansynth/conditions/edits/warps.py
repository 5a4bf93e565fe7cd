"""Edits that move labels through a map of space, and the same maps for whole cases.

``classes`` None moves the foreground as a whole: its old place becomes background. With chosen
classes the others stay. A chosen body overwrites what it lands on. Its old place takes the class it
was nested in, or becomes background. ``OUTSIDE`` never changes. Chosen classes that are wrapped in
others stay wrapped, unless ``nested`` is off.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeGuard

import numpy as np
from pydantic import Field, model_validator

from gansynth.conditions.edits.shared import (
    NESTED_SHARE,
    Classes,
    beside,
    chosen_classes,
    close_left,
    filled,
    keeps_classes,
    keeps_nesting,
    ordered,
    settle_channels,
    wrapped_classes,
)
from gansynth.core.edit import Edit, EditContext, EditOptions, EditResult, Params
from gansynth.core.geometry import (
    Matrix,
    Rng,
    affine_coordinates,
    centroid,
    mask_of,
    nearest_index,
    nearest_voxels,
    pull_labels,
    random_direction,
)
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Mask, Schema, keep_outside
from gansynth.core.small_matrices import product
from gansynth.core.space import Placement, Space
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import Needs


class WarpOptions(EditOptions):
    """Options of all edits that move labels."""

    needs: ClassVar[Needs] = {"nested": "classes"}

    classes: Classes = Field(
        None, min_length=1, description="label values to move; None moves the whole foreground"
    )
    nested: bool = Field(
        True,
        description="chosen classes that are wrapped in others (a core in its oedema) stay within "
        "them. They move less, and what still comes out is cut off",
    )


class WarpEdit(Edit):
    """An edit that is a map of space, through which labels are pulled.

    ``draw`` tries up to ``len(STRENGTHS)`` times, each at half the strength of the one before. It
    keeps the first draw that leaves every class at least 30 % of its voxels, or less if a smaller
    volume was requested. If none does, it returns ``strength`` 0: no change. The other parameters
    are final: they are not multiplied by ``strength``. ``apply`` reads no options, so a recorded
    step replays with any options.
    """

    Options: ClassVar[type[EditOptions]] = WarpOptions
    STRENGTHS: ClassVar[tuple[float, ...]] = tuple(0.5**k for k in range(8))
    options: WarpOptions
    _kept: _Move | None = None  # the last draw, which is mostly applied next, until it is

    @abstractmethod
    def draw_move(self, moved: Mask, schema: Schema, rng: Rng, strength: float) -> dict[str, Any]:
        """Draw the parameters of one move, as JSON; ``moved`` marks at least one voxel.

        A strength of 1 draws from the whole range of the options, 0.5 from half of it.
        """

    @abstractmethod
    def coordinates(self, shape: Sequence[int], schema: Schema, params: Params) -> FloatArray:
        """Where each voxel of the result comes from: float32 (n, *shape), in voxels."""

    def affine(self, schema: Schema, params: Params) -> Matrix | None:
        """Return the same map as a matrix (n, n + 1), in voxels; None where it is none."""
        return None

    def volume_factor(self, schema: Schema, params: Params) -> float:
        """Requested factor on the volume; 1 unless the move scales."""
        return 1.0

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """See ``Edit.draw``; the returned ``tries`` and ``strength`` say what was used."""
        labels, schema = context.labels, context.schema
        chosen = chosen_classes(self.name, self.options.classes, schema)
        moved = mask_of(labels, schema.foreground if chosen is None else chosen)
        if not moved.any():
            return {"strength": 0.0, "tries": 0}
        nested = chosen is not None and self.options.nested
        for tries, strength in enumerate(self.STRENGTHS, start=1):
            params: dict[str, Any] = {"strength": strength, "tries": tries, "classes": chosen}
            params.update(self.draw_move(moved, schema, rng, strength))
            if nested:
                params["nested"] = True
            pull, after = self._moved(labels, schema, params)
            factor = self.volume_factor(schema, params)
            if not keeps_classes(labels, after, moved, factor):
                continue
            if not nested or _keeps_nested(labels, after, moved, factor):
                self._kept = _Move(labels, params, pull, after)
                return params
        return {"strength": 0.0, "tries": len(self.STRENGTHS)}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        """Move labels, channels and image.

        With the whole foreground, all channels move, to the nearest voxel. Voxels whose source lies
        beyond the array or in ``OUTSIDE`` keep theirs. With chosen classes, only their channels
        move. Gaps take those of the nearest voxel of their new label that did not move. The image
        moves whole, interpolated linearly; its border's values lie beyond it.
        """
        labels, schema = context.labels, context.schema
        if params["strength"] == 0:
            return EditResult(labels.copy())
        kept, self._kept = self._kept, None
        if kept is not None and kept.labels is labels and kept.params is params:
            pull, after = kept.pull, kept.after
        else:
            pull, after = self._moved(labels, schema, params)
        channels, image = context.channels, context.image
        if channels is not None:
            channels = _move_channels(channels, labels, after, pull, params["classes"], schema)
        if image is not None:
            from scipy.ndimage import map_coordinates

            pulled = [map_coordinates(c, pull, order=1, mode="nearest") for c in image]
            image = np.stack(pulled).astype(np.float32)
        return EditResult(after, channels, image)

    def _moved(
        self, labels: LabelArray, schema: Schema, params: Params
    ) -> tuple[FloatArray, LabelArray]:
        pull = self.coordinates(labels.shape, schema, params)
        moved = mask_of(labels, params["classes"] or schema.foreground)
        nested = params.get("nested", False)
        return pull, warp_labels(labels, moved, pull, schema, nested=nested)


class _Move(NamedTuple):
    """Labels, what was drawn for them, and what that makes of them."""

    labels: LabelArray
    params: Params
    pull: FloatArray
    after: LabelArray


def maps_space(edit: Edit) -> TypeGuard[WarpEdit]:
    """Whether an edit moves labels and image alike, through one map of space."""
    return _maps_space(type(edit))


def _maps_space(kind: type[Edit]) -> bool:
    return issubclass(kind, WarpEdit) and kind.apply is WarpEdit.apply


def warp_labels(
    labels: LabelArray, moved: Mask, pull: FloatArray, schema: Schema, *, nested: bool = False
) -> LabelArray:
    """Pull the voxels ``moved`` of a label map, whole classes, through a map of space.

    Foreground that a moved body wraps completely (a core in its oedema) stays unless the body lands
    on it. No gap opens around it. With ``nested``, voxels of a wrapped class that would touch
    background are cut off.
    """
    solid = np.where(moved, labels, np.int16(0))
    staying = (labels > 0) & ~moved
    if not staying.any():
        return keep_outside(pull_labels(solid, pull), labels)
    wrapped = filled(moved) & staying
    if wrapped.any():
        solid = np.where(wrapped, solid[nearest_voxels(moved, schema.spacing)], solid)
    landed = pull_labels(solid, pull)
    written = landed > 0
    if wrapped.any():
        index, within = nearest_index(pull, labels.shape)
        written &= ~(staying & within & wrapped.ravel()[index])
    left = close_left(labels, moved, schema.spacing, solid > 0)
    if nested:
        written &= ~_coming_out(labels, moved, left, landed)
    return keep_outside(np.where(written, landed, left), labels)


def _coming_out(labels: LabelArray, moved: Mask, left: LabelArray, landed: LabelArray) -> Mask:
    """Mark landed voxels of wrapped classes that are no longer wrapped."""
    inner = mask_of(labels, wrapped_classes(labels)) & moved
    if not inner.any() or (beside(inner) & moved & ~inner).any():  # its wrapper moves as well
        return np.zeros(labels.shape, bool)
    return mask_of(landed, np.unique(labels[inner]).tolist()) & beside(left == 0)


def _keeps_nested(before: LabelArray, after: LabelArray, moved: Mask, factor: float) -> bool:
    """Whether wrapped classes stay wrapped and keep enough voxels."""
    if not keeps_nesting(before, after):
        return False
    least = NESTED_SHARE * min(factor, 1.0)
    for value in wrapped_classes(before):
        held, left = before == value, after == value
        if (held & moved).any() and left.sum() < least * held.sum():
            return False
    return True


def _move_channels(
    channels: LabelArray,
    labels: LabelArray,
    after: LabelArray,
    pull: FloatArray,
    classes: Sequence[int] | None,
    schema: Schema,
) -> LabelArray:
    """Pull channels to the nearest voxel where it moves; others stay."""
    index, within = nearest_index(pull, labels.shape)
    moved = labels >= 0 if classes is None else mask_of(labels, classes)
    landed = labels != OUTSIDE if classes is None else mask_of(after, classes)
    carried = landed & within & moved.ravel()[index]
    out = np.where(carried, channels.ravel()[index], channels)
    if classes is None:
        return out
    return settle_channels(out, after, (moved | landed) & ~carried, schema.spacing)


# -- affine maps: labels moved as a rigid or scaled whole, and the edit that moves nothing ---------
# Mirroring is exact, voxel by voxel; the others look labels up by a matrix, in mm.


class Identity(Edit):
    """Leaves labels and context as they are."""

    name: ClassVar[str] = "identity"

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Nothing to draw; ``rng`` is not used."""
        return {}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        return EditResult(context.labels.copy())


class FlipOptions(WarpOptions):
    """Along which axes to mirror, how often, and about what."""

    axes: tuple[int, ...] = Field(
        (-1,),
        min_length=1,
        description="array axes to choose from, negative ones counted from the last; list only "
        "those along which a mirrored case could be a real one",
    )
    probability: float = Field(0.5, ge=0, le=1, description="share of conditions flipped, 0 to 1")
    about: Literal["array", "centroid"] = Field(
        "array", description="mirror in the middle of the array, or in the centroid of what moves"
    )


class Flip(WarpEdit):
    """Mirrors labels along one axis, drawn from ``axes``; exact, voxel by voxel."""

    name: ClassVar[str] = "flip"
    Options: ClassVar[type[EditOptions]] = FlipOptions
    # There is no half a flip: each try draws an axis anew.
    STRENGTHS: ClassVar[tuple[float, ...]] = (1.0,) * 8
    options: FlipOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """See ``WarpEdit.draw``; ``strength`` is 0 for conditions that are not to be flipped."""
        n = context.schema.ndim
        beyond = [axis for axis in self.options.axes if not -n <= axis < n]
        if beyond:
            raise UsageFault(
                "conditions.flip-axes-out-of-range",
                f"edit 'flip': axes holds {beyond}, expected {-n} to {n - 1} for arrays with axes "
                f"{context.schema.axes!r}",
            )
        if rng.random() >= self.options.probability:
            return {"strength": 0.0, "tries": 0}
        return super().draw(context, rng)

    def draw_move(self, moved: Mask, schema: Schema, rng: Rng, strength: float) -> dict[str, Any]:
        """Draw ``axis``; note ``mirror``, the sum of a voxel's index and its image's."""
        axis = int(rng.choice(self.options.axes)) % schema.ndim
        if self.options.about == "centroid":
            return {"axis": axis, "mirror": round(2 * centroid(moved)[axis])}
        return {"axis": axis, "mirror": moved.shape[axis] - 1}

    def coordinates(self, shape: Sequence[int], schema: Schema, params: Params) -> FloatArray:
        pull = np.indices(shape, np.float32)
        pull[params["axis"]] = params["mirror"] - pull[params["axis"]]
        return pull

    def affine(self, schema: Schema, params: Params) -> Matrix:
        matrix = np.eye(schema.ndim, schema.ndim + 1)
        matrix[params["axis"], [params["axis"], -1]] = -1, params["mirror"]
        return matrix


class RotateOptions(WarpOptions):
    """How far to turn."""

    max_deg: float = Field(15.0, ge=0, le=180, description="largest angle either way, degrees")


class Rotate(WarpEdit):
    """Turns labels about their centroid, in mm: about any axis in 3D, in the plane in 2D."""

    name: ClassVar[str] = "rotate"
    Options: ClassVar[type[EditOptions]] = RotateOptions
    options: RotateOptions

    def draw_move(self, moved: Mask, schema: Schema, rng: Rng, strength: float) -> dict[str, Any]:
        """Draw ``angle_deg`` and ``axis`` (empty in 2D), and note ``centre`` in voxels."""
        limit = strength * self.options.max_deg
        return {
            "angle_deg": float(rng.uniform(-limit, limit)),
            "axis": random_direction(3, rng).tolist() if schema.ndim == 3 else [],
            "centre": list(centroid(moved)),
        }

    def coordinates(self, shape: Sequence[int], schema: Schema, params: Params) -> FloatArray:
        return affine_coordinates(shape, self._back(schema, params), params["centre"])

    def affine(self, schema: Schema, params: Params) -> Matrix:
        return about(params["centre"], self._back(schema, params))

    def _back(self, schema: Schema, params: Params) -> Matrix:
        # The pull turns back; in voxels a turn in mm is a shear where spacings differ.
        back = rotation(-math.radians(params["angle_deg"]), params["axis"])
        mm = np.array(schema.spacing)
        return np.asarray(back * mm[None, :] / mm[:, None])


def about(centre: Sequence[float], matrix: Matrix) -> Matrix:
    """Return a matrix (n, n) about a point as one about the origin: (n, n + 1)."""
    middle = np.asarray(centre)
    return np.asarray(np.c_[matrix, middle - product(matrix, middle)])


def rotation(angle: float, axis: Sequence[float]) -> Matrix:
    """The matrix that turns by ``angle`` (radians): (3, 3) about a unit axis, (2, 2) without."""
    c, s = math.cos(angle), math.sin(angle)
    if len(axis) == 0:
        return np.array([[c, -s], [s, c]])
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + s * cross + (1 - c) * product(cross, cross))


class ScaleEditOptions(WarpOptions):
    """How much to scale."""

    low: float = Field(0.8, ge=0.25, le=4, description="smallest factor on lengths, no unit")
    high: float = Field(1.25, ge=0.25, le=4, description="largest factor on lengths, no unit")

    _ordered = model_validator(mode="after")(ordered)


class ScaleEdit(WarpEdit):
    """Scales labels about their centroid by one factor on all axes, drawn log-uniformly."""

    name: ClassVar[str] = "scale"
    Options: ClassVar[type[EditOptions]] = ScaleEditOptions
    options: ScaleEditOptions

    def draw_move(self, moved: Mask, schema: Schema, rng: Rng, strength: float) -> dict[str, Any]:
        """Draw ``factor`` on lengths and note ``centre`` in voxels."""
        log_factor = rng.uniform(math.log(self.options.low), math.log(self.options.high))
        return {"factor": math.exp(strength * log_factor), "centre": list(centroid(moved))}

    def coordinates(self, shape: Sequence[int], schema: Schema, params: Params) -> FloatArray:
        matrix = np.eye(len(shape)) / params["factor"]
        return affine_coordinates(shape, matrix, params["centre"])

    def affine(self, schema: Schema, params: Params) -> Matrix:
        return about(params["centre"], np.eye(schema.ndim) / params["factor"])

    def volume_factor(self, schema: Schema, params: Params) -> float:
        """The factor on volumes (2D: on areas)."""
        return float(params["factor"] ** schema.ndim)


class ShiftOptions(WarpOptions):
    """How far to shift."""

    max_mm: float = Field(
        8.0, ge=0, le=200, description="longest shift, mm; places are even within that radius"
    )


class Shift(WarpEdit):
    """Moves labels by the same vector everywhere, drawn evenly from a ball (2D: a disc)."""

    name: ClassVar[str] = "shift"
    Options: ClassVar[type[EditOptions]] = ShiftOptions
    options: ShiftOptions

    def draw_move(self, moved: Mask, schema: Schema, rng: Rng, strength: float) -> dict[str, Any]:
        """Draw ``shift_mm``, one number per axis in array order."""
        length = strength * self.options.max_mm * rng.random() ** (1 / schema.ndim)
        return {"shift_mm": (length * random_direction(schema.ndim, rng)).tolist()}

    def coordinates(self, shape: Sequence[int], schema: Schema, params: Params) -> FloatArray:
        return affine_coordinates(shape, self.affine(schema, params), (0.0,) * len(shape))

    def affine(self, schema: Schema, params: Params) -> Matrix:
        voxels = np.array(params["shift_mm"]) / np.array(schema.spacing)
        return np.asarray(np.c_[np.eye(schema.ndim), -voxels])


# -- a smooth random deformation that never folds --------------------------------------------------


STEEPEST = 0.7
"""Largest norm of the displacement's gradient; below 1 the map ``x + u(x)`` cannot fold."""
LEAST_WIDTH = 2.0  # narrowest Gaussian, voxels; a narrower one would be noise from voxel to voxel
REACH = 3
"""How far beyond the array nodes are laid, in widths; farther ones weigh about 1 % or less."""


class ElasticEditOptions(WarpOptions):
    """How strongly and how finely to deform."""

    amplitude_mm: float = Field(
        3.0,
        ge=0,
        le=100,
        description="root mean square of the displacement along each axis, mm; less where that "
        "would fold (beyond about 0.2 times the correlation length)",
    )
    correlation_mm: float = Field(
        20.0,
        ge=1,
        le=1000,
        description="width (standard deviation) of the Gaussian that smooths the field, mm; at "
        "least 2 voxels are used",
    )


class ElasticEdit(WarpEdit):
    """Deforms labels by Gaussian-smooth noise, seeded by a number in the parameters."""

    name: ClassVar[str] = "elastic"
    Options: ClassVar[type[EditOptions]] = ElasticEditOptions
    options: ElasticEditOptions

    def draw_move(self, moved: Mask, schema: Schema, rng: Rng, strength: float) -> dict[str, Any]:
        """Draw the field's ``seed``; note ``amplitude_mm`` (used, not asked) and the width."""
        seed, width = int(rng.integers(2**32)), self.options.correlation_mm
        steepest = SmoothField(seed, moved.shape, schema.spacing, width).steepest()
        amplitude = min(self.options.amplitude_mm, STEEPEST / max(steepest, 1e-9))
        return {"seed": seed, "amplitude_mm": strength * amplitude, "correlation_mm": width}

    def coordinates(self, shape: Sequence[int], schema: Schema, params: Params) -> FloatArray:
        field = SmoothField(params["seed"], shape, schema.spacing, params["correlation_mm"])
        return field.coordinates(params["amplitude_mm"])


@dataclass(frozen=True)
class SmoothField:
    """Smooth displacements of standard deviation 1 mm along each axis, the same for a seed.

    White noise on a coarse grid of nodes, one width apart, is upsampled with Gaussians axis by
    axis. So wide fields cost no more than narrow ones. ``einsum`` without BLAS gives the same bits
    with any number of threads.
    """

    seed: int
    shape: Sequence[int]
    spacing: Sequence[float]
    width_mm: float

    def coordinates(self, amplitude_mm: float) -> FloatArray:
        """Each voxel's own place plus its displacement: float32 (n, *shape), in voxels."""
        out = self._blow_up([np.arange(length, dtype=np.float64) for length in self.shape])
        for axis, (length, mm) in enumerate(zip(self.shape, self.spacing, strict=True)):
            out[axis] *= np.float32(amplitude_mm / mm)
            places = np.arange(length, dtype=np.float32)
            out[axis] += places.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return out

    def steepest(self) -> float:
        """Largest Frobenius norm of the displacement's gradient, mm per mm.

        Exact at points a third of the width apart, hence a few per cent low in between.
        """
        points = [
            np.linspace(0, length - 1, int(np.ceil(3 * (length - 1) / width)) + 1)
            for length, width in zip(self.shape, self._widths, strict=True)
        ]
        slopes = [self._blow_up(points, derived=axis) / mm for axis, mm in enumerate(self.spacing)]
        return float(np.sqrt(np.square(slopes).sum(axis=(0, 1)).max()))

    @property
    def _widths(self) -> list[float]:
        return [max(self.width_mm / mm, LEAST_WIDTH) for mm in self.spacing]

    def _blow_up(self, points: Sequence[Matrix], derived: int | None = None) -> FloatArray:
        """The field (n, *lengths) at a grid of points, or its derivative along an axis."""
        weights = []
        for axis, (at, length, width) in enumerate(
            zip(points, self.shape, self._widths, strict=True)
        ):
            nodes = np.arange(-REACH, (length - 1) / width + REACH + 1)
            steps = at[:, None] / width - nodes
            # The squares of these Gaussians sum to the root of π, wherever the point lies.
            weight = np.exp(-0.5 * steps**2) / np.pi**0.25
            weights.append(-weight * steps / width if axis == derived else weight)
        n = len(self.shape)
        counts = [weight.shape[1] for weight in weights]
        noise = np.random.default_rng(self.seed).standard_normal((n, *counts), dtype=np.float32)
        for axis in reversed(range(n)):
            # The innermost axis first: the last product, the large one, then runs along memory.
            free = "abc"[:n]
            summed, axes = free.replace(free[axis], "s"), free
            noise = np.einsum(
                f"{free[axis]}s,n{summed}->n{axes}", weights[axis].astype(np.float32), noise
            )
        return np.asarray(noise, np.float32)


# -- whole cases: image and label map through one map of space, looked up in the whole case --------
# The same seed gives the same shapes for every generator. Voxels beyond a crop's border come from
# the case. Beyond a face of the case lies the constant that fills most of it, if there is one (a
# skull-stripped brain, cut to its box). Else crops are padded. Whole cases are mirrored instead,
# because padding would reveal what is synthetic.


AROUND = 8  # margin in voxels for cubic splines; voxels beyond weigh below 0.0001

FILLED_FACE = 0.5  # share of a face that a constant must fill to lie beyond it, too


@dataclass(frozen=True)
class WarpedPlacement:
    """A place in a case, moved.

    Attributes:
        labels: int16 (D, H, W) or (H, W), ``OUTSIDE`` and an ignore value moved like any other.
        image: float32 (C, ...).
        displacement: root mean square displacement over the body: ``mm``, and ``voxels``.
    """

    labels: LabelArray
    image: FloatArray
    displacement: dict[str, float] = field(default_factory=lambda: {"mm": 0.0, "voxels": 0.0})


def check_warp(generator: str, edits: Sequence[Edit]) -> None:
    """Refuse edits that change labels without moving the whole image."""
    for edit in edits:
        chosen = getattr(edit.options, "classes", None) is not None
        if chosen or not maps_space(edit):
            option = f"{edit.name}:classes=..." if chosen else edit.name
            known = installed()
            moving = [name for name in known.names("edits") if _maps_space(known.edit(name))]
            raise UsageFault(
                "conditions.edit-not-whole-image",
                f"--edit {option}: {generator} moves real images whole, expected edits that do so, "
                f"of all classes: {', '.join(moving)}",
            )


@dataclass(frozen=True)
class CaseWarp:
    """Moves whole cases in the generator's space; ``schema`` is that of the space."""

    space: Space
    schema: Schema

    def all_to_move(self, labels: LabelArray) -> LabelArray:
        """Return the labels that edits are drawn on; without foreground, the body is labelled."""
        if (labels > 0).any() or not self.schema.foreground:
            return labels
        return np.where(labels == OUTSIDE, labels, np.int16(self.schema.foreground[0]))

    def __call__(
        self,
        case: Case,
        placement: Placement,
        edits: Mapping[str, Edit],
        steps: Sequence[Mapping[str, Any]],
    ) -> WarpedPlacement:
        """Apply recorded edits, each a map of space; the same steps give the same bits.

        The case is whole and labelled, in its source's voxels; the placement says where it is cut.
        """
        placed = self.space.to_generator(case, placement)
        assert placed.labels is not None, "conditions are drawn of labelled cases"
        shape = placed.labels.shape
        beyond = self.space.padding(case.image.shape[1:], placement)
        pull = self._pull(shape, edits, steps)
        if pull is None:
            return WarpedPlacement(placed.labels, placed.image)
        whole, corner = self._whole(case, placement)
        assert whole.labels is not None
        at = pull + _column(corner, len(shape))
        labels, image = self._looked_up(whole, at)
        if beyond is not None:
            labels = np.where(beyond, placed.labels, labels)
            image = np.where(beyond, placed.image, image)
        body = np.asarray((labels != OUTSIDE) & (True if beyond is None else ~beyond))
        return WarpedPlacement(labels, self._filled(image, labels), self._displacement(pull, body))

    def _looked_up(self, case: Case, at: FloatArray) -> tuple[LabelArray, FloatArray]:
        """Labels and image at places (n, ...) in a case or beyond it, in voxels."""
        assert case.labels is not None
        ndim = case.labels.ndim
        mirrored = _mirrored(at, case.labels.shape)
        labels, image = _labels_at(case.labels, mirrored), _image_at(case.image, mirrored)
        beyond, (even, value) = _beyond(at, case.labels.shape), _constant(case)
        if self.space.cuts:
            away = np.logical_or.reduce(list(beyond.values()))
            labels = np.where(away, np.int16(self.space.pad_label), labels)
            image = np.where(away, self.space.fill(len(image), ndim), image)
        for face, there in even.items():
            values, counts = np.unique(_face(case.labels, *face)[there], return_counts=True)
            labels = np.where(beyond[face], values[counts.argmax()], labels)
            image = np.where(beyond[face], _column(value.tolist(), ndim), image)
        return labels, image

    def _pull(
        self, shape: Sequence[int], edits: Mapping[str, Edit], steps: Sequence[Mapping[str, Any]]
    ) -> FloatArray | None:
        """Compose all steps to one map of source voxels; None if nothing moves."""
        from scipy.ndimage import map_coordinates

        grid = np.indices(shape, np.float32)
        pull: FloatArray | None = None
        for step in steps:
            edit, params = edits[step["edit"]], step["params"]
            if params["strength"] == 0:
                continue
            assert isinstance(edit, WarpEdit)
            then = edit.coordinates(shape, self.schema, params)
            if pull is None:
                pull = then
                continue
            earlier = [map_coordinates(axis, then, order=1, mode="nearest") for axis in pull - grid]
            pull = then + np.stack(earlier)
        return pull

    def _whole(self, case: Case, placement: Placement) -> tuple[Case, tuple[int, ...]]:
        """Return the whole case, or slice, in the generator's units, and where it is cut."""
        if not self.space.cuts:
            placed = self.space.to_generator(case, placement)
            return placed, (0,) * (placed.image.ndim - 1)
        plane = placement.slice_index
        if plane is not None:
            assert case.labels is not None
            case = replace(
                case, image=case.image[:, plane], labels=case.labels[plane], boxes=None, under=None
            )
        native = replace(self.space, grid="native", size=())
        return native.to_generator(case), placement.corner

    def _filled(self, image: FloatArray, labels: LabelArray) -> FloatArray:
        """Fill the outside of the body with its constant, if there is one."""
        if self.schema.outside_fill is None:
            return image
        fill = _column(self.schema.outside_fill, labels.ndim)
        return np.where(labels == OUTSIDE, fill, image)

    def _displacement(self, pull: FloatArray, body: Mask) -> dict[str, float]:
        if not body.any():
            return {"mm": 0.0, "voxels": 0.0}
        moved = (pull - np.indices(body.shape, np.float32))[:, body].astype(np.float64)
        moved_mm = moved * np.array(self.schema.spacing)[:, None]
        voxels = float(np.sqrt(np.square(moved).sum(axis=0).mean()))
        mm = float(np.sqrt(np.square(moved_mm).sum(axis=0).mean()))
        return {"mm": round(mm, 4), "voxels": round(voxels, 4)}


def _beyond(at: FloatArray, shape: Sequence[int]) -> dict[tuple[int, int], Mask]:
    """Mark places beyond each face (axis, end) of an array, ``end`` 0 or -1."""
    low = {(axis, 0): at[axis] < -0.5 for axis in range(len(shape))}
    return low | {(axis, -1): at[axis] > n - 0.5 for axis, n in enumerate(shape)}


def _constant(case: Case) -> tuple[dict[tuple[int, int], Mask], FloatArray]:
    """Return faces filled by a constant to more than ``FILLED_FACE``, where, and its value."""
    image = np.moveaxis(case.image, 0, -1)
    faces = [(axis, end) for axis in range(image.ndim - 1) for end in (0, -1)]
    held = np.concatenate([_face(image, *f).reshape(-1, len(case.image)) for f in faces])
    value = np.median(held, axis=0).astype(np.float32)
    same = {face: np.asarray((_face(image, *face) == value).all(axis=-1)) for face in faces}
    return {face: there for face, there in same.items() if there.mean() > FILLED_FACE}, value


def _face(array: np.ndarray[Any, Any], axis: int, end: int) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = array.take(end, axis=axis)
    return values


def _column(values: Sequence[float], ndim: int) -> FloatArray:
    return np.array(values, np.float32).reshape(-1, *[1] * ndim)


def _mirrored(at: FloatArray, shape: Sequence[int]) -> FloatArray:
    """Mirror coordinates at the middles of an array's outermost voxels until they lie in it."""
    out = np.empty_like(at)
    for axis, length in enumerate(shape):
        last = np.float32(length - 1)
        if last == 0:
            out[axis] = 0
            continue
        turned = np.mod(at[axis], 2 * last)
        out[axis] = np.minimum(turned, 2 * last - turned)
    return out


def _labels_at(labels: LabelArray, at: FloatArray) -> LabelArray:
    """Look labels up at coordinates within the array; see ``pull_labels``."""
    index, _ = nearest_index(at, labels.shape)
    drawn = pull_labels(np.maximum(labels, np.int16(0)), at)
    outside = (drawn == 0) & (labels.ravel()[index] == OUTSIDE)
    return np.where(outside, np.int16(OUTSIDE), drawn)


def _image_at(image: FloatArray, at: FloatArray) -> FloatArray:
    """Look channels up by cubic splines; linear interpolation would lose half of the noise."""
    from scipy.ndimage import map_coordinates

    spatial = tuple(range(1, at.ndim))
    lows = np.maximum(np.floor(at.min(axis=spatial)).astype(int) - AROUND, 0)
    highs = np.ceil(at.max(axis=spatial)).astype(int) + AROUND + 1
    near = [slice(low, high) for low, high in zip(lows, highs, strict=True)]
    box = image[(slice(None), *near)]
    there = at - _column(lows.tolist(), at.ndim - 1)
    out = np.empty((len(image), *at.shape[1:]), np.float32)
    for number, channel in enumerate(box):
        values = map_coordinates(channel, there, order=3, mode="mirror")
        # Splines overshoot at sharp edges.
        out[number] = np.clip(values, channel.min(), channel.max())
    return out
