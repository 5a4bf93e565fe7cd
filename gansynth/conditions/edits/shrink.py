"""Shrink: less volume, by the same distance everywhere."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from gansynth.conditions.edits.morphology import Growing, GrowingOptions
from gansynth.core.edit import EditOptions


class ShrinkOptions(GrowingOptions):
    """How much to shrink."""

    low: float = Field(0.5, ge=0.05, le=1, description="smallest factor on the volume, no unit")
    high: float = Field(0.8, ge=0.05, le=1, description="largest factor on the volume, no unit")

    @model_validator(mode="after")
    def _ordered(self) -> ShrinkOptions:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}, expected low <= high")
        return self


class Shrink(Growing):
    """Wears chosen classes away from the outside.

    What they leave becomes the class around them where they are nested, else background. No body
    vanishes, and thin ends do not stay behind as crumbs. Where the skin of a wrapped class is worn
    away, the class itself becomes skin.
    """

    name: ClassVar[str] = "shrink"
    Options: ClassVar[type[EditOptions]] = ShrinkOptions
    options: ShrinkOptions

    def bounds(self) -> tuple[float, float]:
        """See ``Growing.bounds``."""
        return self.options.low, self.options.high
