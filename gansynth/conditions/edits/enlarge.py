"""Enlarge: more volume, by the same distance everywhere."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from gansynth.conditions.edits.morphology import Growing, GrowingOptions
from gansynth.core.edit import EditOptions


class EnlargeOptions(GrowingOptions):
    """How much to enlarge."""

    low: float = Field(1.2, ge=1, le=16, description="smallest factor on the volume, no unit")
    high: float = Field(2.0, ge=1, le=16, description="largest factor on the volume, no unit")

    @model_validator(mode="after")
    def _ordered(self) -> EnlargeOptions:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}, expected low <= high")
        return self


class Enlarge(Growing):
    """Grows chosen classes outwards, as far as there is room in the body.

    They grow over background, and over the class around them where they are nested; a class that
    is wrapped in another stays wrapped. New voxels take the nearest chosen label.
    """

    name: ClassVar[str] = "enlarge"
    Options: ClassVar[type[EditOptions]] = EnlargeOptions
    options: EnlargeOptions

    def bounds(self) -> tuple[float, float]:
        """See ``Growing.bounds``."""
        return self.options.low, self.options.high
