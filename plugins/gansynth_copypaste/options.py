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
        description="none: a hard edge; soft: the donor fades out across the rim; poisson: the "
        "donor's gradients with the background around them",
    )
    rim_mm: float = Field(
        3.0,
        ge=0,
        le=100,
        description="how far beyond the lesion the image may change, mm; 0: nowhere",
    )
    match: bool = Field(
        False,
        description="shift and scale the donor to the background's mean and deviation in the rim "
        "(blend=soft)",
    )
    mixing: Literal["lesion", "carve"] = Field(
        "lesion",
        description="lesion: the lesion is pasted; carve (CarveMix): less of it, or more around it",
    )
    object_intensity: float = Field(
        0.5,
        ge=0,
        le=1,
        description="strength of random changes of the lesion's gain, gamma and blur; 0: none",
    )
    image_level: float = Field(
        0.0,
        ge=0,
        le=1,
        description="strength of random changes of the image's gain, gamma and noise; 0: the "
        "background stays bit for bit",
    )
