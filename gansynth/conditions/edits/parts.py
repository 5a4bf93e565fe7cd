"""Edits of connected parts: each on its own, fewer of them, and only where a body is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from gansynth.conditions.edits.lesions import MOST, taken
from gansynth.conditions.edits.shared import (
    NESTED_SHARE,
    Classes,
    beside,
    chosen_classes,
    close_left,
    keeps_classes,
    keeps_nesting,
    settled,
    wrapped_classes,
)
from gansynth.core.edit import CaseEdit, Edit, EditContext, EditOptions, EditResult, Params
from gansynth.core.geometry import Mask, Rng
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, LabelArray, Schema
from gansynth.data.connected_components import LabelComponents, LesionPart, parts
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import fill_options

TRIES = 8  # draws for each part, until it does not run into another


class ComponentsOptions(EditOptions):
    """Which parts are edited, and how."""

    edit: str = Field("shift", description="edit that each part gets with a draw of its own")
    inner: Mapping[str, Any] = Field({}, description="options of that edit: inner.max_mm=4")
    classes: Classes = Field(
        None, min_length=1, description="label values of parts; None takes the whole foreground"
    )
    chance: float = Field(1.0, gt=0, le=1, description="chance of each part to be edited, 0 to 1")
    least: int = Field(4, ge=1, description="parts of fewer voxels stay as they are")

    @field_validator("edit")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            edit = installed().edit(name)
        except UsageFault as fault:
            raise ValueError(str(fault)) from None
        if issubclass(edit, CaseEdit | Components):
            raise ValueError(f"{name} cannot edit a part alone; use it without components")
        return name

    @field_validator("inner")
    @classmethod
    def _fits(cls, inner: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        if "share" in inner:
            raise ValueError("has a share, expected chance of the components instead")
        if "edit" in info.data:
            try:
                _inner(info.data["edit"], inner)
            except UsageFault as fault:
                raise ValueError(str(fault)) from None
        return inner


class Components(Edit):
    """Edits each connected part on its own, the largest first; parts never come to touch.

    A part is edited as if it were alone in the body, with what is nested in it. A draw is repeated
    if the part touches another one, if a class loses too much, or if a wrapped class is exposed.
    After 8 draws the part stays as it is. Gaps are closed by the class around the part, or become
    background.
    """

    name: ClassVar[str] = "components"
    Options: ClassVar[type[EditOptions]] = ComponentsOptions
    options: ComponentsOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Draw for each part whether it is edited, and the parameters of that.

        Raises:
            UsageFault: if the options name a class the schema lacks.
        """
        classes = chosen_classes(self.name, self.options.classes, context.schema)
        task = _PartInput(context, classes, _inner(self.options.edit, self.options.inner))
        place, now = task.numbered(), context.with_labels(context.labels)
        steps: list[dict[str, Any]] = []
        for number, part in enumerate(task.parts[:MOST]):
            if part.voxels < self.options.least or rng.random() >= self.options.chance:
                continue
            others = beside((place > 0) & (place != number + 1))
            for _ in range(TRIES):
                step = task.step(now, number, task.inner.draw(task.alone(number), rng))
                if not (step.new & others).any() and step.fits(now.labels):
                    steps.append({"part": number, "params": step.params})
                    place[place == number + 1] = 0
                    place[step.new] = number + 1
                    now = step.after
                    break
        return {"edit": task.inner.name, "classes": classes, "parts": steps}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        """Apply recorded steps; channels and image move along, and gaps are filled."""
        after = replace(context, labels=context.labels.copy())
        for step in _replayed(context, params):
            after = step.after
        return EditResult(after.labels, after.channels, after.image)


@dataclass(frozen=True)
class _EditedPart:
    params: dict[str, Any]
    alone: LabelArray  # the part alone, before the edit
    whole: LabelArray  # the part alone, after it
    new: Mask  # voxels of the part after it, without exposed voxels of wrapped classes
    after: EditContext

    def fits(self, before: LabelArray) -> bool:
        """Whether other classes keep enough voxels, and wrapped ones stay wrapped."""
        if np.count_nonzero(self.new) < max(1, NESTED_SHARE * np.count_nonzero(self.whole)):
            return False
        after = self.after.labels
        others = np.where(self.alone > 0, np.int16(0), before)
        remaining = np.where(self.new, np.int16(0), after)
        return keeps_classes(others, remaining) and keeps_nesting(before, after)


