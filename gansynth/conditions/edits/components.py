"""Components: each connected part is edited by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from gansynth.conditions.edits.moving import (
    NESTED_SHARE,
    chosen_classes,
    keeps_classes,
    settle_context,
    settle_image,
)
from gansynth.conditions.edits.nesting import beside, keeps_nesting, wrapped_classes
from gansynth.conditions.edits.pieces import MOST, taken
from gansynth.core.edit import Edit, EditOptions, SceneEdit
from gansynth.core.geometry import Mask
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.data.lesion_parts import Part, parts
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import fill_options

if TYPE_CHECKING:
    from gansynth.core.scene import Scene

TRIES = 8
"""Draws for each part, until it does not run into another."""


class ComponentsOptions(EditOptions):
    """Which parts are edited, and how."""

    edit: str = Field("shift", description="edit that each part gets with a draw of its own")
    inner: Mapping[str, Any] = Field({}, description="options of that edit: inner.max_mm=4")
    classes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, min_length=1, description="label values of parts; None takes the whole foreground"
    )
    chance: float = Field(1.0, gt=0, le=1, description="of each part to be edited, 0 to 1")
    least: int = Field(4, ge=1, description="parts of fewer voxels stay as they are")

    @field_validator("edit")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            known = installed().edit(name)
        except UsageFault as fault:
            raise ValueError(str(fault)) from None
        if issubclass(known, SceneEdit | Components):
            raise ValueError(f"{name} cannot be told of a part alone; ask for it by itself")
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
    """Edits each connected part by itself, the largest first; parts never come to touch.

    A part is edited as if it were alone in the body, with what is nested in it. A draw that brings
    it to another part, costs a class too much or takes a wrapped class out of the one around it is
    drawn anew; after 8 draws the part stays as it is. What parts leave is closed by the class they
    were nested in, or becomes background.
    """

    name: ClassVar[str] = "components"
    Options: ClassVar[type[EditOptions]] = ComponentsOptions
    options: ComponentsOptions

    def draw(self, labels: LabelArray, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
        """Draw for each part whether it is edited, and the parameters of that.

        Raises:
            UsageFault: if the options name a class the schema lacks.
        """
        return self._draw(labels, schema, rng, None)

    def draw_in(
        self, labels: LabelArray, schema: Schema, rng: np.random.Generator, scene: Scene
    ) -> dict[str, Any]:
        """``draw``, within the scene's body where the inner edit minds it."""
        return self._draw(labels, schema, rng, scene)

    def apply(self, labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> LabelArray:
        """See ``Edit.apply``."""
        return self._apply(labels, schema, params, None)

    def apply_in(
        self, labels: LabelArray, schema: Schema, params: Mapping[str, Any], scene: Scene
    ) -> LabelArray:
        """See ``draw_in``."""
        return self._apply(labels, schema, params, scene)

    def apply_context(
        self, context: LabelArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> LabelArray:
        """Each part takes its context along; what it leaves takes the nearest of its new label."""
        return self._context(context, labels, schema, params, None)

    def apply_context_in(
        self,
        context: LabelArray,
        labels: LabelArray,
        schema: Schema,
        params: Mapping[str, Any],
        scene: Scene,
    ) -> LabelArray:
        """See ``apply_context``."""
        return self._context(context, labels, schema, params, scene)

    def apply_image(
        self, image: FloatArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """Each part takes its image along; what it leaves shows what is around it, mirrored."""
        for step in _replayed(labels, schema, params, None):
            carried = step.inner.apply_image(image, step.alone, schema, step.params)
            image = np.where(step.new, carried, image)
            image = settle_image(image, step.after, step.left, schema.spacing)
        return image

    def _draw(
        self, labels: LabelArray, schema: Schema, rng: np.random.Generator, scene: Scene | None
    ) -> dict[str, Any]:
        classes = chosen_classes(self.name, self.options.classes, schema)
        inner = _inner(self.options.edit, self.options.inner)
        given = _Given(labels, schema, scene, classes, inner)
        place, now = given.numbered(), labels
        steps: list[dict[str, Any]] = []
        for number, part in enumerate(given.parts[:MOST]):
            if part.voxels < self.options.least or rng.random() >= self.options.chance:
                continue
            others = beside((place > 0) & (place != number + 1))
            for _ in range(TRIES):
                step = given.step(now, number, given.draw(number, rng))
                if not (step.new & others).any() and step.fits(now):
                    steps.append({"part": number, "params": step.params})
                    place[place == number + 1] = 0
                    place[step.new] = number + 1
                    now = step.after
                    break
        return {"edit": inner.name, "classes": classes, "parts": steps}

    def _apply(
        self, labels: LabelArray, schema: Schema, params: Mapping[str, Any], scene: Scene | None
    ) -> LabelArray:
        after = labels.copy()
        for step in _replayed(labels, schema, params, scene):
            after = step.after
        return after

    def _context(
        self,
        context: LabelArray,
        labels: LabelArray,
        schema: Schema,
        params: Mapping[str, Any],
        scene: Scene | None,
    ) -> LabelArray:
        out = context.copy()
        for step in _replayed(labels, schema, params, scene):
            given = (out, step.alone, schema, step.params)
            carried = (
                step.inner.apply_context(*given)
                if scene is None
                else step.inner.apply_context_in(*given, scene)
            )
            out = np.where(step.new, carried, out)
            out = settle_context(out, step.after, step.left, schema.spacing)
        return out


@dataclass(frozen=True)
class _Step:
    """One part, edited.

    Attributes:
        inner: its edit.
        params: of that.
        alone: labels of the part alone before it.
        whole: likewise after it; 0 wherever the part is not.
        after: labels of all after it.
        new: voxels of the part after it, without what of a wrapped class came out and was cut.
    """

    inner: Edit
    params: dict[str, Any]
    alone: LabelArray
    whole: LabelArray
    after: LabelArray
    new: Mask

    @property
    def left(self) -> Mask:
        """Voxels that the part no longer has."""
        return np.asarray((self.alone > 0) & ~self.new)

    def fits(self, before: LabelArray) -> bool:
        """Whether other classes keep enough of their voxels, and wrapped ones stay wrapped."""
        if np.count_nonzero(self.new) < max(1, NESTED_SHARE * np.count_nonzero(self.whole)):
            return False
        others = np.where(self.alone > 0, np.int16(0), before)
        rest = np.where(self.new, np.int16(0), self.after)
        return keeps_classes(others, rest) and keeps_nesting(before, self.after)


@dataclass(frozen=True)
class _Given:
    """What is edited: labels, where they are, which parts of them, and how."""

    labels: LabelArray
    schema: Schema
    scene: Scene | None
    classes: Sequence[int] | None
    inner: Edit

    @cached_property
    def parts(self) -> list[Part]:
        return parts(self.labels, self.schema, self.classes)

    @cached_property
    def wrapped(self) -> set[int]:
        return set(wrapped_classes(self.labels))

    def numbered(self) -> LabelArray:
        """The number of each voxel's part, from 1; parts that are never edited are all alike."""
        out = np.zeros(self.labels.shape, np.int16)
        for number, part in enumerate(self.parts, start=1):
            out[part.box][part.mask] = min(number, MOST + 1)
        return out

    def alone(self, number: int) -> LabelArray:
        """A part in the body without any other foreground."""
        whole = self.parts[number].whole()
        return np.where(self.labels == OUTSIDE, np.int16(OUTSIDE), whole)

    def draw(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
        alone = self.alone(number)
        if self.scene is None:
            return self.inner.draw(alone, self.schema, rng)
        return self.inner.draw_in(alone, self.schema, rng, self.scene)

    def step(self, now: LabelArray, number: int, params: dict[str, Any]) -> _Step:
        """A part edited, put where it comes to lie in labels that hold it as it was."""
        part, alone = self.parts[number], self.alone(number)
        if self.scene is None:
            whole = self.inner.apply(alone, self.schema, params)
        else:
            whole = self.inner.apply_in(alone, self.schema, params, self.scene)
        whole, without = np.maximum(whole, 0), taken(now, part)
        new = whole > 0
        if set(np.unique(part.labels[part.mask]).tolist()) <= self.wrapped:
            new &= ~beside(without == 0)
        after = np.where(new, whole, without)
        return _Step(self.inner, params, alone, whole, after, new)


def _inner(name: str, options: Mapping[str, Any]) -> Edit:
    cls = installed().edit(name)
    return cls(fill_options(cls.Options, options, f"edit {name!r}"))


def _replayed(
    labels: LabelArray, schema: Schema, params: Mapping[str, Any], scene: Scene | None
) -> Iterator[_Step]:
    if not params["parts"]:
        return
    inner = installed().edit(params["edit"])()
    given, now = _Given(labels, schema, scene, params["classes"], inner), labels
    for drawn in params["parts"]:
        step = given.step(now, drawn["part"], drawn["params"])
        yield step
        now = step.after
