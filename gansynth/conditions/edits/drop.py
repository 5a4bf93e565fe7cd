"""Drop: fewer lesions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.conditions.edits.shared import Classes, chosen_classes, close_left, settled
from gansynth.core.edit import Edit, EditContext, EditOptions, EditResult
from gansynth.data.lesions import parts


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

    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
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

    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """Remove parts; their voxels take channels and image from around them."""
        labels, schema = context.labels, context.schema
        if not params["dropped"]:
            return EditResult(labels.copy())
        gone = np.zeros(labels.shape, bool)
        lesions = parts(labels, schema, params["classes"])
        for number in params["dropped"]:
            gone[lesions[number].box] |= lesions[number].mask
        return settled(context, close_left(labels, gone, schema.spacing), gone)