@dataclass(frozen=True)
class _PartInput:
    """Labels whose parts are edited, the classes of parts, and the inner edit."""

    context: EditContext
    classes: Sequence[int] | None
    inner: Edit

    @cached_property
    def parts(self) -> list[LesionPart]:
        return parts(self.context.labels, self.context.schema, self.classes)

    @cached_property
    def wrapped(self) -> set[int]:
        return set(wrapped_classes(self.context.labels))

    def numbered(self) -> LabelArray:
        """Number each voxel's part, from 1; parts that are never edited share one number."""
        out = np.zeros(self.context.labels.shape, np.int16)
        for number, part in enumerate(self.parts, start=1):
            out[part.box][part.mask] = min(number, MOST + 1)
        return out

    def alone(self, number: int) -> EditContext:
        """Return a part in the body without any other foreground."""
        outside = self.context.labels == OUTSIDE
        whole = np.where(outside, np.int16(OUTSIDE), self.parts[number].whole())
        return self.context.with_labels(whole)

    def step(self, now: EditContext, number: int, params: dict[str, Any]) -> _EditedPart:
        """Edit a part, and write it into labels that hold the unedited part."""
        part, alone = self.parts[number], self.alone(number).labels
        moved = replace(now, labels=alone).edited(self.inner, params)
        whole, without = np.maximum(moved.labels, 0), taken(now.labels, part)
        new = whole > 0
        if set(np.unique(part.labels[part.mask]).tolist()) <= self.wrapped:
            new &= ~beside(without == 0)
        if now.channels is not None and moved.channels is not None:
            moved = replace(moved, channels=np.where(new, moved.channels, now.channels))
        if now.image is not None and moved.image is not None:
            moved = replace(moved, image=np.where(new, moved.image, now.image))
        left = np.asarray((alone > 0) & ~new)
        after = settled(moved, np.where(new, whole, without), left)
        return _EditedPart(params, alone, whole, new, replace(now, **after._asdict()))


def _inner(name: str, options: Mapping[str, Any]) -> Edit:
    cls = installed().edit(name)
    return cls(fill_options(cls.Options, options, f"edit {name!r}"))


def _replayed(context: EditContext, params: Params) -> Iterator[_EditedPart]:
    if not params["parts"]:
        return
    task, now = _PartInput(context, params["classes"], installed().edit(params["edit"])()), context
    for drawn in params["parts"]:
        step = task.step(now, drawn["part"], drawn["params"])
        yield step
        now = step.after


# -- fewer lesions ---------------------------------------------------------------------------------


class DropOptions(EditOptions):
    """Which connected parts may go, and how many stay."""

    classes: Classes = Field(
        None, min_length=1, description="label values of parts; None takes the whole foreground"
    )
    chance: float = Field(0.5, gt=0, le=1, description="chance of each part to be left out, 0 to 1")
    least: int = Field(1, ge=1, description="least number of parts that stay")


