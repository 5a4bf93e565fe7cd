"""Drop: fewer lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.moving import (
    chosen_classes,
    close_left,
    settle_context,
    settle_image,
)
from gansynth.core.edit import Edit, EditOptions
from gansynth.core.geometry import Mask
from gansynth.core.schema import FloatArray, LabelArray, Schema
from gansynth.data.lesion_parts import Part, parts


class DropOptions(EditOptions):
    """Which connected parts may go, and how many stay."""

    classes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, min_length=1, description="label values of parts; None takes the whole foreground"
    )
    chance: float = Field(0.5, gt=0, le=1, description="of each part to be left out, 0 to 1")
    least: int = Field(1, ge=1, description="parts that stay at least")


class Drop(Edit):
    """Leaves out some of several connected parts, with what is nested in them.

    What they leave becomes background, or the class around them. The last part stays, and so does
    the last one that holds a class.
    """

    name: ClassVar[str] = "drop"
    Options: ClassVar[type[EditOptions]] = DropOptions
    options: DropOptions

    def draw(self, labels: LabelArray, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
        """Draw ``dropped``, numbers of parts: 0 is the largest.

        Raises:
            UsageFault: if the options name a class the schema lacks.
        """
        classes = chosen_classes(self.name, self.options.classes, schema)
        found = parts(labels, schema, classes)
        left = np.bincount(labels[labels > 0], minlength=1)
        dropped: list[int] = []
        for number in rng.permutation(len(found)).tolist():
            if rng.random() >= self.options.chance:
                continue
            held = found[number].labels
            rest = left - np.bincount(held[held > 0], minlength=left.size)
            few = len(found) - len(dropped) <= self.options.least
            if few or ((rest == 0) & (left > 0)).any():
                continue
            dropped.append(number)
            left = rest
        return {"classes": classes, "dropped": sorted(dropped)}

    def apply(self, labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> LabelArray:
        """See ``Edit.apply``."""
        gone = _dropped(labels, schema, params)
        return close_left(labels, gone, gone, schema.spacing) if gone.any() else labels.copy()

    def apply_context(
        self, context: LabelArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> LabelArray:
        """What parts leave takes the context of the nearest voxel that has its new label."""
        after, gone = self.apply(labels, schema, params), _dropped(labels, schema, params)
        return settle_context(context, after, gone, schema.spacing)

    def apply_image(
        self, image: FloatArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """What parts leave shows what lies around them, mirrored."""
        after, gone = self.apply(labels, schema, params), _dropped(labels, schema, params)
        return settle_image(image, after, gone, schema.spacing)


def _dropped(labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> Mask:
    out = np.zeros(labels.shape, bool)
    if params["dropped"]:
        found: Sequence[Part] = parts(labels, schema, params["classes"])
        for number in params["dropped"]:
            out[found[number].box] |= found[number].mask
    return out
