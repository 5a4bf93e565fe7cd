"""Options of ``copypaste``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gansynth.core.generator import GeneratorOptions
from gansynth.runtime.options import Needs


class CopyPasteOptions(GeneratorOptions):
    """Options of ``copypaste``."""

    needs: ClassVar[Needs] = {"match": "blend=soft"}

    blend: Literal["none", "soft", "poisson"] = Field(
        "soft",
        description="across the rim: a hard edge, the donor faded out, or the donor's gradients "
        "with the background around them",
    )
    rim_mm: float = Field(
        3.0, ge=0, le=100, description="how far beyond the lesion images may change, mm; 0: not"
    )
    match: bool = Field(
        False,
        description="shift and scale the donor to the background's mean and deviation in the rim "
        "(blend=soft)",
    )
    mixing: Literal["lesion", "carve"] = Field(
        "lesion",
        description="what is taken: the lesion, or (CarveMix) less of it, or more around it",
    )
    object_intensity: float = Field(
        0.5,
        ge=0,
        le=1,
        description="how strongly gain, gamma and blur of the lesion are changed; 0: not",
    )
    image_level: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how strongly gain, gamma and noise of the whole image are changed; 0 leaves "
        "the background as it is, to the bit",
    )