class Drop(Edit):
    """Leaves out some of several connected parts, with what is nested in them.

    Their voxels become background, or the class around them. The last part stays, and so does the
    last one of each class.
    """

    name: ClassVar[str] = "drop"
    Options: ClassVar[type[EditOptions]] = DropOptions
    options: DropOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Draw ``dropped``, numbers of parts: 0 is the largest.

        Raises:
            UsageFault: if the options name a class the schema lacks.
        """
        labels, schema = context.labels, context.schema
        classes = chosen_classes(self.name, self.options.classes, schema)
        lesions = parts(labels, schema, classes)
        left = np.bincount(labels[labels > 0], minlength=1)
        dropped: list[int] = []
        for number in rng.permutation(len(lesions)).tolist():
            if rng.random() >= self.options.chance:
                continue
            held = lesions[number].labels
            remaining = left - np.bincount(held[held > 0], minlength=left.size)
            last = len(lesions) - len(dropped) <= self.options.least
            if last or ((remaining == 0) & (left > 0)).any():
                continue
            dropped.append(number)
            left = remaining
        return {"classes": classes, "dropped": sorted(dropped)}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        """Remove parts; their voxels take channels and image from around them."""
        labels, schema = context.labels, context.schema
        if not params["dropped"]:
            return EditResult(labels.copy())
        gone = np.zeros(labels.shape, bool)
        lesions = parts(labels, schema, params["classes"])
        for number in params["dropped"]:
            gone[lesions[number].box] |= lesions[number].mask
        return settled(context, close_left(labels, gone, schema.spacing), gone)


# -- foreground only where a body is ---------------------------------------------------------------


class ClipOptions(EditOptions):
    """Where foreground may lie."""

    margin_mm: float = Field(
        0.0, ge=0, le=200, description="least distance of foreground from the body's edge, mm"
    )
    border: bool = Field(
        False,
        description="the array's border is an edge too; right for whole images, wrong for crops, "
        "where foreground runs on beyond it",
    )
    to: Literal["labels", "image"] = Field(
        "labels",
        description="labels: the body is what is not labelled outside (-1); image: what the case's "
        "image shows, too, as of skull-stripped brains",
    )


class Clip(Edit):
    """Keeps foreground in the largest connected body of voxels that are not ``OUTSIDE``.

    Meant for the end of a chain: earlier edits may have pushed labels into a detached part of the
    body, or closer to its edge than in any case. Foreground elsewhere becomes background. Context
    stays. Where the data has no ``OUTSIDE``, the body is the whole array, unless ``to=image``.
    """

    name: ClassVar[str] = "clip"
    Options: ClassVar[type[EditOptions]] = ClipOptions
    options: ClipOptions

    def draw(self, context: EditContext, rng: Rng) -> dict[str, Any]:
        """Find the margin to use; no randomness.

        Returns:
            ``margin_mm``: the option's, halved until every class keeps at least 30 % of its voxels.
            The last of 8 tries has no margin. None clips nothing.
        """
        by_image = self.options.to == "image" and context.case_context is not None
        params: dict[str, Any] = {"border": self.options.border}
        params |= {"to": "image"} if by_image else {}
        labels = _shown(context) if by_image else context.labels
        widest = self.options.margin_mm
        margins = [widest * 0.5**k for k in range(7)] if widest > 0 else []
        for margin in (*margins, 0.0):
            if keeps_classes(labels, _clipped(labels, margin, params["border"], context.schema)):
                return {"margin_mm": margin, **params}
        return {"margin_mm": None, **params}

    def apply(self, context: EditContext, params: Params) -> EditResult:
        """See ``Edit.apply``."""
        labels, margin = context.labels, params["margin_mm"]
        if params.get("to") == "image":
            labels = _shown(context)
        if margin is None:
            return EditResult(labels.copy())
        return EditResult(_clipped(labels, margin, params["border"], context.schema))


def _clipped(labels: LabelArray, margin: float, border: bool, schema: Schema) -> LabelArray:
    """Remove foreground off the largest body, or within a margin in mm of its edge."""
    body = _largest_body(labels != OUTSIDE)
    if margin > 0:
        body = _off_the_edge(body, margin, schema, border=border)
    return np.where((labels > 0) & ~body, np.int16(0), labels)


def _shown(context: EditContext) -> LabelArray:
    """Remove foreground outside of the image's body; foreground of the case counts as body."""
    labels, case_context = context.labels, context.case_context
    if case_context is None:
        return labels
    outside, space = ~case_context.body & (case_context.labels <= 0), case_context.case_pool.space
    beyond = (
        space.padding(case_context.shape, case_context.placement)
        if case_context.placement.corner
        else None
    )
    if not (outside if beyond is None else outside & ~beyond).any():
        return labels
    return np.where((labels > 0) & outside, np.int16(0), labels)


def _largest_body(inside: Mask) -> Mask:
    if inside.all() or not inside.any():
        return inside
    bodies = LabelComponents.of(inside, corners=False)
    return np.asarray(bodies.numbered == bodies.numbers[0])


def _off_the_edge(body: Mask, margin: float, schema: Schema, *, border: bool) -> Mask:
    """Mark voxels of a body that lie more than ``margin`` mm from any voxel beyond it."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(body, 1, constant_values=not border)
    if padded.all():
        return body
    distance = distance_transform_edt(padded, sampling=schema.spacing)
    return np.asarray(distance[tuple(slice(1, -1) for _ in body.shape)] > margin)
