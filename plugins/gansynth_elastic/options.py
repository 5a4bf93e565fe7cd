"""Options of ``elastic``."""

from __future__ import annotations

from pydantic import Field

from gansynth.core.generator import GeneratorOptions


class ElasticOptions(GeneratorOptions):
    """Options of ``elastic``; how far cases are moved, edits say."""

    least_voxels: float = Field(
        0.5,
        ge=0,
        le=100,
        description="a sample moved by less, root mean square in voxels, is a near-copy of a real "
        "case: a flaw",
    )
    brightness: float = Field(
        0.0,
        ge=0,
        le=2,
        description="most that a channel becomes brighter or darker, in its deviations over the "
        "body; 0: not",
    )
    contrast: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="most that a channel gains or loses contrast about its mean, as a share; 0: "
        "not",
    )
    gamma: float = Field(
        0.0,
        ge=0,
        le=2,
        description="most that a channel's values in their range are raised by: exponents from "
        "exp(-gamma) to exp(gamma); 0: not",
    )
